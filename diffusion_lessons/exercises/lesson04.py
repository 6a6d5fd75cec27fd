"""Exercises of lesson 04: the sampling loop."""

import itertools
from itertools import pairwise

import numpy as np
import torch

from diffusion_lessons import forward, samplers, schedules
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, as_numbers
from diffusion_lessons.forward import add_noise


def sample_turn(g, k):
    """A step from t to s, x_t and a possible prediction: an eps and an x0 that make up x_t.

    Somewhere, a single step, all the way from T to 0.
    """
    schedule, shape = inputs.schedule(g), inputs.shape(g, k)
    t = schedule.T if k % 3 == 2 else inputs.one(g, 8, schedule.T - 1)
    s = (inputs.one(g, 3, t - 3), t - 1, 0)[k % 3]
    x_t, x0 = inputs.noise(g, shape), inputs.picture(g, shape)
    return x_t, t, s, forward.from_x0(x0, x_t, torch.full(shape[:1], t), schedule), schedule


def ddim(formula):
    """formula(x_t, prediction, ab_t, ab_s) as an answer."""
    return lambda x_t, t, s, p, schedule: formula(x_t, p, schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item())


def ddim_step(x_t, t, s, prediction, schedule):
    ab_s = schedule.alpha_bar[s].float()
    return ab_s.sqrt() * prediction.x0 + (1 - ab_s).sqrt() * prediction.eps


DDIM = Exercise(
    "4.1", "ddim_step(x_t, t, s, prediction, schedule)", sample_turn,
    lambda x_t, t, s, p, schedule: samplers.ddim_step(x_t, t, s, p, schedule, 0.0),
    reference=ddim_step, shows=[samplers.ddim_step],
    remark="With eta = 0 the variance is 0, and the last term drops out.",
    praise="right: the predicted noise goes back in, only less of it. It is the jump to time s, with estimates in "
           "place of the true picture and noise.",
    hints=["prediction.x0 is the estimate of the clean picture, prediction.eps of the noise.",
           "Where would that picture be at time s, with that noise? The jump tells.",
           "ab = schedule.alpha_bar[s]; ab.sqrt() * prediction.x0 + (1 - ab).sqrt() * prediction.eps"],
    mistakes=[
        (ddim(lambda x, p, a, b: b * p.x0 + (1 - b) * p.eps),
         "you used alpha_bar and 1 - alpha_bar instead of their square roots."),
        (ddim(lambda x, p, a, b: a**0.5 * p.x0 + (1 - a) ** 0.5 * p.eps),
         "you noised it back to time t, where you started: go to s, which is less noisy."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0 + (1 - a) ** 0.5 * p.eps),
         "the noise has the factor of time t; use that of s, or nothing gets cleaner."),
        (ddim(lambda x, p, a, b: a**0.5 * p.x0 + (1 - b) ** 0.5 * p.eps),
         "the picture has the factor of time t; use that of s."),
        (ddim(lambda x, p, a, b: p.x0),
         "you stopped at the estimate. Add noise back, as much as there is at time s."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0), "the picture is right, but no noise is added back."),
        (ddim(lambda x, p, a, b: p.x0 + (1 - b) ** 0.5 * p.eps),
         "scale the estimate by sqrt(alpha_bar_s) before you add noise."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0 + (1 - b) ** 0.5 * x),
         "you added x_t back; add the predicted noise, prediction.eps."),
        (ddim(lambda x, p, a, b: b**0.5 * p.eps + (1 - b) ** 0.5 * p.x0),
         "picture and noise are swapped."),
        (ddim(lambda x, p, a, b: x - p.eps), "all the noise is subtracted at once, unscaled."),
        (lambda x, t, s, p, c: samplers.ddim_step(x, t, max(t - 1, 0), p, c, 0.0),
         "you went to t - 1. The loop takes larger steps: go to s."),
    ])


def sample_ddpm(g, k):
    turn = sample_turn(g, k)
    return *turn, inputs.noise(g, turn[0].shape)


def mean_of(x_t, p, t, s, schedule):
    return samplers.ddpm_step(x_t, t, s, p, schedule, 0.0)


def ddpm(spread):
    """The right mean with a different amount of noise: z is multiplied by spread(ab_t, ab_s)."""
    return lambda x_t, t, s, p, schedule, z: (
        mean_of(x_t, p, t, s, schedule) + spread(schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()) * z)


def variance(a, b):
    return (1 - b) / (1 - a) * (1 - a / b)


def ddpm_mean(formula):
    """The right noise with a different mean: formula(x_t, x0_hat, ab_t, ab_s)."""
    def step(x_t, t, s, p, schedule, z):
        a, b = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        return formula(x_t, p.x0, a, b) + variance(a, b) ** 0.5 * z
    return step


def neighbours(x_t, t, s, p, schedule, z):
    """The formula of the paper, which is for s = t - 1, used for a larger step."""
    beta, b, a = schedule.beta[t].item(), schedule.alpha_bar[s].item(), schedule.alpha_bar[t].item()
    mean = (b**0.5 * beta * p.x0 + (1 - beta) ** 0.5 * (1 - b) * x_t) / (1 - a)
    return mean + ((1 - b) / (1 - a) * beta) ** 0.5 * z


def ddpm_step(x_t, t, s, prediction, schedule, z):
    ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    a = ab_t / ab_s                                                          # what the step keeps
    mean = (ab_s**0.5 * (1 - a) * prediction.x0 + a**0.5 * (1 - ab_s) * x_t) / (1 - ab_t)
    return mean + ((1 - ab_s) / (1 - ab_t) * (1 - a)) ** 0.5 * z


DDPM = Exercise(
    "4.2", "ddpm_step(x_t, t, s, prediction, schedule, z)", sample_ddpm, samplers.ddpm_step,
    reference=ddpm_step, shows=[samplers.ddpm_step],
    praise="right: fresh noise in every step, and none in the last.",
    hints=["Let ab_t and ab_s be alpha_bar at t and s, and a = ab_t / ab_s what the step from s to t "
           "keeps.",
           "mean = (sqrt(ab_s) (1 - a) x0_hat + sqrt(a) (1 - ab_s) x_t) / (1 - ab_t)",
           "sigma^2 = (1 - ab_s) / (1 - ab_t) * (1 - a). At s = 0 it is 0 by itself, as alpha_bar[0] = 1. "
           "Return mean + sigma * z."],
    mistakes=[
        (ddpm(variance), "z is multiplied by the variance; use its square root."),
        (ddpm(lambda a, b: (1 - a / b) ** 0.5),
         "you took sigma^2 = 1 - a. That is also in use (\"fixed large\"), but it leaves noise in the finished "
         "picture: the last step, to s = 0, must add none. Multiply by (1 - ab_s) / (1 - ab_t)."),
        (ddpm(lambda a, b: 0.0), "the mean is right, but no fresh noise is added."),
        (ddpm(lambda a, b: 1.0),
         "the mean is right, but z is added in full, in the last step too: multiply it by sigma."),
        (ddpm(lambda a, b: (1 - b) ** 0.5),
         "you multiplied z by sqrt(1 - ab_s), but part of that noise is already in x_t: use sigma."),
        (ddpm_mean(lambda x, p, a, b: (b**0.5 * (1 - a / b) * x + (a / b) ** 0.5 * (1 - b) * p) / (1 - a)),
         "x0_hat and x_t are swapped in the mean."),
        (ddpm_mean(lambda x, p, a, b: b**0.5 * (1 - a / b) * p + (a / b) ** 0.5 * (1 - b) * x),
         "the mean must be divided by 1 - ab_t."),
        (ddpm_mean(lambda x, p, a, b: (b * (1 - a / b) * p + a / b * (1 - b) * x) / (1 - a)),
         "the roots in the mean are missing: sqrt(ab_s) and sqrt(a)."),
        (ddpm_mean(lambda x, p, a, b: p), "the mean is not x0_hat alone: much of x_t stays in it."),
        (neighbours,
         "you used beta[t], which belongs to a step of length one. The step from t to s keeps a = ab_t / ab_s, "
         "and 1 - a takes beta's place."),
    ])


def sample_times(g, k):
    """A number of steps that does not divide T; then a single step; then T steps, or a divisor of T."""
    steps = inputs.one(g, 4, 25)
    if k % 3 == 1:
        return 10 * steps, 1
    if k % 3 == 2:
        return steps * (1 + 6 * (k % 2)), steps
    return steps * inputs.one(g, 4, 20) + inputs.one(g, 3, steps - 1), steps    # 3: more than rounding can change


def same_times(a, b):
    """Integers falling from T to 0, nowhere more than 1 away: a half may be rounded either way."""
    a, b = as_numbers(a), as_numbers(b)
    return bool(a.shape == b.shape and a[0] == b[0] and a[-1] == 0 and (np.diff(a) < 0).all()
                and (a == a.round()).all() and (np.abs(a - b) <= 1).all())


def timesteps(T, steps):
    return [round(T - k * T / steps) for k in range(steps)] + [0]


TIMES = Exercise(
    "4.3", "timesteps(T, steps)", sample_times, samplers.timesteps,
    reference=timesteps, shows=[samplers.timesteps], same=same_times, integers=True,
    praise="right: it starts at T, where the picture is noise, and ends at 0, where it is clean.",
    hints=["`steps` steps need steps + 1 times, the first T and the last 0.",
           "The k-th time is T - k * T / steps, rounded.",
           "[round(T - k * T / steps) for k in range(steps)] + [0]"],
    mistakes=[
        (lambda T, n: [round(T - k * T / n) for k in range(n)],
         "the 0 at the end is missing: `steps` steps need steps + 1 times."),
        (lambda T, n: [round(T - k * T / n) for k in range(1, n + 1)],
         "it does not start at T: the noise you start from belongs to t = T."),
        (lambda T, n: [round(k * T / n) for k in range(n + 1)],
         "it goes up. Sampling goes down, from T to 0."),
        (lambda T, n: list(range(T, -1, -(T // n))),
         "steps of equal whole length do not divide T, so you miss 0: compute "
         "each time as T - k * T / steps and round that."),
        (lambda T, n: list(range(T, -1, -(T // n)))[:n] + [0],
         "steps of equal whole length do not divide T, so the last one is too long: "
         "compute each time as T - k * T / steps and round that."),
        (lambda T, n: [k * (T // n) for k in range(n)][::-1],
         "this is \"leading\" spacing: it never visits T, so the loop treats the pure noise it starts "
         "from as something less noisy. A well-known bug of public samplers (Lin et al. 2023)."),
        (lambda T, n: [k * (T // n) for k in range(n)][::-1] + [0],
         "this is \"leading\" spacing: it never visits T, so the loop treats the pure noise it starts "
         "from as something less noisy."),
        (lambda T, n: list(range(T, -1, -1)), "those are all T steps; only `steps` of them are asked for."),
        (lambda T, n: [T - k * T / n for k in range(n + 1)],
         "nearly: the times must be integers. Round them."),
        (lambda T, n: torch.linspace(T - 1, 0, n + 1).round(),
         "it starts at T - 1: the times of this course are numbered 0..T."),
    ])


def sample_mask(g, k):
    """One rectangular mask for all pictures; a soft one each; scattered pixels each."""
    s, shape = inputs.schedule(g), inputs.shape(g, k)
    mask = torch.zeros(1, 1, *shape[2:])
    mask[..., inputs.one(g, 1, 4):, :] = 1.0
    if k % 3:
        mask = torch.rand(shape[0], 1, *shape[2:], generator=g)
        mask = mask.round() if k % 3 == 2 else mask
    t = inputs.times(g, s.T, shape[0], k)
    return inputs.noise(g, shape), inputs.picture(g, shape), mask, t, inputs.noise(g, shape), s


def keep_known(x_s, x0, mask, s, eps, schedule):
    return mask * x_s + (1 - mask) * add_noise(x0, s, eps, schedule)


INPAINT = Exercise(
    "4.4", "keep_known(x_s, x0, mask, s, eps, schedule)", sample_mask, keep_known,
    reference=keep_known, may_call=(add_noise,), shows=[samplers.inpaint],
    remark="The last three lines of the loop are the exercise.",
    praise="right: the known part is as noisy as the rest at every step, so the network sees one consistent "
           "picture.",
    hints=["Where mask is 1, x_s stays (generated); where it is 0, the known picture x0 goes in.",
           "The known part must be as noisy as x_s is: add_noise(x0, s, eps, schedule).",
           "mask * x_s + (1 - mask) * known"],
    mistakes=[
        (lambda x, x0, m, s, e, c: keep_known(x, x0, 1 - m, s, e, c),
         "the mask is the wrong way round: 1 means generate, 0 means keep."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * x0,
         "the known part goes in clean. At time s it must be as noisy as its surroundings: add_noise(x0, s, "
         "eps, schedule)."),
        (lambda x, x0, m, s, e, c: add_noise(m * x + (1 - m) * x0, s, e, c),
         "the noise is added twice: x_s is noisy already. Only x0 needs it."),
        (lambda x, x0, m, s, e, c: x + (1 - m) * add_noise(x0, s, e, c),
         "the known part was added on top of x_s: first clear its region, mask * x_s."),
        (lambda x, x0, m, s, e, c: m * x + add_noise((1 - m) * x0, s, e, c),
         "the noise went everywhere: noise x0 first, then multiply by 1 - mask."),
        (lambda x, x0, m, s, e, c: m * x, "the region of the known part is empty: put the noised x0 there."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * add_noise(x0, (s - 1).clamp(min=0), e, c),
         "s is off by one in the noise of the known part."),
        (lambda x, x0, m, s, e, c: torch.where(m > 0.5, x, add_noise(x0, s, e, c)),
         "right for masks of 0 and 1; where the mask is in between, mix the two: mask * x_s + (1 - mask) * "
         "known."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * (x0 + e),
         "the noise is added unscaled; use add_noise, which scales it for time s."),
    ])


STRENGTHS = [k / 20 for k in range(1, 21)]


def sample_restyler(g, k):
    """Image to image, a picture, and a change that some strength reaches: a middling one, the least, a large one.

    The denoiser is the exact one for pictures that are Gaussian around a mean picture: it only shrinks towards it.
    """
    schedule, shape = schedules.cosine(400), (2, 3, 6, 5)
    mean, spread = inputs.picture(g, shape), 0.3 + 0.4 * torch.rand(shape, generator=g)
    x0, eps, known = inputs.picture(g, shape), inputs.noise(g, shape), {}

    def denoiser(x_t, t):
        a = inputs.factor(schedule.alpha_bar, t)
        pull = a.sqrt() * spread**2 / (a * spread**2 + 1 - a)
        return forward.from_x0(mean + pull * (x_t - a.sqrt() * mean), x_t, t, schedule)

    def redraw(x, strength):
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], not {strength}")
        key = float(strength), x.numpy().tobytes()
        if key not in known:                                                 # the same call comes often
            known[key] = samplers.run(samplers.img2img(denoiser, x, schedule, key[0], lambda _: eps, steps=5))
        return known[key].clone()

    change = [(redraw(x0, strength) - x0).square().mean().item() for strength in STRENGTHS]
    # where it becomes larger than ever before, by more than rounding
    records = [max(change[:n], default=0.0) for n in range(20)]
    steps = [(before, now) for before, now in zip(records, change) if now > 1.02 * before]
    low, high = steps[(inputs.one(g, 2, len(steps) // 2), 0, -1)[k % 3]]
    wanted = low + (0.95, 0.95, 0.1)[k % 3] * (high - low)                      # close to what the answer reaches
    if k % 3 == 0 and abs(high - last_below(change, wanted)) < 0.03:            # two mistakes could not be told apart
        return sample_restyler(g, k)
    return redraw, x0, wanted


def by_scan(choose, measure=torch.square):
    """The experiment with a different choice, choose(changes, wanted), or a different measure of the change."""
    def gentlest(redraw, x0, wanted):
        return choose([measure(redraw(x0, strength) - x0).mean().item() for strength in STRENGTHS], wanted)
    return gentlest


def first_above(changes, wanted):
    return next((strength for strength, change in zip(STRENGTHS, changes) if change >= wanted), 1.0)


def last_below(changes, wanted):
    return max((strength for strength, change in zip(STRENGTHS, changes) if change < wanted), default=0.0)


def gentlest(redraw, x0, wanted):
    for k in range(1, 21):
        change = (redraw(x0, k / 20) - x0).square().mean()
        if change >= wanted:
            return k / 20
    return 1.0


GENTLEST = Exercise(
    "4.5", "gentlest(redraw, x0, wanted)", sample_restyler, by_scan(first_above), reference=gentlest, tolerance=0.01,
    praise="right: measured, not guessed. How much a strength changes depends on the picture and the network.",
    hints=["Try the strengths one by one, small ones first, and measure how far each result is from x0.",
           "(redraw(x0, strength) - x0).square().mean() is the change.",
           "for k in range(1, 21): strength k / 20; the first one whose change is at least `wanted` is it."],
    mistakes=[
        (by_scan(last_below), "that is the last one that changes too little. You need the first that changes enough."),
        (by_scan(lambda c, wanted: STRENGTHS[min(range(20), key=lambda k: abs(c[k] - wanted))]),
         "that is the strength whose change is nearest to `wanted`; it must be at least that."),
        (by_scan(lambda c, wanted: 1.0), "strength 1 forgets the picture. A smaller one will do."),
        (by_scan(lambda c, wanted: STRENGTHS.index(first_above(c, wanted)) + 1),
         "that is the number of twentieths: divide by 20."),
        (by_scan(first_above, torch.abs), "you took the mean absolute change; the mean squared one is wanted."),
        (by_scan(lambda c, wanted: c[STRENGTHS.index(first_above(c, wanted))]),
         "that is the change. Return the strength that causes it."),
    ])


def sample_walk(g, k):
    """A denoiser that never removes all of its input, and a few steps; a single one; T steps."""
    s, a, b = inputs.schedule(g), *(0.3 + 0.5 * torch.rand(2, generator=g)).tolist()

    def denoiser(x_t, t):
        return forward.from_x0(torch.tanh(a * inputs.as_a_network(x_t, t) + b), x_t, t, s)

    steps, shape = (inputs.one(g, 3, 6), 1, s.T)[k % 3], inputs.shape(g, k)
    return denoiser, inputs.noise(g, shape), s, steps, torch.randn(steps, *shape, generator=g)


def walker(sigma, start=lambda x: x, mean=None):
    """The ancestral loop of the lesson with a different amount of noise: sigma(ab_t, ab_s, k, steps)."""
    def walk(denoiser, x_t, s, steps, z):
        x_t = start(x_t)
        times = samplers.timesteps(s.T, steps)
        for k, (t, u) in enumerate(itertools.pairwise(times)):
            hat = denoiser(x_t, torch.full((len(x_t),), t))
            x_s = samplers.ddpm_step(x_t, t, u, hat, s, 0.0) if mean is None else mean(x_t, hat, t, u, s)
            x_t = x_s + sigma(s.alpha_bar[t].item(), s.alpha_bar[u].item(), k, steps) * z[k]
        return x_t
    return walk


def large(a, b, k, steps):
    return (1 - a / b) ** 0.5


def small(a, b, k, steps):
    return variance(a, b) ** 0.5


def fixed_walk(denoiser, x_t, schedule, steps, z):
    times = [round(schedule.T - k * schedule.T / steps) for k in range(steps)] + [0]
    for k, (t, s) in enumerate(pairwise(times)):
        with torch.no_grad():
            x0_hat = denoiser(x_t, torch.full((len(x_t),), t)).x0
        ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        a = ab_t / ab_s
        x_t = (ab_s**0.5 * (1 - a) * x0_hat + a**0.5 * (1 - ab_s) * x_t) / (1 - ab_t)
        if s > 0:                                                            # none in the last step
            x_t = x_t + (1 - a) ** 0.5 * z[k]
    return x_t


FIXED = Exercise(
    "4.6", "fixed_walk(denoiser, x_t, schedule, steps, z)", sample_walk,
    walker(lambda a, b, k, n: large(a, b, k, n) * (k < n - 1)), alternatives=(walker(small),),
    reference=fixed_walk,
    remark="In exercise 4.2 the factor (1 - ab_s) / (1 - ab_t) does this: at s = 0 it is 0 by itself.",
    praise="fixed: the last step adds nothing, and the picture comes out clean.",
    hints=["After which step does added noise stay in the picture for good?",
           "After the last step no noise is removed any more.",
           "Add z[k] only if s > 0; or use the variance of exercise 4.2, which is 0 there."],
    mistakes=[
        (walker(large), STILL_BROKEN),
        (walker(lambda a, b, k, n: 0.0),
         "now there is no fresh noise in any step. Only the last one must have none: without the others the loop "
         "tends towards blurs."),
        (walker(lambda a, b, k, n: large(a, b, k, n) * (k > 0)),
         "you left the noise out of the first step; it is the last that must have none."),
        (walker(lambda a, b, k, n: large(a, b, k, n) * (k < n - 2)),
         "the last two steps have no noise now. Only the last must have none: if s > 0."),
        (walker(lambda a, b, k, n: (1 - a / b) * (k < n - 1)),
         "the last step is right, but the others now add the variance 1 - a instead of its square root."),
        (walker(lambda a, b, k, n: (1 - a / b)),
         "you removed the square root, which makes all the noise smaller; the last step still adds some."),
        (walker(lambda a, b, k, n: (1 - b) ** 0.5),
         "at s = 0 nothing is added, but in the other steps too much is: part of that noise is already in x_t."),
    ])

EXERCISES = [DDIM, DDPM, TIMES, INPAINT, GENTLEST, FIXED]
