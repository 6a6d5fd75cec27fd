"""The lecturers' copies: every notebook with its exercises filled in, run from top to bottom.

    python tools/solutions.py                   all of them (some minutes), into build/solutions
    python tools/solutions.py --dry             filled in, but not run

The answers are the `reference` functions of the exercises, those that the tests judge. A notebook is run as it is,
then its answers in the same kernel; both copies are kept, the one without answers in build/notebooks. What
`make test-notebooks` has just run is not run again. It fails when a cell does, or when a check does not say that the
answer is right. The copies are not kept in git.
"""

import argparse
import ast
import copy
import inspect
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

import nbformat

from diffusion_lessons.exercises import EXERCISES, record
from diffusion_lessons.grading.notebook import as_python, checks

FOLDER = Path(__file__).resolve().parent.parent
BUILD = FOLDER / "build"
sys.path.insert(0, str(FOLDER / "tests"))
from notebook_runner import is_fresh, run_notebook, write  # noqa: E402


def fill_in(notebook):
    """Put the references in place of the stubs. Returns the numbers of the exercises that were filled in."""
    found = []
    for cell in notebook.cells:
        text = as_python(cell.source) if cell.cell_type == "code" else ""
        for id, _ in checks(ast.parse(text), text.encode().splitlines(keepends=True)):
            cell.source = filled(cell.source, EXERCISES[id])
            found.append(id)
    return found


def filled(source, exercise):
    """The cell with the reference in place of the stub. Raises ValueError when there is no stub of that name."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == exercise.name:
            lines = source.splitlines()
            answer = inspect.getsource(exercise.reference).rstrip().splitlines()
            return "\n".join(lines[:node.lineno - 1] + answer + lines[node.end_lineno:])
    raise ValueError(f"the cell that checks {exercise.id} does not define {exercise.name}:\n{source}")


def run(path, out=BUILD):
    """Run a notebook as it is, then its answers, then move its widgets.

    Writes out/notebooks and out/solutions, the latter with the answers in place of the stubs.
    -> (the runner's Report, the numbers of the exercises that were filled in, those whose check did not say "right")
    """
    stubs, solved = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    ids = fill_in(solved)
    places = [k for k, (a, b) in enumerate(zip(stubs.cells, solved.cells)) if a.source != b.source]
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        os.environ["DIFFUSION_LESSONS_PROGRESS"] = str(Path(folder) / "progress.json")     # nobody's own record
        report = run_notebook(path, out=out / "notebooks", afterwards=[solved.cells[k].source for k in places])
        wrong = [id for id in ids if record.read().get(id, {}).get("state") != "right"]
    if not report.errors:
        executed = copy.deepcopy(report.notebook)
        for k, answer in zip(places, report.afterwards, strict=True):
            executed.cells[k].source, executed.cells[k].outputs = answer.source, answer.outputs
        write(executed, out / "solutions" / path.name)
    return report, ids, wrong


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--out", type=Path, default=BUILD, help="default: build")
    parser.add_argument("--dry", action="store_true", help="do not run them")
    args = parser.parse_args(arguments)
    failed = False
    for path in args.notebooks or sorted((FOLDER / "notebooks").glob("*.ipynb")):
        print(f"{path.name} ...", end=" ", flush=True)
        target = args.out / "solutions" / path.name
        if args.dry:
            notebook = nbformat.read(path, as_version=4)
            print(f"{len(fill_in(notebook))} exercises filled in: {target}")
            write(notebook, target)
        elif is_fresh(target, path):
            print(f"has been run already: {target}")
        else:
            report, ids, wrong = run(path, args.out)
            print(f"{len(ids) - len(wrong)} of {len(ids)} checks say \"right\"", *wrong)
            print(*report.errors, sep="\n\n", end="\n" if report.errors else "")
            failed |= bool(report.errors or wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
