"""What must stand before torch is loaded, and how long a lesson is said to take."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from diffusion_lessons.classroom import minutes

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def environment_after_import(**user):
    """What these variables are, for the C library too, once the package is imported."""
    code = ("import diffusion_lessons, subprocess, sys; assert 'torch' not in sys.modules; "
            "print(subprocess.run(['env'], capture_output=True, text=True).stdout)")
    environ = {name: value for name, value in os.environ.items() if name not in WAITING}
    environ |= {"PYTHONPATH": str(ROOT)} | user
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    return {name: value for name, _, value in (line.partition("=") for line in said.splitlines()) if name in WAITING}


def test_threads_are_told_not_to_wait_actively_for_long():
    assert environment_after_import() == {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize("user", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "200"}],
                         ids=lambda user: min(user))
def test_what_the_user_has_set_wins(user):
    assert environment_after_import(**user) == user


def first_import(source, names):
    """Which of these modules the code imports first: by line, then by column."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        found += [(node.lineno, module.split(".")[0]) for module in modules if module.split(".")[0] in names]
    return min(found)[1] if found else None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lessons_import_the_package_before_torch(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "import" in cell.source:
            assert first_import(cell.source, {"torch", "diffusion_lessons"}) == "diffusion_lessons"
            return


def test_the_command_line_imports_the_package_before_torch():
    code = ("import os, runpy, sys; sys.argv = ['diffusion_lessons', '--help']\n"
            "try: runpy.run_module('diffusion_lessons', run_name='__main__')\n"
            "except SystemExit: print(os.environ['GOMP_SPINCOUNT'])")
    environ = {name: value for name, value in os.environ.items() if name not in WAITING} | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "10000"


@pytest.mark.parametrize("seconds, about", [(3, "10 seconds"), (44, "50 seconds"), (55, "a minute"),
                                            (61, "1.5 minutes"), (118, "2 minutes"), (290, "5 minutes")])
def test_times_are_rounded_up(seconds, about):
    assert f"about {about} on" in minutes.sentence(seconds, 2)
    assert "one core" in minutes.sentence(seconds, 1)


def test_a_machine_of_half_the_speed_is_told_twice_the_time(monkeypatch, tmp_path):
    (tmp_path / "minutes.json").write_text('{"speed": 20.0, "seconds": {"04": 60.0}}')
    monkeypatch.setattr(minutes, "FILE", tmp_path / "minutes.json")
    monkeypatch.setattr(minutes, "speed", lambda: 10.0)
    assert "about 2 minutes" in minutes.how_long("04")
    with pytest.raises(KeyError):
        minutes.how_long("99")


def test_every_lesson_that_says_its_minutes_has_them_on_file():
    says = re.compile(r"how_long\(\\\"(\w+)\\\"")
    said = [id for path in NOTEBOOKS for id in says.findall(path.read_text(encoding="utf-8"))]
    assert said == ["01", "03", "04", "04b", "05", "06", "07", "capstone", "my"]
    assert all("machine" in minutes.how_long(id) for id in said)


def test_speed_counts_passes(monkeypatch):
    assert 0 < minutes.speed(0.05) < 10**5
