"""Exercises of lesson 04: the sampling loop."""

import numpy as np
import torch

from diffusion_lessons import forward, guidance, samplers
from diffusion_lessons.classroom.exercises import drawing
from diffusion_lessons.classroom.exercises.judging import Exercise, as_numbers


def draw_turn(g, k):
    """A turn from t to s, every third one the last (s = 0), none of them from t to t - 1."""
    s = drawing.schedule(g)
    t = drawing.one(g, 8, s.T - 1)
    return drawing.noise(g), t, 0 if k % 3 == 2 else drawing.one(g, 3, t - 3), drawing.noise(g), drawing.picture(g), s


def draw_ddim(g, k):
    x_t, t, s, eps, x0, schedule = draw_turn(g, k)
    return x_t, t, s, forward.Prediction(eps, x0), schedule


def ddim(formula):
    """formula(x_t, prediction, ab_t, ab_s) as an answer."""
    return lambda x_t, t, s, p, schedule: formula(x_t, p, schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item())


DDIM = Exercise(
    "4.1", "ddim_step(x_t, t, s, prediction, schedule)", draw_ddim,
    lambda x_t, t, s, p, schedule: samplers.ddim_step(x_t, t, s, p, schedule, 0.0),
    shows=[samplers.ddim_step], remark="With eta = 0 the variance is 0, and the last term drops out.",
    praise="right: the predicted noise goes back in, only less of it. It is the jump to time s, with "
           "estimates in place of the truth.",
    hints=["prediction.x0 is the estimate of the clean picture, prediction.eps of the noise.",
           "Where would that picture be at time s, with that noise? You know the formula: the jump.",
           "ab = schedule.alpha_bar[s]; ab.sqrt() * prediction.x0 + (1 - ab).sqrt() * prediction.eps"],
    mistakes=[
        (ddim(lambda x, p, a, b: b * p.x0 + (1 - b) * p.eps),
         "you used alpha_bar and 1 - alpha_bar instead of their square roots."),
        (ddim(lambda x, p, a, b: a**0.5 * p.x0 + (1 - a) ** 0.5 * p.eps),
         "you noised it back to time t, where you came from: it should go to s, which is less noisy."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0 + (1 - a) ** 0.5 * p.eps),
         "the noise has its amount of time t: it should be that of s, or nothing gets cleaner."),
        (ddim(lambda x, p, a, b: a**0.5 * p.x0 + (1 - b) ** 0.5 * p.eps),
         "the picture has its factor of time t; it should be that of s."),
        (ddim(lambda x, p, a, b: p.x0),
         "you stopped at the estimate. Add noise back, as much as belongs to time s."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0), "the picture is right, but no noise is added back."),
        (ddim(lambda x, p, a, b: p.x0 + (1 - b) ** 0.5 * p.eps),
         "the estimate must be made smaller, by sqrt(alpha_bar_s), before noise is added."),
        (ddim(lambda x, p, a, b: b**0.5 * p.x0 + (1 - b) ** 0.5 * x),
         "you added x_t back; it is the predicted noise, prediction.eps, that goes in."),
        (ddim(lambda x, p, a, b: b**0.5 * p.eps + (1 - b) ** 0.5 * p.x0),
         "picture and noise have changed places."),
        (ddim(lambda x, p, a, b: x - p.eps), "all the noise is taken away at once, unscaled."),
        (lambda x, t, s, p, c: samplers.ddim_step(x, t, max(t - 1, 0), p, c, 0.0),
         "you went to t - 1. The loop makes bigger strides: go to s."),
    ])


def draw_ddpm(g, k):
    x_t, t, s, eps, x0, schedule = draw_turn(g, k)
    return x_t, t, s, forward.Prediction(eps, x0), schedule, drawing.noise(g)


def mean_of(x_t, p, t, s, schedule):
    return samplers.ddpm_step(x_t, t, s, p, schedule, 0.0)


def ddpm(spread):
    """The right mean with another amount of noise: spread(ab_t, ab_s) is what z is multiplied by."""
    return lambda x_t, t, s, p, schedule, z: (
        mean_of(x_t, p, t, s, schedule) + spread(schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()) * z)


def variance(a, b):
    return (1 - b) / (1 - a) * (1 - a / b)


def ddpm_mean(formula):
    """The right noise with another mean: formula(x_t, x0_hat, ab_t, ab_s)."""
    def step(x_t, t, s, p, schedule, z):
        a, b = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        return formula(x_t, p.x0, a, b) + variance(a, b) ** 0.5 * z
    return step


def neighbours(x_t, t, s, p, schedule, z):
    """The formula as it stands in the paper, for s = t - 1, used for a bigger stride."""
    beta, b, a = schedule.beta[t].item(), schedule.alpha_bar[s].item(), schedule.alpha_bar[t].item()
    mean = (b**0.5 * beta * p.x0 + (1 - beta) ** 0.5 * (1 - b) * x_t) / (1 - a)
    return mean + ((1 - b) / (1 - a) * beta) ** 0.5 * z


DDPM = Exercise(
    "4.2", "ddpm_step(x_t, t, s, prediction, schedule, z)", draw_ddpm, samplers.ddpm_step, shows=[samplers.ddpm_step],
    praise="right, with fresh noise in every step and none in the last.",
    hints=["Let ab_t and ab_s be alpha_bar at t and s, and a = ab_t / ab_s what the stride from s to t "
           "keeps.",
           "mean = (sqrt(ab_s) (1 - a) x0_hat + sqrt(a) (1 - ab_s) x_t) / (1 - ab_t)",
           "sigma^2 = (1 - ab_s) / (1 - ab_t) * (1 - a). At s = 0 it is 0 by itself, as alpha_bar[0] = 1. "
           "Return mean + sigma * z."],
    mistakes=[
        (ddpm(variance), "z is multiplied by the variance; take its square root."),
        (ddpm(lambda a, b: (1 - a / b) ** 0.5),
         "you took sigma^2 = 1 - a. It is in use too (\"fixed large\"), but it leaves noise in the finished "
         "picture: the last step, to s = 0, must add none. Multiply by (1 - ab_s) / (1 - ab_t)."),
        (ddpm(lambda a, b: 0.0), "the mean is right, but no fresh noise is added."),
        (ddpm(lambda a, b: 1.0),
         "the mean is right, but z is added in full, in the last step too: multiply it by sigma."),
        (ddpm(lambda a, b: (1 - b) ** 0.5),
         "you noised with sqrt(1 - ab_s), but a part of that noise is already in x_t: use sigma."),
        (ddpm_mean(lambda x, p, a, b: (b**0.5 * (1 - a / b) * x + (a / b) ** 0.5 * (1 - b) * p) / (1 - a)),
         "x0_hat and x_t have changed places in the mean."),
        (ddpm_mean(lambda x, p, a, b: b**0.5 * (1 - a / b) * p + (a / b) ** 0.5 * (1 - b) * x),
         "the mean must be divided by 1 - ab_t."),
        (ddpm_mean(lambda x, p, a, b: (b * (1 - a / b) * p + a / b * (1 - b) * x) / (1 - a)),
         "the roots in the mean are missing: sqrt(ab_s) and sqrt(a)."),
        (ddpm_mean(lambda x, p, a, b: p), "the mean is not x0_hat alone: a good deal of x_t stays in."),
        (neighbours,
         "you used beta[t], which belongs to a stride of one. From t to s the stride keeps a = ab_t / ab_s, "
         "and 1 - a takes beta's place."),
    ])


def draw_times(g, k):
    steps = drawing.one(g, 4, 25)
    return steps * drawing.one(g, 4, 20) + drawing.one(g, 1, steps - 1), steps


def same_times(a, b):
    """Whole numbers, falling from T to 0, nowhere more than 1 away: how a half is rounded is a matter of taste."""
    a, b = as_numbers(a), as_numbers(b)
    return bool(a.shape == b.shape and a[0] == b[0] and a[-1] == 0 and (np.diff(a) < 0).all()
                and (a == a.round()).all() and (np.abs(a - b) <= 1).all())


TIMES = Exercise(
    "4.3", "timesteps(T, steps)", draw_times, samplers.timesteps, shows=[samplers.timesteps], same=same_times,
    praise="right: it begins at T, where the picture is noise, and ends at 0, where it is clean.",
    hints=["steps strides need steps + 1 times, the first T and the last 0.",
           "The k-th time is T - k * T / steps, rounded.",
           "[round(T - k * T / steps) for k in range(steps)] + [0]"],
    mistakes=[
        (lambda T, n: [round(T - k * T / n) for k in range(n)],
         "the 0 at the end is missing: steps strides need steps + 1 times."),
        (lambda T, n: [round(T - k * T / n) for k in range(1, n + 1)],
         "it does not begin at T: the noise you start from belongs to t = T."),
        (lambda T, n: [round(k * T / n) for k in range(n + 1)],
         "it goes up. Sampling goes down, from T to 0."),
        (lambda T, n: list(range(T, -1, -(T // n))),
         "whole strides do not divide T, so you miss 0: compute each time as T - k * T / steps and round "
         "that."),
        (lambda T, n: list(range(T, -1, -(T // n)))[:n] + [0],
         "whole strides do not divide T, so the last one is too long: compute each time as T - k * T / steps "
         "and round that."),
        (lambda T, n: [k * (T // n) for k in range(n)][::-1],
         "this is \"leading\" spacing: it never visits T, so the loop starts from noise it takes for "
         "something less noisy. A well-known bug of public samplers (Lin et al. 2023)."),
        (lambda T, n: [k * (T // n) for k in range(n)][::-1] + [0],
         "this is \"leading\" spacing: it never visits T, so the loop starts from noise it takes for "
         "something less noisy."),
        (lambda T, n: list(range(T, -1, -1)), "those are all T steps; wanted are only `steps` of them."),
        (lambda T, n: [T - k * T / n for k in range(n + 1)],
         "nearly: the times must be whole numbers. Round them."),
        (lambda T, n: torch.linspace(T - 1, 0, n + 1).round(),
         "it begins at T - 1: the times of this course are numbered 0..T."),
    ])


def draw_mask(g, k):
    s = drawing.schedule(g)
    mask = torch.zeros(1, 1, 6, 5)
    mask[..., drawing.one(g, 1, 4):, :] = 1.0
    return drawing.noise(g), drawing.picture(g), mask, drawing.times(g, s.T), drawing.noise(g), s


def keep_known(x_s, x0, mask, s, eps, schedule):
    return mask * x_s + (1 - mask) * forward.add_noise(x0, s, eps, schedule)


INPAINT = Exercise(
    "4.4", "keep_known(x_s, x0, mask, s, eps, schedule)", draw_mask, keep_known, shows=[samplers.inpaint],
    remark="The last three lines of the loop are the exercise.",
    uses=(forward.add_noise,),
    praise="right: the known part is as noisy as the rest at every moment, so the network sees one whole "
           "picture.",
    hints=["Where mask is 1, x_s stays (made up); where it is 0, the known picture x0 goes in.",
           "The known part must be as noisy as x_s is: add_noise(x0, s, eps, schedule).",
           "mask * x_s + (1 - mask) * known"],
    mistakes=[
        (lambda x, x0, m, s, e, c: keep_known(x, x0, 1 - m, s, e, c),
         "the mask is the wrong way round: 1 means make up, 0 means keep."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * x0,
         "the known part goes in clean. At time s it must be as noisy as its surroundings: add_noise(x0, s, "
         "eps, schedule)."),
        (lambda x, x0, m, s, e, c: forward.add_noise(m * x + (1 - m) * x0, s, e, c),
         "the noise is added twice: x_s is noisy already. Only x0 needs it."),
        (lambda x, x0, m, s, e, c: x + (1 - m) * forward.add_noise(x0, s, e, c),
         "the known part was laid on top of x_s: first clear its place, mask * x_s."),
        (lambda x, x0, m, s, e, c: m * x + forward.add_noise((1 - m) * x0, s, e, c),
         "the noise went everywhere: noise x0 first, then cut out its part with 1 - mask."),
        (lambda x, x0, m, s, e, c: m * x, "the place of the known part is empty: put the noised x0 there."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * forward.add_noise(x0, s - 1, e, c),
         "s is off by one in the noise of the known part."),
        (lambda x, x0, m, s, e, c: m * x + (1 - m) * (x0 + e),
         "the noise is added as it is; use add_noise, which knows how much belongs to s."),
    ])


def draw_guided(g, k):
    return drawing.noise(g), drawing.noise(g), 2.5 + drawing.one(g, 0, 40) / 10


def guide(eps_u, eps_c, w):
    """What `Guided` makes of two such predictions."""
    def denoiser(x_t, t, y):
        eps = eps_u if y is None else eps_c
        return forward.Prediction(eps, eps)
    return guidance.Guided(denoiser, torch.zeros(len(eps_u), dtype=torch.int64), w)(eps_u, None).eps


GUIDED = Exercise(
    "4.5", "guided_eps(eps_u, eps_c, w)", draw_guided, guide, shows=[guidance.Guided.__call__],
    praise="right: from \"without\" towards \"with\", and w times as far.",
    hints=["eps_c - eps_u is the direction in which the label pulls.",
           "Start from eps_u and go w times that far."],
    mistakes=[
        (lambda u, c, w: u + w * (u - c), "that goes away from the label: the difference is eps_c - eps_u."),
        (lambda u, c, w: c + w * (c - u),
         "you started from eps_c: some papers do, and call our w their 1 + w. Start from eps_u."),
        (lambda u, c, w: w * (c - u), "that is only the difference; add it to eps_u."),
        (lambda u, c, w: c + w * (u - c),
         "the two have changed places: w = 0 should give eps_u, w = 1 eps_c."),
        (lambda u, c, w: u + w * c, "it is the difference that is made larger: eps_u + w * (eps_c - eps_u)."),
        (lambda u, c, w: w * c, "you made eps_c larger; it is the difference eps_c - eps_u that counts."),
        (lambda u, c, w: u + w**0.5 * (c - u), "no square root: w itself."),
    ])

EXERCISES = [DDIM, DDPM, TIMES, INPAINT, GUIDED]
