"""Exercises: `check`, `hint`, `solution`. Predictions: `predict`, `outcome`. Questions: `question`, `warm_up`.

What you have done: `progress`.
"""

from typing import Any

from IPython.display import display

from diffusion_lessons.exercises import lesson01, lesson02, lesson03, lesson04, lesson05, lesson06, lesson07
from diffusion_lessons.exercises.checking import Exercise, check_attempt
from diffusion_lessons.exercises.predictions import outcome, predict
from diffusion_lessons.exercises.questions import question, verdicts, warm_up
from diffusion_lessons.exercises.record import note, read, read_predictions
from diffusion_lessons.exercises.showing import Box, Code, Report, source_of

LESSONS = (lesson01, lesson02, lesson03, lesson04, lesson05, lesson06, lesson07)
EXERCISES: dict[str, Exercise] = {e.id: e for lesson in LESSONS for e in lesson.EXERCISES}
_given: dict[str, int] = {}   # how many hints to each exercise have been given

__all__ = ["EXERCISES", "check", "hint", "outcome", "predict", "progress", "question", "solution",
           "warm_up"]


def check(id: str, attempt: Any) -> None:
    """Try your function on fresh random input and say what it does. It never stops the notebook.

    id: such as "2.1";  attempt: your function
    """
    verdict = check_attempt(find(id), attempt)
    if verdict.state != "not tried":
        note(id, verdict.state)
    display(Box(verdict.state, f"{id}: {verdict.message}"))


def hint(id: str) -> None:
    """Show the next hint; after the last one they start again."""
    hints, k = find(id).hints, _given.get(id, 0)
    words = f"{id}, hint {k + 1} of {len(hints)}: {hints[k]}"
    if k + 1 == len(hints):
        words += f'\nThat was the last one; solution("{id}") shows the code.'
    _given[id] = (k + 1) % len(hints)
    display(Box("hint", words))


def solution(id: str) -> None:
    """Show the code: the package's own function where there is one."""
    exercise = find(id)
    display(Code("\n\n".join(source_of(thing) for thing in exercise.shows or [exercise.reference]), exercise.remark))


def progress() -> None:
    """Show your exercises, predictions and questions, as remembered on this machine and nowhere else."""
    known = read()
    exercises = {id: known.get(id, {"state": "not tried", "tries": 0}) for id in EXERCISES}
    display(Report(exercises, read_predictions(), verdicts()))


def notebook_of(id: str) -> str:
    """The number of the notebook that an exercise is in: "02" for "2.1"; lesson 04 has a second notebook, "04b"."""
    return "04b" if id in ("4.4", "4.5") else f"0{id.split('.')[0]}"


def find(id: str) -> Exercise:
    """The exercise with that number. Raises ValueError that lists the known ones."""
    if id not in EXERCISES:
        raise ValueError(f"there is no exercise {id!r}; the exercises are {', '.join(EXERCISES)}")
    return EXERCISES[id]
