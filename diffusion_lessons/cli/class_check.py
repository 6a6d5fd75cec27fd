"""diffusion-lessons class-check: can this lesson be given on this machine today? Changes and downloads nothing."""

from __future__ import annotations

import argparse
import ast
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from diffusion_lessons.cli import doctor

SUMMARY = "can I give lesson N here today? says 'ready', or what to do"
DESCRIPTION = """Can lesson N be given on this machine today? Looks at the notebook, the packages, the weights and the
data that it uses and the slides, and estimates how long it runs. Says 'ready' or what to do; changes and downloads
nothing."""
EXAMPLES = """examples:
  {prog} class-check 02
  {prog} class-check 04b --notebooks /media/stick/notebooks
"""
LOADERS = {"load_digits": "MNIST", "load_cifar": "CIFAR-10"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lesson, and where its notebook is."""
    parser.add_argument("lesson", metavar="N", help="the lesson's number, such as 02 or 04b; capstone; my")
    parser.add_argument("--notebooks", type=Path, help="the folder of the notebooks (default: the course's own)")


def run(options: argparse.Namespace) -> int:
    """Print the findings, then 'ready' or what to do.  -> 0 if ready, else 1

    Raises ValueError when there is no such lesson, or its notebook cannot be read.
    """
    path = find(options.lesson, options.notebooks)
    print(f"Lesson {options.lesson}: {path}")
    used, data = needs(cells(path))
    advice = check_packages() + check_weights(used) + check_data(data)
    check_slides(path)
    if not advice:    # the estimate runs a network
        print(f"  time      {estimate(path.stem.split('_')[0])}")
    for line in advice:
        print(f"What to do: {line}")
    print("not ready" if advice else "ready")
    return 1 if advice else 0


def find(lesson: str, folder: Path | None) -> Path:
    """The notebook of a lesson: "2", "02" and "04b" are numbers.  Raises ValueError that says where it looked."""
    checkout = Path(__file__).resolve().parents[2] / "notebooks"
    folder = folder or (checkout if checkout.is_dir() else Path("notebooks"))
    others = [path for name in ("capstone", "my_own_pictures") for path in folder.glob(f"{name}.ipynb")]
    there = {path.stem.split("_")[0]: path for path in (*sorted(folder.glob("[0-9]*_*.ipynb")), *others)}
    if lesson[:1].isdigit():
        lesson = lesson.zfill(3 if lesson[-1:].isalpha() else 2)
    if lesson in there:
        return there[lesson]
    if not there:
        raise ValueError(f"there are no notebooks in {folder.absolute()}: name their folder with --notebooks")
    raise ValueError(f"there is no lesson {lesson!r} in {folder}: choose one of {', '.join(there)}")


def cells(path: Path) -> list[str]:
    """The source of a notebook's code cells.  Raises ValueError when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook, or is damaged ({error}): get it again") from error


def needs(sources: list[str]) -> tuple[list[str], list[str]]:
    """What a notebook uses, read off its code.  -> (names of weights, names of data sets)

    Weights: each string that is the name of some, f-strings such as f"gan_{name}" for all that fit, and what
    `load_model("...")` asks for; `generate` uses the critters'.
    """
    from diffusion_lessons import weights

    known, used, data = {*weights.available(), *doctor.SHIPPED}, set(), set()
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:    # a magic, or a learner's half-written line
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= {node.value} & known
            elif isinstance(node, ast.JoinedStr):
                used |= {name for name in known if fnmatch(name, pattern(node))}
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                data |= {LOADERS[called]} if called in LOADERS else set()
                used |= {"critters"} if called == "generate" else set()
                used |= {plain(arg) for arg in node.args[:1] if called == "load_model"} - {None}
    return sorted(used), sorted(data)


def pattern(node: ast.JoinedStr) -> str:
    """f"gan_{name}" -> "gan_*"; "" for one that begins with a value, which could be anything."""
    parts = [part.value if isinstance(part, ast.Constant) else "*" for part in node.values]
    return "" if parts[:1] == ["*"] else "".join(map(str, parts))


def plain(node: ast.AST) -> Any:
    """The string that stands in the code, None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def check_packages() -> list[str]:
    """Print whether the packages are there, and something to open notebooks with.  -> what to do"""
    missing = [name for name in (*doctor.NEEDED, "ipykernel") if doctor.version(name) is None]
    desk = next((name for name in ("jupyterlab", "notebook", "google-colab") if doctor.version(name)), None)
    print(f"  packages  {'missing: ' + ', '.join(missing) if missing else 'all there'}; "
          f"notebooks open in {desk or 'nothing installed here'}")
    wanted = missing + ([] if desk else ["something to open notebooks with"])
    return [f"{', '.join(wanted)} missing: run pip install -e '.[lab]' in the course's folder"] if wanted else []


def check_weights(names: list[str]) -> list[str]:
    """Print whether these weights are there and intact.  -> what to do about the others"""
    from diffusion_lessons import weights

    advice = []
    for name in names:
        try:
            weights.load(name)
        except (ValueError, OSError) as error:
            advice.append(doctor.about_weights(name, error))
    print(f"  weights   {len(names) - len(advice)} of {len(names)} intact" if names else "  weights   none needed")
    return advice


def check_data(names: list[str]) -> list[str]:
    """Print whether these data sets are there: a missing one is no fault, a damaged one is.  -> what to do"""
    from diffusion_lessons.datasets.files import data_folder

    advice, folder = [], data_folder()
    for name in names:
        try:
            found = doctor.data_set(name, folder)
        except (ValueError, PermissionError) as error:
            found = "cannot be read"
            advice.append(str(error))
        print(f"  data      {name} {' '.join(found.split())}")
    return advice


def check_slides(notebook: Path) -> None:
    """Print whether the lesson's deck is built. A lesson can be given without one, so it is only said."""
    course = notebook.resolve().parent.parent
    deck = course / "build" / "slides" / f"{notebook.stem}.html"
    if not (course / "docs" / "notes" / f"{notebook.stem.split('_')[0]}.md").exists():
        found = "none for this notebook"
    elif not deck.exists():
        found = "not built; to show some, run make slides (it needs npm)"
    elif deck.stat().st_mtime < notebook.stat().st_mtime:
        found = f"{deck} is older than the notebook; make slides builds it again"
    else:
        found = str(deck)
    print(f"  slides    {found}")


def estimate(lesson: str) -> str:
    """How long Run All takes here, in words."""
    from diffusion_lessons.classroom import minutes

    try:
        return minutes.how_long(lesson)
    except KeyError:
        return "not on file: make times measures it"
