"""The sampling loop: against diffusers, against our own algebra in float64, and changed from outside while it runs."""

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons.forward import add_noise, alpha_sigma, from_v, from_x0, velocity
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.samplers import (
    PerSampleNoise,
    SamplingLoop,
    ddim_step,
    ddpm_step,
    img2img,
    inpaint,
    run,
    sample,
    timesteps,
)
from diffusion_lessons.schedules import SCHEDULES, make_schedule

NAMES = tuple(SCHEDULES)
SAMPLERS = {"ddpm": {"method": "ddpm"}, "ddim": {"eta": 0.0}, "ddim, eta 0.5": {"eta": 0.5},
            "ddim, eta 1": {"eta": 1.0}}
every_sampler = pytest.mark.parametrize("how", SAMPLERS.values(), ids=SAMPLERS)


def opinionated(schedule, size=1.5):
    """A denoiser that is no posterior mean of anything: early input stays visible to the end."""

    def denoiser(x_t, t):
        wave = torch.sin(t / 77).reshape(-1, 1, 1, 1).to(x_t)
        mixed = torch.tanh(1.3 * x_t + 0.7 * x_t.roll(1, -1)) + 0.5 * wave
        return from_x0(size * torch.tanh(mixed), x_t, t, schedule)

    return denoiser


class GeneratorNoise:
    """All the noise of a batch from one generator, as diffusers draws it; counts its calls."""

    def __init__(self, seed, count, dtype=torch.float64):
        self.g, self.count, self.dtype, self.calls = torch.Generator().manual_seed(seed), count, dtype, 0

    def __call__(self, shape):
        self.calls += 1
        return torch.randn((self.count, *shape), generator=self.g, dtype=self.dtype)


# ---- parity with diffusers


def their_loop(schedule, steps, method, eta, clip, x_T, output, prediction_type="epsilon"):
    """Every x_s of a whole loop of diffusers. output(x_t, t) is what their network would say."""
    settings = {"num_train_timesteps": schedule.T, "clip_sample": clip, "timestep_spacing": "trailing",
                "prediction_type": prediction_type}
    if method == "ddpm":
        scheduler = DDPMScheduler(**settings, variance_type="fixed_small")
    else:
        scheduler = DDIMScheduler(**settings, set_alpha_to_one=True)
    scheduler.alphas_cumprod = schedule.alpha_bar[1:]   # their time is ours less 1
    scheduler.set_timesteps(steps)
    noise, x, seen = GeneratorNoise(0, len(x_T), x_T.dtype), x_T, []
    for k, t in enumerate(scheduler.timesteps.tolist()):
        said = output(x, torch.full((len(x),), t + 1))
        if method == "ddpm":
            x = scheduler.step(said, t, x, generator=noise.g).prev_sample
        else:
            last = k == steps - 1
            z = noise(x.shape[1:]) if eta > 0 and not last else torch.zeros_like(x)
            # clipped: eps follows x0, as in our loop
            x = scheduler.step(said, t, x, eta=eta, variance_noise=z, use_clipped_model_output=clip).prev_sample
        seen.append(x)
    return scheduler.timesteps.tolist(), seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip", [False, True])
@every_sampler
def test_every_x_of_the_loop_is_that_of_diffusers(name, clip, how, g):
    schedule = make_schedule(name, 1000)
    denoiser = opinionated(schedule)
    method, eta = how.get("method", "ddim"), how.get("eta", 0.0)
    for steps in (1, 10, 50):
        x_T = torch.randn(3, 1, 2, 4, generator=g, dtype=torch.float64)
        ours = list(sample(denoiser, x_T, schedule, steps, clip=clip, noise=GeneratorNoise(0, 3), **how))
        times, theirs = their_loop(schedule, steps, method, eta, clip, x_T, lambda x, t: denoiser(x, t).eps)
        assert [step.t for step in ours] == [t + 1 for t in times]
        assert max((a.x_s - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-5
        if clip:   # and clipping did happen
            assert any(step.x0_hat.abs().max() == 1 for step in ours)
        assert steps == 1 or ours[-1].x_s.std() > 0.1   # and the result is not one grey


@every_sampler
def test_all_1000_steps_are_those_of_diffusers(how, g):
    schedule = make_schedule("linear", 1000)
    denoiser, x_T = opinionated(schedule), torch.randn(2, 1, 2, 2, generator=g, dtype=torch.float64)
    ours = sample(denoiser, x_T, schedule, 1000, noise=GeneratorNoise(0, 2), **how)
    _, theirs = their_loop(schedule, 1000, how.get("method", "ddim"), how.get("eta", 0.0), False, x_T,
                           lambda x, t: denoiser(x, t).eps)
    assert max((a.x_s - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
@every_sampler
def test_parity_holds_in_float32_when_the_network_predicts_v(name, how, g):
    """Both sides in float32, as in use. Through eps it could not hold: x0 would lose its digits at t = T."""
    schedule = make_schedule(name, 1000)
    inner = opinionated(schedule)

    def v(x_t, t):
        hat = inner(x_t, t)
        return velocity(hat.x0, hat.eps, t, schedule)

    x_T = torch.randn(3, 1, 2, 4, generator=g)
    ours = sample(lambda x, t: from_v(v(x, t), x, t, schedule), x_T, schedule, 50,
                  noise=GeneratorNoise(0, 3, torch.float32), **how)
    _, theirs = their_loop(schedule, 50, how.get("method", "ddim"), how.get("eta", 0.0), False, x_T, v,
                           "v_prediction")
    assert max((a.x_s - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-5


# ---- any stride, against a recursion of our own, written another way


def by_bayes(x_t, x0, ab_t, ab_s, z):
    """DDPM without its formula: multiply the two Gaussians q(x_t | x_s) and q(x_s | x0)."""
    if ab_s == 1:
        return x0
    a = ab_t / ab_s
    precision = a / (1 - a) + 1 / (1 - ab_s)
    mean = (math.sqrt(a) * x_t / (1 - a) + math.sqrt(ab_s) * x0 / (1 - ab_s)) / precision
    return mean + z / math.sqrt(precision)


def by_marginals(x_t, x0, ab_t, ab_s, z, eta):
    """DDIM: noise of variance 1 - ab_s in all; eta^2 times what DDPM adds is fresh, the rest is old noise."""
    if ab_s == 1:
        return x0
    a = ab_t / ab_s
    fresh = eta**2 / (a / (1 - a) + 1 / (1 - ab_s))
    old = (x_t - math.sqrt(ab_t) * x0) / math.sqrt(1 - ab_t)
    return math.sqrt(ab_s) * x0 + math.sqrt(1 - ab_s - fresh) * old + math.sqrt(fresh) * z


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("T, steps", [(1000, 7), (1000, 37), (1000, 64), (100, 99), (50, 50), (7, 3), (1, 1)])
@every_sampler
def test_any_stride_follows_our_own_recursion(name, T, steps, how, g):
    schedule = make_schedule(name, T)
    denoiser, x = opinionated(schedule), torch.randn(2, 1, 2, 3, generator=g, dtype=torch.float64)
    loop = sample(denoiser, x, schedule, steps, noise=GeneratorNoise(1, 2), **how)
    noise = GeneratorNoise(1, 2)
    turns = 0
    for step, (t, s) in zip(loop, itertools.pairwise(timesteps(T, steps)), strict=True):
        x0 = denoiser(x, torch.full((2,), t)).x0
        z = noise((1, 2, 3)) if s > 0 and how != SAMPLERS["ddim"] else 0.0
        ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        if "eta" in how:
            x = by_marginals(x, x0, ab_t, ab_s, z, how["eta"])
        else:
            x = by_bayes(x, x0, ab_t, ab_s, z)
        assert (step.t, step.s) == (t, s)
        assert (step.x_s - x).abs().max() < 1e-9
        turns += 1
    assert turns == steps == len(loop)


@given(T=st.integers(1, 2000), share=st.floats(0, 1))
def test_timesteps_are_spread_evenly_from_T_to_0(T, share):
    steps = 1 + round(share * (T - 1))
    times = timesteps(T, steps)
    assert len(times) == steps + 1
    assert times[0] == T
    assert times[-1] == 0
    gaps = [t - s for t, s in itertools.pairwise(times)]
    assert min(gaps) >= 1
    exact = [T - Fraction(k * T, steps) for k in range(steps + 1)]
    assert max(abs(t - e) for t, e in zip(times, exact, strict=True)) <= Fraction(1, 2) + Fraction(1, 10**9)
    if T % steps == 0:
        assert set(gaps) == {T // steps}


@pytest.mark.parametrize("steps", [0, 11, -1, 2.5, "3", [3], None, math.inf])
def test_steps_that_are_too_few_too_many_or_no_whole_number_are_refused(steps):
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 10, not "):
        timesteps(10, steps)


# ---- Gaussian data, where everything is known


class GaussianDenoiser:
    """The exact posterior mean for data N(mu, c): linear in x_t."""

    def __init__(self, mu, c, schedule):
        self.mu, self.c, self.schedule = mu, c, schedule

    def __call__(self, x_t, t):
        signal, noise = alpha_sigma(t, self.schedule, x_t)
        gain = signal * self.c / (signal**2 * self.c + noise**2)
        return from_x0(self.mu + gain * (x_t - signal * self.mu), x_t, t, self.schedule)


def law_of_the_sampler(schedule, steps, mu, c, how, start=(0.0, 1.0)):
    """Mean and standard deviation of what the sampler makes of x_T ~ N(start), without any chance.

    With a linear denoiser the sampler is a linear map of x_T and the z of each step. So run it once with all
    sources of noise at 0 (the mean), and once with each of them alone at 1 (its coefficient): all in one batch.
    """
    x_T = torch.full((steps + 2, 1), start[0], dtype=torch.float64)
    x_T[1] += start[1]
    calls = itertools.count(2)

    def one_at_a_time(shape):
        z = torch.zeros(steps + 2, *shape, dtype=torch.float64)
        z[next(calls)] = 1
        return z

    out = run(sample(GaussianDenoiser(mu, c, schedule), x_T, schedule, steps, noise=one_at_a_time, **how))
    out = out[:, 0]
    return out[0].item(), (out[1:] - out[0]).norm().item()


def law_by_algebra(schedule, steps, mu, c, how, start=(0.0, 1.0)):
    """The same two numbers from the recursion for mean and variance: x_s = p x_t + q + r z."""
    mean, variance = start[0], start[1] ** 2
    for t, s in itertools.pairwise(timesteps(schedule.T, steps)):
        ab_t, ab_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
        gain = math.sqrt(ab_t) * c / (ab_t * c + 1 - ab_t)
        shift = mu - gain * math.sqrt(ab_t) * mu                                  # x0_hat = gain x_t + shift
        if "eta" in how:
            def step(x, z, gain=gain, shift=shift, ab_t=ab_t, ab_s=ab_s):
                return by_marginals(x, gain * x + shift, ab_t, ab_s, z, how["eta"])
        else:
            def step(x, z, gain=gain, shift=shift, ab_t=ab_t, ab_s=ab_s):
                return by_bayes(x, gain * x + shift, ab_t, ab_s, z)
        q = step(0.0, 0.0)
        p, r = step(1.0, 0.0) - q, step(0.0, 1.0) - q
        mean, variance = p * mean + q, p**2 * variance + r**2
    return mean, math.sqrt(variance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mu, c", [(0.7, 0.25), (-0.3, 2.0), (0.5, 1e-4)])
@every_sampler
def test_each_sampler_has_its_closed_form_law_on_gaussian_data(name, mu, c, how):
    schedule = make_schedule(name, 400)
    for steps in (1, 7, 40, 400):
        got, expected = (law(schedule, steps, mu, c, how) for law in (law_of_the_sampler, law_by_algebra))
        assert got == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("name, low", [("ddim", 1.95), ("ddim, eta 0.5", 1.9), ("ddpm", 1.84)])
def test_the_bias_halves_as_the_steps_double(name, low):
    """First order: the spread misses that of the data by a constant over the number of steps; the mean is right.

    The loop starts from the exact law of x_T, so that nothing but the size of the steps can be at fault.
    """
    mu, c, schedule = 0.7, 0.25, make_schedule("cosine", 4096)
    ab = schedule.alpha_bar[-1].item()
    start = (math.sqrt(ab) * mu, math.sqrt(ab * c + 1 - ab))
    how = SAMPLERS[name]
    laws = [law_of_the_sampler(schedule, steps, mu, c, how, start) for steps in (64, 128, 256, 512)]
    assert all(mean == pytest.approx(mu, abs=1e-9) for mean, _ in laws)
    bias = [std - math.sqrt(c) for _, std in laws]
    assert all(low < rough / fine < 2.05 for rough, fine in itertools.pairwise(bias)), bias
    assert abs(bias[-1]) < 0.01 * math.sqrt(c)


def test_ddim_with_eta_1_is_ddpm(g):
    schedule = make_schedule("cosine", 1000)
    x_T = torch.randn(2, 1, 2, 2, generator=g, dtype=torch.float64)
    runs = [sample(opinionated(schedule), x_T, schedule, 30, noise=GeneratorNoise(3, 2), **how)
            for how in (SAMPLERS["ddpm"], SAMPLERS["ddim, eta 1"])]
    assert max((a.x_s - b.x_s).abs().max().item() for a, b in zip(*runs, strict=True)) < 1e-9


# ---- noise


def test_the_last_step_adds_no_noise(g):
    schedule = make_schedule("linear", 1000)
    x_t, loud = torch.randn(2, 1, 2, 2, generator=g), torch.full((2, 1, 2, 2), 1e6)
    hat = opinionated(schedule)(x_t, torch.tensor([20, 20]))
    for step in (ddpm_step(x_t, 20, 0, hat, schedule, loud), ddim_step(x_t, 20, 0, hat, schedule, loud, 1.0)):
        torch.testing.assert_close(step, hat.x0)
    assert (ddpm_step(x_t, 20, 10, hat, schedule, loud) - hat.x0).abs().max() > 1e3   # the one before does
    for how, calls in ((SAMPLERS["ddpm"], 9), (SAMPLERS["ddim, eta 0.5"], 9), (SAMPLERS["ddim"], 0)):
        noise = GeneratorNoise(0, 2)
        *_, last = sample(opinionated(schedule), x_t, schedule, 10, noise=noise, **how)
        assert noise.calls == calls
        torch.testing.assert_close(last.x_s, last.x0_hat)


def test_a_picture_depends_on_seed_and_index_alone():
    shape = (1, 4, 4)
    together, apart = PerSampleNoise(7, 5), [PerSampleNoise(7, 1, first=i) for i in range(5)]
    draws = [together(shape) for _ in range(3)]
    for draw in draws:   # three draws one after another, each the same as alone
        assert torch.equal(draw, torch.cat([alone(shape) for alone in apart]))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.isclose(PerSampleNoise(8, 5)(shape), draws[0]).any()
    assert draws[0].dtype == torch.float32


def test_picture_noise_is_standard_and_pictures_are_independent():
    """100 pictures of 400 numbers; tolerances are 4.5 standard errors."""
    z = torch.cat([PerSampleNoise(seed, 50)((400,)) for seed in (0, 1)]).double()
    assert abs(z.mean().item()) < 4.5 / math.sqrt(z.numel())
    assert abs(z.var().item() - 1) < 4.5 * math.sqrt(2 / z.numel())
    between = torch.corrcoef(z)[*torch.triu_indices(100, 100, 1)]
    assert between.abs().max() < 5.5 / math.sqrt(400)   # 4950 pairs


@every_sampler
def test_the_same_pictures_whatever_the_batch(how):
    schedule = make_schedule("cosine", 100)

    def draw(first, count):
        noise = PerSampleNoise(3, count, first)
        return run(sample(opinionated(schedule), noise((1, 3, 3)), schedule, 12, noise=noise, **how))

    torch.testing.assert_close(draw(0, 6), torch.cat([draw(0, 2), draw(2, 3), draw(5, 1)]), rtol=0, atol=1e-5)


# ---- changed from outside


def test_the_loop_goes_on_from_whatever_was_put_into_x_t(g):
    schedule = make_schedule("cosine", 100)
    denoiser, x_T = opinionated(schedule), torch.randn(2, 1, 2, 2, generator=g)
    loop, edited = sample(denoiser, x_T, schedule, 10), torch.randn(2, 1, 2, 2, generator=g)
    for step in loop:
        if step.t == 50:
            loop.x_t = edited
        if step.t == 40:
            assert torch.equal(step.x_t, edited)
    assert torch.equal(loop.x_t, step.x_s)
    expected = run(SamplingLoop(denoiser, edited, schedule, [40, 30, 20, 10, 0]))
    torch.testing.assert_close(loop.x_t, expected)
    assert (loop.x_t - run(sample(denoiser, x_T, schedule, 10))).abs().max() > 0.1


def test_the_denoiser_can_be_swapped_half_way(g):
    schedule = make_schedule("cosine", 100)
    one, other = opinionated(schedule), opinionated(schedule, size=-0.8)
    loop, steps = sample(one, torch.randn(2, 1, 2, 2, generator=g), schedule, 10), {}
    for step in loop:
        steps[step.t] = step
        if step.s == 50:
            loop.denoiser = other
    for t, step in steps.items():
        used = one if t > 50 else other
        torch.testing.assert_close(step.x0_hat, used(step.x_t, torch.full((2,), t)).x0)


def test_a_loop_can_be_left_and_taken_up_again(g):
    schedule, x_T = make_schedule("linear", 100), torch.randn(2, 1, 2, 2, generator=g)
    loop = sample(opinionated(schedule), x_T, schedule, 10)
    for step in loop:
        if step.t == 60:
            break
    assert torch.equal(loop.x_t, step.x_s)
    assert [later.t for later in loop] == [50, 40, 30, 20, 10]
    whole = run(sample(opinionated(schedule), x_T, schedule, 10))
    assert torch.equal(loop.x_t, whole)
    assert torch.equal(run(loop), whole)   # a finished loop stays as it is


def test_a_step_records_its_input_prediction_and_output(g):
    schedule = make_schedule("linear", 100)
    steps = list(sample(opinionated(schedule), torch.randn(2, 1, 2, 2, generator=g), schedule, 10))
    for before, after in itertools.pairwise(steps):
        assert before.s == after.t
        assert torch.equal(before.x_s, after.x_t)
        t = torch.full((2,), before.t)
        torch.testing.assert_close(add_noise(before.x0_hat, t, before.eps_hat, schedule), before.x_t)
    with pytest.raises(dataclasses.FrozenInstanceError):
        steps[0].x_t = None


def test_no_gradient_is_kept_while_sampling(g):
    schedule, strength = make_schedule("linear", 10), torch.ones((), requires_grad=True)
    inner = opinionated(schedule)
    x_T = torch.randn(1, 1, 2, 2, generator=g)
    out = run(sample(lambda x, t: inner(x * strength, t), x_T, schedule, 5))
    assert not out.requires_grad


# ---- uses of the loop


KNOWN, HOLE = (..., slice(None, 3)), (..., slice(3, None))   # three columns of four


@pytest.fixture
def four_pictures():
    """Four far apart 4x4 pictures."""
    return (torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(5)) > 0.5) * 2.0 - 1


@every_sampler
def test_inpaint_keeps_what_is_known_and_makes_the_rest_fit(how, four_pictures):
    schedule = make_schedule("cosine", 1000)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[HOLE] = True
    holes = four_pictures.clone()
    holes[HOLE] = 0
    ideal = IdealDenoiser(four_pictures, schedule)
    steps = list(inpaint(ideal, holes, mask, schedule, PerSampleNoise(0, 4), 50, **how))
    made = steps[-1].x_s
    assert torch.equal(made[KNOWN], holes[KNOWN])   # exactly
    assert (made[HOLE] - four_pictures[HOLE]).abs().max() < 0.05
    for before, after in itertools.pairwise(steps):   # each turn starts from the pasted picture
        assert torch.equal(before.x_s, after.x_t)
    again = run(inpaint(ideal, holes, mask.float(), schedule, PerSampleNoise(0, 4), 50, **how))
    assert torch.equal(made, again)


def test_the_known_part_is_as_noisy_as_the_rest_on_the_way(four_pictures):
    """400 times one picture; tolerance 4.5 standard errors."""
    schedule, x0 = make_schedule("cosine", 1000), four_pictures[:1].expand(400, 1, 4, 4)
    ideal = IdealDenoiser(four_pictures, schedule)
    for step in inpaint(ideal, x0, torch.zeros(1, 1, 1), schedule, PerSampleNoise(0, 400), 5):
        ab = schedule.alpha_bar[step.s].item()
        z = step.x_s - math.sqrt(ab) * x0
        assert abs(z.mean().item()) <= 4.5 * math.sqrt((1 - ab) / z.numel())
        assert abs(z.var().item() - (1 - ab)) <= 4.5 * math.sqrt(2 / z.numel()) * (1 - ab)


@every_sampler
def test_img2img_with_little_strength_keeps_the_picture(how, four_pictures):
    schedule = make_schedule("cosine", 1000)
    ideal = IdealDenoiser(four_pictures, schedule)
    for strength in (1e-6, 0.02, 0.2):
        loop = img2img(ideal, four_pictures, schedule, strength, PerSampleNoise(0, 4), 50, **how)
        assert (run(loop) - four_pictures).abs().max() < 0.02


@every_sampler
def test_img2img_with_full_strength_forgets_the_picture(how, four_pictures):
    schedule = make_schedule("cosine", 1000)
    ideal, x0 = IdealDenoiser(four_pictures, schedule), four_pictures[:1].expand(200, 1, 4, 4)
    made = run(img2img(ideal, x0, schedule, 1.0, PerSampleNoise(0, 200), 20, **how))
    counts = torch.cdist(made.flatten(1), four_pictures.flatten(1)).argmin(1).bincount(minlength=4)
    assert counts.min() > 25   # 50 +- 6 expected of each, whichever picture went in


def test_img2img_starts_at_its_share_of_T_from_the_noised_picture(four_pictures):
    schedule, noise = make_schedule("linear", 1000), PerSampleNoise(4, 4)
    loop = img2img(IdealDenoiser(four_pictures, schedule), four_pictures, schedule, 0.335, noise, 10)
    assert loop.timesteps == [335, 300, 200, 100, 0]
    eps = PerSampleNoise(4, 4)((1, 4, 4))
    torch.testing.assert_close(loop.x_t, add_noise(four_pictures, torch.full((4,), 335), eps, schedule))


# ---- bad input


def test_bad_input_is_refused_in_words(four_pictures):
    schedule = make_schedule("linear", 10)
    ideal, x = IdealDenoiser(four_pictures, schedule), four_pictures
    with pytest.raises(ValueError, match="known are ddim, ddpm, euler"):
        sample(ideal, x, schedule, 5, method="heun")
    for eta in (-0.1, 1.1, math.nan, "1", None):
        with pytest.raises(ValueError, match="eta must be a number from 0 to 1"):
            sample(ideal, x, schedule, 5, eta=eta)
    for times in ([], [5, 5, 0], [3, 4], [11, 0], [5, -1]):
        with pytest.raises(ValueError, match="timesteps must decrease"):
            SamplingLoop(ideal, x, schedule, times)
    for how in (SAMPLERS["ddpm"], SAMPLERS["ddim, eta 1"]):
        with pytest.raises(ValueError, match="PerSampleNoise"):
            run(sample(ideal, x, schedule, 5, **how))
        for count in (1, 3):   # one noise for all would pass unnoticed
            with pytest.raises(ValueError, match="there are 4"):
                run(sample(ideal, x, schedule, 5, noise=PerSampleNoise(0, count), **how))
    for strength in (0.0, -0.5, 1.01, math.nan, "1", [0.5]):
        with pytest.raises(ValueError, match="strength"):
            img2img(ideal, x, schedule, strength, PerSampleNoise(0, 4))
