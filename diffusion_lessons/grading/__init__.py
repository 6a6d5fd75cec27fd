"""Grade a folder of notebooks: each learner's functions are judged as `check` judges them, but out of reach.

This process holds the inputs, the answers and the judging. What learners wrote runs in a child, see `sandbox`.
"""

import builtins
import csv
import inspect
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from diffusion_lessons.exercises import EXERCISES, judging
from diffusion_lessons.exercises.judging import Raised, Verdict, describe, judge
from diffusion_lessons.exercises.limits import TooLong, within
from diffusion_lessons.grading import notebook, wire
from diffusion_lessons.grading.sandbox import Lost, Sandbox

READING = 20.0      # seconds to read a notebook, before anything in it is run
GRADING = 180.0     # seconds that the code of a notebook may run; honest code takes one or two


class Row(NamedTuple):
    """One line of the CSV. state: "right", "not yet", "not tried", "missing", "not read" or "not judged"."""

    who: str
    notebook: str
    exercise: str
    state: str
    words: str
    isolated: str = ""    # "yes" or "not isolated"; empty where nothing was run


class Remote:
    """A learner's function that lives in the sandbox; it is called like any other."""

    def __init__(self, sandbox, parameters):
        self.sandbox = sandbox
        if parameters is not None:
            self.__signature__ = inspect.Signature([
                inspect.Parameter(name, kind, default=inspect.Parameter.empty if default is None else Shown(default))
                for name, kind, default in parameters])

    def __call__(self, *arguments):
        # a little less than `judge` allows, so that it is the child that ends, and not only the waiting for it
        reply = answer(self.sandbox.call(list(arguments), 0.9 * judging.SECONDS))
        inputs = wire.tensors(arguments)
        for k, value in reply["changed"]:    # written into there, so written into here
            inputs[k].data = value.to(inputs[k].dtype)
        return reply["result"]


class Shown(str):
    """The text of a default value."""

    __repr__ = str.__str__


def answer(reply):
    """The reply, if it is none about an exception; else that exception."""
    if "raised" not in reply:
        return reply
    kind = getattr(builtins, reply["base"], None)
    kind = kind if isinstance(kind, type) and issubclass(kind, Exception) else Exception
    line = reply["line"] and (int(reply["line"][0]), str(reply["line"][1]))
    raise Raised(kind, str(reply["raised"]), str(reply["message"]), line)


def grade_exercise(exercise, attempts, sandbox, modules):
    """(Verdict, whether something was run): on the last attempt that was begun, so not on a fresh copy of the cell."""
    verdicts = []
    for attempt in reversed(attempts):
        verdicts.append((grade_attempt(exercise, attempt, sandbox, modules), not attempt.idle))
        if verdicts[-1][0].state != "not tried" and verdicts[-1][0].words != judging.AS_IT_WAS:
            return verdicts[-1]
        if sandbox.spent > GRADING:
            break
    return verdicts[0]


def grade_attempt(exercise, attempt, sandbox, modules):
    """The Verdict on one attempt of a notebook, whatever it does. modules: {name: text}, the learner's own"""
    if attempt.idle:
        return judge(exercise, ...)
    lent = {f"{function.__module__}.{function.__name__}": function for function in exercise.given}
    code = {"cells": attempt.cells, "attempt": attempt.expression, "lent": lent, "modules": modules}
    trains = bool(exercise.use)
    if trains:    # what it is used for happens there, too: only numbers come back
        name, line, text = attempt.expression
        code["cells"] = [*attempt.cells, ("use", f"import torch\n{inspect.getsource(exercise.use)}", [0, 1])]
        code["attempt"] = name, line, f"lambda *case: {exercise.use.__name__}({text}, *case)"
        exercise = exercise.plain()
    try:
        found = answer(sandbox.load(code, judging.SECONDS, trains))
        if found["type"] in ("ellipsis", "NoneType"):
            return judge(exercise, ...)
        if not found["callable"]:
            return judge(exercise, type(found["type"], (), {})())
        return judge(exercise, Remote(sandbox, found["parameters"]))
    except Raised as error:
        return describe(error, None)
    except (TooLong, Lost) as error:
        return Verdict("not yet", str(error) or f"its cells were not through after {judging.SECONDS:g} seconds.")
    except Exception as error:    # one exercise must not end the grading of the others
        return Verdict("not judged", f"it could not be judged ({type(error).__name__}: {error}).")


def grade_notebook(path, who, name, sandbox):
    """Yield the rows of one notebook: one for each exercise of the lessons that it belongs to."""
    try:
        found = within(READING, notebook.read, path)
    except TooLong:
        yield Row(who, name, "", "not read", f"it could not be read within {READING:g} seconds.")
        return
    except Exception as error:    # nor must one notebook
        words = str(error) if isinstance(error, (ValueError, OSError)) else f"it could not be read ({error!r})"
        yield Row(who, name, "", "not read", words)
        return
    wanted = exercises_of(found, path)
    if not wanted:
        yield Row(who, name, "", "missing", "no check of an exercise was found in it.")
    broken = "; ".join(f"{cell}: {why}" for cell, why in list(found.broken.items())[:3])
    note = f" (Not Python: {broken}.)" if broken else ""
    for id in wanted:
        if id not in found.attempts:
            why = found.unused.get(id) or f"was not found.{note}"
            yield Row(who, name, id, "missing", f'check("{id}", ...) {why}')
        elif sandbox.spent > GRADING:
            yield Row(who, name, id, "not judged", f"the exercises before it took more than {GRADING:g} seconds.")
        else:
            verdict, was_run = grade_exercise(EXERCISES[id], found.attempts[id], sandbox, found.modules)
            words = " ".join(verdict.words.split()) + (note if "is not defined" in verdict.words else "")
            yield Row(who, name, id, verdict.state, words,
                      "" if not was_run else "yes" if sandbox.isolated else "not isolated")


def exercises_of(found, path):
    """The exercises of all lessons that a notebook has checks of; if there are none, of the one in its file's name."""
    lessons = {id.split(".")[0] for id in [*found.attempts, *found.unused] if id in EXERCISES}
    lessons = lessons or set(re.findall(r"^0(\d)_", path.name))
    return [id for id in EXERCISES if id.split(".")[0] in lessons]


def notebooks_in(folder):
    """The notebooks in a folder and below, in order. Raises ValueError when there are none.

    What begins with a dot is no learner's (checkpoints, a Mac's ._ files), nor is __MACOSX.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found, closed = [], []
    for place, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [Path(place, name) for name in files if name.lower().endswith(".ipynb") and name[0] != "."]
    found += [Path(error.filename) for error in closed]    # to be told of in a row of their own
    if not found:
        raise ValueError(f"there is no notebook (.ipynb) in {folder}")
    return sorted(found)


def grade_folder(folder, progress=False):
    """An iterator over the rows of all notebooks in a folder and below. Raises ValueError when there are none.

    A learner is called after the folder that the notebook lies in, such as "ann" or "section1/ann"; a notebook that
    lies in `folder` itself counts for a learner of its own name.
    """
    folder = Path(folder)
    return (row for path in tqdm(notebooks_in(folder), desc="grading", unit="notebook", disable=not progress)
            for row in rows_of(path, folder))


def rows_of(path, folder):
    """Yield the rows of one notebook of a folder, which gets a sandbox of its own."""
    place = path.relative_to(folder)
    who = place.parent.as_posix() if len(place.parts) > 1 else place.stem
    with Sandbox(hidden=[folder]) as sandbox:
        yield from grade_notebook(path, readable(who), readable(place.as_posix()), sandbox)


def readable(name):
    """A file's name as text: what a Mac writes in two characters in one, and what is no text at all as \\udcff."""
    return unicodedata.normalize("NFC", name).encode(errors="backslashreplace").decode()


def write_csv(rows, out):
    """All rows as a table for a spreadsheet, each written as it comes. Returns them as a list.

    The file is opened before the first row is asked for: what is wrong with it shows at once. Raises OSError.
    """
    out, kept = Path(out), []
    out.parent.mkdir(parents=True, exist_ok=True)
    # Excel takes a file for UTF-8 when it begins with the mark that utf-8-sig writes.
    with open(out, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(Row._fields)
        for row in rows:
            kept.append(row)
            table.writerow([harmless(cell) for cell in row])
            file.flush()
    return kept


def harmless(cell):
    """A cell's text on one line, which no spreadsheet takes for a formula, nor what follows a separator in it."""
    return re.sub(r"(^|;)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])", r"\1'", " ".join(cell.split()))


def summary(rows):
    """A line for each learner: how many of the exercises that were handed out are right."""
    lines, width = [], max(len(row.who) for row in rows)
    for who in dict.fromkeys(row.who for row in rows):
        mine = [row for row in rows if row.who == who]
        right = {row.exercise for row in mine if row.state == "right"}
        total = {row.exercise for row in mine if row.exercise}
        trouble = sum(not row.exercise for row in mine)
        lines.append(f"{who:<{width}}  {len(right):>3} of {len(total)}"
                     + (f"   ({trouble} notebook{'s' * (trouble > 1)} without exercises)" if trouble else ""))
    return "\n".join(lines)
