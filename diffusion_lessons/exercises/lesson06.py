"""Exercises of lesson 06: classifier-free guidance."""

import torch

from diffusion_lessons import guidance
from diffusion_lessons.exercises import drawing
from diffusion_lessons.exercises.judging import AS_IT_WAS, Exercise
from diffusion_lessons.forward import Prediction


def some_denoiser(g):
    """A denoiser that answers every label, and None, in its own way."""
    a, b, c = (0.5 + torch.rand((), generator=g).item() for _ in range(3))

    def denoiser(x_t, t, y):
        if y is not None and len(y) != len(x_t):
            raise ValueError(f"{len(x_t)} pictures, but {len(y)} labels")
        x_t, asked = drawing.as_a_network(x_t, t), -2.0 if y is None else y.float() + 1
        said = torch.sin(a * x_t + b * torch.as_tensor(asked).reshape(-1, 1, 1, 1)) + c * t.reshape(-1, 1, 1, 1) / 10
        return Prediction(said, x_t - said)

    return denoiser


def draw_asked(g, k):
    """A denoiser, a question and a scale: far above 1; below it; 0 or more."""
    s, shape = drawing.schedule(g), drawing.shape(g, k)
    y, t = torch.randperm(9, generator=g)[:shape[0]], drawing.times(g, s.T, shape[0], k, first=1)
    w = (2.5 + drawing.one(g, 0, 40) / 10, 0.1 + drawing.one(g, 0, 7) / 10, float(drawing.one(g, 0, 1)))[k % 3]
    return some_denoiser(g), drawing.noise(g, shape), t, y, w


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


def draw_stranger(g, k):
    """Somebody's guided denoiser, with a scale of its own convention, the plain one inside, and a question."""
    denoiser, x, t, y, _ = draw_asked(g, k)
    scale = 0.3 + 6 * torch.rand((), generator=g).item()
    w = (scale + 1, scale, scale / 4)[k % 3]

    def theirs(x_t, t, y):
        return guidance.Guided(denoiser, y, w)(x_t, t)

    return theirs, denoiser, x, t, y


def by_projection(read):
    """read(w): how far theirs goes from the answer without to the one with, and what is made of it."""
    def our_w(theirs, denoiser, x_t, t, y):
        found, told, without = (said.eps for said in (theirs(x_t, t, y), denoiser(x_t, t, y), denoiser(x_t, t, None)))
        way = told - without
        return read(((found - without) * way).sum() / way.square().sum())
    return our_w


def our_w(theirs, denoiser, x_t, t, y):
    without = denoiser(x_t, t, None).eps
    way, went = denoiser(x_t, t, y).eps - without, theirs(x_t, t, y).eps - without
    return (went * way).sum() / (way * way).sum()


CONVENTION = Exercise(
    "6.2", "our_w(theirs, denoiser, x_t, t, y)", draw_stranger, by_projection(lambda w: w), reference=our_w,
    shows=[guidance.Guided.__call__], tolerance=0.01,
    remark="Ho & Salimans write (1 + s) eps_c - s eps_u = eps_u + (1 + s) (eps_c - eps_u): our w is 1 + s.",
    praise="right: whatever it is called there, this is what it does. With the paper's formula you find w = 1 + s.",
    hints=["Ask the denoiser with the sentence and without, as in exercise 6.1, and ask theirs.",
           "theirs = without + w * (told - without): you know all but w.",
           "went, way = theirs - without, told - without; then (went * way).sum() / (way * way).sum()"],
    mistakes=[
        (by_projection(lambda w: w - 1),
         "that is the paper's s. Plain conditioning should be 1, and the way is measured from the answer without."),
        (by_projection(lambda w: w + 1), "that is one too much: w = 1 is plain conditioning."),
        (by_projection(lambda w: 1 / w), "it is upside down: how many times `told - without` did theirs go?"),
        (by_projection(lambda w: 1 - w), "that is what stands before the answer without: 1 - w."),
        (by_projection(lambda w: -w), "the sign is turned round: from the answer without to the one with."),
        (by_projection(lambda w: w.square()), "that is w squared: the root is missing."),
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
    shape = drawing.shape(g, k)
    plain = drawing.picture(g, shape)
    wider = 1.5 + torch.rand(shape[0], 1, 1, 1, generator=g)
    return wider * plain + 0.1 * drawing.noise(g, shape) + 0.3, plain


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
