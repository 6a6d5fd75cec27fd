"""Exercises of lesson 06: classifier-free guidance."""

import torch

from diffusion_lessons import guidance
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise
from diffusion_lessons.forward import Prediction


def some_denoiser(g):
    """A denoiser whose prediction depends on the label, or on there being none."""
    a, b, c = (0.5 + torch.rand((), generator=g).item() for _ in range(3))

    def denoiser(x_t, t, y):
        if y is not None and len(y) != len(x_t):
            raise ValueError(f"{len(x_t)} pictures, but {len(y)} labels")
        x_t, label = inputs.as_a_network(x_t, t), torch.as_tensor(-2.0 if y is None else y.float() + 1)
        eps = torch.sin(a * x_t + b * label.reshape(-1, 1, 1, 1)) + c * t.reshape(-1, 1, 1, 1) / 10
        return Prediction(eps, x_t - eps)

    return denoiser


def sample_asked(g, k):
    """A denoiser, its arguments and a guidance scale: far above 1; below it; 0 or 1."""
    s, shape = inputs.schedule(g), inputs.shape(g, k)
    y, t = torch.randperm(9, generator=g)[:shape[0]], inputs.times(g, s.T, shape[0], k, first=1)
    w = (2.5 + inputs.one(g, 0, 40) / 10, 0.1 + inputs.one(g, 0, 7) / 10, float(inputs.one(g, 0, 1)))[k % 3]
    return some_denoiser(g), inputs.noise(g, shape), t, y, w


def two_passes(formula):
    """formula(uncond, cond, w) as an answer."""
    return lambda denoiser, x, t, y, w: formula(denoiser(x, t, None).eps, denoiser(x, t, y).eps, w)


def guided(denoiser, x_t, t, y, w):
    uncond, cond = denoiser(x_t, t, None).eps, denoiser(x_t, t, y).eps
    return uncond + w * (cond - uncond)


GUIDE = Exercise(
    "6.1", "guided(denoiser, x_t, t, y, w)", sample_asked,
    lambda denoiser, x, t, y, w: guidance.CFGDenoiser(denoiser, y, w)(x, t).eps, reference=guided,
    shows=[guidance.CFGDenoiser.__call__],
    praise="right: two predictions of one network, and their difference, multiplied by w.",
    hints=["Call it twice: denoiser(x_t, t, y) with the condition, denoiser(x_t, t, None) without. Each result has "
           "an .eps.",
           "Start from the unconditional prediction, and go w times the way to the conditional one.",
           "eps_u + w * (eps_c - eps_u)"],
    mistakes=[
        (two_passes(lambda u, c, w: c + w * (c - u)),
         "you started from the conditional prediction: that is our formula with w + 1. Start from the "
         "unconditional one."),
        (two_passes(lambda u, c, w: u + w * (u - c)),
         "that moves away from the condition: the difference is conditional minus unconditional."),
        (two_passes(lambda u, c, w: c + w * (u - c)),
         "the two predictions are swapped: w = 0 should ignore the condition, w = 1 is plain conditioning."),
        (two_passes(lambda u, c, w: w * (c - u)),
         "that is only the difference; add it to the unconditional prediction."),
        (two_passes(lambda u, c, w: w * c),
         "scale the difference of the two predictions, not one prediction."),
        (two_passes(lambda u, c, w: u + c * w), "scale the difference of the two predictions."),
        (two_passes(lambda u, c, w: c), "that is plain conditioning: nothing is amplified."),
        (lambda denoiser, x, t, y, w: denoiser(x, t, y),
         "take the .eps of what the denoiser returns: it returns eps and x0."),
        (lambda denoiser, x, t, y, w: guidance.CFGDenoiser(denoiser, y, w)(x, t).x0,
         "that is the guided picture; return the noise, .eps."),
    ])


def sample_stranger(g, k):
    """A guided denoiser whose scale follows some convention, the plain denoiser inside it, and their arguments."""
    denoiser, x, t, y, _ = sample_asked(g, k)
    scale = 0.3 + 6 * torch.rand((), generator=g).item()
    w = (scale + 1, scale, scale / 4)[k % 3]

    def theirs(x_t, t, y):
        return guidance.CFGDenoiser(denoiser, y, w)(x_t, t)

    return theirs, denoiser, x, t, y


def by_projection(read):
    """read(w): w is how far theirs goes from the unconditional prediction towards the conditional one."""
    def our_w(theirs, denoiser, x_t, t, y):
        guided, cond, uncond = theirs(x_t, t, y).eps, denoiser(x_t, t, y).eps, denoiser(x_t, t, None).eps
        difference = cond - uncond
        return read(((guided - uncond) * difference).sum() / difference.square().sum())
    return our_w


def our_w(theirs, denoiser, x_t, t, y):
    uncond = denoiser(x_t, t, None).eps
    plain, guided = denoiser(x_t, t, y).eps - uncond, theirs(x_t, t, y).eps - uncond
    return (guided * plain).sum() / (plain * plain).sum()


CONVENTION = Exercise(
    "6.2", "our_w(theirs, denoiser, x_t, t, y)", sample_stranger, by_projection(lambda w: w), reference=our_w,
    shows=[guidance.CFGDenoiser.__call__], tolerance=0.01,
    remark="Ho & Salimans write (1 + s) eps_c - s eps_u = eps_u + (1 + s) (eps_c - eps_u): our w is 1 + s.",
    praise="right: whatever its scale is called, this is what it does. With the paper's formula you find w = 1 + s.",
    hints=["Call the denoiser with the condition and without, as in exercise 6.1, and call theirs.",
           "theirs = uncond + w * (cond - uncond): you know all but w.",
           "guided, plain = theirs - uncond, cond - uncond; then (guided * plain).sum() / (plain * plain).sum()"],
    mistakes=[
        (by_projection(lambda w: w - 1),
         "that is the paper's s. Plain conditioning should be 1: measure from the unconditional prediction."),
        (by_projection(lambda w: w + 1), "that is one too much: w = 1 is plain conditioning."),
        (by_projection(lambda w: 1 / w), "it is upside down: how many times `cond - uncond` did theirs go?"),
        (by_projection(lambda w: 1 - w), "that is the factor of the unconditional prediction: 1 - w."),
        (by_projection(lambda w: -w),
         "the sign is flipped: go from the unconditional prediction to the conditional one."),
        (by_projection(lambda w: w.square()), "that is w squared: the root is missing."),
    ])


def sample_negative(g, k):
    denoiser, x, t, y, w = sample_asked(g, k)
    return denoiser, x, t, y, (y + 1 + inputs.one(g, 0, 3)) % 9, w


def away(formula):
    """formula(eps of the prompt, of the negative prompt, of no prompt, w) as an answer."""
    return lambda denoiser, x, t, y, n, w: formula(*(denoiser(x, t, label).eps for label in (y, n, None)), w)


def steer_away(denoiser, x_t, t, y, negative, w):
    unwanted, cond = denoiser(x_t, t, negative).eps, denoiser(x_t, t, y).eps
    return unwanted + w * (cond - unwanted)


NEGATIVE = Exercise(
    "6.3", "steer_away(denoiser, x_t, t, y, negative, w)", sample_negative,
    lambda denoiser, x, t, y, n, w: guidance.CFGDenoiser(denoiser, y, w, negative=n)(x, t).eps,
    reference=steer_away, shows=[guidance.CFGDenoiser.__call__],
    praise="right: the same formula, and the unwanted prompt takes the place of the empty one.",
    hints=["A negative prompt takes the place of the empty one.", "eps_n + w * (eps_c - eps_n)"],
    mistakes=[
        (away(lambda c, n, u, w: u + w * (c - u)), "the negative prompt is not used: pass it in place of None."),
        (away(lambda c, n, u, w: c + w * (n - c)), "the two are swapped: this moves towards the negative prompt."),
        (away(lambda c, n, u, w: u + w * (c - n)),
         "that is also in use, but it starts from the empty prompt: here the negative one replaces it "
         "everywhere."),
        (away(lambda c, n, u, w: c - w * n), "scale the difference of the two predictions."),
        (away(lambda c, n, u, w: c + w * (c - n)),
         "you started from the prompt's prediction: start from the negative one's."),
    ])


def sample_pair(g, k):
    """Guided and plain estimates: the guided ones have a wider spread, different in each picture."""
    shape = inputs.shape(g, k)
    plain = inputs.picture(g, shape)
    wider = 1.5 + torch.rand(shape[0], 1, 1, 1, generator=g)
    return wider * plain + 0.1 * inputs.noise(g, shape) + 0.3, plain


def of_each(x):
    return x.flatten(1).std(1).reshape(-1, 1, 1, 1)


def rescale(x0_guided, x0_plain):
    wanted, spread = (x.flatten(1).std(1).reshape(-1, 1, 1, 1) for x in (x0_plain, x0_guided))
    return x0_guided * wanted / spread


RESCALE = Exercise(
    "6.4", "rescale(x0_guided, x0_plain)", sample_pair, lambda a, b: a * of_each(b) / of_each(a),
    reference=rescale, shows=[guidance.CFGDenoiser.__call__],
    remark="With rescale=1 the factor below is wanted / spread.",
    praise="right: every picture keeps its guided shape, and gets the spread of the plain one back.",
    hints=["The spread of a picture is the standard deviation of all its numbers: x.flatten(1).std(1), one for each.",
           "Multiply the guided estimate by (spread of the plain one) / (its own spread).",
           "Shapes: (B,) must become (B, 1, 1, 1) to multiply pictures."],
    mistakes=[
        (lambda a, b: a * b.std() / a.std(),
         "you took one spread for the whole batch: each picture has its own."),
        (lambda a, b: a * of_each(a) / of_each(b), "the ratio is upside down: it makes a wide spread wider."),
        (lambda a, b: a / of_each(a), "that makes the spread 1; it should be that of the plain estimate."),
        (lambda a, b: a * of_each(b), "divide by the guided estimate's own spread as well."),
        (lambda a, b: a * (of_each(b) / of_each(a)) ** 2, "you took variances; the spread is their square root."),
        (lambda a, b: (a - a.mean((1, 2, 3), keepdim=True)) * of_each(b) / of_each(a),
         "the mean is gone: keep it, only multiply."),
        (lambda a, b: b, "that is the plain estimate itself: the effect of guidance is lost."),
    ])


def sample_both(g, k):
    denoiser, x, t, y, w = sample_asked(g, k)
    return denoiser, x, t, y, torch.full_like(y, 9), w


def at_once(formula, order=lambda y, n: (y, n)):
    """formula(first half, second half, w) of one call, whose batch is concatenated in that order."""
    def one_call(denoiser, x, t, y, n, w):
        both = denoiser(torch.cat([x, x]), torch.cat([t, t]), torch.cat(order(y, n)))
        return formula(*both.x0.chunk(2), w)
    return one_call


def fixed_pass(denoiser, x_t, t, y, nothing, w):
    both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([y, nothing]))
    cond, uncond = both.x0.chunk(2)
    return uncond + w * (cond - uncond)


FIXED = Exercise(
    "6.5", "fixed_pass(denoiser, x_t, t, y, nothing, w)", sample_both, at_once(lambda c, u, w: u + w * (c - u)),
    reference=fixed_pass,
    praise="fixed: w = 0 ignores the condition again, and w = 1 is one plain pass.",
    hints=["What should come out at w = 0, and what at w = 1? What does?",
           "In which order is the batch concatenated, and in which is it split?"],
    mistakes=[
        (at_once(lambda u, c, w: u + w * (c - u)), STILL_BROKEN),
        (at_once(lambda c, u, w: c + w * (c - u)),
         "it starts from the conditional prediction: w = 0 should ignore the condition."),
        (at_once(lambda c, u, w: u + w * (u - c)),
         "the halves are right, but it moves away from the condition: use cond - uncond."),
        (at_once(lambda u, c, w: u + w * (c - u), order=lambda y, n: (y, y)),
         "both halves get the same condition now."),
        (at_once(lambda c, u, w: w * (c - u)), "that is only the difference; add it to the unconditional prediction."),
        (at_once(lambda c, u, w: u + w * c), "scale the difference of the two predictions."),
    ])

EXERCISES = [GUIDE, CONVENTION, NEGATIVE, RESCALE, FIXED]
