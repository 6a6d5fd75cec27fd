"""The exercises: right answers pass, usual mistakes are named, and nothing a learner writes stops the notebook."""

import contextlib
import inspect
import json
import time

import pytest
import torch

from diffusion_lessons import forward, samplers
from diffusion_lessons.classroom import exercises
from diffusion_lessons.classroom.exercises import EXERCISES, check, hint, judging, record, solution
from diffusion_lessons.classroom.exercises.judging import close, judge
from diffusion_lessons.classroom.exercises.limits import TooLong, within
from diffusion_lessons.schedules import make_schedule

ALL = list(EXERCISES.values())
MISTAKES = [pytest.param(e, k, id=f"{e.id}-{k}") for e in ALL for k in range(len(e.mistakes))]
for_all = pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)


@for_all
def test_the_reference_passes_fifty_times_in_a_row(exercise):
    for _ in range(50):
        assert judge(exercise, exercise.reference) == ("right", exercise.praise)


@for_all
def test_every_other_right_answer_passes(exercise):
    for right in (exercise.answer, *exercise.others):
        for _ in range(10):
            assert judge(exercise, right).state == "right"


@for_all
def test_the_reference_has_the_name_and_the_arguments_of_the_notebook(exercise):
    assert exercise.reference.__name__ == exercise.name
    assert exercise.call == f"{exercise.name}({', '.join(inspect.signature(exercise.reference).parameters)})"


@pytest.mark.parametrize(("exercise", "k"), MISTAKES)
def test_each_usual_mistake_is_named(exercise, k):
    mistake, words = exercise.mistakes[k]
    for _ in range(8):
        assert judge(exercise, lambda *args: mistake(*args)) == ("not yet", words)


def curve(of):
    """A schedule of one's own: of(u) at u = t / T."""
    return lambda T: of(torch.arange(T + 1, dtype=torch.float64) / T)


# Wrong schedules, and a piece of what must be said. There is no right one to compare with, only what it must be like.
WRONG_SCHEDULES = {
    "too high an end": (lambda T: torch.cumprod(torch.cat([torch.ones(1), 1 - torch.linspace(1e-4, 0.02, T)]), 0),
                        "of the picture's variance is left"),
    "one too few": (lambda T: curve(lambda u: (1 - 0.99999 * u) ** 3)(T)[1:], "T + 1 numbers"),
    "betas": (lambda T: torch.linspace(1e-4, 0.02, T + 1), "must be 1, exactly"),
    "upside down": (curve(lambda u: u**2), "must be 1, exactly"),
    "a flat piece": (curve(lambda u: (1 - u).clamp(max=0.8) / 0.8 + 1e-5 * (u == 1)), "does not fall at t = 1:"),
    "down to 0": (curve(lambda u: 1 - u), "not above 0"),
    "all at once": (curve(lambda u: 1 - 1e-3 * u - (u == 1) * (1 - 1e-3 - 1e-6)), "wipes out everything at once"),
    "nothing left early": (curve(lambda u: torch.exp(-40 * u)), "half of the picture is gone"),
    "NaN": (curve(lambda u: torch.log(-1 - u)), "NaN"),
    "a list": (lambda T: [1.0] * (T + 1), "one tensor"),
}


@pytest.mark.parametrize("name", WRONG_SCHEDULES)
def test_what_is_wrong_with_a_schedule_of_ones_own_is_said(name):
    wrong, words = WRONG_SCHEDULES[name]
    for _ in range(8):
        verdict = judge(EXERCISES["2.4"], wrong)
        assert verdict.state == "not yet"
        assert words in verdict.words


@pytest.mark.parametrize("known", ["cosine", "linear", "sigmoid"])
def test_a_known_schedule_is_one_of_ones_own(known):
    for _ in range(5):
        assert judge(EXERCISES["2.4"], lambda T: make_schedule(known, T).alpha_bar).state == "right"


def test_every_exercise_has_its_wrong_versions(capsys):
    wrong = {e.id: len(e.mistakes) for e in ALL} | {"2.4": len(WRONG_SCHEDULES)}
    assert min(wrong.values()) >= 4
    with capsys.disabled():
        print(f"\n{len(ALL)} exercises, {sum(wrong.values())} wrong versions", end="")


def test_each_lesson_has_three_to_five_exercises_and_a_bug_to_mend():
    for lesson in exercises.LESSONS:
        mending = [e for e in lesson.EXERCISES if e.name.startswith("mended_")]
        assert len(mending) == 1
        assert 3 <= len(lesson.EXERCISES) - 1 <= 5
        assert mending[0].mistakes[0][1] == judging.AS_IT_WAS


@for_all
def test_every_check_draws_new_numbers(exercise):
    seen = []

    def attempt(*args):
        seen.append(args)
        return exercise.answer(*args)

    judge(exercise, attempt, draws=6)
    def same(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    known = [[a for a in args if isinstance(a, (torch.Tensor, int, float, str))] for args in seen]
    assert any(not same(a, b) for a, b in zip(known[0], known[3]))


@for_all
def test_what_is_not_written_yet_is_not_called_wrong(exercise):
    def stub(*args):
        ...

    def documented(*args):
        """Say what it will do."""

    def returns_dots(*args):
        return ...

    def half_written(*args):
        factor = ...
        return factor * args[0]

    for attempt in (stub, documented, returns_dots, half_written, ..., None):
        verdict = judge(exercise, attempt)
        assert verdict.state == "not tried"
        assert "not tried yet" in verdict.words


@for_all
def test_an_exception_is_told_with_its_line_and_does_not_come_out(exercise, capsys):
    def attempt(*args):
        return undefined_name * args[0]  # noqa: F821

    check(exercise.id, attempt)
    said = capsys.readouterr().out
    assert "it raised NameError" in said
    assert "return undefined_name * args[0]" in said


@for_all
def test_the_solution_shows_code_of_the_package_or_the_reference(exercise, capsys):
    solution(exercise.id)
    said = capsys.readouterr().out
    for thing in exercise.shows or [exercise.reference]:
        function = thing.fget if isinstance(thing, property) else thing
        assert function.__module__.startswith("diffusion_lessons.")
        assert ".classroom" not in function.__module__ or not exercise.shows
        assert inspect.getsource(function).strip().splitlines()[-1].strip() in said


@for_all
def test_hints_come_one_by_one_and_begin_anew(exercise, capsys):
    exercises._given.pop(exercise.id, None)
    said = []
    for _ in range(len(exercise.hints) + 1):
        hint(exercise.id)
        said.append(capsys.readouterr().out)
    for words, spoken in zip(exercise.hints, said):
        assert words in spoken
    assert "That was the last one" in said[-2]
    assert said[-1] == said[0]


def words_for(id, attempt):
    verdict = judge(EXERCISES[id], attempt)
    assert verdict.state == "not yet"
    return verdict.words


def test_other_trouble_is_said_in_plain_words():
    def forgot_return(x0, t, eps, schedule):
        forward.add_noise(x0, t, eps, schedule)

    def no_reshape(x0, t, eps, schedule):
        return schedule.alpha_bar[t].sqrt() * x0

    def in_place(x0, t, eps, schedule):
        result = forward.add_noise(x0, t, eps, schedule)
        x0 += 1
        return result

    def own_noise(x0, t, eps, schedule):
        return forward.add_noise(x0, t, torch.randn_like(x0), schedule)

    def half_size(x0, t, eps, schedule):
        return 0.5 * forward.add_noise(x0, t, eps, schedule)

    assert "return" in words_for("2.1", forgot_return)
    assert "(B, 1, 1, 1)" in words_for("2.1", no_reshape)
    assert "writes into its own input" in words_for("2.1", in_place)
    assert "another result each time" in words_for("2.1", own_noise)
    assert "0.5 times" in words_for("2.1", half_size)
    assert "add_noise(x0, t, eps, schedule)" in words_for("2.1", lambda x0, t: x0)
    assert "by its name" in words_for("2.1", torch.zeros(3))
    assert "one tensor" in words_for("2.1", lambda *args: {"x": 1})
    assert "one tensor" in words_for("2.1", lambda *args: 10**400)
    assert "shape (4, 6, 5)" in words_for("2.1", lambda *args: args[0][:, 0])
    assert "NaN" in words_for("2.1", lambda *args: args[0] / 0 * 0)
    assert "is a Prediction of shape (2, 4, 3, 6, 5)" in words_for("3.1", forward.from_eps)


def test_right_only_for_the_steps_before_the_last_is_said_so():
    def noisy_end(x_t, t, s, prediction, schedule, z):
        return samplers.ddpm_step(x_t, t, s, prediction, schedule, z) + (s == 0) * z

    assert "but not for all" in words_for("4.2", noisy_end)


def test_a_loss_that_cannot_train_is_refused():
    answer = EXERCISES["3.2"].answer
    assert ".item()" in words_for("3.2", lambda *args: answer(*args).item())


def test_other_ways_to_write_it_pass_too():
    def add_noise(x0, t, eps, schedule):
        alpha_bar = schedule.alpha_bar[t][:, None, None, None]      # in float64, where ours is float32
        return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps

    def timesteps(T, steps):
        return torch.linspace(T, 0, steps + 1).round().long()

    def defaults(x_t, t, s, prediction, schedule, z=0.0, eta=0.0):
        return samplers.ddim_step(x_t, t, s, prediction, schedule, z, eta)

    for id, attempt in [("2.1", add_noise), ("4.3", timesteps), ("4.1", defaults)]:
        for _ in range(20):
            assert judge(EXERCISES[id], attempt).state == "right"


def test_close_means_equal_but_for_rounding():
    a = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert close(a, a.double() * (1 + 1e-6))
    assert not close(a, a + 2e-3)
    assert not close(a, a[:, None])
    assert not close(a, torch.full_like(a, torch.nan))


# ---------------------------------------------------------------- what takes too long


def test_what_never_ends_is_stopped_and_told(monkeypatch):
    monkeypatch.setattr(judging, "SECONDS", 0.3)
    turns = []

    def for_ever(*args):
        while True:
            with contextlib.suppress(Exception):    # a learner's own net must not hold it up
                turns.append(1)

    assert "not back after 0.3 seconds" in words_for("2.1", for_ever)
    count = len(turns)
    time.sleep(0.1)
    assert len(turns) == count     # it is really over


def test_a_limit_hands_on_results_and_errors_alike():
    assert within(5, lambda a, b: a + b, 1, 2) == 3
    assert within(5, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
    with pytest.raises(TooLong):
        within(0.1, time.sleep, 0.4)


# ---------------------------------------------------------------- what has been solved


def test_progress_is_kept_and_shown(capsys):
    answer = EXERCISES["2.1"].answer
    check("2.1", lambda *args: args[0])
    check("2.1", answer)
    check("2.1", lambda *args: args[0])      # solved once stays solved
    check("4.1", lambda *args: args[0])
    check("4.2", ...)                        # not tried does not count
    known = json.loads(record.path().read_text())
    states = {id: (one["state"], one["tries"]) for id, one in known.items()}
    assert states == {"2.1": ("right", 3), "4.1": ("not yet", 1)}
    assert abs(known["2.1"]["solved"] - time.time()) < 60
    capsys.readouterr()
    exercises.progress()
    said = capsys.readouterr().out
    assert f"1 of {len(ALL)} exercises solved" in said
    assert "lesson 02   \u2713 2.1 (3 tries)   \u2026 2.2" in said
    assert "\u2717 4.1   \u2026 4.2" in said
    known = {id: record.read().get(id, {"state": "not tried", "tries": 0}) for id in EXERCISES}
    page = exercises.Report(known)._repr_html_()
    assert page.count("<tr>") == 6
    assert page.count("<td") == len(ALL) + 6


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"2.1": 3}', '{"2.1": {"state": "right"}}'])
def test_a_damaged_record_is_put_aside_and_begun_anew(text):
    record.path().write_text(text)
    check("2.1", EXERCISES["2.1"].answer)
    assert record.read()["2.1"]["state"] == "right"
    assert record.path().with_suffix(".damaged").read_text() == text


def test_a_home_that_cannot_be_written_to_stops_nothing(monkeypatch, capsys):
    monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", "/proc/nowhere/progress.json")
    check("2.1", EXERCISES["2.1"].answer)
    assert "\u2713" in capsys.readouterr().out


def test_ctrl_c_is_not_swallowed():
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("2.1", interrupted)


def test_an_unknown_number_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"2\.1, 2\.2.*4\.6"):
        check("9.9", print)
