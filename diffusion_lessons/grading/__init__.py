"""Grade a folder of notebooks: each learner's functions are checked as `check` does it, but out of their reach.

This process holds the inputs, the answers and the checks. What learners wrote runs in a worker process, see `sandbox`.
"""

import builtins
import csv
import inspect
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from diffusion_lessons.exercises import EXERCISES, checking, notebook_of
from diffusion_lessons.exercises.checking import Exercise, Raised, Verdict, check_attempt, describe
from diffusion_lessons.grading import guard, notebook, reading, wire
from diffusion_lessons.grading.sandbox import Sandbox
from diffusion_lessons.limits import TooLong

GRADING = 180.0     # seconds for all exercises of one notebook; honest ones take two to four
MESSAGE = 2_000     # characters of a message
# What a spreadsheet may take for the beginning of a formula, in wide and in small letters too.
FORMULA = r"(^|;)(?=[\s\"']*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212])"

Line = TypeVar("Line", bound=Sequence[str])


class Row(NamedTuple):
    """One line of the CSV. state: "right", "not yet", "not tried", "missing", "not read" or "not checked"."""

    who: str
    notebook: str
    exercise: str
    state: str
    message: str
    isolated: str = ""    # "yes" or "not isolated"; empty where nothing was run


class Remote:
    """A learner's function in the sandbox; it is called like any other."""

    def __init__(self, sandbox: Sandbox, parameters: list | None) -> None:
        self.sandbox = sandbox
        if parameters is not None:
            self.__signature__ = inspect.Signature([
                inspect.Parameter(name, kind, default=inspect.Parameter.empty if default is None else Shown(default))
                for name, kind, default in parameters])

    def __call__(self, *arguments: Any) -> Any:
        # a little less than `check_attempt` allows, so that the worker ends and not only the wait for it
        reply = answer(self.sandbox.call(list(arguments), 0.9 * checking.SECONDS))
        inputs = wire.tensors(arguments)
        for k, value in reply["changed"]:    # changed there, so changed here
            inputs[k].data = value.to(inputs[k].dtype)
        return reply["result"]


class Shown(str):
    """The text of a default value."""

    __repr__ = str.__str__


def answer(reply: dict[str, Any]) -> dict[str, Any]:
    """The worker's reply. Raises Raised when it reports an exception."""
    if "raised" not in reply:
        return reply
    kind = getattr(builtins, reply["base"], None)
    kind = kind if isinstance(kind, type) and issubclass(kind, Exception) else Exception
    line = reply["line"] and (int(reply["line"][0]), str(reply["line"][1]))
    raise Raised(kind, str(reply["raised"]), str(reply["message"]), line)


def grade_exercise(exercise: Exercise, attempts: Sequence[notebook.Attempt], sandbox: Sandbox,
                   modules: dict[str, str], end: float) -> tuple[Verdict, bool]:
    """(Verdict, whether something was run), on the last attempt that is more than the untouched stub.

    end: when the notebook's time is over, by time.monotonic
    """
    verdicts = []
    for attempt in reversed(attempts):
        verdicts.append((grade_attempt(exercise, attempt, sandbox, modules), not attempt.idle))
        if verdicts[-1][0].state != "not tried" and verdicts[-1][0].message != checking.STILL_BROKEN:
            return verdicts[-1]
        if time.monotonic() > end:
            break
    return verdicts[0]


def grade_attempt(exercise: Exercise, attempt: notebook.Attempt, sandbox: Sandbox, modules: dict[str, str]) -> Verdict:
    """The Verdict on one attempt of a notebook, whatever it does.

    modules: {name: text}, the learner's own
    """
    if attempt.idle:
        return check_attempt(exercise, ...)
    exposed = {f"{function.__module__}.{function.__name__}": function for function in exercise.may_call}
    code = {"cells": attempt.cells, "attempt": attempt.expression, "exposed": exposed, "modules": modules}
    trains = bool(exercise.use)
    if exercise.use is not None:    # it is used over there, too: only numbers come back
        name, line, text = attempt.expression
        in_use = f"lambda f: (lambda *case: {exercise.use.__name__}(f, *case)) if callable(f) else f"
        code["cells"] = [*attempt.cells, ("use", f"import torch\n{inspect.getsource(exercise.use)}", [0, 1])]
        code["attempt"] = name, line, f"({in_use})({text})"
        exercise = exercise.plain()
    try:
        found = answer(sandbox.load(code, checking.SECONDS, trains))
        if found["type"] in ("ellipsis", "NoneType"):
            return check_attempt(exercise, ...)
        if not found["callable"]:
            return check_attempt(exercise, type(found["type"], (), {})())
        return check_attempt(exercise, Remote(sandbox, found["parameters"]))
    except Raised as error:
        return describe(error, None)
    except TooLong:
        return Verdict("not yet", f"its cells took more than {checking.SECONDS:g} seconds.")
    except Exception as error:    # one exercise must not end the grading of the others
        return Verdict("not checked", f"it could not be checked ({type(error).__name__}: {error}).")


def grade_notebook(path: Path, who: str, name: str, sandbox: Sandbox) -> Iterator[Row]:
    """Yield the rows of one notebook: one for each exercise that belongs in it."""
    try:
        found = reading.read(path)
    except TooLong:
        yield Row(who, name, "", "not read", f"it could not be read within {reading.SECONDS:g} seconds.")
        return
    except (ValueError, OSError) as error:
        yield Row(who, name, "", "not read", str(error))
        return
    end = time.monotonic() + GRADING
    wanted = exercises_of(found, path)
    if not wanted:
        yield Row(who, name, "", "missing", "no check of an exercise was found in it.")
    broken = "; ".join(f"{cell}: {why}" for cell, why in list(found.broken.items())[:3])
    note = f" (Not Python: {broken}.)" if broken else ""
    for id in wanted:
        if id not in found.attempts:
            why = found.unused.get(id) or f"was not found.{note}"
            yield Row(who, name, id, "missing", f'check("{id}", ...) {why}')
        elif time.monotonic() > end:
            yield Row(who, name, id, "not checked", f"the exercises before it took more than {GRADING:g} seconds.")
        else:
            verdict, was_run = grade_exercise(EXERCISES[id], found.attempts[id], sandbox, found.modules, end)
            message = " ".join(verdict.message[:MESSAGE].split())
            yield Row(who, name, id, verdict.state, message + (note if "is not defined" in message else ""),
                      "" if not was_run else "yes" if sandbox.isolated else "not isolated")


def exercises_of(found: notebook.Notebook, path: Path) -> list[str]:
    """The exercises of the course's notebooks whose checks this one has; if none, of the one it is named after."""
    notebooks = {notebook_of(id) for id in [*found.attempts, *found.unused] if id in EXERCISES}
    notebooks = notebooks or set(re.findall(r"^(0\d[a-z]?)_", path.name))
    return [id for id in EXERCISES if notebook_of(id) in notebooks]


def notebooks_in(folder: Path) -> list[Path]:
    """The notebooks in a folder and below, in order. Raises ValueError when there are none.

    Names that begin with a dot (checkpoints, a Mac's ._ files) and __MACOSX are left out.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found: list[Path] = []
    closed: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [Path(place, name) for name in files if name.lower().endswith(".ipynb") and name[0] != "."]
    found += [Path(error.filename) for error in closed]    # each gets a row that says so
    if not found:
        raise ValueError(f"there is no notebook (.ipynb) in {folder}")
    return sorted(found)


def grade_folder(folder: str | Path, progress: bool = False) -> Iterator[Row]:
    """An iterator over the rows of all notebooks in a folder and below. Raises ValueError when there are none.

    A learner is named after the folder of the notebook, such as "ann" or "section1/ann"; for a notebook in `folder`
    itself, after the notebook.
    """
    folder = Path(folder)
    guard.sweep()
    return (row for path in tqdm(notebooks_in(folder), desc="grading", unit="notebook", disable=not progress)
            for row in rows_of(path, folder))


def named(path: Path, folder: Path) -> tuple[str, str]:
    """(who, notebook) of a notebook in a folder, as they stand in the tables."""
    place = path.relative_to(folder)
    return readable(place.parent.as_posix() if len(place.parts) > 1 else place.stem), readable(place.as_posix())


def rows_of(path: Path, folder: Path) -> Iterator[Row]:
    """Yield the rows of one notebook in a folder, run in a sandbox of its own. Whatever goes wrong is a row."""
    who, name = named(path, folder)
    try:
        with Sandbox(hidden=[folder]) as sandbox:
            yield from grade_notebook(path, who, name, sandbox)
    except Exception as error:    # one notebook must not end the grading of the others
        yield Row(who, name, "", "not checked", f"it could not be graded ({type(error).__name__}: {error}).")


def readable(name: str) -> str:
    """A file's name on one line, in composed Unicode characters (a Mac decomposes them); see `visible`."""
    return visible(unicodedata.normalize("NFC", name))


def visible(text: str) -> str:
    """A text on one line, in which what a terminal takes for a command, or does not show, is written as an escape.

    Such characters move the cursor, reverse the direction of writing, or have no width. The two joiners stay, because
    some scripts need them.
    """
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else c.encode("unicode_escape").decode()
                   for c in " ".join(text.split()))


def write_csv(rows: Iterable[Row], out: str | Path) -> list[Row]:
    """Write the rows as a table for a spreadsheet, each as it comes, and return them as a list.

    The file is opened before the first row is made, so that a bad path shows at once. Raises OSError, and ValueError
    when there is something else than a file.
    """
    return write_table(Row._fields, rows, out)


def write_table(header: Sequence[str], rows: Iterable[Line], out: str | Path) -> list[Line]:
    """As `write_csv`, for rows of any columns."""
    out, kept = Path(out), []
    if out.exists() and not out.is_file():    # to open a pipe waits for its reader
        raise ValueError(f"{out} is not a file: name another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Excel takes a file for UTF-8 when it begins with the mark that utf-8-sig writes.
    with open(out, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            kept.append(row)
            table.writerow([harmless(cell) for cell in row])
            file.flush()
    return kept


def harmless(cell: str) -> str:
    """A cell's text on one line, so that no spreadsheet takes it, or a part behind a separator, for a formula."""
    return re.sub(FORMULA, r"\1'", visible(cell))


def summary(rows: Sequence[Row]) -> str:
    """One line for each learner: how many of the exercises of their notebooks are right."""
    rows = [row._replace(who=visible(row.who)) for row in rows]
    lines, width = [], max(len(row.who) for row in rows)
    for who in dict.fromkeys(row.who for row in rows):
        mine = [row for row in rows if row.who == who]
        right = {row.exercise for row in mine if row.state == "right"}
        total = {row.exercise for row in mine if row.exercise}
        trouble = sum(not row.exercise for row in mine)
        lines.append(f"{who:<{width}}  {len(right):>3} of {len(total)}"
                     + (f"   ({trouble} notebook{'s' * (trouble > 1)} without exercises)" if trouble else ""))
    return "\n".join(lines)
