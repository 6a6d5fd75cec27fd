"""Each lesson as it lies in git: clean to read, and running from top to bottom without a network."""

import ast
import dis
import json
import sys
from pathlib import Path

import nbformat
import pytest

from diffusion_lessons.classroom import minutes
from diffusion_lessons.classroom.colab import FIRST_CELL
from diffusion_lessons.exercises import notebook_of
from diffusion_lessons.grading.notebook import as_python

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(ROOT / "tools"))
import solutions  # noqa: E402

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
LONGEST_CELL = 15
SECONDS = json.loads(minutes.FILE.read_text())["seconds"]
LESSONS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]    # the others ask for no predictions
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(nb):
    return [(i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS, f"no notebook in {FOLDER}"


@each_notebook
def test_is_valid_and_ids_are_unique(path):
    nb = read(path)
    nbformat.validate(nb)
    assert (nb.nbformat, nb.nbformat_minor) >= (4, 5), "cells have ids from format 4.5 on"
    ids = [cell.id for cell in nb.cells]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_is_stripped(path):
    nb = read(path)
    for i, cell in code_cells(nb):
        assert not cell.outputs, f"cell {i} has outputs"
        assert cell.execution_count is None, f"cell {i} has an execution count"
        assert "execution" not in cell.metadata, f"cell {i} has times of its execution"
    assert "widgets" not in nb.metadata, "metadata.widgets holds the state of widgets"
    assert "version" not in nb.metadata.get("language_info", {}), "language_info.version is left"


@each_notebook
def test_each_cell_has_its_place_in_the_slides(path):
    for i, cell in enumerate(read(path).cells):
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        assert kind in SLIDES, f"cell {i} is {kind}: {cell.source[:60]!r}"


@each_notebook
def test_first_says_how_to_get_the_package(path):
    assert code_cells(read(path))[0][1].source + "\n" == FIRST_CELL


@each_notebook
def test_code_cells_are_short(path):
    for i, cell in code_cells(read(path)):
        lines = len(cell.source.splitlines())
        assert lines <= LONGEST_CELL, f"cell {i} has {lines} lines: {cell.source[:60]!r}"


@each_notebook
def test_says_what_it_imports(path):
    for i, cell in code_cells(read(path)):
        for node in ast.walk(ast.parse(as_python(cell.source))):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), f"cell {i} imports a star"


def names_of(source):
    """(the global names that a cell reads before it binds them, the global names that it binds)"""
    bound, read, inner = set(), set(), [compile(as_python(source), "cell", "exec")]
    for step in dis.get_instructions(inner[0]):
        if step.opname == "STORE_NAME":
            bound.add(step.argval)
        elif step.opname == "LOAD_NAME" and step.argval not in bound:
            read.add(step.argval)
    for code in inner:
        inner += [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        if code is not inner[0]:
            globals_read = {s.argval for s in dis.get_instructions(code) if s.opname == "LOAD_GLOBAL"}
            read |= globals_read - bound
    return read, bound


@pytest.mark.faults
@each_notebook
def test_a_name_that_a_later_cell_reads_is_bound_in_one_cell(path):
    """Else a cell that is run again later finds something else under that name, and ends in an error of tensors."""
    cells = [names_of(cell.source) for _, cell in code_cells(read(path))]
    for k, (names, _) in enumerate(cells):
        for name in names:
            binding = [j for j, (_, bound) in enumerate(cells) if name in bound]
            assert len(binding) < 2 or min(binding) >= k, f"{name}, read by code cell {k}, is bound by {binding}"


def calls(nb, name):
    """[(number of the cell, id)] of the calls predict("4.c", ...) or outcome("4.c", ...), in order."""
    return [(i, node.args[0].value) for i, cell in code_cells(nb)
            for node in ast.walk(ast.parse(as_python(cell.source)))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_prediction_is_asked_for_once_and_its_outcome_shown_once_in_a_later_cell(path):
    asked, shown = ({id: i for i, id in calls(read(path), name)} for name in ("predict", "outcome"))
    assert len(asked) == len(calls(read(path), "predict"))
    assert len(shown) == len(calls(read(path), "outcome"))
    assert asked.keys() == shown.keys()
    assert asked, "a lesson without a prediction"
    assert all(asked[id] < shown[id] for id in asked)
    assert {id.split(".")[0] for id in asked} == {str(int(path.stem[:2]))}


def test_no_prediction_is_asked_for_in_two_lessons():
    ids = [id for path in NOTEBOOKS for _, id in calls(read(path), "predict")]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_no_guess_is_left_in_a_variable_that_nobody_looks_at(path):
    for i, cell in code_cells(read(path)):
        assert '"?"' not in cell.source, f"cell {i} asks for a guess without predict: {cell.source[:60]!r}"


@pytest.mark.notebook
@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow(seconds=SECONDS.get(path.stem.split("_")[0], 100)))
    for path in NOTEBOOKS])
def test_runs_its_exercises_can_be_solved_and_its_widgets_move(path, capsys):
    """The one run of a lesson that all tests share: the browser's, the slides and the solutions take its copy."""
    report, ids, wrong = solutions.run(path)
    with capsys.disabled():
        print(f"\n{path.name}: {report.seconds:.1f} s", end="")
        print(f", and {report.widget_seconds:.1f} s for {report.moves} widget moves")
    assert not report.errors, "\n\n".join(report.errors)
    assert wrong == []
    assert len(ids) == len([id for id in solutions.EXERCISES if notebook_of(id) == path.stem.split("_")[0]])
