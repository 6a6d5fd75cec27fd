"""Exercises of lesson 02: adding noise."""

import torch

from diffusion_lessons import datasets, forward, schedules
from diffusion_lessons.classroom.exercises import drawing
from diffusion_lessons.classroom.exercises.drawing import factor
from diffusion_lessons.classroom.exercises.judging import AS_IT_WAS, Exercise


def draw_jump(g, k):
    s = drawing.schedule(g)
    return drawing.picture(g), drawing.times(g, s.T), drawing.noise(g), s


def jump(signal, noise):
    """The jump with other factors: functions of (schedule, t) that give (B, 1, 1, 1)."""
    return lambda x0, t, eps, s: signal(s, t) * x0 + noise(s, t) * eps


def ab(s, t):
    return factor(s.alpha_bar, t)


def add_noise(x0, t, eps, schedule):
    alpha_bar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


ADD_NOISE = Exercise(
    "2.1", "add_noise(x0, t, eps, schedule)", draw_jump, forward.add_noise,
    reference=add_noise, shows=[forward.add_noise, forward.signal_and_noise],
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


def alpha_bar_from_betas(beta):
    kept = torch.cumprod(1 - beta, 0)
    return torch.cat([torch.ones(1, dtype=beta.dtype), kept])


ALPHA_BAR = Exercise(
    "2.2", "alpha_bar_from_betas(beta)", draw_betas, lambda beta: schedules.from_betas("yours", beta).alpha_bar,
    reference=alpha_bar_from_betas, shows=[schedules.from_betas],
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


def draw_on(g, k):
    """From s to t; every third time from the clean picture, and once in a while a single step."""
    schedule = drawing.schedule(g)
    s = 0 if k % 3 == 2 else drawing.one(g, 2, 5)
    return drawing.picture(g), s, s + drawing.one(g, 2, 5), drawing.noise(g), schedule


def further(shrink, add):
    """x_s and eps with other factors: functions of (schedule, s, t)."""
    return lambda x, s, t, eps, c: float(shrink(c, s, t)) * x + float(add(c, s, t)) * eps


def stays(c, s, t):
    """What the steps s + 1 .. t keep of the variance."""
    return c.alpha_bar[t] / c.alpha_bar[s]


def go_on(x_s, s, t, eps, schedule):
    kept = (schedule.alpha_bar[t] / schedule.alpha_bar[s]).item()            # by the steps from s to t
    return kept**0.5 * x_s + (1 - kept) ** 0.5 * eps


GO_ON = Exercise(
    "2.3", "go_on(x_s, s, t, eps, schedule)", draw_on,
    further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
    reference=go_on, shows=[forward.add_one_step, forward.add_noise],
    remark="The package needs only its two ends: one step (s = t - 1), and the jump from the clean picture (s = 0).",
    praise="right: two Gaussians in a row are one, and one step and the jump from the picture are both cases of it.",
    hints=["Each step u keeps the share 1 - beta_u of the variance. What do the steps from s + 1 to t keep together?",
           "alpha_bar_t is the product of all shares up to t, so alpha_bar_t / alpha_bar_s is what those steps keep.",
           "kept = alpha_bar[t] / alpha_bar[s]; the picture is multiplied by sqrt(kept), the noise by sqrt(1 - kept)."],
    mistakes=[
        (further(lambda c, s, t: c.alpha_bar[t].sqrt(), lambda c, s, t: (1 - c.alpha_bar[t]).sqrt()),
         "that is the jump from the clean picture. x_s has come a part of the way already: only the steps after s "
         "count."),
        (further(lambda c, s, t: c.alpha_bar[t - s].sqrt(), lambda c, s, t: (1 - c.alpha_bar[t - s]).sqrt()),
         "alpha_bar[t - s] is what the first t - s steps keep; you need those from s + 1 to t, which are others."),
        (further(stays, lambda c, s, t: 1 - stays(c, s, t)),
         "the square roots are missing: kept and 1 - kept are shares of the variance."),
        (further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: 1 - stays(c, s, t)),
         "the noise is multiplied by 1 - kept instead of its square root."),
        (further(stays, lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
         "the picture is multiplied by kept instead of its square root."),
        (further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: (c.alpha_bar[s] - c.alpha_bar[t]).sqrt()),
         "alpha_bar_s - alpha_bar_t is not what is added: x_s shrinks as a whole, its noise too, so 1 - kept is "
         "needed to bring the variance back to 1."),
        (further(lambda c, s, t: (1 - c.beta[t]).sqrt(), lambda c, s, t: c.beta[t].sqrt()),
         "that is one step, the last one; wanted are all steps from s + 1 to t."),
        (further(lambda c, s, t: 1.0, lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
         "the picture is not made smaller first: without sqrt(kept) the numbers grow."),
        (further(lambda c, s, t: (1 - c.beta[s + 1:t + 1].sum()).clamp(min=0).sqrt(),
                 lambda c, s, t: c.beta[s + 1:t + 1].sum().clamp(max=1).sqrt()),
         "you added the betas up. Each step works on what the one before has left: shares are multiplied."),
        (further(lambda c, s, t: (c.alpha_bar[t] / c.alpha_bar[max(s - 1, 0)]).sqrt(),
                 lambda c, s, t: (1 - c.alpha_bar[t] / c.alpha_bar[max(s - 1, 0)]).sqrt()),
         "s is off by one: step s has been taken already, the next is s + 1."),
    ])


def draw_length(g, k):
    return ((10, 100, 1000)[k % 3] + drawing.one(g, 0, 9),)


def what_is_wrong(alpha_bar, T):
    """Words for a schedule that will not do, the first thing that is wrong with it; else None."""
    if not isinstance(alpha_bar, torch.Tensor) or alpha_bar.shape != (T + 1,):
        return f"wanted is one tensor of T + 1 numbers, alpha_bar for t = 0..T: here ({T + 1},)."
    a = alpha_bar.double()
    if not a.isfinite().all():
        return "there are infinite numbers or NaN in it."
    if a[0] != 1:
        return f"alpha_bar[0] is {a[0]:.4g}: t = 0 is the clean picture, so it must be 1, exactly."
    if not (a[1:] < a[:-1]).all():
        t = int((a[1:] >= a[:-1]).nonzero()[0]) + 1
        return f"it does not fall at t = {t}: every step adds some noise, so each number is below the one before."
    if not a[-1] > 0:
        return "alpha_bar[T] is not above 0. Take a very small number: 0 itself cannot be divided by."
    if a[-1] > 0.001:
        return (f"with T = {T}, {a[-1]:.1%} of the picture's variance is left at t = T. The loop starts from pure "
                "noise, so x_T should be that: at most 0.1%. (Public code has this bug where T was made smaller.)")
    kept = a[1:] / a[:-1]
    if kept.min() < 1e-4:
        return f"step t = {int(kept.argmin()) + 1} wipes out everything at once: go down in more even steps."
    if T >= 100 and a[T // 20] < 0.5:
        return (f"half of the picture is gone at t = {T // 20} of {T} already: the rest of the steps turn noise into "
                "noise. Begin with little.")
    return None


def my_schedule(T):
    u = torch.arange(T + 1, dtype=torch.float64) / T                         # 0..1
    curve = 1 / (1 + torch.exp(12 * (u - 0.5)))                              # an S that falls
    curve = (curve - curve[-1]) / (curve[0] - curve[-1])                     # from exactly 1 to 0
    return torch.cat([curve[:-1], curve[-2:-1] / 100])                       # and a last step that leaves a bit


OWN = Exercise(
    "2.4", "my_schedule(T)", draw_length, my_schedule, reference=my_schedule,
    shows=[schedules.cosine, schedules.sigmoid, schedules.linear],
    remark="Any curve will do that begins at 1, falls, and ends near 0. These are the ones in use.",
    praise="right: it begins at the picture, it ends in noise, and it falls gently in between. It is a schedule.",
    same=lambda given, wanted: True, also=what_is_wrong,
    hints=["Think of a curve over u = t / T that starts at 1 and ends near 0: a cosine, an S, a power of 1 - u.",
           "torch.arange(T + 1, dtype=torch.float64) / T gives the u. The last number must stay above 0.",
           "For example alpha_bar = torch.cos(u * math.pi / 2) ** 2, with the last number made 1e-5."],
    mistakes=[])

def draw_bytes(g, k):
    return (torch.randint(0, 256, (4, 3, 6, 5), generator=g, dtype=torch.uint8),)


def to_float(x):
    return x.float() / 127.5 - 1


TO_FLOAT = Exercise(
    "2.5", "to_float(x)", draw_bytes, datasets.to_float, reference=to_float, shows=[datasets.to_float],
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


def draw_noisy(g, k):
    x0, t, _, s = draw_jump(g, k)
    return x0, t, s, torch.Generator().manual_seed(drawing.one(g, 0, 10**6))


def noised_by(draw):
    """The lesson's code with another line for the noise: draw(x0, g)."""
    return lambda x0, t, s, g: forward.add_noise(x0, t, draw(x0, g), s)


def mended_noisy(x0, t, schedule, g):
    alpha_bar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    eps = torch.randn(x0.shape, generator=g)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


MENDED = Exercise(
    "2.6", "mended_noisy(x0, t, schedule, g)", draw_noisy,
    noised_by(lambda x0, g: torch.randn(x0.shape, generator=g)), reference=mended_noisy,
    others=(noised_by(lambda x0, g: torch.empty_like(x0).normal_(generator=g)),),
    praise="mended: mean 0 and spread 1, as the schedule believes.",
    hints=["What should the mean and the standard deviation of eps be? What are they?",
           "torch.rand and torch.randn are different things."],
    mistakes=[
        (noised_by(lambda x0, g: torch.rand(x0.shape, generator=g)), AS_IT_WAS),
        (noised_by(lambda x0, g: torch.rand(x0.shape, generator=g) - 0.5),
         "the mean is 0 now, but its spread is 0.29, and should be 1."),
        (noised_by(lambda x0, g: 2 * torch.rand(x0.shape, generator=g) - 1),
         "the mean is 0 now, but its spread is 0.58, and should be 1."),
        (noised_by(lambda x0, g: (torch.rand(x0.shape, generator=g) - 0.5) * 12**0.5),
         "mean 0 and spread 1: nearly. But it is still even noise, with hard ends; the sampler will start from a "
         "Gaussian."),
        (noised_by(lambda x0, g: 0.5 + torch.randn(x0.shape, generator=g)), "it is Gaussian now, but its mean is 0.5."),
        (noised_by(lambda x0, g: torch.randn(x0.shape[1:], generator=g).expand_as(x0)),
         "all pictures of the batch get the same noise now: draw it in the shape of the whole batch."),
        (noised_by(lambda x0, g: torch.randn(x0.shape, generator=g).sigmoid()),
         "it is squeezed into 0..1 again: leave the Gaussian as it is."),
    ])

EXERCISES = [ADD_NOISE, ALPHA_BAR, GO_ON, OWN, TO_FLOAT, MENDED]
