"""Grade a folder of notebooks: each learner's functions are judged as `check` judges them, but out of reach.

This process holds the inputs, the answers and the judging. What learners wrote runs in a child, see `sandbox`.
"""

import builtins
import csv
import inspect
import re
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from diffusion_lessons import runtime
from diffusion_lessons.classroom.exercises import EXERCISES, judging
from diffusion_lessons.classroom.exercises.judging import Raised, Verdict, describe, judge
from diffusion_lessons.classroom.exercises.limits import TooLong
from diffusion_lessons.classroom.grading import notebook
from diffusion_lessons.classroom.grading.sandbox import Lost, Sandbox


class Row(NamedTuple):
    """One line of the CSV. state: "right", "not yet", "not tried", "missing" or "not read"."""

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
        for k, value in reply["changed"]:    # written into there, so written into here
            arguments[k].data = value.to(arguments[k].dtype)
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


def grade_attempt(exercise, attempt, sandbox):
    """The Verdict on one attempt of a notebook, whatever it does."""
    if attempt.idle:
        return judge(exercise, ...)
    lent = {f"{function.__module__}.{function.__name__}": function for function in exercise.given}
    code = {"cells": attempt.cells, "attempt": attempt.expression, "lent": lent}
    if exercise.use:    # what it is used for happens there, too: only numbers come back
        name, line, text = attempt.expression
        code["cells"] = [*attempt.cells, ("use", f"import torch\n{inspect.getsource(exercise.use)}", [0, 1])]
        code["attempt"] = name, line, f"lambda *case: {exercise.use.__name__}({text}, *case)"
        exercise = exercise.plain()
    try:
        found = answer(sandbox.load(code, judging.SECONDS))
        if not found["callable"]:
            return judge(exercise, type(str(found["type"]), (), {})())
        return judge(exercise, Remote(sandbox, found["parameters"]))
    except Raised as error:
        return describe(error, None)
    except (TooLong, Lost) as error:
        return Verdict("not yet", str(error) or f"its cells were not through after {judging.SECONDS:g} seconds.")
    except Exception as error:    # one notebook must not end the grading of the others
        return Verdict("not yet", f"it could not be judged ({type(error).__name__}).")


def grade_notebook(path, who, name, sandbox):
    """The rows of one notebook: one for each exercise of the lessons that it belongs to."""
    try:
        attempts, bad = notebook.read(path)
    except (ValueError, OSError) as error:
        return [Row(who, name, "", "not read", str(error))]
    lessons = {id.split(".")[0] for id in attempts if id in EXERCISES} | {str(int(n)) for n in re.findall(
        r"^\d+", path.stem)}
    wanted = [id for id in EXERCISES if id.split(".")[0] in lessons]
    if not wanted:
        return [Row(who, name, "", "missing", "no check of an exercise was found in it.")]
    rows, note = [], f" (No Python: {', '.join(bad)}.)" if bad else ""
    for id in wanted:
        if id not in attempts:
            rows.append(Row(who, name, id, "missing", f'check("{id}", ...) was not found.{note}'))
            continue
        verdict = grade_attempt(EXERCISES[id], attempts[id], sandbox)
        isolated = "" if attempts[id].idle else "yes" if sandbox.isolated else "not isolated"
        rows.append(Row(who, name, id, verdict.state, " ".join(verdict.words.split()) + note, isolated))
    return rows


def grade_folder(folder, progress=False):
    """The rows of all notebooks in a folder and below. Raises ValueError when there are none.

    Whoever has a folder of their own in there is called after it; other notebooks stand for themselves.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    paths = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if not paths:
        raise ValueError(f"there is no notebook (.ipynb) in {folder}")
    rows = []
    for path in tqdm(paths, desc="grading", unit="notebook", disable=not progress):
        place = path.relative_to(folder)
        who = place.parts[0] if len(place.parts) > 1 else place.stem
        with Sandbox(hidden=[folder]) as sandbox:
            rows += grade_notebook(path, who, str(place), sandbox)
    return rows


def write_csv(rows, out):
    """All rows as a table, for a spreadsheet."""
    with runtime.atomic_write(out) as scratch, open(scratch, "w", newline="", encoding="utf-8", errors="replace") as f:
        csv.writer(f).writerows([Row._fields, *rows])


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
