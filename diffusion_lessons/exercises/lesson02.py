"""Exercises of lesson 02: adding noise."""

import numpy as np
import torch

from diffusion_lessons import forward, schedules
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, as_numbers, close
from diffusion_lessons.exercises.inputs import factor


def sample_jump(g, k):
    s, shape = inputs.schedule(g), inputs.shape(g, k)
    return inputs.picture(g, shape), inputs.times(g, s.T, shape[0], k), inputs.noise(g, shape), s


def jump(signal, noise):
    """The jump with different factors: functions of (schedule, t) that give (B, 1, 1, 1)."""
    return lambda x0, t, eps, s: signal(s, t) * x0 + noise(s, t) * eps


def ab(s, t):
    return factor(s.alpha_bar, t)


def add_noise(x0, t, eps, schedule):
    alpha_bar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


ADD_NOISE = Exercise(
    "2.1", "add_noise(x0, t, eps, schedule)", sample_jump, forward.add_noise,
    reference=add_noise, shows=[forward.add_noise, forward.alpha_sigma],
    praise="right: one jump to any t. The variances add up to 1: alpha_bar + (1 - alpha_bar) = 1.",
    hints=["Pick alpha_bar of each picture's own time: schedule.alpha_bar[t] has shape (B,).",
           "Give it the pictures' number of dimensions: .float().reshape(-1, 1, 1, 1).",
           "The picture is multiplied by sqrt(alpha_bar), the noise by sqrt(1 - alpha_bar), then both are "
           "added."],
    mistakes=[
        (jump(ab, lambda s, t: 1 - ab(s, t)),
         "you used alpha_bar and 1 - alpha_bar instead of their square roots. They are shares of the "
         "variance; the numbers are multiplied by their roots."),
        (jump(ab, lambda s, t: (1 - ab(s, t)).sqrt()),
         "the picture is multiplied by alpha_bar instead of its square root."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 1 - ab(s, t)),
         "the noise is multiplied by 1 - alpha_bar instead of its square root."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 1 - ab(s, t).sqrt()),
         "the noise gets 1 - sqrt(alpha_bar); the root is of the whole: sqrt(1 - alpha_bar)."),
        (jump(lambda s, t: (1 - ab(s, t)).sqrt(), lambda s, t: ab(s, t).sqrt()),
         "picture and noise are swapped: at small t the picture should prevail."),
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
        (jump(lambda s, t: 1.0, lambda s, t: 1.0), "you added the noise unscaled, at every t."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 0.0),
         "the picture is made smaller, but there is no noise in it."),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: -(1 - ab(s, t)).sqrt()),
         "the noise is subtracted instead of added. (It is noise all the same, but the training target would "
         "have the wrong sign.)"),
        (jump(lambda s, t: ab(s, t).sqrt(), lambda s, t: 2 * (1 - ab(s, t)).sqrt()),
         "the noise is added twice."),
    ])


def sample_betas(g, k):
    T, dtype = 1 if k % 3 == 1 else inputs.one(g, 6, 14), torch.float32 if k % 3 == 2 else torch.float64
    return (0.02 + 0.4 * torch.rand(T, generator=g, dtype=dtype),)


def kept(beta):
    return torch.cumprod(1 - beta, 0)


def with_one(values):
    return torch.cat([torch.ones(1, dtype=values.dtype), values])


def alpha_bar_from_betas(beta):
    kept = torch.cumprod(1 - beta, 0)
    return torch.cat([torch.ones(1, dtype=beta.dtype), kept])


ALPHA_BAR = Exercise(
    "2.2", "alpha_bar_from_betas(beta)", sample_betas, lambda beta: schedules.from_betas("yours", beta).alpha_bar,
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
         "you subtracted the betas one by one. Each step keeps a share of what is left: multiply, "
         "don't subtract."),
        (lambda beta: 1 - torch.cumsum(beta, 0),
         "you subtracted the betas one by one. Each step keeps a share of what is left: multiply, "
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


def sample_on(g, k):
    """From s to t: somewhere, a single step to the very end, all the way from the clean picture."""
    schedule, shape = inputs.schedule(g), inputs.shape(g, k)
    s = (inputs.one(g, 2, 5), schedule.T - 1, 0)[k % 3]
    t = (s + inputs.one(g, 2, 5), schedule.T, inputs.one(g, 2, schedule.T))[k % 3]
    return inputs.picture(g, shape), s, t, inputs.noise(g, shape), schedule


def further(shrink, add):
    """x_s and eps with different factors: functions of (schedule, s, t)."""
    return lambda x, s, t, eps, c: float(shrink(c, s, t)) * x + float(add(c, s, t)) * eps


def stays(c, s, t):
    """What the steps s + 1 .. t keep of the variance."""
    return c.alpha_bar[t] / c.alpha_bar[s]


def go_on(x_s, s, t, eps, schedule):
    kept = (schedule.alpha_bar[t] / schedule.alpha_bar[s]).item()            # by the steps from s to t
    return kept**0.5 * x_s + (1 - kept) ** 0.5 * eps


GO_ON = Exercise(
    "2.3", "go_on(x_s, s, t, eps, schedule)", sample_on,
    further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
    reference=go_on, shows=[forward.forward_step, forward.add_noise],
    remark="The package has only the two special cases: one step (s = t - 1), and the jump "
           "from the clean picture (s = 0).",
    praise="right: two Gaussians in a row are one, and one step and the jump from the picture are both cases of it.",
    hints=["Each step u keeps the share 1 - beta_u of the variance. What do the steps from s + 1 to t keep together?",
           "alpha_bar_t is the product of all shares up to t, so alpha_bar_t / alpha_bar_s is what those steps keep.",
           "kept = alpha_bar[t] / alpha_bar[s]; the picture is multiplied by sqrt(kept), the noise by sqrt(1 - kept)."],
    mistakes=[
        (further(lambda c, s, t: c.alpha_bar[t].sqrt(), lambda c, s, t: (1 - c.alpha_bar[t]).sqrt()),
         "that is the jump from the clean picture. x_s has already had the first s steps: only the steps after s "
         "count."),
        (further(lambda c, s, t: c.alpha_bar[t - s].sqrt(), lambda c, s, t: (1 - c.alpha_bar[t - s]).sqrt()),
         "alpha_bar[t - s] is what the first t - s steps keep; you need those from s + 1 to t instead."),
        (further(stays, lambda c, s, t: 1 - stays(c, s, t)),
         "the square roots are missing: kept and 1 - kept are shares of the variance."),
        (further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: 1 - stays(c, s, t)),
         "the noise is multiplied by 1 - kept instead of its square root."),
        (further(stays, lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
         "the picture is multiplied by kept instead of its square root."),
        (further(lambda c, s, t: stays(c, s, t).sqrt(), lambda c, s, t: (c.alpha_bar[s] - c.alpha_bar[t]).sqrt()),
         "alpha_bar_s - alpha_bar_t is not what is added: x_s is scaled down as a whole, its noise too, so 1 - kept "
         "is needed to bring the variance back to 1."),
        (further(lambda c, s, t: (1 - c.beta[t]).sqrt(), lambda c, s, t: c.beta[t].sqrt()),
         "that is one step, the last one; you need all steps from s + 1 to t."),
        (further(lambda c, s, t: 1.0, lambda c, s, t: (1 - stays(c, s, t)).sqrt()),
         "the picture is not made smaller first: without sqrt(kept) the numbers grow."),
        (further(lambda c, s, t: (1 - c.beta[s + 1:t + 1].sum()).clamp(min=0).sqrt(),
                 lambda c, s, t: c.beta[s + 1:t + 1].sum().clamp(max=1).sqrt()),
         "you added up the betas. Each step works on what the one before has left: multiply the shares."),
        (further(lambda c, s, t: (c.alpha_bar[t] / c.alpha_bar[max(s - 1, 0)]).sqrt(),
                 lambda c, s, t: (1 - c.alpha_bar[t] / c.alpha_bar[max(s - 1, 0)]).sqrt()),
         "s is off by one: step s has already been taken, the next is s + 1."),
    ])


def sample_length(g, k):
    return ((10, 100, 1000)[k % 3] + inputs.one(g, 0, 9),)


def what_is_wrong(alpha_bar, T):
    """The first thing that is wrong with a schedule, as a message; else None."""
    a = torch.from_numpy(as_numbers(alpha_bar))
    if a.shape != (T + 1,):
        return f"return one tensor of T + 1 numbers, alpha_bar for t = 0..T: shape ({T + 1},)."
    if not a.isfinite().all():
        return "it contains infinities or NaN."
    if a[0] != 1:
        return f"alpha_bar[0] is {a[0]:.4g}: t = 0 is the clean picture, so it must be 1, exactly."
    if not (a[1:] < a[:-1]).all():
        t = int((a[1:] >= a[:-1]).nonzero()[0]) + 1
        return f"it does not fall at t = {t}: every step adds some noise, so each number is below the one before."
    if not a[-1] > 0:
        return "alpha_bar[T] is not above 0. Take a very small number: 0 itself cannot be divided by."
    if a[-1] > 0.001:
        return (f"with T = {T}, {a[-1]:.1%} of the picture's variance is left at t = T. The loop starts from pure "
                "noise, so at most 0.1% may be left. (Public code has this bug where T was reduced.)")
    kept, lost = a[1:] / a[:-1], a[:-1] - a[1:]
    if kept.min() < 1e-4:
        return f"step t = {int(kept.argmin()) + 1} wipes out everything at once: decrease more evenly."
    if T >= 100 and a[T // 20] < 0.5:
        return (f"half of the picture is already gone at t = {T // 20} of {T}: the remaining steps only add noise to "
                "noise. Start with little.")
    if lost.max() > 15 / T:
        return (f"step t = {int(lost.argmax()) + 1} of {T} takes away {lost.max():.0%} of the variance in one go, more "
                f"than 15 / T = {15 / T:.1%}: decrease more evenly.")
    return None


def my_schedule(T):
    u = torch.arange(T + 1, dtype=torch.float64) / T                         # 0..1
    curve = 1 / (1 + torch.exp(12 * (u - 0.5)))                              # an S that falls
    curve = (curve - curve[-1]) / (curve[0] - curve[-1])                     # from exactly 1 to 0
    return torch.cat([curve[:-1], curve[-2:-1] / 100])                       # and a last step that leaves a little


OWN = Exercise(
    "2.4", "my_schedule(T)", sample_length, my_schedule, reference=my_schedule,
    shows=[schedules.cosine, schedules.sigmoid, schedules.linear],
    remark="Any curve will do that begins at 1, falls, and ends near 0. These are in common use.",
    praise="right: it starts at the picture, ends in noise, and falls gently in between.",
    wrong=what_is_wrong,
    hints=["Think of a curve over u = t / T that starts at 1 and ends near 0: a cosine, an S, a power of 1 - u.",
           "torch.arange(T + 1, dtype=torch.float64) / T gives the u. The last number must be above 0.",
           "For example alpha_bar = torch.cos(u * math.pi / 2) ** 2, with the last number set to 1e-5."],
    mistakes=[])


def sample_machine(g, k):
    """A noising function with a hidden schedule, and times: the first, the last and three between."""
    s, own = inputs.schedule(g), torch.Generator().manual_seed(inputs.one(g, 0, 10**6))

    def noising(x0, t):
        if x0.numel() > 10_000:
            raise ValueError(f"at most 10,000 numbers at a time, not {x0.numel():,}: call it more often instead")
        return s.alpha_bar[t].sqrt().item() * x0 + (1 - s.alpha_bar[t]).sqrt().item() * torch.randn(
            x0.shape, generator=own)

    some_signal = int((s.alpha_bar > 0.3).sum())
    return noising, [1, s.T, *(inputs.one(g, 3, some_signal - 1) for _ in range(3))]


def at_each_time(measure, noising, times):
    """All its results: five of them, so that a poor measurement is not right by luck."""
    results = [measure(noising, t) for t in times]
    numbers = [torch.as_tensor(x) for x in results if x is not None and x is not ...]
    if len(numbers) < len(results) or any(x.numel() != 1 for x in numbers):
        return results[0]
    return torch.stack([x.reshape(()) for x in numbers])


def by_bright_picture(read=lambda signal: signal**2):
    """A picture so bright that the noise does not matter: it is multiplied by sqrt(alpha_bar)."""
    return lambda noising, t: read(noising(torch.full((1, 1, 1, 1), 1e6), t).item() / 1e6)


def measured_alpha_bar(noising, t):
    black = torch.zeros(100, 1, 10, 10)                                      # all that comes out is noise
    spread = torch.stack([noising(black, t).var() for _ in range(20)]).mean()
    return 1 - spread


MEASURED = Exercise(
    "2.5", "measured_alpha_bar(noising, t)", sample_machine, by_bright_picture(), reference=measured_alpha_bar,
    use=at_each_time, tolerance=0.06,
    praise="right: a known picture went in, and the variance of what came out gave the schedule.",
    hints=["You may choose the picture. What comes out when all its pixels are 0?",
           "Then it is sqrt(1 - alpha_bar) times the noise: its variance is 1 - alpha_bar. Or give it a bright "
           "picture, and see what is left of it on average.",
           "1 - noising(torch.zeros(100, 1, 10, 10), t).var(), better as the mean of several tries."],
    mistakes=[
        (by_bright_picture(lambda signal: signal),
         "that is sqrt(alpha_bar), what the picture is multiplied by: alpha_bar is its square."),
        (by_bright_picture(lambda signal: 1 - signal**2), "that is 1 - alpha_bar, the share of the noise."),
        (by_bright_picture(lambda signal: (1 - signal**2) ** 0.5),
         "that is sqrt(1 - alpha_bar), what the noise is multiplied by. Its square is the variance, 1 - alpha_bar."),
        (by_bright_picture(lambda signal: 1 - (1 - signal**2) ** 0.5),
         "you took 1 minus the standard deviation of the noise; it is the variance that is 1 - alpha_bar."),
        (by_bright_picture(lambda signal: 1.0), "that would mean that nothing is lost. Something is: measure it."),
    ])


def sample_noisy(g, k):
    """Large pictures, so that there is much noise to measure; the first at t = 0, where there is none."""
    s, shape = inputs.schedule(g), (inputs.one(g, 4, 6), 3, inputs.one(g, 36, 40), inputs.one(g, 41, 45))
    t = 2 + torch.randperm(s.T - 1, generator=g)[:shape[0]]
    t[0] = 0
    return inputs.picture(g, shape), t, s, inputs.one(g, 0, 10**6)


def three_times(noisy, x0, t, schedule, seed):
    """Its first result, its second, and its first again with a new generator of the same seed."""
    g = torch.Generator().manual_seed(seed)
    made = [noisy(x0, t, schedule, g), noisy(x0, t, schedule, g),
            noisy(x0, t, schedule, torch.Generator().manual_seed(seed))]
    return made[0] if made[0] is None or made[0] is ... else torch.stack([torch.as_tensor(x) for x in made])


def what_is_wrong_with_noise(made, x0, t, schedule, seed):
    """A message about noise that is not independent, Gaussian, of mean 0 and standard deviation 1; else None.

    The limits are six standard errors, so that right noise hardly ever fails.
    """
    made = torch.from_numpy(as_numbers(made))
    if made.shape[1:] != x0.shape:
        return f"the result has shape {tuple(made.shape[1:])}; it should have shape {tuple(x0.shape)}."
    if not close(made[0], made[2]):
        return ("it gives a different result each time, though g has the same seed: draw all random numbers with "
                "generator=g.")
    if not close(made[0][t == 0], x0[t == 0]):
        return "at t = 0 the picture itself should come out: there is no noise yet."
    a = schedule.alpha_bar[t[t > 0]].reshape(-1, 1, 1, 1)
    first, second = ((x[t > 0] - a.sqrt() * x0[t > 0]) / (1 - a).sqrt() for x in made[:2])
    n = first[0].numel()
    for picture, eps in zip(x0[t > 0], first):
        if not abs(eps.mean()) < 6 / n**0.5:
            return f"the noise has a mean of {eps.mean():.2f}; it should be 0."
        if not abs(eps.std() - 1) < 6 / (2 * n) ** 0.5:
            return f"the noise has a standard deviation of {eps.std():.2f}; it should be 1."
        if not abs((picture * eps).mean()) < 6 / n**0.5:
            return "the noise depends on the picture."
    if not abs((first**4).mean() - 3) < 6 * (96 / first.numel()) ** 0.5:
        return (f"mean and standard deviation are right, but it is not Gaussian: the mean of eps^4 is "
                f"{(first**4).mean():.2f}, and should be 3.")
    if close(first, second):
        return "called twice, it gives the same noise: draw new numbers from g each time."
    if most_alike(torch.stack([first, second])) > 7:
        return "the numbers are not independent: noise repeats within a picture or in another one."
    return None


def most_alike(x):
    """The largest autocorrelation of a sequence at any lag, in standard errors of independent numbers."""
    x = (x - x.mean()).flatten().numpy()
    power = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    return np.abs(np.fft.irfft(power)[1:len(x)]).max() / (x**2).sum() * len(x) ** 0.5


def noised_by(draw):
    """The lesson's code with a different line for the noise: draw(x0, g)."""
    return lambda x0, t, s, g: forward.add_noise(x0, t, draw(x0, g), s)


def one_by_one(x0, g):
    """Separate noise for each picture, in float64."""
    return torch.stack([torch.randn(x.shape, generator=g, dtype=torch.float64) for x in x0])


def fixed_noisy(x0, t, schedule, g):
    alpha_bar = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    eps = torch.randn(x0.shape, generator=g)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


FIXED = Exercise(
    "2.6", "fixed_noisy(x0, t, schedule, g)", sample_noisy,
    noised_by(lambda x0, g: torch.randn(x0.shape, generator=g)), reference=fixed_noisy,
    alternatives=(noised_by(lambda x0, g: torch.empty_like(x0).normal_(generator=g)), noised_by(one_by_one)),
    use=three_times, wrong=what_is_wrong_with_noise,
    praise="fixed: mean 0 and standard deviation 1, as the schedule assumes.",
    hints=["What should the mean and the standard deviation of eps be? What are they?",
           "torch.rand and torch.randn are different things."],
    mistakes=[
        (noised_by(lambda x0, g: torch.rand(x0.shape, generator=g)), STILL_BROKEN),
        (noised_by(lambda x0, g: torch.rand(x0.shape, generator=g) - 0.5),
         "the mean is 0 now, but the standard deviation is 0.29 and should be 1."),
        (noised_by(lambda x0, g: 2 * torch.rand(x0.shape, generator=g) - 1),
         "the mean is 0 now, but the standard deviation is 0.58 and should be 1."),
        (noised_by(lambda x0, g: (torch.rand(x0.shape, generator=g) - 0.5) * 12**0.5),
         "mean and standard deviation are right, but it is still uniform noise; the sampler starts from a "
         "Gaussian."),
        (noised_by(lambda x0, g: 0.5 + torch.randn(x0.shape, generator=g)), "it is Gaussian now, but its mean is 0.5."),
        (noised_by(lambda x0, g: torch.randn(x0.shape[1:], generator=g).expand_as(x0)),
         "all pictures of the batch get the same noise now: draw it in the shape of the whole batch."),
        (noised_by(lambda x0, g: torch.randn(x0.shape, generator=g).sigmoid()),
         "it is squeezed into 0..1 again: leave the Gaussian as it is."),
    ])

EXERCISES = [ADD_NOISE, ALPHA_BAR, GO_ON, OWN, MEASURED, FIXED]
