"""Exercises of lesson 02: adding noise."""

import torch

from diffusion_lessons import datasets, forward, schedules
from diffusion_lessons.classroom.exercises import drawing
from diffusion_lessons.classroom.exercises.drawing import factor
from diffusion_lessons.classroom.exercises.judging import Exercise


def draw_jump(g, k):
    s = drawing.schedule(g)
    return drawing.picture(g), drawing.times(g, s.T), drawing.noise(g), s


def jump(signal, noise):
    """The jump with other factors: functions of (schedule, t) that give (B, 1, 1, 1)."""
    return lambda x0, t, eps, s: signal(s, t) * x0 + noise(s, t) * eps


def ab(s, t):
    return factor(s.alpha_bar, t)


ADD_NOISE = Exercise(
    "2.1", "add_noise(x0, t, eps, schedule)", draw_jump, forward.add_noise,
    shows=[forward.add_noise, forward.signal_and_noise],
    praise="right: one jump to any t. In the mix, variances add up: alpha_bar + (1 - alpha_bar) = 1.",
    hints=["Pick alpha_bar of each picture's own time: schedule.alpha_bar[t] has shape (B,).",
           "Make it fit the pictures: .float().reshape(-1, 1, 1, 1).",
           "The picture is multiplied by sqrt(alpha_bar), the noise by sqrt(1 - alpha_bar), then both are "
           "added."],
    mistakes=[
        (jump(ab, lambda s, t: 1 - ab(s, t)),
         "you used alpha_bar and 1 - alpha_bar instead of their square roots. They are shares of the "
         "variance; a factor on the numbers is a root of that."),
        (jump(ab, lambda s, t: (1 - ab(s, t)).sqrt()),
         "the picture is multiplied by alpha_bar instead of its square root."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 1 - ab(s, t)),
         "the noise is multiplied by 1 - alpha_bar instead of its square root."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 1 - ab(s, t).sqrt()),
         "the noise gets 1 - sqrt(alpha_bar); the root is of the whole: sqrt(1 - alpha_bar)."),
        (jump(lambda s, t: (1 - ab(s, t)).sqrt(), lambda s, t: ab(s, t).sqrt()),
         "picture and noise have changed places: at small t the picture should prevail."),
        (jump(lambda s, t: ab(s, t - 1).sqrt(), lambda s, t: (1 - ab(s, t - 1)).sqrt()),
         "t is off by one: you took alpha_bar[t - 1]. Here alpha_bar[0] = 1 is the clean picture, so t "
         "itself is the index."),
        (jump(lambda s, t: ab(s, t + 1).sqrt(), lambda s, t: (1 - ab(s, t + 1)).sqrt()),
         "t is off by one: you took alpha_bar[t + 1]."),
        (jump(lambda s, t: factor(s.alpha, t).sqrt(), lambda s, t: factor(s.beta, t).sqrt()),
         "you took alpha_t and beta_t: that is one step of the chain. The jump needs alpha_bar_t, the "
         "product of them all."),
        (jump(lambda s, t: 1.0, lambda s, t: (1 - ab(s, t)).sqrt()),
         "the picture is not made smaller: it must be multiplied by sqrt(alpha_bar), or the variance grows "
         "beyond 1."),
        (jump(lambda s, t: 1.0, lambda s, t: 1.0), "you added the noise as it is, whatever t."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 0.0),
         "the picture is made smaller, but there is no noise in it."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: -(1 - ab(s, t)).sqrt()),
         "the noise is taken away instead of added. (As good noise as any, but the training target would "
         "have the wrong sign.)"),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 2 * (1 - ab(s, t)).sqrt()),
         "the noise is added twice."),
    ])


def draw_betas(g, k):
    return (0.02 + 0.4 * torch.rand(drawing.one(g, 6, 14), generator=g, dtype=torch.float64),)


def kept(beta):
    return torch.cumprod(1 - beta, 0)


def with_one(values):
    return torch.cat([torch.ones(1, dtype=values.dtype), values])


ALPHA_BAR = Exercise(
    "2.2", "alpha_bar_from_betas(beta)", draw_betas, lambda beta: schedules.from_betas("yours", beta).alpha_bar,
    shows=[schedules.from_betas],
    remark="The package cuts beta at 0.999 and wraps the result in a Schedule; the middle line is the "
           "exercise.",
    praise="right: a product of what each step keeps, with alpha_bar[0] = 1 for the clean picture.",
    hints=["Each step keeps the share 1 - beta of the variance.",
           "What is left after t steps is the product of all shares so far: torch.cumprod(..., 0).",
           "beta has T entries and alpha_bar T + 1: put a 1 in front with torch.cat([torch.ones(1), ...])."],
    mistakes=[
        (kept, "the values are right but the first is missing: alpha_bar[0] = 1 is the clean picture, so "
               "there are T + 1 of them."),
        (lambda beta: torch.cat([kept(beta), torch.ones(1, dtype=beta.dtype)]),
         "the 1 belongs in front, not at the end."),
        (lambda beta: with_one(torch.cumprod(beta, 0)),
         "you multiplied the betas. What a step keeps is 1 - beta."),
        (lambda beta: torch.cumprod(beta, 0), "you multiplied the betas. What a step keeps is 1 - beta."),
        (lambda beta: with_one(1 - torch.cumsum(beta, 0)),
         "you took the betas away one after the other. Each step keeps a share of what is left: multiply, "
         "don't subtract."),
        (lambda beta: 1 - torch.cumsum(beta, 0),
         "you took the betas away one after the other. Each step keeps a share of what is left: multiply, "
         "don't subtract."),
        (lambda beta: with_one(kept(beta).sqrt()),
         "that is sqrt(alpha_bar), the factor of the picture. alpha_bar is its square."),
        (lambda beta: kept(beta).sqrt(),
         "that is sqrt(alpha_bar), the factor of the picture; and alpha_bar[0] = 1 is missing."),
        (lambda beta: with_one(1 - beta),
         "that is alpha, what each single step keeps. alpha_bar is their running product."),
        (lambda beta: 1 - beta,
         "that is alpha, what each single step keeps. alpha_bar is their running product, after a 1."),
        (lambda beta: with_one(1 - kept(beta)), "that is 1 - alpha_bar, the share of the noise."),
        (lambda beta: 1 - with_one(kept(beta)), "that is 1 - alpha_bar, the share of the noise."),
        (lambda beta: with_one(kept(beta)[:-1]),
         "the 1 in front is right, but the last step is missing: T + 1 values in all."),
    ])


def draw_step(g, k):
    s = drawing.schedule(g)
    return drawing.picture(g), drawing.one(g, 2, s.T - 1), drawing.noise(g), s


def step(shrink, add):
    return lambda x, t, eps, s: float(shrink(s, t)) * x + float(add(s, t)) * eps


ONE_STEP = Exercise(
    "2.3", "add_one_step(x, t, eps, schedule)", draw_step, forward.add_one_step, shows=[forward.add_one_step],
    praise="right: shrink a little, add a little, and the variance stays what it was.",
    hints=["beta = schedule.beta[t] is the variance that step t adds. t is one integer here.",
           "The noise is multiplied by sqrt(beta).",
           "The picture is multiplied by sqrt(1 - beta), so that the variance stays 1."],
    mistakes=[
        (step(lambda s, t: 1, lambda s, t: s.beta[t].sqrt()),
         "the noise is right, but the picture is not made smaller first: without sqrt(1 - beta) the numbers "
         "grow at every step."),
        (step(lambda s, t: 1 - s.beta[t], lambda s, t: s.beta[t]),
         "you used beta and 1 - beta instead of their square roots: beta is a variance."),
        (step(lambda s, t: (1 - s.beta[t]).sqrt(), lambda s, t: s.beta[t]),
         "the noise is multiplied by beta instead of its square root: beta is a variance."),
        (step(lambda s, t: 1 - s.beta[t], lambda s, t: s.beta[t].sqrt()),
         "the picture is multiplied by 1 - beta instead of its square root."),
        (step(lambda s, t: s.alpha_bar[t].sqrt(), lambda s, t: (1 - s.alpha_bar[t]).sqrt()),
         "you took alpha_bar: that is the jump from the clean picture. One step needs only its own beta[t]."),
        (step(lambda s, t: (1 - s.beta[t - 1]).sqrt(), lambda s, t: s.beta[t - 1].sqrt()),
         "t is off by one: step t arrives at x_t and adds beta[t]."),
        (step(lambda s, t: (1 - s.beta[t + 1]).sqrt(), lambda s, t: s.beta[t + 1].sqrt()),
         "t is off by one: step t arrives at x_t and adds beta[t]."),
        (step(lambda s, t: s.beta[t].sqrt(), lambda s, t: (1 - s.beta[t]).sqrt()),
         "picture and noise have changed places: a step adds only little noise."),
        (step(lambda s, t: 1, lambda s, t: 1),
         "you added the noise as it is: it must be made small, by sqrt(beta)."),
        (step(lambda s, t: (1 - s.beta[t]).sqrt(), lambda s, t: 2 * s.beta[t].sqrt()),
         "the noise is added twice."),
    ])


def draw_shares(g, k):
    return (drawing.schedule(g).alpha_bar[1:],)


LOG_SNR = Exercise(
    "2.4", "log_snr(alpha_bar)", draw_shares, lambda a: torch.log(a) - torch.log1p(-a),
    shows=[schedules.Schedule.log_snr],
    remark="log1p(-a) is log(1 - a), but exact where a is tiny.",
    praise="right: above 0 the picture prevails, below 0 the noise.",
    hints=["SNR is signal to noise ratio: the variance of the picture over that of the noise.",
           "The picture's share is alpha_bar, the noise's is 1 - alpha_bar.",
           "Take the natural logarithm: torch.log(alpha_bar / (1 - alpha_bar))."],
    mistakes=[
        (lambda a: a / (1 - a), "that is the SNR; its logarithm is wanted."),
        (lambda a: torch.log10(a / (1 - a)),
         "that is the logarithm to base 10; the natural one, torch.log, is wanted."),
        (lambda a: torch.log2(a / (1 - a)),
         "that is the logarithm to base 2; the natural one, torch.log, is wanted."),
        (lambda a: torch.log((1 - a) / a), "upside down: signal over noise, not noise over signal."),
        (lambda a: torch.log(a.sqrt() / (1 - a).sqrt()),
         "half of it: the SNR compares variances, so no square roots here."),
        (lambda a: torch.log(a),
         "that is the log of the picture's share alone; divide by the noise's share first."),
        (lambda a: torch.log(a) / torch.log(1 - a),
         "the logarithm of a quotient is a difference: log a - log(1 - a)."),
    ])


def draw_bytes(g, k):
    return (torch.randint(0, 256, (4, 3, 6, 5), generator=g, dtype=torch.uint8),)


TO_FLOAT = Exercise(
    "2.5", "to_float(x)", draw_bytes, datasets.to_float, shows=[datasets.to_float],
    praise="right: 0 becomes -1, 255 becomes 1, and grey lies near 0, where the noise lies too.",
    hints=["Bytes cannot hold fractions or negative numbers: x.float() first.",
           "Dividing by 127.5 brings 0..255 to 0..2.", "Then take 1 away."],
    mistakes=[
        (lambda x: x.float() / 255, "that is [0, 1]; wanted is [-1, 1], with grey at 0."),
        (lambda x: x.float() / 255 - 0.5, "that is [-0.5, 0.5]: twice that is wanted."),
        (lambda x: x.float() - 127.5,
         "it lies around zero, but the scale is still that of bytes: divide by 127.5."),
        (lambda x: 1 - x.float() / 127.5, "black and white have changed places."),
        (lambda x: x.float() / 128 - 1,
         "nearly: white is 255, so divide by 127.5, and it becomes exactly 1."),
        (lambda x: (x.float() - x.float().mean()) / x.float().std(),
         "you scaled by the batch's own mean and spread; then the same picture comes out differently in each "
         "batch."),
        (lambda x: (x - 127).float() / 127.5,
         "bytes wrap round: 0 - 127 is 129 among them. Turn them into floats before you subtract."),
    ])

EXERCISES = [ADD_NOISE, ALPHA_BAR, ONE_STEP, LOG_SNR, TO_FLOAT]
