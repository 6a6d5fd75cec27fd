"""The set-up files say one thing, and the code keeps the rules they set."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge uses another name
PINS = re.findall(r"^(\S+)==(\S+)$", (ROOT / "tests/colab/requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
COLAB = {"python": "3.13"} | dict(PINS)  # what Google Colab had installed when these lessons were written


def split(requirement):
    """"torch>=2.6" -> ("torch", ">=2.6")"""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)", requirement).groups()
    return name, bounds.replace(" ", "")


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def test_conda_environment_equals_pyproject():
    extras = PROJECT["optional-dependencies"]
    wanted = dict(split(r) for r in PROJECT["dependencies"] + extras["lab"] + extras["test"])
    wanted = {CONDA_NAMES.get(name, name): bounds for name, bounds in wanted.items()}
    wanted["python"] = PROJECT["requires-python"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = dict(split(r) for r in environment["dependencies"] if isinstance(r, str) and r != "pip")
    assert listed == wanted
    assert "conda-forge" in environment["channels"]


def test_no_floor_stands_above_colab():
    floors = dict(split(r) for r in PROJECT["dependencies"]) | {"python": PROJECT["requires-python"]}
    for name in floors.keys() & COLAB.keys():
        has = COLAB[name]
        assert floors[name].startswith(">="), f"{name}{floors[name]} is not a floor"
        assert numbers(floors[name][2:]) <= numbers(has), f"{name}{floors[name]}, but Colab has {has}"


def test_every_dependency_has_a_floor_and_no_ceiling():
    for name, bounds in map(split, PROJECT["dependencies"]):
        assert re.fullmatch(r">=[0-9.]+", bounds), f"{name}{bounds}"


def test_extras_are_there():
    assert set(PROJECT["optional-dependencies"]) >= {"lab", "test", "site", "scale"}


def test_the_lock_has_a_hash_for_each_package_and_holds_what_pyproject_wants():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text, "the name of a server"
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    whole = r"\S+==\S+( ;[^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n|\n?))+"
    assert [block for block in blocks if not re.fullmatch(whole, block)] == []
    locked = dict(block.split(" ")[0].split("==") for block in blocks)
    extras = PROJECT["optional-dependencies"]
    for name, wanted in map(split, [*PROJECT["dependencies"], *extras["lab"], *extras["test"]]):
        found = numbers(locked[name])
        assert found == numbers(wanted[2:]) if wanted.startswith("==") else found >= numbers(wanted[2:]), name


def test_the_hosted_tests_install_the_lock_before_the_course():
    steps = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]["tests"]["steps"]
    locked, course = (next(k for k, step in enumerate(steps) if words in step.get("run", ""))
                      for words in ("install --require-hashes -r requirements.lock", 'install -e ".[lab,test]"'))
    assert locked < course
    assert steps[locked]["if"] == "matrix.os == 'ubuntu-latest' && matrix.python == '3.11'"    # what the lock is for


def test_ruff_finds_nothing():
    pinned = dict(split(r) for r in PROJECT["optional-dependencies"]["test"])["ruff"].removeprefix("==")
    ruff = [sys.executable, "-m", "ruff"]
    version = subprocess.run([*ruff, "--version"], capture_output=True, text=True).stdout
    assert version.split()[1] == pinned, "another ruff is installed than pyproject.toml pins"
    said = subprocess.run([*ruff, "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_licence_and_readme_are_there():
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make lab" in readme
    assert "make test" in readme


needs_make = pytest.mark.skipif(
    shutil.which("make") is None or os.name == "nt", reason="make is for Linux and macOS"
)


def make(folder, *arguments):
    """Call make in a folder that holds only the Makefile, so that nothing real can be installed or lost."""
    if not (folder / "Makefile").exists():
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "pyproject.toml").touch()
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@needs_make
def test_make_installs_once(tmp_path):
    log = tmp_path / "log"
    script(tmp_path / ".venv" / "bin" / "python", f'echo "$@" >> "{log}"\n')
    for _ in range(2):
        assert make(tmp_path, "test").returncode == 0
    calls = log.read_text().splitlines()
    assert sum("pip install" in call for call in calls) == 1
    assert sum("-m pytest" in call for call in calls) == 2
    later = (tmp_path / ".venv" / ".installed-test").stat().st_mtime + 5
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert make(tmp_path, "test").returncode == 0
    assert log.read_text().count("pip install") == 2, "a changed pyproject.toml must install again"


@needs_make
def test_make_says_what_is_wrong_with_python(tmp_path):
    absent = make(tmp_path, "lab", "PYTHON=no-such-python")
    assert absent.returncode != 0
    assert "was not found" in absent.stdout

    old = script(tmp_path / "old", '[ "$1" = --version ] && echo Python 3.8.1 || exit 1\n')
    said = make(tmp_path, "lab", f"PYTHON={old}")
    assert said.returncode != 0
    assert "Python 3.8.1 is too old" in said.stdout

    bare = script(tmp_path / "bare", 'case "$2" in *ensurepip*) exit 1;; esac\n')
    said = make(tmp_path, "lab", f"PYTHON={bare}")
    assert said.returncode != 0
    assert "python3-venv" in said.stdout
    assert not (tmp_path / ".venv").exists()


TESTS = "-m pytest -n auto --maxprocesses 4 --dist worksteal -m "
OTHER_KERNELS = ("tools/everywhere.py --only default-2 --no-table -- "
                 "tests/test_gan_training.py tests/test_stable_diffusion_models.py -k not unet or critters")


@needs_make
def test_ci_uses_a_data_folder_beside_the_clone_and_runs_the_tests(tmp_path):
    clone, data = tmp_path / "clone", tmp_path / "shared" / "data"
    (clone / ".ci").mkdir(parents=True)
    data.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci")  # with its right to be executed
    shutil.copy(ROOT / "Makefile", clone)
    (clone / "pyproject.toml").touch()
    log = tmp_path / "log"
    script(clone / ".venv" / "bin" / "python", f'echo "$DIFFUSION_LESSONS_DATA: $@" >> "{log}"\n')
    hidden = ("DIFFUSION_LESSONS_DATA", "MAKEFLAGS", "MAKEOVERRIDES", "ARGS")  # `make test ARGS=...` hands its own on
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["CHROMIUM"] = str(tmp_path / "chromium")    # there is one: nothing is to be installed
    script(tmp_path / "bin" / "npm", "")
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"

    def run(**more):
        log.unlink(missing_ok=True)
        command = [str(clone / ".ci" / "run")]
        environ = environment | {"PYTHON": sys.executable} | more
        said = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stderr
        lines = log.read_text().splitlines()
        if (sys.platform, platform.machine(), sys.version_info[:2]) == ("linux", "x86_64", (3, 11)):
            assert lines[0].endswith(": -m pip install --require-hashes -r requirements.lock")
        return [line for line in lines if " -m pip " not in line]

    def all_of_it(folder):
        return [f"{folder}: {what}" for what in
                (f"{TESTS}not long and not notebook", f"{TESTS}notebook", OTHER_KERNELS, "-m pytest tests/browser")]

    assert run() == all_of_it("")
    (data / "mnist.npz").touch()
    assert run() == all_of_it(data)
    assert run(DIFFUSION_LESSONS_DATA="/elsewhere") == all_of_it("/elsewhere")
