"""Odd environments: consoles of few letters, closed streams, a user without a name, data that may not be read."""

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_cli import ROOT, TRAIN, desk, small_weights  # noqa: F401

from diffusion_lessons import cli, exercises, runtime, weights
from diffusion_lessons.cli import main
from diffusion_lessons.datasets.files import data_folder
from diffusion_lessons.exercises import record

pytestmark = pytest.mark.faults
posix = pytest.mark.skipif(os.name == "nt", reason="for Linux and macOS")


# ---- consoles


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_the_letters_of_a_name_gets_escapes(desk, small_weights, encoding, monkeypatch):  # noqa: F811
    said = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", said)
    name = "gr\u00f6\u00dfe \u05d0 \udcff.npz"    # and a byte that is no letter at all
    assert main(["generate", "7", "--model", small_weights, "--steps", "1", "--count", "1", "--out", name]) == 0
    said.flush()
    assert b"1 pictures of '7' written to gr" in said.buffer.getvalue()
    assert b"\\u05d0 \\udcff.npz" in said.buffer.getvalue()
    assert Path(name).exists()


@pytest.mark.parametrize("closed", [["stderr"], ["stdout"], ["stdin", "stdout", "stderr"]], ids=" ".join)
def test_closed_streams_swallow_what_is_said(desk, small_weights, closed, monkeypatch):  # noqa: F811
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    assert main(["generate", "7", "--model", small_weights, "--steps", "1", "--count", "1", "--out", "a.npz"]) == 0
    assert main([*TRAIN, "--steps", "2", "--out", "a.safetensors"]) == 0
    assert main(["generate", "7", "--model", "absent.safetensors"]) == 1
    weights.load("a.safetensors")


@posix
def test_the_next_file_does_not_take_the_place_of_a_closed_stream():
    """Else what a library writes to number 2 is written into a checkpoint."""
    code = ("import os; from diffusion_lessons import cli; cli.mend_streams(); "
            "print(os.open(os.devnull, os.O_RDONLY), os.path.realpath('/dev/fd/2'))")
    said = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code], capture_output=True, text=True,
                          timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)}).stdout.split()
    assert int(said[0]) > 2
    assert said[1] != "/dev/fd/2"


# ---- Ctrl-C


@posix
@pytest.mark.parametrize("command", [["-m", "diffusion_lessons"], [
    "-c", "import sys; from diffusion_lessons.__main__ import main; sys.exit(main())"]], ids=["module", "script"])
def test_ctrl_c_while_the_command_line_is_loaded_is_one_line(tmp_path, command):
    """A module named argparse that takes its time stands for the import; the script is what pip installs."""
    (tmp_path / "argparse.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    ran = subprocess.Popen([sys.executable, *command, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert ran.stdout.readline() == "importing\n"
    ran.send_signal(signal.SIGINT)
    _, said = ran.communicate(timeout=60)
    assert (ran.returncode, said) == (130, "\nstopped\n")


def test_the_script_that_pip_installs_is_the_one_that_stops_in_one_line():
    assert 'diffusion-lessons = "diffusion_lessons.__main__:main"' in (ROOT / "pyproject.toml").read_text()


# ---- a user without a name


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user id that no file knows, without HOME, as a container has it."""
    pwd = pytest.importorskip("pwd")

    def unknown(_):
        raise KeyError("uid not found")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "DIFFUSION_LESSONS_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError):
        Path.home()


def test_without_a_home_check_and_the_record_work(nobody, monkeypatch, tmp_path, capsys):
    for named in (str(tmp_path / "p.json"), "", None):
        if named is None:
            monkeypatch.delenv("DIFFUSION_LESSONS_PROGRESS")
        else:
            monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", named)
        exercises.check("2.2", lambda beta: beta)
        assert record.read()["2.2"]["state"] == "not yet"
    assert (tmp_path / "p.json").exists()
    assert record.path() == tmp_path / ".diffusion_lessons" / "progress.json"
    assert record.read()["2.2"]["tries"] == 2
    assert runtime.home() == tmp_path
    monkeypatch.setenv("DIFFUSION_LESSONS_DATA", "~/data")
    assert data_folder() == Path("~/data")


@pytest.mark.slow(seconds=30)
def test_without_a_home_grading_works(nobody, monkeypatch, tmp_path, capsys):
    (tmp_path / "ann").mkdir()
    cell = "def alpha_bar_from_betas(beta):\\n    return beta\\n\\ncheck(\\\"2.2\\\", alpha_bar_from_betas)"
    (tmp_path / "ann" / "02_adding_noise.ipynb").write_text(
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "id": "a", "outputs": [],'
        f' "metadata": {{}}, "execution_count": null, "source": "{cell}"}}]}}')
    assert main(["grade", str(tmp_path)]) == 0, capsys.readouterr().err
    rows = (tmp_path / "grades.csv").read_text(encoding="utf-8-sig")
    assert "ann,ann/02_adding_noise.ipynb,2.2,not yet," in rows


# ---- the doctor and the data


def doctor(capsys):
    """What the doctor says about the data.  -> (the line on MNIST, its advice, its exit code)"""
    capsys.readouterr()
    code = cli.doctor.check_data()
    lines = capsys.readouterr().out.splitlines()
    return next(line.split(None, 1)[1] for line in lines if "MNIST " in line), code


@pytest.fixture
def forbidden(monkeypatch):
    """A function: this path may not be read. (Who runs the tests may be allowed everything.)"""
    real = os.access

    def forbid(path):
        monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != path and real(place, mode))

    return forbid


def test_the_doctor_reads_the_training_pictures_too(desk, capsys):  # noqa: F811
    assert doctor(capsys)[1] == []
    with np.load("mnist.npz") as file:
        arrays = dict(file)
    np.savez("mnist.npz", **arrays | {"x_train": arrays["x_train"][:3]})
    found, advice = doctor(capsys)
    assert found == "damaged"
    assert "train split" in advice[0]
    assert "Replace it with a complete copy" in advice[0]
    np.savez("mnist.npz", **arrays)
    with zipfile.ZipFile("mnist.npz") as file:
        place = file.getinfo("x_train.npy").header_offset + 500
    content = bytearray(Path("mnist.npz").read_bytes())
    content[place] ^= 1
    Path("mnist.npz").write_bytes(content)
    assert doctor(capsys)[0] == "damaged"


@pytest.mark.parametrize("what", ["mnist.npz", ""])
def test_data_that_may_not_be_read_are_not_called_damaged(desk, forbidden, what, capsys):  # noqa: F811
    forbidden(desk / what)
    found, advice = doctor(capsys)
    assert found == "cannot be read: permission denied"
    assert "make it readable (chmod" in advice[0]
    assert "Replace" not in advice[0]


def test_the_doctor_goes_on_when_a_folder_cannot_even_be_looked_into(desk, monkeypatch, capsys):  # noqa: F811
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        found, advice = doctor(capsys)
        assert cli.doctor.free_space(desk / "x") == "unknown (Permission denied)"
    assert found == "cannot be read: permission denied"
    assert len(advice) == 1    # the same for CIFAR-10
    assert "It may well be intact" in advice[0]
