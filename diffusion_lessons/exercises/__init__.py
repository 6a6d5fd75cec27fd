"""Exercises: `check` what you wrote, ask for a `hint`, look at the `solution`."""

from IPython.display import display

from diffusion_lessons.exercises import lesson01, lesson02, lesson03, lesson04, lesson05, lesson06
from diffusion_lessons.exercises.judging import judge
from diffusion_lessons.exercises.record import note, read
from diffusion_lessons.exercises.showing import Box, Code, Report, source_of

LESSONS = (lesson01, lesson02, lesson03, lesson04, lesson05, lesson06)
EXERCISES = {e.id: e for lesson in LESSONS for e in lesson.EXERCISES}
_given = {}   # how many hints to each exercise have been given

__all__ = ["EXERCISES", "check", "hint", "progress", "solution"]


def check(id, attempt):
    """Try your function on fresh random input and say what it does. It never stops the notebook.

    id: such as "2.1";  attempt: your function
    """
    verdict = judge(find(id), attempt)
    if verdict.state != "not tried":
        note(id, verdict.state)
    display(Box(verdict.state, f"{id}: {verdict.words}"))


def hint(id):
    """One more hint each time you ask; after the last one they begin anew."""
    hints, k = find(id).hints, _given.get(id, 0)
    words = f"{id}, hint {k + 1} of {len(hints)}: {hints[k]}"
    if k + 1 == len(hints):
        words += f'\nThat was the last one; solution("{id}") shows the code.'
    _given[id] = (k + 1) % len(hints)
    display(Box("hint", words))


def solution(id):
    """The code: where the package has such a function, what you read here is what the course runs."""
    exercise = find(id)
    display(Code("\n\n".join(source_of(thing) for thing in exercise.shows or [exercise.reference]), exercise.remark))


def progress():
    """What you have solved so far, in all lessons; it is remembered on this machine."""
    known = read()
    display(Report({id: known.get(id, {"state": "not tried", "tries": 0}) for id in EXERCISES}))


def find(id):
    """The exercise of that number. Raises ValueError that lists the known ones."""
    if id not in EXERCISES:
        raise ValueError(f"there is no exercise {id!r}; known are {', '.join(EXERCISES)}")
    return EXERCISES[id]
