"""The lecturers' copies: every notebook with its exercises filled in, run from top to bottom.

    python tools/solutions.py                   all of them (some minutes), into build/solutions
    python tools/solutions.py --dry             filled in, but not run

The answers are the `reference` functions of the exercises, those that the tests judge. It fails when a cell does,
or when a check does not say that the answer is right. The copies are not kept in git.
"""

import argparse
import ast
import inspect
import os
import sys
from pathlib import Path

import nbformat

from diffusion_lessons.classroom.exercises import EXERCISES, record
from diffusion_lessons.classroom.grading.notebook import as_python, checks

FOLDER = Path(__file__).resolve().parent.parent


def fill_in(notebook):
    """Put the references in place of the stubs. Returns the numbers of the exercises that were filled in."""
    found = []
    for cell in notebook.cells:
        text = as_python(cell.source) if cell.cell_type == "code" else ""
        for id, _ in checks(ast.parse(text), text):
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--out", type=Path, default=FOLDER / "build" / "solutions")
    parser.add_argument("--dry", action="store_true", help="do not run them")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    written, expected = [], []
    for path in args.notebooks or sorted((FOLDER / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        expected += fill_in(notebook)
        written.append(args.out / path.name)
        nbformat.write(notebook, written[-1])
    print(f"{len(expected)} exercises filled in, in {len(written)} notebooks: {args.out}")
    if args.dry:
        return 0
    sys.path.insert(0, str(FOLDER / "tests"))
    import notebook_runner

    os.environ["DIFFUSION_LESSONS_PROGRESS"] = str(args.out / "progress.json")     # nobody's own record
    (args.out / "progress.json").unlink(missing_ok=True)
    failed = notebook_runner.main([*map(str, written), "--out", str(args.out), "--no-widgets"])
    wrong = [id for id in expected if record.read().get(id, {}).get("state") != "right"]
    print(f"checks that say \"right\": {len(expected) - len(wrong)} of {len(expected)}", *wrong)
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
