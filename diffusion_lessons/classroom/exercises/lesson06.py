"""Exercises of lesson 06: classifier-free guidance."""

import torch

from diffusion_lessons import guidance
from diffusion_lessons.classroom.exercises import drawing
from diffusion_lessons.classroom.exercises.judging import AS_IT_WAS, Exercise
from diffusion_lessons.forward import Prediction


def some_denoiser(g):
    """A denoiser that answers every label, and None, in its own way."""
    a, b, c = (0.5 + torch.rand((), generator=g).item() for _ in range(3))

    def denoiser(x_t, t, y):
        asked = -2.0 if y is None else y.float() + 1
        said = torch.sin(a * x_t + b * torch.as_tensor(asked).reshape(-1, 1, 1, 1)) + c * t.reshape(-1, 1, 1, 1) / 10
        return Prediction(said, x_t - said)

    return denoiser


def draw_asked(g, k):
    s = drawing.schedule(g)
    y = torch.randperm(9, generator=g)[:4]
    return some_denoiser(g), drawing.noise(g), drawing.times(g, s.T), y, 2.5 + drawing.one(g, 0, 40) / 10


def two_passes(formula):
    """formula(eps without, eps with, w) as an answer."""
    return lambda ask, x, t, y, w: formula(ask(x, t, None).eps, ask(x, t, y).eps, w)


def guided(denoiser, x_t, t, y, w):
    without, told = denoiser(x_t, t, None).eps, denoiser(x_t, t, y).eps
    return without + w * (told - without)


GUIDE = Exercise(
    "6.1", "guided(denoiser, x_t, t, y, w)", draw_asked,
    lambda ask, x, t, y, w: guidance.Guided(ask, y, w)(x, t).eps, reference=guided, shows=[guidance.Guided.__call__],
    praise="right: two questions to one network, and the difference of its answers, w times over.",
    hints=["Ask twice: denoiser(x_t, t, y) with the sentence, denoiser(x_t, t, None) without. Each has an .eps.",
           "Start from the answer without, and go w times the way to the answer with.",
           "eps_u + w * (eps_c - eps_u)"],
    mistakes=[
        (two_passes(lambda u, c, w: c + w * (c - u)),
         "you started from the answer with the sentence: that is our formula with w + 1. Start from the one without."),
        (two_passes(lambda u, c, w: u + w * (u - c)),
         "that goes away from the sentence: the difference is with minus without."),
        (two_passes(lambda u, c, w: c + w * (u - c)),
         "the two answers have changed places: w = 0 should ignore the sentence, w = 1 be plain."),
        (two_passes(lambda u, c, w: w * (c - u)), "that is only the difference; add it to the answer without."),
        (two_passes(lambda u, c, w: w * c),
         "it is the difference of the two answers that is made larger, not the answer."),
        (two_passes(lambda u, c, w: u + c * w), "it is the difference of the two answers that is made larger."),
        (two_passes(lambda u, c, w: c), "that is plain conditioning: the sentence is heard, but not amplified."),
        (lambda ask, x, t, y, w: ask(x, t, y), "take the .eps of what the denoiser says: it says eps and x0."),
        (lambda ask, x, t, y, w: guidance.Guided(ask, y, w)(x, t).x0,
         "that is the guided picture; wanted is the noise, .eps."),
    ])


def draw_scale(g, k):
    return (0.2 + 9 * torch.rand((), generator=g).item(),)


def our_w(s):
    return 1 + s


CONVENTION = Exercise(
    "6.2", "our_w(s)", draw_scale, lambda s: 1 + s, reference=our_w, shows=[guidance.Guided.__call__],
    remark="(1 + s) eps_c - s eps_u = eps_u + (1 + s) (eps_c - eps_u): our w is 1 + s.",
    praise="right: what the paper calls 0, plain conditioning, is our 1.",
    hints=["The paper writes (1 + s) eps_c - s eps_u. Sort it by eps_u and eps_c.",
           "Ours is (1 - w) eps_u + w eps_c. Compare what stands before eps_c."],
    mistakes=[
        (lambda s: s, "not the same: with s = 0 the paper's formula is plain conditioning, which is our w = 1."),
        (lambda s: s - 1, "the other way round: ours is the larger number."),
        (lambda s: 1 / s, "no division: compare what stands before eps_c."),
        (lambda s: 1 - s, "that is what stands before eps_u with the sign turned: compare what stands before eps_c."),
    ])


def draw_negative(g, k):
    denoiser, x, t, y, w = draw_asked(g, k)
    return denoiser, x, t, y, (y + 1 + drawing.one(g, 0, 3)) % 9, w


def away(formula):
    """formula(eps of the prompt, eps of the negative one, eps of none, w) as an answer."""
    return lambda ask, x, t, y, n, w: formula(*(ask(x, t, label).eps for label in (y, n, None)), w)


def steer_away(denoiser, x_t, t, y, negative, w):
    away, told = denoiser(x_t, t, negative).eps, denoiser(x_t, t, y).eps
    return away + w * (told - away)


NEGATIVE = Exercise(
    "6.3", "steer_away(denoiser, x_t, t, y, negative, w)", draw_negative,
    lambda ask, x, t, y, n, w: guidance.Guided(ask, y, w, negative=n)(x, t).eps,
    reference=steer_away, shows=[guidance.Guided.__call__],
    praise="right: the same formula, and what is not wanted stands where nothing stood.",
    hints=["A negative prompt takes the place of the empty one.", "eps_n + w * (eps_c - eps_n)"],
    mistakes=[
        (away(lambda c, n, u, w: u + w * (c - u)), "the negative prompt is not used: ask it in place of None."),
        (away(lambda c, n, u, w: c + w * (n - c)), "the two have changed places: you walk towards the negative one."),
        (away(lambda c, n, u, w: u + w * (c - n)),
         "that is in use too, but it starts from the empty prompt: here the negative one takes its place everywhere."),
        (away(lambda c, n, u, w: c - w * n), "it is the difference of the two answers that is made larger."),
        (away(lambda c, n, u, w: c + w * (c - n)),
         "you started from the answer to the prompt: start from the negative one."),
    ])


def draw_pair(g, k):
    """Guided and plain estimates: the guided one with a wider spread, another in each picture."""
    plain = drawing.picture(g)
    wider = 1.5 + torch.rand(4, 1, 1, 1, generator=g)
    return wider * plain + 0.1 * drawing.noise(g) + 0.3, plain


def of_each(x):
    return x.flatten(1).std(1).reshape(-1, 1, 1, 1)


def rescale(x0_guided, x0_plain):
    wanted, spread = (x.flatten(1).std(1).reshape(-1, 1, 1, 1) for x in (x0_plain, x0_guided))
    return x0_guided * wanted / spread


RESCALE = Exercise(
    "6.4", "rescale(x0_guided, x0_plain)", draw_pair, lambda a, b: a * of_each(b) / of_each(a),
    reference=rescale, shows=[guidance.Guided.__call__], remark="With rescale=1 the factor below is wanted / spread.",
    praise="right: every picture keeps its guided shape, and gets the spread of the plain one back.",
    hints=["The spread of a picture is the standard deviation of all its numbers: x.flatten(1).std(1), one for each.",
           "Multiply the guided estimate by (spread of the plain one) / (its own spread).",
           "Shapes: (B,) must become (B, 1, 1, 1) to multiply pictures."],
    mistakes=[
        (lambda a, b: a * b.std() / a.std(),
         "you took one spread for the whole batch: each picture has its own, whatever its company."),
        (lambda a, b: a * of_each(a) / of_each(b), "the ratio is upside down: it makes a wide spread wider."),
        (lambda a, b: a / of_each(a), "that makes the spread 1; wanted is that of the plain estimate."),
        (lambda a, b: a * of_each(b), "divide by the guided estimate's own spread as well."),
        (lambda a, b: a * (of_each(b) / of_each(a)) ** 2, "you took variances; the spread is their square root."),
        (lambda a, b: (a - a.mean((1, 2, 3), keepdim=True)) * of_each(b) / of_each(a),
         "the mean has gone: leave it, only multiply."),
        (lambda a, b: b, "that is the plain estimate itself: all that guidance gave is lost."),
    ])


def draw_both(g, k):
    denoiser, x, t, y, w = draw_asked(g, k)
    return denoiser, x, t, y, torch.full_like(y, 9), w


def at_once(formula, order=lambda y, n: (y, n)):
    """formula(first half, second half, w) of one pass, whose batch is put together in that order."""
    def ask(denoiser, x, t, y, n, w):
        said = denoiser(torch.cat([x, x]), torch.cat([t, t]), torch.cat(order(y, n)))
        return formula(*said.x0.chunk(2), w)
    return ask


def mended_pass(denoiser, x_t, t, y, nothing, w):
    said = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([y, nothing]))
    told, without = said.x0.chunk(2)
    return without + w * (told - without)


MENDED = Exercise(
    "6.5", "mended_pass(denoiser, x_t, t, y, nothing, w)", draw_both, at_once(lambda c, u, w: u + w * (c - u)),
    reference=mended_pass,
    praise="mended: w = 0 ignores the sentence again, and w = 1 is one plain pass.",
    hints=["What should come out at w = 0, and what at w = 1? What does?",
           "In which order is the batch put together, and in which is it taken apart?"],
    mistakes=[
        (at_once(lambda u, c, w: u + w * (c - u)), AS_IT_WAS),
        (at_once(lambda c, u, w: c + w * (c - u)),
         "it starts from the answer with the sentence: w = 0 should ignore it."),
        (at_once(lambda c, u, w: u + w * (u - c)),
         "the halves are right, but it walks away from the sentence: told - without."),
        (at_once(lambda u, c, w: u + w * (c - u), order=lambda y, n: (y, y)),
         "both halves are asked the same question now."),
        (at_once(lambda c, u, w: w * (c - u)), "that is only the difference; add it to the answer without."),
        (at_once(lambda c, u, w: u + w * c), "it is the difference of the two answers that is made larger."),
    ])

EXERCISES = [GUIDE, CONVENTION, NEGATIVE, RESCALE, MENDED]
