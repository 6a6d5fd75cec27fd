"""The lecturers' copies: every exercise stands in its notebook once, and the answers fit it."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from diffusion_lessons.exercises import EXERCISES, notebook_of, record

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import solutions  # noqa: E402

LESSONS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if not path.stem.startswith("00")]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


@each_lesson
def test_each_exercise_stands_in_its_lesson_once(path):
    found = solutions.fill_in(read(path))
    assert sorted(found) == [id for id in EXERCISES if notebook_of(id) == path.stem.split("_")[0]]


@each_lesson
def test_the_answers_pass_among_what_the_notebook_imports(path, capsys):
    """Only the cells that import and those that check: that the rest runs too is seen by `make solutions`."""
    notebook, here = read(path), {}
    ids = solutions.fill_in(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "check(\"" in cell.source:
            exec(cell.source, here)
        elif cell.cell_type == "code":
            exec("\n".join(re.findall(r"^(?:import|from) .*$", cell.source, re.M)), here)
    said = capsys.readouterr().out
    assert [id for id in ids if record.read()[id]["state"] != "right"] == []
    assert said.count("\u2713") == len(ids)


def test_a_notebook_without_the_stub_is_refused():
    with pytest.raises(ValueError, match="does not define add_noise"):
        solutions.filled('check("2.1", add_noise)', EXERCISES["2.1"])


def test_only_the_stub_is_replaced():
    source = 'k = 1\n\n\ndef add_noise(x0, t, eps, schedule):\n    ...\n\n\ncheck("2.1", add_noise)'
    lines = solutions.filled(source, EXERCISES["2.1"]).splitlines()
    assert lines[:4] == ["k = 1", "", "", "def add_noise(x0, t, eps, schedule):"]
    assert lines[-3:] == ["", "", 'check("2.1", add_noise)']
    assert not any(line.strip() == "..." for line in lines)
