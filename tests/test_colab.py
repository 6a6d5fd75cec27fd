"""Colab: the first cell, the tool that writes the links, Google Drive, and a run in an environment like Colab's."""

import ast
import importlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import colab_runner
import pytest
import torch
from test_notebooks import LONGEST_CELL

from diffusion_lessons import runtime
from diffusion_lessons.classroom import colab
from diffusion_lessons.datasets.files import data_folder
from diffusion_lessons.exercises import record
from diffusion_lessons.grading.notebook import as_python
from diffusion_lessons.samplers import PerSampleNoise

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
UNSET = colab.first_cell("")
SET = colab.first_cell(colab.address("ada/lessons", "main"))


@pytest.fixture
def on_colab(monkeypatch):
    """A stand-in for Colab's own package is installed and imported, as in a Colab kernel."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "colab"))
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "google"}
    importlib.import_module("google.colab")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "google"]:
        del sys.modules[name]
    sys.modules.update(others)


class Shell:
    """An IPython that only records the pip commands, and "installs" the package if it can."""

    def __init__(self, monkeypatch, works=True):
        self.asked, self.monkeypatch, self.works = [], monkeypatch, works

    def run_line_magic(self, name, line):
        self.asked.append((name, line))
        if self.works:
            self.monkeypatch.delitem(sys.modules, "diffusion_lessons")

    def run(self, cell):
        exec(as_python(cell), {"get_ipython": lambda: self})


def take_package_away(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusion_lessons", None)


# ---- the first cell ----


@pytest.mark.parametrize("cell", [UNSET, SET], ids=["unset", "set"])
def test_first_cell_does_nothing_where_the_package_is(cell, on_colab, monkeypatch, capsys):
    shell = Shell(monkeypatch)
    shell.run(cell)
    assert shell.asked == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("cell", [UNSET, SET], ids=["unset", "set"])
def test_first_cell_is_short_and_never_upgrades(cell):
    assert len(cell.splitlines()) <= min(12, LONGEST_CELL)
    assert max(map(len, cell.splitlines())) <= 120
    assert "--upgrade" not in cell
    assert " -U" not in cell
    ast.parse(as_python(cell))  # test_notebooks can read it too


@pytest.mark.parametrize("cell", [UNSET, SET], ids=["unset", "set"])
def test_first_cell_elsewhere_says_what_to_do(cell, monkeypatch):
    take_package_away(monkeypatch)
    shell = Shell(monkeypatch)
    with pytest.raises(SystemExit, match=r"(?s)make lab.*%pip install git\+https://github.com/"):
        shell.run(cell)
    assert shell.asked == []


def test_first_cell_on_colab_installs_and_imports(on_colab, monkeypatch):
    take_package_away(monkeypatch)
    shell = Shell(monkeypatch)
    shell.run(SET)
    assert shell.asked == [("pip", "install --quiet git+https://github.com/ada/lessons@main")]


def test_first_cell_on_colab_fails_where_pip_does(on_colab, monkeypatch):
    take_package_away(monkeypatch)
    with pytest.raises(ImportError):
        Shell(monkeypatch, works=False).run(SET)


def test_first_cell_on_colab_without_a_repository_says_what_to_fill_in(on_colab, monkeypatch):
    take_package_away(monkeypatch)
    shell = Shell(monkeypatch)
    with pytest.raises(SystemExit, match="(?s)OWNER/NAME.*Fill in OWNER and.*NAME"):
        shell.run(UNSET)
    assert shell.asked == []


# ---- make links ----


@pytest.fixture
def course(tmp_path):
    """A copy of the files that the tool writes, in the state without a repository."""
    for name in ("README.md", "tools/links.py", "diffusion_lessons/classroom/colab.py",
                 *(f"notebooks/{name}" for name in NOTEBOOKS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert links(tmp_path, "--repo", "", "--branch", "main").returncode == 0
    return tmp_path


def links(folder, *arguments):
    return subprocess.run([sys.executable, "tools/links.py", *arguments], cwd=folder, capture_output=True, text=True)


def texts(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()
            and "__pycache__" not in path.parts}


def test_what_is_in_git_is_what_the_tool_writes():
    changes = runpy.run_path(str(ROOT / "tools" / "links.py"))["rewritten"](ROOT)
    assert not changes, f"call make links, look at git diff, and commit: {', '.join(map(str, changes))}"


def test_links_and_first_cells_are_written_everywhere(course):
    assert links(course, "--repo", "ada/lessons").returncode == 0
    readme = (course / "README.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        address = f"https://colab.research.google.com/github/ada/lessons/blob/main/notebooks/{name}"
        cells = json.loads((course / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
        assert f"[Open in Colab]({address})\n" == cells[0]["source"][2]
        assert "".join(next(c for c in cells if c["cell_type"] == "code")["source"]) + "\n" == SET
        assert f"[{name.removesuffix('.ipynb')}]({address})" in readme
    assert "Upload a notebook" not in readme


def test_links_change_nothing_else_in_a_notebook(course):
    def rest(name):
        nb = json.loads((course / "notebooks" / name).read_text(encoding="utf-8"))
        next(c for c in nb["cells"] if c["cell_type"] == "code")["source"] = []
        title = nb["cells"][0]["source"]
        nb["cells"][0]["source"] = title[:2] + title[4:] if "Open in Colab" in title[2] else title
        return nb

    before = {name: rest(name) for name in NOTEBOOKS}
    assert links(course, "--repo", "ada/lessons").returncode == 0
    assert {name: rest(name) for name in NOTEBOOKS} == before


def test_links_twice_change_nothing_and_another_repository_replaces(course):
    unset = texts(course)
    links(course, "--repo", "ada/lessons")
    once = texts(course)
    for again in ((), ("--repo", "ada/lessons")):
        assert "written" not in links(course, *again).stdout
        assert texts(course) == once
    links(course, "--repo", "bob/course-2", "--branch", "trunk")
    assert not any(b"ada/lessons" in text for text in texts(course).values())
    assert b"bob/course-2@trunk" in texts(course)[Path("notebooks", NOTEBOOKS[0])]
    links(course, "--repo", "ada/lessons", "--branch", "main")
    assert texts(course) == once
    links(course, "--repo", "")
    assert texts(course) == unset


@pytest.mark.parametrize("wrong", [
    ("--repo", "lessons"), ("--repo", "https://github.com/ada/lessons"), ("--repo", "ada/lessons/"),
    ("--repo", 'ada/le"ssons'), ("--repo", "ada/les sons"), ("--repo", "ada/lessons", "--branch", "ma in"),
])  # fmt: skip
def test_links_refuse_what_is_no_repository(course, wrong):
    before = texts(course)
    said = links(course, *wrong)
    assert said.returncode == 1
    assert "Nothing was written" in said.stderr
    assert "Traceback" not in said.stderr
    assert texts(course) == before


@pytest.mark.parametrize("broken", ["README.md", f"notebooks/{NOTEBOOKS[-1]}"])
def test_links_write_all_files_or_none_and_say_which_is_broken(course, broken):
    path = course / broken
    path.write_text(re.sub("<!--.*?-->|# (0|Capstone|Your)", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    before = texts(course)
    said = links(course, "--repo", "ada/lessons")
    assert said.returncode == 1
    assert Path(broken).name in said.stderr
    assert "Nothing was written" in said.stderr
    assert texts(course) == before


needs_make = pytest.mark.skipif(shutil.which("make") is None or os.name == "nt", reason="make is for Linux and macOS")


@needs_make
def test_make_links_hands_over_what_was_said(course):
    shutil.copy(ROOT / "Makefile", course)

    def make(*arguments, **more):
        hidden = ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS", "REPO", "BRANCH")
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | more
        command = ["make", "links", f"PYTHON={sys.executable}", *arguments]
        assert subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True).returncode == 0
        return re.search(r'^REPO = "(.*?)".*\nBRANCH = "(.*?)"',
                         (course / "diffusion_lessons/classroom/colab.py").read_text(), re.MULTILINE).groups()

    assert make("REPO=ada/lessons", "BRANCH=trunk") == ("ada/lessons", "trunk")
    assert make() == ("ada/lessons", "trunk")
    assert make(REPO="bob/elsewhere") == ("ada/lessons", "trunk"), "REPO of the environment is somebody else's"
    assert make("REPO=") == ("", "trunk")


# ---- the drive ----


def test_keep_on_drive(on_colab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "PROGRESS"):
        monkeypatch.setenv(f"DIFFUSION_LESSONS_{name}", "elsewhere")  # and is put back afterwards
    home = colab.keep_on_drive("my lessons", mount=tmp_path / "drive")
    assert home == tmp_path / "drive" / "MyDrive" / "my lessons"
    assert data_folder() == home / "data"
    record.note("2.1", "right")
    assert (home / "progress.json").is_file()
    assert Path.cwd() == home, "checkpoints/ and outputs/ must land there"


def test_keep_on_drive_elsewhere_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    assert colab.keep_on_drive() == tmp_path
    assert "not Colab" in capsys.readouterr().out
    assert (dict(os.environ), list(tmp_path.iterdir())) == (before, [])


def test_pictures_come_from_the_learners_machine_and_the_model_goes_there(on_colab, tmp_path, monkeypatch):
    from google.colab import files

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("cats/1.png", "../outside.png", "dogs/2.png"):
            archive.writestr(name, name)
    monkeypatch.setattr(files, "CHOSEN", {"art.zip": packed.getvalue(), "a/b.png": b"alone"})
    folder = colab.upload(tmp_path / "home" / "art")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"home/art/{name}" for name in ("cats/1.png", "dogs/2.png", "outside.png", "b.png")}
    monkeypatch.setattr(files, "CHOSEN", {"art.zip": packed.getvalue()[:60]})
    with pytest.raises(ValueError, match="art.zip cannot be unpacked.*upload it again"):
        colab.upload(folder)
    assert not (folder / "art.zip").exists()
    colab.download(folder / "b.png")
    with pytest.raises(FileNotFoundError):
        colab.download(folder / "absent.png")


def test_elsewhere_pictures_and_models_stay_where_they_are(tmp_path, capsys):
    folder = colab.upload(tmp_path / "art")
    assert folder.is_dir()
    colab.download(tmp_path / "a.safetensors")
    said = capsys.readouterr().out
    assert f"put your pictures into {folder}" in said
    assert "a.safetensors" in said


def test_files_are_written_to_a_drive_without_permissions(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("this drive knows no permissions")

    monkeypatch.setattr(os, "chmod", refuse)
    with runtime.atomic_write(tmp_path / "file") as scratch:
        scratch.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"


# ---- the run in an environment like Colab's ----


def test_everything_of_the_package_is_installed_with_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "diffusion_lessons"
    patterns = project["tool"]["setuptools"]["package-data"]["diffusion_lessons"]
    taken = {path for pattern in patterns for path in package.glob(pattern)} | set(package.rglob("*.py"))
    there = {path for path in package.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts}
    assert there - taken == set()


def test_snapshot_holds_the_working_tree_as_it_is(tmp_path):
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    tree.mkdir()
    copy.mkdir()
    colab_runner.git(tree, "init", "--quiet")
    for name in ("kept", "changed", "deleted"):
        (tree / name).write_text("old")
    (tree / ".gitignore").write_text("ignored\n")
    colab_runner.git(tree, "add", "--all")
    (tree / "changed").write_text("new")
    (tree / "deleted").unlink()
    (tree / "untracked").write_text("new")
    (tree / "ignored").write_text("new")
    assert colab_runner.snapshot(tree, copy) == f"git+{copy.as_uri()}@main"
    assert colab_runner.git(copy, "ls-files").split() == [".gitignore", "changed", "kept", "untracked"]
    assert colab_runner.git(copy, "show", "main:changed") == "new"


def test_a_notebook_goes_alone_with_its_own_first_cell(tmp_path):
    path = colab_runner.alone(ROOT / "notebooks" / NOTEBOOKS[0], tmp_path, "print(1)\n")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert next(c for c in cells if c["cell_type"] == "code")["source"] == ["print(1)"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_run_refuses_an_environment_that_is_not_its_own(monkeypatch, capsys):
    for name in ("prepare", "snapshot", "try_one"):  # so that this test does no harm, should the refusal be missing
        monkeypatch.setattr(colab_runner, name, lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit):
        colab_runner.main(["notebooks/no.ipynb"])
    assert "make test-colab" in capsys.readouterr().err


FAKE = """#!/bin/sh
echo "$0 $@" >> "{log}"
case "$*" in
  *python_version*) echo {version};;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
  *"install -q -r"*/requirements.txt) exit {torch};;
  *download*) exit {setuptools};;
esac
"""


@needs_make
@pytest.mark.parametrize("named", ["python3.13", "other"])
def test_the_environment_is_built_once_with_the_best_python_here(tmp_path, named):
    log, environment = tmp_path / "log", colab_environment(tmp_path, named)
    for turn in range(2):
        said = make_colab(tmp_path, environment)
        assert said.returncode == 0, said.stderr
        assert ("Colab has Python 3.13, which was not found" in said.stdout) == (named == "other" and turn == 0)
    calls = log.read_text().splitlines()
    assert sum(" -m venv " in call and named in call for call in calls) == 1
    assert sum("install -q -r" in call for call in calls) == 1
    assert [call.split()[1:] for call in calls[-1:]] == [["tests/colab_runner.py", "--out", "build/colab", "one.ipynb"]]


@needs_make
def test_a_newer_torch_is_taken_where_colabs_cannot_be_had(tmp_path):
    said = make_colab(tmp_path, colab_environment(tmp_path, "python3.13", torch=1))
    assert said.returncode == 0, said.stderr
    assert "taking the newest one instead" in said.stdout
    assert (tmp_path / "log").read_text().count("install -q -r") == 2


@needs_make
def test_an_environment_that_is_not_whole_is_not_used(tmp_path):
    said = make_colab(tmp_path, colab_environment(tmp_path, "python3.13", setuptools=1))
    assert said.returncode != 0
    assert "colab_runner" not in (tmp_path / "log").read_text()
    assert not (tmp_path / ".venv-colab" / ".like-colab").exists()


def colab_environment(folder, named, torch=0, setuptools=0):
    """A copy of the course in which a script with this name stands in for Python and pip.  -> the environment"""
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "tests" / "colab", folder / "tests" / "colab")
    version = "3.13.5" if named == "python3.13" else "3.11.2"
    fakes = {named: FAKE} | ({} if named == "python3.13" else {"python3.13": "#!/bin/sh\nexit 1\n"})
    for name, text in fakes.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(log=folder / "log", version=version, torch=torch, setuptools=setuptools))
        path.chmod(0o755)
    hidden = ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"HOME": str(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def make_colab(folder, environment):
    command = ["make", "test-colab", "PYTHON=other", "ARGS=one.ipynb"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


# ---- the device ----


def test_noise_is_drawn_on_the_cpu_whatever_the_device():
    expected = PerSampleNoise(3, 2)((1, 4, 4))
    torch.set_default_device("meta")  # stands for a GPU
    try:
        drawn = PerSampleNoise(3, 2)((1, 4, 4))
    finally:
        torch.set_default_device(None)
    assert drawn.device.type == "cpu"
    assert torch.equal(drawn, expected)


def test_the_device_is_described(monkeypatch):
    assert "cpu" in runtime.describe(torch.device("cpu"))
    assert "would be faster on a GPU" in runtime.describe(torch.device("cpu"))
    card = type("Card", (), {"name": "Tesla T4", "total_memory": 15 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    words = runtime.describe(torch.device("cuda"))
    assert "cuda: Tesla T4, 15.0 GiB" in words
    assert "is faster than on the CPU" in words
    assert "the same seed starts from the same noise" in words
