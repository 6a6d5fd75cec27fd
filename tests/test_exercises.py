"""The exercises: right answers pass, usual mistakes are named, and nothing a learner writes stops the notebook."""

import pytest
import torch

from diffusion_lessons.classroom import exercises
from diffusion_lessons.classroom.exercises import EXERCISES, check, hint, judge, solution

ALL = list(EXERCISES.values())
MISTAKES = [pytest.param(e, k, id=f"{e.id}-{k}") for e in ALL for k in range(len(e.mistakes))]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
def test_the_answer_passes_on_every_draw(exercise):
    for _ in range(20):
        assert judge(exercise, exercise.answer).state == "right"


@pytest.mark.parametrize(("exercise", "k"), MISTAKES)
def test_each_usual_mistake_is_named(exercise, k):
    mistake, words = exercise.mistakes[k]
    for _ in range(8):
        verdict = judge(exercise, lambda *args: mistake(*args))
        assert verdict.state == "not yet"
        assert verdict.words == words


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
def test_what_is_not_written_yet_is_not_called_wrong(exercise):
    def stub(*args):
        ...

    def documented(*args):
        """Say what it will do."""

    def returns_dots(*args):
        return ...

    for attempt in (stub, documented, returns_dots, ...):
        verdict = judge(exercise, attempt)
        assert verdict.state == "not tried"
        assert "not tried yet" in verdict.words


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
def test_an_exception_is_told_with_its_line_and_does_not_come_out(exercise, capsys):
    def attempt(*args):
        return args[0] + "of course"

    check(exercise.id, attempt)
    said = capsys.readouterr().out
    assert "it raised TypeError" in said
    assert 'return args[0] + "of course"' in said
