"""The exercises: right answers pass, usual mistakes are named, and nothing a learner writes stops the notebook."""

import contextlib
import inspect
import json
import re
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusion_lessons import exercises, forward, samplers
from diffusion_lessons.exercises import EXERCISES, check, checking, hint, record, solution
from diffusion_lessons.exercises.checking import check_attempt, close
from diffusion_lessons.limits import TooLong, within
from diffusion_lessons.schedules import make_schedule

ALL = list(EXERCISES.values())
MISTAKES = [pytest.param(e, k, id=f"{e.id}-{k}") for e in ALL for k in range(len(e.mistakes))]
for_all = pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)


@for_all
def test_the_reference_passes_fifty_times_in_a_row(exercise):
    for _ in range(50):
        assert check_attempt(exercise, exercise.reference) == ("right", exercise.praise)


@for_all
def test_every_other_right_answer_passes(exercise):
    for right in (exercise.answer, *exercise.alternatives):
        for _ in range(10):
            assert check_attempt(exercise, right).state == "right"


@for_all
def test_the_reference_has_the_name_and_the_arguments_of_the_notebook(exercise):
    assert exercise.reference.__name__ == exercise.name
    assert exercise.call == f"{exercise.name}({', '.join(inspect.signature(exercise.reference).parameters)})"


@pytest.mark.parametrize(("exercise", "k"), MISTAKES)
def test_each_usual_mistake_is_named(exercise, k):
    mistake, words = exercise.mistakes[k]
    for _ in range(8):
        assert check_attempt(exercise, lambda *args: mistake(*args)) == ("not yet", words)


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
    "nothing left early": (curve(lambda u: torch.exp(-14.9 * u)), "half of the picture is already gone"),
    "NaN": (curve(lambda u: torch.log(-1 - u)), "NaN"),
    "no numbers": (lambda T: [0.5], "T + 1 numbers"),
    "clean until the last step": (curve(lambda u: 1 - 1e-3 * u - (u == 1) * (1 - 1e-3 - 5e-4)), "in one go"),
    "clean until the last two": (curve(lambda u: 1 - 1e-3 * u - 0.97 * (u > 0.99) - (u == 1) * 0.0285), "in one go"),
}


@pytest.mark.parametrize("name", WRONG_SCHEDULES)
def test_what_is_wrong_with_a_schedule_of_ones_own_is_said(name):
    wrong, words = WRONG_SCHEDULES[name]
    for _ in range(8):
        verdict = check_attempt(EXERCISES["2.4"], wrong)
        assert verdict.state == "not yet"
        assert words in verdict.message


@pytest.mark.parametrize("known", ["cosine", "linear", "sigmoid"])
def test_a_known_schedule_is_one_of_ones_own(known):
    for _ in range(5):
        assert check_attempt(EXERCISES["2.4"], lambda T: make_schedule(known, T).alpha_bar).state == "right"


def test_every_exercise_has_its_wrong_versions(capsys):
    wrong = {e.id: len(e.mistakes) for e in ALL} | {"2.4": len(WRONG_SCHEDULES)}
    assert min(wrong.values()) >= 4
    with capsys.disabled():
        print(f"\n{len(ALL)} exercises, {sum(wrong.values())} wrong versions", end="")


def test_each_lesson_has_three_to_five_exercises_and_a_bug_to_fix():
    for lesson in exercises.LESSONS:
        fixing = [e for e in lesson.EXERCISES if e.name.startswith("fixed_")]
        assert len(fixing) == 1
        assert 3 <= len(lesson.EXERCISES) - 1 <= 5
        assert fixing[0].mistakes[0][1] == checking.STILL_BROKEN


@for_all
def test_every_check_draws_new_numbers(exercise):
    g = torch.Generator()
    g.seed()
    kinds = range(3) if exercise.id == "3.6" else range(0, 30, 3)     # 3.6 takes its three targets in turn
    wanted = [checking.as_numbers(exercise.run(exercise.answer, *exercise.sample(g, k))) for k in kinds]
    if exercise.id != "2.4":    # there all answers are schedules, and may be as long as each other
        assert len({tuple(a.ravel()) for a in wanted}) > 1


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
        verdict = check_attempt(exercise, attempt)
        assert verdict.state == "not tried"
        assert "not tried yet" in verdict.message


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
        assert ".exercises" not in function.__module__ or not exercise.shows
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


def message_for(id, attempt):
    verdict = check_attempt(EXERCISES[id], attempt)
    assert verdict.state == "not yet"
    return verdict.message


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

    assert "return" in message_for("2.1", forgot_return)
    assert "(B, 1, 1, 1)" in message_for("2.1", no_reshape)
    assert "changes its own input" in message_for("2.1", in_place)
    assert "a different result each time" in message_for("2.1", own_noise)
    assert "0.5 times" in message_for("2.1", half_size)
    assert "add_noise(x0, t, eps, schedule)" in message_for("2.1", lambda x0, t: x0)
    assert "by its name" in message_for("2.1", torch.zeros(3))
    assert "one tensor" in message_for("2.1", lambda *args: {"x": 1})
    assert "one tensor" in message_for("2.1", lambda *args: 10**400)
    assert re.search(r"the result has shape \(\d, \d, \d\)", message_for("2.1", lambda *args: args[0][:, 0]))
    assert "NaN" in message_for("2.1", lambda *args: args[0] / 0 * 0)
    assert "is a Prediction of shape (2, " in message_for("3.1", forward.from_eps)


# What is right, though not written as the package writes it.
def textbook_ddim(x_t, t, s, prediction, schedule):
    """Song et al. 2021, eq. 12, with x0 taken from eps."""
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]
    x0 = (x_t - (1 - a) ** 0.5 * prediction.eps) / a**0.5
    return b**0.5 * x0 + (1 - b) ** 0.5 * prediction.eps


def textbook_ddpm(x_t, t, s, prediction, schedule, z):
    """Ho et al. 2020, algorithm 2, for a stride: from x_t and eps alone."""
    ab, before = schedule.alpha_bar[t], schedule.alpha_bar[s]
    alpha = ab / before
    mean = (x_t - (1 - alpha) / (1 - ab) ** 0.5 * prediction.eps) / alpha**0.5
    return mean + ((1 - before) / (1 - ab) * (1 - alpha)) ** 0.5 * z


def by_hand(x_t, t, s, prediction, schedule, z):
    """As in the cell of lesson 04 that compares the two samplers."""
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]
    fresh = ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    return b.sqrt() * prediction.x0 + (1 - b - fresh**2).clamp(min=0).sqrt() * prediction.eps + fresh * z


def noised(noise):
    """Exercise 2.6 with noise(x0, g)."""
    def fixed(x0, t, schedule, g):
        a = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise(x0, g)
    return fixed


def with_numpy(x0, g):
    seed = int(torch.randint(2**31, (), generator=g))
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(x0.shape))


def box_muller(x0, g):
    u, v = (torch.rand(x0.shape, generator=g, dtype=torch.float64) for _ in range(2))
    return (-2 * u.log()).sqrt() * torch.cos(2 * torch.pi * v)


def cosine_first(t, width, T):
    k = torch.arange(width)
    angles = (1000 / T * t.float())[:, None] * 10000.0 ** (-2 * (k // 2) / width)
    return torch.where(k % 2 == 0, angles.cos(), angles.sin())


def measured_brightly(noising, t):
    return (noising(torch.full((10, 1, 8, 8), 1000.0), t).mean() / 1000) ** 2


def target_at_one_time(net, x0, schedule):
    t, eps = torch.full((len(x0),), schedule.T // 2), torch.randn_like(x0)
    out = net(forward.add_noise(x0, t, eps, schedule), t)
    return int(np.argmin([F.mse_loss(out, y) for y in (eps, x0, forward.velocity(x0, eps, t, schedule))]))


def by_bisection(redraw, x0, wanted):
    low, high = 0, 20
    while high - low > 1:
        middle = (low + high) // 2
        enough = (redraw(x0, middle / 20) - x0).pow(2).mean() >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return torch.tensor(high / 20)


def seen_by_gradients(read, n, d):
    gradients = torch.autograd.functional.jacobian(read, torch.randn(n, d))     # (n, d, n, d)
    return gradients.abs().sum((1, 3)) > 0


RIGHT = {
    "Song's equation": ("4.1", textbook_ddim), "Ho's algorithm": ("4.2", textbook_ddpm), "by hand": ("4.2", by_hand),
    "float64 noise": ("2.6", noised(lambda x0, g: torch.randn(x0.shape, generator=g, dtype=torch.float64))),
    "a picture at a time": ("2.6", noised(lambda x0, g: torch.stack([torch.randn(x.shape, generator=g) for x in x0]))),
    "torch.normal": ("2.6", noised(lambda x0, g: torch.normal(0.0, torch.ones_like(x0), generator=g))),
    "numpy's noise": ("2.6", noised(with_numpy)), "Box and Muller": ("2.6", noised(box_muller)),
    "minus the noise": ("2.6", noised(lambda x0, g: -torch.randn(x0.shape, generator=g))),
    "cosine first": ("3.4", cosine_first),
    "halves, cosine first": ("3.4", lambda *args: EXERCISES["3.3"].answer(*args).roll(args[1] // 2, 1)),
    "a bright picture": ("2.5", measured_brightly), "one time only": ("3.6", target_at_one_time),
    "bisection": ("4.5", by_bisection), "gradients": ("5.2", seen_by_gradients),
    "binary cross-entropy": ("1.1", lambda real, fake: (
        F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)))),
    "the log of the sigmoid": ("1.2", lambda fake: -torch.log(torch.sigmoid(fake)).mean()),
    "mse_loss": ("3.2", lambda net, x0, t, eps, s: F.mse_loss(net(forward.add_noise(x0, t, eps, s), t), eps)),
    "torch's attention": ("5.3", lambda q, k, v, real: F.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=real.expand(1, len(q), -1))[0]),
    "a loop": ("5.4", lambda tokens, hidden, nothing: [nothing if h else row for row, h in zip(tokens, hidden)]),
    "float64": ("2.1", lambda x0, t, eps, s: (s.alpha_bar[t][:, None, None, None] ** 0.5 * x0
                                              + (1 - s.alpha_bar[t][:, None, None, None]) ** 0.5 * eps)),
    "linspace": ("4.3", lambda T, steps: torch.linspace(T, 0, steps + 1, dtype=torch.float64).round().long()),
    "numpy's integers": ("4.3", lambda T, steps: np.linspace(T, 0, steps + 1).round().astype(int)),
    "arguments to spare": ("4.1", lambda x_t, t, s, prediction, schedule, z=0.0, eta=0.0: samplers.ddim_step(
        x_t, t, s, prediction, schedule, z, eta)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes_however_it_is_written(name):
    id, attempt = RIGHT[name]
    for _ in range(20):
        verdict = check_attempt(EXERCISES[id], attempt)
        assert verdict.state == "right", verdict.message


@for_all
def test_numpy_and_lists_get_the_answer_that_the_tensor_gets(exercise):
    """The same everywhere: right where the numbers are all there is to it, and named where gradients are wanted."""
    for convert in (lambda x: x.detach().numpy(), lambda x: x.detach().tolist()):
        def attempt(*args, convert=convert):
            result = exercise.reference(*args)
            return convert(result) if isinstance(result, torch.Tensor) else result

        attempt.__signature__ = inspect.signature(exercise.reference)
        verdict = check_attempt(exercise, attempt)
        assert verdict.state == ("not yet" if exercise.trains else "right"), verdict.message
        assert not exercise.trains or "no_grad" in verdict.message


def test_what_would_not_go_into_a_network_is_said_to_whom_it_concerns():
    assert "float64" in check_attempt(EXERCISES["2.1"], RIGHT["float64"][1]).message
    assert "float64" not in check_attempt(EXERCISES["2.1"], EXERCISES["2.1"].reference).message

    def loss_in_float64(net, x0, t, eps, schedule):
        return ((net(RIGHT["float64"][1](x0, t, eps, schedule), t) - eps) ** 2).mean()

    def guided_in_float64(denoiser, x_t, t, y, w):
        return denoiser(x_t.double(), t, y).eps

    for id, attempt in (("3.2", loss_in_float64), ("6.1", guided_in_float64)):
        assert "weights are float32" in message_for(id, attempt)


def reference(id):
    return EXERCISES[id].reference


def wrong_at(time):
    def add_noise(x0, t, eps, schedule):
        at = schedule.T if time == "T" else 0
        return reference("2.1")(x0, t, eps, schedule) + 0.5 * (t == at).reshape(-1, 1, 1, 1)
    return add_noise


def backwards(loss):
    """The same number; its gradients point the other way."""
    return lambda *args: 2 * loss(*args).detach() - loss(*args)


def without_gradients(loss):
    def attempt(*args):
        with torch.no_grad():
            return loss(*args)
    return attempt


def spoils_prediction(x_t, t, s, prediction, schedule):
    return reference("4.1")(x_t, t, s, prediction, schedule) + 0 * prediction.eps.mul_(0.5)


def spoils_schedule(x0, t, eps, schedule):
    result = reference("2.1")(x0, t, eps, schedule)
    schedule.alpha_bar.sqrt_()
    return result


def spoils_words(text, number, length):
    row = reference("5.1")(text, number, length)
    number["stilts"] = 0
    return row


def half_detached(net, x0, t, eps, schedule):
    eps_hat = net(forward.add_noise(x0, t, eps, schedule), t)
    return ((eps_hat - eps) * (eps_hat - eps).detach()).mean()


# What is wrong, and a piece of what must be said.
NEARLY = {
    "a soft mask": ("5.5", lambda tokens: (tokens != 0).float(), "adds"),
    "a mask of integers": ("5.5", lambda tokens: (tokens != 0).long(), "raised"),
    "a mask after EOS": ("5.5", lambda tokens: (tokens == 2).int().cumsum(1) - (tokens == 2).int() < 1, ""),
    "1.1 as a number": ("1.1", lambda real, fake: reference("1.1")(real, fake).item(), ".item()"),
    "1.1 without gradients": ("1.1", without_gradients(reference("1.1")), "no_grad"),
    "1.1, the fakes detached": ("1.1", lambda real, fake: reference("1.1")(real, fake.detach()), "gradients"),
    "1.2 as a number": ("1.2", lambda fake: reference("1.2")(fake).item(), ".item()"),
    "1.2 without gradients": ("1.2", without_gradients(reference("1.2")), "no_grad"),
    "1.2 backwards": ("1.2", backwards(reference("1.2")), "gradients"),
    "3.2 as a number": ("3.2", lambda *args: reference("3.2")(*args).item(), ".item()"),
    "3.2 backwards": ("3.2", backwards(reference("3.2")), "gradients"),
    "3.2, half detached": ("3.2", half_detached, "gradients"),
    "5.3 without gradients": ("5.3", without_gradients(reference("5.3")), "no_grad"),
    "wrong at t = 0": ("2.1", wrong_at("0"), "not for all"), "wrong at t = T": ("2.1", wrong_at("T"), "not for all"),
    "off by one beyond T": ("2.1", lambda x0, t, eps, s: reference("2.1")(x0, t + 1, eps, s), "off by one"),
    "one picture only": ("2.1", lambda x0, t, eps, s: reference("2.1")(x0, t[:1], eps, s), "not for all"),
    "noise in the last step": ("4.2", lambda x, t, s, p, c, z: reference("4.2")(x, t, s, p, c, z) + (s == 0) * z,
                               "not for all"),
    "a Prediction written into": ("4.1", spoils_prediction, "own input"),
    "a schedule written into": ("2.1", spoils_schedule, "own input"),
    "a dictionary written into": ("5.1", spoils_words, "own input"),
    "times as floats": ("4.3", lambda T, steps: [float(t) for t in reference("4.3")(T, steps)], "round(x)"),
    "rounded by torch": ("4.3", lambda T, steps: torch.linspace(T, 0, steps + 1).round(), "floats"),
    "tokens as floats": ("5.4", lambda tokens, h, n: tokens * (~h[:, None]).float() + n * h[:, None].float(), "floats"),
    "the noise of numpy's own": ("2.6", noised(lambda x0, g: torch.randn(x0.shape)), "though g has the same seed"),
    "the same noise each time": ("2.6", noised(lambda x0, g: torch.randn(
        x0.shape, generator=torch.Generator().manual_seed(0))), "gives the same noise"),
    "noise for one channel": ("2.6", noised(lambda x0, g: torch.randn(
        x0[:, :1].shape, generator=g).expand_as(x0)), "not independent"),
    "noise, smoothed": ("2.6", noised(lambda x0, g: (lambda z: (z + z.roll(1, 3)) / 2**0.5)(
        torch.randn(x0.shape, generator=g))), "not independent"),
    "long tails": ("2.6", noised(lambda x0, g: torch.empty(x0.shape).exponential_(2**0.5, generator=g)
                                 * (2 * torch.randint(2, x0.shape, generator=g) - 1)), "Gaussian"),
    "noise at t = 0": ("2.6", lambda x0, t, s, g: reference("2.6")(x0, t.clamp(min=1), s, g), "t = 0"),
    "measured once": ("2.5", lambda noising, t: 1 - noising(torch.zeros(1, 1, 2, 2), t).var(), ""),
    "measured a little off": ("2.5", lambda noising, t: reference("2.5")(noising, t) + 0.12, "nearly"),
    "one piece of noise": ("1.5", lambda G, n: [bool((G(torch.eye(n)[k:k + 1]) != G(torch.zeros(1, n))).any())
                                                for k in range(n)], "try many"),
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_right_is_not_right(name):
    id, attempt, words = NEARLY[name]
    said = [message_for(id, attempt) for _ in range(10)]
    assert any(words in verdict for verdict in said), said[0]


def test_an_experiment_cannot_be_guessed():
    """What was found out about one thing is not what there is to find out about the next."""
    for id in ("1.5", "2.5", "3.6", "4.5", "5.2", "6.2"):
        exercise = EXERCISES[id]
        for _ in range(5):
            case = exercise.sample(torch.Generator(), torch.randint(9, ()).item())
            found = exercise.run(exercise.answer, *case)
            assert check_attempt(exercise.plain(), lambda *args, found=found: found).state == "not yet"


def test_close_means_equal_but_for_rounding():
    a = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert close(a, a.double() * (1 + 1e-6))
    assert not close(a, a + 2e-3)
    assert not close(a, a[:, None])
    assert not close(a, torch.full_like(a, torch.nan))


# ---------------------------------------------------------------- what takes too long


def test_what_never_ends_is_stopped_and_told(monkeypatch):
    monkeypatch.setattr(checking, "SECONDS", 0.3)
    turns = []

    def for_ever(*args):
        while True:
            with contextlib.suppress(Exception):    # a learner's own net must not hold it up
                turns.append(1)

    assert "did not return within 0.3 seconds" in message_for("2.1", for_ever)
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
    assert page.count("<tr>") == 7
    assert page.count("<td") == len(ALL) + 7


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
