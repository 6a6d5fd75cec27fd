"""Checkpoints: damage is noticed, the one before is a second chance, and two trainings never write to the same one."""

import hashlib
import math
import os
import random
import shutil

import pytest
import torch
from killable_run import trainer
from test_training import everything, same

from diffusion_lessons import runtime
from diffusion_lessons.training import load_checkpoint, run, save_checkpoint
from diffusion_lessons.training.base import is_intact, previous_of

pytestmark = pytest.mark.faults

fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks")
resource = pytest.importorskip("resource", reason="Windows has no such limits")


def advanced(steps, of=12):
    """A trainer after so many of its steps."""
    t = trainer(of)
    for _ in range(steps):
        t.train_step()
    return t


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of step 2, with one of step 1 before it."""
    path, t = tmp_path / "run.pt", trainer(12)
    for _ in range(2):
        t.train_step()
        save_checkpoint(path, t)
    return path


def flip(content, bit):
    """The same bytes but for one bit."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_changed_bit_is_noticed(saved, record_property):
    content, rng = saved.read_bytes(), random.Random(0)
    end = 8 * len(content)
    assert is_intact(content)
    bits = [*range(end - 8 * 120, end), *range(8 * 40), *(rng.randrange(end) for _ in range(300))]
    record_property("cases", len(bits) + 199)
    assert [bit for bit in bits if is_intact(flip(content, bit))] == []
    assert [k for k in range(1, 200) if is_intact(content[:-k])] == []
    previous_of(saved).unlink()
    for bit in bits[::200]:
        saved.write_bytes(flip(content, bit))
        with pytest.raises(ValueError, match="damaged or not a checkpoint; move it away"):
            load_checkpoint(saved, trainer(12))


def test_a_checkpoint_of_an_older_version_has_no_digest_and_loads(tmp_path):
    t = advanced(3)
    torch.save(t.state_dict(), tmp_path / "run.pt")
    again = trainer(12)
    load_checkpoint(tmp_path / "run.pt", again)
    assert same(everything(again), everything(t))
    save_checkpoint(tmp_path / "run.pt", again)    # it becomes the one before
    assert torch.load(previous_of(tmp_path / "run.pt"), weights_only=True)["step"] == 3


@pytest.mark.parametrize("step", [-5, 13, 10**9, True, 2.0, "2", None, math.inf])
def test_a_step_out_of_range_is_refused(step, tmp_path):
    path = tmp_path / "run.pt"
    torch.save({**advanced(2).state_dict(), "step": step}, path)
    t = trainer(12)
    before = everything(t)
    with pytest.raises(ValueError, match="damaged"):
        run(t, path)
    assert same(everything(t), before)


def parts(state, name=""):
    """Every tensor of a state, by its path."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    children = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else []
    return {path: x for key, value in children for path, x in parts(value, f"{name}/{key}").items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["/weights", "/ema", "/optimizer"])
def test_numbers_that_are_not_finite_are_refused(where, value, tmp_path):
    path, state = tmp_path / "run.pt", advanced(2).state_dict()
    found = [x for name, x in parts(state).items() if name.startswith(where) and x.numel() > 10]
    found[-1].flatten()[-1] = value
    torch.save(state, path)
    t = trainer(12)
    before = everything(t)
    with pytest.raises(ValueError, match="NaN or infinity"):
        run(t, path)
    assert same(everything(t), before)


def test_a_run_with_numbers_that_are_not_finite_is_not_saved(saved):
    content, t = saved.read_bytes(), advanced(3)
    next(t.ema.parameters()).data[0] = math.nan
    with pytest.raises(FloatingPointError, match="not saved"):
        save_checkpoint(saved, t)
    assert saved.read_bytes() == content


def test_another_network_changes_nothing(saved):
    from killable_run import denoiser, pictures

    from diffusion_lessons.training import Trainer

    other = Trainer(denoiser(channels=(8, 24)), *pictures(), steps=12, batch=8)
    before = everything(other)
    with pytest.raises(ValueError, match="does not fit this network"):
        load_checkpoint(saved, other)
    assert same(everything(other), before)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_with_a_line(saved, capsys):
    whole = trainer(12)
    run(whole)
    previous = previous_of(saved).read_bytes()
    for damage in (b"", saved.read_bytes()[:-1000], flip(saved.read_bytes(), 10**5), b"PK\5\6" + 18 * b"\0"):
        saved.write_bytes(damage)
        t = trainer(12)
        load_checkpoint(saved, t)
        assert t.step == 1
        assert capsys.readouterr().out == (f"{saved} is damaged: going on from the checkpoint before it, step 1 in "
                                           "run.previous.pt\n")
        assert saved.read_bytes() == damage
    t.train_step()
    save_checkpoint(saved, t)    # the damaged one must not take the place of the good one before it
    assert previous_of(saved).read_bytes() == previous
    again = trainer(12)
    run(again, saved)
    assert capsys.readouterr().out == ""
    assert same(everything(again), everything(whole))


def test_two_damaged_checkpoints_are_refused_and_kept(saved):
    for path in (saved, previous_of(saved)):
        path.write_bytes(path.read_bytes()[:-5])
    before = saved.read_bytes(), previous_of(saved).read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt is damaged or not a checkpoint; move it away"):
        run(trainer(12), saved)
    assert (saved.read_bytes(), previous_of(saved).read_bytes()) == before


def test_a_checkpoint_that_was_moved_away_starts_afresh(saved):
    saved.rename(saved.with_name("away.pt"))
    seen = []
    run(trainer(12), saved, every=5, callback=lambda step: seen.append((step.step, previous_of(saved).exists())))
    assert [step for step, _ in seen] == list(range(1, 13))
    assert seen[5] == (6, False)    # the one before is of the other run
    assert torch.load(previous_of(saved), weights_only=True)["step"] == 10


def test_foreign_files_end_in_one_kind_of_error(tmp_path):
    rng, path = random.Random(1), tmp_path / "run.pt"
    end = b"PK\5\6" + 18 * b"\0"    # as a file without a digest ends, so that torch gets to see the rest
    torch.save([1, 2], tmp_path / "list.pt")
    foreign = [rng.randbytes(rng.randrange(300)) + end for _ in range(100)]
    foreign += [b"PK\3\4" + rng.randbytes(rng.randrange(300)) + end for _ in range(100)]
    foreign += [(tmp_path / "list.pt").read_bytes(), b"\x80\x02}." + end, b"\x80\x02" + rng.randbytes(50) + end]
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(path, trainer(12))


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="not a regular file"):
        run(trainer(2), tmp_path / "run.pt")


# ---- one writer at a time, and nothing left behind


def test_a_second_training_with_the_same_checkpoint_is_refused(tmp_path):
    path, refused = tmp_path / "run.pt", []

    def second(step):
        with pytest.raises(BlockingIOError, match=r"another process is writing .*run\.pt") as caught:
            run(trainer(12, seed=1), path)
        refused.append(caught.value)
        run(trainer(1), tmp_path / "other.pt")    # beside it there is room

    first = trainer(3)
    run(first, path, callback=second)
    assert len(refused) == 3
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other.previous.pt", "other.pt", "run.pt"]
    run(trainer(3), path)    # a finished run has let go of it


def test_the_lock_of_a_killed_process_does_not_last(tmp_path):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with runtime.exclusive(tmp_path / "run.pt"):
            os.write(writer, b"locked")
            os.read(os.pipe()[0], 1)    # until it is killed
    assert os.read(reader, 6) == b"locked"
    with pytest.raises(BlockingIOError), runtime.exclusive(tmp_path / "run.pt"):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    with runtime.exclusive(tmp_path / "run.pt"):
        assert os.listdir(tmp_path) == [".run.pt.lock"]
    assert os.listdir(tmp_path) == []


def test_where_there_are_no_locks_everybody_is_let_in_and_nothing_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "try_lock", lambda handle: None)
    (tmp_path / ".run-abcdefgh.pt").write_bytes(b"")
    with runtime.exclusive(tmp_path / "run.pt"), runtime.exclusive(tmp_path / "run.pt"):
        save_checkpoint(tmp_path / "run.pt", trainer(2))
    assert sorted(os.listdir(tmp_path)) == [".run-abcdefgh.pt", "run.pt"]


def test_scratch_files_of_a_killed_run_go_with_the_next_save(tmp_path):
    for name in (".run-abcdefgh.pt", ".run-a_b1c2d3.pt", ".run-2-abcdefgh.pt", ".run-abcdefgh.txt", ".running.pt"):
        (tmp_path / name).write_bytes(b"half")
    with open(tmp_path / ".run-a_b1c2d3.pt", "r+b") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        save_checkpoint(tmp_path / "run.pt", trainer(2))
    assert sorted(os.listdir(tmp_path)) == [".run-2-abcdefgh.pt", ".run-a_b1c2d3.pt", ".run-abcdefgh.txt",
                                            ".running.pt", "run.pt"]


def test_a_full_disk_is_an_oserror_and_keeps_what_was_there(saved):
    """A limit on the size of a file stands for the full disk."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (saved, previous_of(saved))]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    t = advanced(3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(saved, t)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in (saved, previous_of(saved))]
    assert sorted(os.listdir(saved.parent)) == ["run.previous.pt", "run.pt"]


def test_several_steps_of_rotation_keep_the_last_two(tmp_path):
    path, t = tmp_path / "run.pt", trainer(12)
    for step in range(1, 5):
        t.train_step()
        save_checkpoint(path, t)
        if step > 1:
            assert torch.load(previous_of(path), weights_only=True)["step"] == step - 1
    shutil.copy(previous_of(path), path)    # by hand, as a second chance for people
    again = trainer(12)
    load_checkpoint(path, again)
    assert again.step == 3
