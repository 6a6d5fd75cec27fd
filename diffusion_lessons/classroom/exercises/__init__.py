"""Exercises: `check` what you wrote, ask for a `hint`, look at the `solution`."""

from diffusion_lessons.classroom.exercises import lesson02, lesson03, lesson04
from diffusion_lessons.classroom.exercises.judging import Exercise, Verdict, judge
from diffusion_lessons.classroom.exercises.showing import Box, Code, source_of

EXERCISES = {e.id: e for e in [*lesson02.EXERCISES, *lesson03.EXERCISES, *lesson04.EXERCISES]}
_hints_given = {}

__all__ = ["EXERCISES", "Exercise", "Verdict", "check", "hint", "judge", "solution"]


def check(id, attempt):
    """Try your function on fresh random input and say what it does; it never stops the notebook.

    id: such as "2.1";  attempt: your function
    """
    verdict = judge(find(id), attempt)
    _display(Box(verdict.state, f"{id}: {verdict.words}"))


def hint(id):
    """One more hint each time you ask."""
    exercise = find(id)
    k = _hints_given.get(id, 0)
    _hints_given[id] = k + 1
    if k < len(exercise.hints):
        _display(Box("hint", f"{id}, hint {k + 1} of {len(exercise.hints)}: {exercise.hints[k]}"))
    else:
        _hints_given[id] = 0
        _display(Box("hint", f'{id}: that was the last hint. solution("{id}") shows the code; the next hint("{id}") begins anew.'))


def solution(id):
    """The package's own code for this exercise: what you read here is what the course runs."""
    exercise = find(id)
    _display(Code("\n\n".join(source_of(thing) for thing in exercise.shows), exercise.remark))


def find(id):
    """The exercise of that number. Raises ValueError that lists the known ones."""
    if id not in EXERCISES:
        raise ValueError(f"there is no exercise {id!r}; known are {', '.join(EXERCISES)}")
    return EXERCISES[id]


def _display(thing):
    from IPython.display import display

    display(thing)
