"""The exact posterior mean of a finite set, against sums written out in plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons.forward import add_noise
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.samplers import PerSampleNoise, run, sample
from diffusion_lessons.schedules import SCHEDULES, make_schedule


def posterior_mean(x, data, ab):
    """Bayes' rule with nothing left out: lists of numbers, one likelihood for each point."""
    logs = [-math.dist(x, [math.sqrt(ab) * v for v in d]) ** 2 / (2 * (1 - ab)) for d in data]
    likely = [math.exp(v - max(logs)) for v in logs]
    total = math.fsum(likely)
    return [math.fsum(w * d[k] for w, d in zip(likely, data, strict=True)) / total for k in range(len(x))]


@given(name=st.sampled_from(tuple(SCHEDULES)), seed=st.integers(0, 10**6), t=st.integers(1, 1000))
def test_it_is_the_posterior_mean(name, seed, t):
    s, g = make_schedule(name, 1000), torch.Generator().manual_seed(seed)
    data = torch.randn(7, 3, generator=g, dtype=torch.float64)
    x_t = add_noise(data[:4], torch.full((4,), t), torch.randn(4, 3, generator=g, dtype=torch.float64), s)
    hat = IdealDenoiser(data, s)(x_t, torch.full((4,), t))
    ab = s.alpha_bar[t].item()
    expected = torch.tensor([posterior_mean(x, data.tolist(), ab) for x in x_t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(hat.x0, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(math.sqrt(ab) * hat.x0 + math.sqrt(1 - ab) * hat.eps, x_t, rtol=0, atol=1e-12)


def test_pictures_in_float32_with_a_time_each(g):
    s = make_schedule("cosine")
    data = torch.rand(20, 1, 8, 8, generator=g) * 2 - 1
    t = torch.tensor([1, 400, 700, 900, 1000])
    x_t = add_noise(data[:5], t, torch.randn(5, 1, 8, 8, generator=g), s)
    single, double = IdealDenoiser(data, s), IdealDenoiser(data.double(), s)
    for a, b in zip(single(x_t, t), double(x_t.double(), t), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-3)
    weights = single.weights(x_t, t)
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert weights[0, 0] > 0.999   # hardly any noise: no doubt which picture it was
    assert weights[4].max() < 0.06   # all noise: each of the 20 about as likely


def test_from_pure_noise_it_predicts_the_mean_of_the_data(g):
    s = make_schedule("cosine")
    data = torch.rand(50, 1, 4, 4, generator=g) * 2 - 1
    hat = IdealDenoiser(data, s)(torch.randn(10, 1, 4, 4, generator=g), torch.full((10,), 1000))
    assert (hat.x0 - data.mean(0)).abs().max() < 0.01


def test_no_other_guess_has_a_smaller_squared_error(g):
    """4,000 samples; pulled towards the mean or away from it, or computed for another t, the error grows."""
    s = make_schedule("cosine")
    data = torch.randn(6, 2, generator=g, dtype=torch.float64)
    ideal, t = IdealDenoiser(data, s), torch.full((4000,), 500)
    x0 = data[torch.randint(6, (4000,), generator=g)]
    x_t = add_noise(x0, t, torch.randn(4000, 2, generator=g, dtype=torch.float64), s)

    def error(guess):
        return (guess - x0).square().mean().item()

    best, middle = ideal(x_t, t).x0, data.mean(0)
    for other in (middle + 0.8 * (best - middle), middle + 1.2 * (best - middle), ideal(x_t, t - 150).x0,
                  ideal(x_t, t + 150).x0, data[ideal.weights(x_t, t).argmax(1)]):
        assert error(best) < error(other)


def test_a_loop_ends_at_pictures_of_the_set_each_about_as_often(g):
    s = make_schedule("cosine")
    angle = torch.arange(8) * math.pi / 4
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    noise = PerSampleNoise(0, 400)
    made = run(sample(IdealDenoiser(ring, s), noise((2,)), s, 100, method="ddpm", noise=noise))
    distance, which = torch.cdist(made, ring).min(1)
    assert distance.max() < 1e-3
    counts = which.bincount(minlength=8)
    assert counts.min() > 20   # 50 +- 7 expected
    assert counts.max() < 80


def test_one_picture_is_always_the_answer(g):
    s = make_schedule("linear")
    only = torch.rand(1, 1, 4, 4, generator=g)
    hat = IdealDenoiser(only, s)(5 * torch.randn(3, 1, 4, 4, generator=g), torch.tensor([1, 500, 1000]))
    torch.testing.assert_close(hat.x0, only.expand(3, 1, 4, 4))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        IdealDenoiser(torch.zeros(0, 1, 4, 4), make_schedule("linear"))
