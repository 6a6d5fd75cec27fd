"""The command line when something is wrong: one line, an exit code, and nothing lost. And in bounded memory."""

import os
import random
import signal
import subprocess
import sys
import time
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import ROOT, TRAIN, classifier, desk, no_scratch_left, small_weights  # noqa: F401

from diffusion_lessons import cli, weights
from diffusion_lessons.cli import generate, main
from diffusion_lessons.datasets.files import read_npz

pytestmark = pytest.mark.faults

resource = pytest.importorskip("resource", reason="Windows has no such limits")
needs_fifo = pytest.mark.skipif(os.name == "nt", reason="no such pipes on Windows")


def fails(arguments, capsys, code=1):
    """Run a command that must fail.  -> its one line"""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.strip() and "step/s" not in line]    # the bar aside
    assert len(lines) == 1, said
    return lines[0]


# ---- the boundary


@pytest.mark.parametrize(("error", "code", "words"), [
    (ValueError("wrong\n  shape"), 1, "doctor failed: wrong shape"),
    (ValueError(), 1, "doctor failed: ValueError"),
    (OSError(28, "No space left on device", "a.pt"), 1, "no room to write a.pt (No space left on device)"),
    (PermissionError(13, "Permission denied", "/x"), 1, "doctor failed: /x: Permission denied"),
    (OSError("no network"), 1, "doctor failed: no network"),
    (BlockingIOError("another process is writing x"), 1, "another process"),
    (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
    (MemoryError(), 1, "not enough memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "not enough memory"),
    (ModuleNotFoundError("No module named 'tqdm'"), 1, "No module named 'tqdm': diffusion-lessons doctor"),
    (TypeError("unhashable"), 70, "TypeError: unhashable. This is a fault of the program; with --debug"),
    (RuntimeError("shapes\ncannot be"), 70, "RuntimeError: shapes cannot be. This is a fault"),
    (RecursionError("too deep"), 70, "RecursionError"), (AssertionError(), 70, "AssertionError"),
], ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "")  # fmt: skip
def test_every_failure_is_one_line_and_a_code(error, code, words, monkeypatch, capsys):
    def run(options):
        raise error

    monkeypatch.setattr(cli.doctor, "run", run)
    assert words in fails(["doctor"], capsys, code)
    assert main(["doctor", "--debug"]) == code
    said = capsys.readouterr().err
    assert 'test_cli_failures.py", line' in said    # where it came from
    assert said.splitlines()[-1].startswith("doctor failed: ")


# ---- a full disk: a limit on the size of a file stands for it, and raises the same OSError


@pytest.fixture
def full_disk():
    """Files stop at so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_for_the_checkpoint(desk, full_disk, capsys):  # noqa: F811
    full_disk(50_000)
    assert "no room to write" in fails([*TRAIN, "--steps", "2"], capsys)
    assert no_scratch_left(desk)
    assert not Path("outputs").exists()


def test_no_room_for_the_weights_keeps_the_old_ones_and_the_checkpoint(desk, full_disk, capsys):  # noqa: F811
    command = [*TRAIN, "--steps", "2", "--checkpoint", "run.pt", "--out", "a.safetensors"]
    assert main(command) == 0
    old = weights.load("a.safetensors")
    Path("run.pt").unlink()
    real = weights.to_bytes
    with pytest.MonkeyPatch.context() as patch:    # the checkpoint found room, the weights do not
        patch.setattr(weights, "to_bytes", lambda tensors: (full_disk(20_000), real(tensors))[1])
        assert "no room to write" in fails([*command, "--seed", "5"], capsys)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert weights.load("a.safetensors")[1] == old[1]
    assert torch.load("run.pt", weights_only=True)["step"] == 2
    assert no_scratch_left(desk)
    assert main([*command, "--seed", "5"]) == 0    # the same command, with room
    assert weights.load("a.safetensors")[1]["seed"] == 5


@pytest.mark.parametrize("out", ["a.npz", "a.png"])
def test_no_room_for_pictures(desk, small_weights, full_disk, out, capsys):  # noqa: F811
    Path(out).write_bytes(b"old")
    full_disk(2000)
    command = ["generate", "7", "--model", small_weights, "--steps", "1", "--out", out]
    assert "no room to write" in fails(command, capsys)
    assert Path(out).read_bytes() == b"old"
    assert no_scratch_left(desk)


# ---- files of something else


@needs_fifo
def test_pipes_are_refused_and_nobody_waits(desk, small_weights, capsys):  # noqa: F811
    for name in ("a.safetensors", "a.json", "a.pt", "a.npz", "a.png"):
        os.mkfifo(name)
    known = ["generate", "7", "--model", small_weights, "--steps", "1", "--count", "1"]
    for command in (["generate", "7", "--model", "a.safetensors"], ["evaluate", "a.safetensors"],
                    ["evaluate", "--npz", "a.npz"], [*known, "--out", "a.png"], [*known, "--out", "a.npz"],
                    [*TRAIN, "--steps", "1", "--checkpoint", "a.pt"],
                    [*TRAIN, "--steps", "1", "--out", "a.safetensors"]):
        assert "regular file" in fails(command, capsys)


def test_checkpoints_of_something_else_are_one_line(desk, capsys):  # noqa: F811
    rng, end = random.Random(0), b"PK\5\6" + 18 * b"\0"
    for content in (rng.randbytes(500), b"PK\3\4" + rng.randbytes(500) + end, b"\x80\x02}q\x00." + end, b"[]"):
        Path("run.pt").write_bytes(content)
        said = fails([*TRAIN, "--steps", "3", "--checkpoint", "run.pt"], capsys)
        assert "run.pt is damaged or not a checkpoint; move it away" in said
        assert Path("run.pt").read_bytes() == content
    for state in ({"step": 10**9, "hparams": {"steps": 3}}, {"step": -5, "hparams": {"steps": 3}},
                  {"step": 1, "hparams": {}}, {"step": 1, "hparams": 3}, [1], {"step": torch.ones(2), "hparams": {}}):
        torch.save(state, "run.pt")
        assert "run.pt is damaged" in fails([*TRAIN, "--minutes", "1", "--checkpoint", "run.pt"], capsys)


def test_a_damaged_checkpoint_goes_on_from_the_one_before(desk, capsys):  # noqa: F811
    command = [*TRAIN, "--steps", "3", "--checkpoint", "run.pt", "--out", "a.safetensors"]
    assert main(command) == 0
    assert main(command) == 0    # finished, and saved once more: now there is one before
    Path("run.pt").write_bytes(Path("run.pt").read_bytes()[:-1])
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("run.pt is damaged: going on from the checkpoint before it, step 3") == 1


@pytest.mark.parametrize("seed", range(4))
def test_mnist_with_one_changed_byte_is_read_or_refused_in_one_way(tmp_path, seed, record_property):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12, dtype=np.uint8) % 10
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    content, changes, refused = (tmp_path / "mnist.npz").read_bytes(), random.Random(seed), 0
    named = 0
    with zipfile.ZipFile(tmp_path / "mnist.npz") as file:
        starts = [info.header_offset for info in file.infolist()]
    near = [start + k for start in starts for k in range(200)] + [*range(len(content) - 300, len(content))]
    for _ in range(150):
        changed = bytearray(content)
        changed[changes.choice(near)] = changes.randrange(256)
        (tmp_path / "mnist.npz").write_bytes(changed)
        try:
            read_npz(tmp_path / "mnist.npz", "train", (28, 28))
        except ValueError as error:
            refused += 1
            named += "mnist.npz" in str(error)
    record_property("cases", 150)
    assert refused == named > 30


@pytest.mark.parametrize("error", [NotImplementedError, MemoryError, OverflowError, AttributeError, SyntaxError])
def test_whatever_numpy_raises_the_file_is_named(error, desk, monkeypatch, capsys):  # noqa: F811
    def load(*_, **__):
        raise error("odd")

    monkeypatch.setattr(np, "load", load)
    assert "mnist.npz: is damaged" in fails([*TRAIN, "--steps", "1"], capsys)


# ---- where it goes is tried first; what is drawn is written at once


@pytest.mark.parametrize("out", ["mnist.npz/a.png", "folder.png", "/proc/a.png"])
def test_an_out_that_cannot_be_written_is_noticed_before_sampling(desk, small_weights, out, monkeypatch, capsys):  # noqa: F811
    for folder in ("folder.png", "folder.safetensors"):
        Path(folder).mkdir()
    monkeypatch.setattr(weights, "load_model", lambda *_: pytest.fail("sampled first"))
    assert fails(["generate", "7", "--model", small_weights, "--out", out], capsys)
    monkeypatch.setattr("diffusion_lessons.training.run", lambda *_, **__: pytest.fail("trained first"))
    assert fails([*TRAIN, "--steps", "1", "--out", Path(out).with_suffix(".safetensors")], capsys)


def batches(count, size, shape=(1, 4, 4)):
    """Made-up pictures in batches, each pixel the number of its picture; and how many were asked for so far."""
    asked = []

    def make():
        for first in range(0, count, size):
            asked.append(first)
            k = torch.arange(first, min(count, first + size), dtype=torch.uint8)
            yield k[:, None, None, None].expand(-1, *shape).clone()

    return make(), asked


@pytest.mark.parametrize("count, size", [(5, 2), (10, 10), (11, 4), (30, 7), (9, 20)])
def test_sheets_hold_all_pictures_in_order(count, size, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "ON_A_SHEET", 10)
    made, asked = batches(count, size)
    paths = generate.save_sheets(tmp_path / "a.png", made, count)
    number = -(-count // 10)
    assert [path.name for path in paths] == (
        ["a.png"] if number == 1 else [f"a-{k + 1:03}.png" for k in range(number)])
    found = []
    for path in paths:
        sheet = np.asarray(Image.open(path).convert("L"))
        rows, columns = ((side - 8) // 24 for side in sheet.shape)
        found += [sheet[8 + 24 * i, 8 + 24 * j] for i in range(rows) for j in range(columns)]
    assert [int(k) for k in found if k != 255] == list(range(count))


def test_a_sheet_is_written_before_the_next_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "ON_A_SHEET", 10)
    made, asked = batches(40, 5)

    def stopping():
        for k, batch in enumerate(made):
            if k == 5:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        generate.save_sheets(tmp_path / "a.png", stopping(), 40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-001.png", "a-002.png"]


def test_sheets_of_large_pictures_stay_below_what_pillow_opens(tmp_path):
    made, _ = batches(3, 1, (3, 900, 900))
    paths = generate.save_sheets(tmp_path / "a.png", made, 3)
    assert len(paths) == 1
    made, _ = batches(4, 4, (3, 1200, 1200))    # on one sheet they would be 92 million pixels
    paths = generate.save_sheets(tmp_path / "b.png", made, 4)
    assert len(paths) == 2
    for path in paths:
        with Image.open(path) as image:
            assert image.width * image.height < 89e6


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 6)])
@pytest.mark.parametrize("y", [np.array(7), np.arange(5)], ids=["label", "tokens"])
def test_arrays_are_those_of_numpy(shape, y, tmp_path):
    made, _ = batches(11, 4, shape)
    generate.save_arrays(tmp_path / "a.npz", made, 11, y)
    file = np.load(tmp_path / "a.npz")
    assert file["x"].shape == ((11, 4, 4) if shape[0] == 1 else (11, 4, 6, 3))
    assert file["x"].reshape(11, -1)[:, 0].tolist() == list(range(11))
    assert (file["x"].dtype, file["y"].dtype) == (np.uint8, y.dtype)
    assert (file["y"] == np.broadcast_to(y, (11, *y.shape))).all()


@pytest.mark.parametrize("out", ["many.npz", "many.png"])
def test_what_is_written_is_let_go(desk, small_weights, out, monkeypatch):  # noqa: F811
    """Of 50 batches, a few are alive at any time."""
    alive, most = weakref.WeakSet(), []

    def drawn(*_, count, **__):
        for first in range(0, count, 20):
            yield torch.zeros(min(20, count - first), 1, 28, 28)

    def as_bytes(x):
        x = x.to(torch.uint8)
        alive.add(x)
        most.append(len(alive))
        return x

    monkeypatch.setattr("diffusion_lessons.pipelines.text_to_image.generate_batches", drawn)
    monkeypatch.setattr("diffusion_lessons.datasets.to_uint8", as_bytes)
    assert main(["generate", "7", "--model", small_weights, "--count", "1000", "--out", out]) == 0
    assert len(most) == 50
    assert max(most) < 5


@pytest.mark.long
@pytest.mark.parametrize("out", ["many.npz", "many.png"])
def test_many_pictures_take_no_more_memory_than_few(desk, small_weights, out):  # noqa: F811
    """4,000 pictures of the small network, in one step each: the peak memory of the process hardly rises."""
    code = ("import resource, sys; from diffusion_lessons.cli import main; code = main(sys.argv[1:]); "
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)")

    def peak(count):
        command = ["generate", "7", "--model", small_weights, "--steps", "1", "--count", str(count), "--out", out]
        said = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=600,
                              env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=True).stdout
        return int(said.split("peak ")[1]) / 1024

    few, many = peak(400), peak(4000)
    assert many < few + 30, "MB"    # 4,000 pictures as floats alone are 13, and there were five copies


# ---- Ctrl-C


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    """A module named torch that takes its time stands for the import, which is never twice as slow."""
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    ran = subprocess.Popen([sys.executable, "-m", "diffusion_lessons", "doctor"], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                           env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert ran.stdout.readline() == "importing\n"
    time.sleep(0.1)
    ran.send_signal(signal.SIGINT)
    _, said = ran.communicate(timeout=60)
    assert (ran.returncode, said) == (130, "\nstopped\n")


def test_ctrl_c_before_the_command_runs_is_one_line(monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", stop)
    assert main([]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_importing_torch_leaves_ctrl_c_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    cli.import_torch()
    assert signal.getsignal(signal.SIGINT) is before
