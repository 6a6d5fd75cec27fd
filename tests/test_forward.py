"""The forward process: the jump, the steps, and the three things that a network may predict."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons.forward import (
    TO_PREDICTION,
    add_noise,
    forward_process,
    forward_step,
    from_eps,
    from_v,
    from_x0,
    velocity,
)
from diffusion_lessons.schedules import SCHEDULES, make_schedule

NAMES = tuple(SCHEDULES)


def pictures(g, *shape, dtype=torch.float64):
    return torch.rand(shape, generator=g, dtype=dtype) * 2 - 1, torch.randn(shape, generator=g, dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_jump_is_its_formula_with_a_time_for_each_picture(name, g):
    s = make_schedule(name, 1000)
    x0, eps = pictures(g, 5, 2, 3, 3)
    t = torch.tensor([0, 1, 300, 999, 1000])
    x_t = add_noise(x0, t, eps, s)
    for i, at in enumerate(t.tolist()):
        a = s.alpha_bar[at].item()
        expected = math.sqrt(a) * x0[i] + math.sqrt(1 - a) * eps[i]
        torch.testing.assert_close(x_t[i], expected, rtol=0, atol=1e-14)
    assert torch.equal(x_t[0], x0[0])   # t = 0 is the picture, exactly
    assert (x_t[4] - eps[4]).abs().max() < 0.04   # t = T is in essence all noise


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_compose_to_the_jump_exactly(name):
    """Each step is linear: follow what is left of x0 = 1 and the variance of the noise, step by step."""
    s = make_schedule(name, 200)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    left, variance = one, 0.0
    for t in range(1, s.T + 1):
        left = forward_step(left, t, zero, s)
        shrunk, added = forward_step(one, t, zero, s).item(), forward_step(zero, t, one, s).item()
        variance = shrunk**2 * variance + added**2
        at = torch.tensor([t])
        assert left.item() == pytest.approx(add_noise(one, at, zero, s).item(), rel=1e-9)
        assert variance == pytest.approx(add_noise(zero, at, one, s).item() ** 2, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_process_with_real_noise_has_the_mean_and_variance_of_the_jump(name, g):
    """20,000 runs from each of 3 values; tolerance 4.5 standard errors (24 figures miss it once in 6,000)."""
    s, n = make_schedule(name, 40), 20_000
    x0 = torch.tensor([[-1.0, 0.3, 1.0]]).expand(n, 3)
    seen = dict(zip(range(1, 41), forward_process(x0, s, g), strict=True))
    for t in (1, 10, 25, 40):
        a = s.alpha_bar[t].item()
        mean, variance = seen[t].double().mean(0), seen[t].double().var(0)
        assert (mean - math.sqrt(a) * x0[0]).abs().max() < 4.5 * math.sqrt((1 - a) / n) + 1e-6
        assert (variance / (1 - a) - 1).abs().max() < 4.5 * math.sqrt(2 / n)


def test_each_step_draws_fresh_noise_from_the_generator(g):
    s, x0 = make_schedule("linear", 4), torch.zeros(4000, 1)
    xs = [x0, *forward_process(x0, s, g)]
    z = torch.cat([(xs[t] - s.alpha[t].sqrt() * xs[t - 1]) / s.beta[t].sqrt() for t in range(1, 5)], 1)
    assert (torch.corrcoef(z.T) - torch.eye(4)).abs().max() < 4.5 / math.sqrt(4000)
    again = list(forward_process(x0, s, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(xs[1:], again, strict=True))


@given(name=st.sampled_from(NAMES), T=st.integers(2, 1000), place=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_eps_x0_and_v_give_the_same_prediction(name, T, place, seed):
    s, g = make_schedule(name, T), torch.Generator().manual_seed(seed)
    x0, eps = pictures(g, 3, 1, 2, 2)
    t = torch.tensor([1, 1 + round(place * (T - 1)), T])
    x_t, v = add_noise(x0, t, eps, s), velocity(x0, eps, t, s)
    signal, noise = (f.sqrt().reshape(-1, 1, 1, 1) for f in (s.alpha_bar[t], 1 - s.alpha_bar[t]))
    for to_prediction, output in ((from_eps, eps), (from_x0, x0), (from_v, v)):
        hat = to_prediction(output, x_t, t, s)
        # the two errors differ by a factor of t: allow for that, and no more
        assert ((hat.x0 - x0) * signal).abs().max() < 1e-13
        assert ((hat.eps - eps) * noise).abs().max() < 1e-13
        if to_prediction is from_v:
            torch.testing.assert_close(hat.x0, x0, rtol=0, atol=1e-13)
            torch.testing.assert_close(hat.eps, eps, rtol=0, atol=1e-13)


@given(name=st.sampled_from(NAMES), output_type=st.sampled_from(tuple(TO_PREDICTION)), T=st.integers(2, 1000),
       seed=st.integers(0, 10**6))
def test_any_output_gives_an_eps_and_an_x0_that_add_up_to_x_t(name, output_type, T, seed):
    """Not only for the truth: x_t = signal x0_hat + noise eps_hat for any output, which can be computed back."""
    s, g = make_schedule(name, T), torch.Generator().manual_seed(seed)
    x_t, output = torch.randn(2, 2, 1, 2, 2, generator=g, dtype=torch.float64)
    t = torch.randint(1, T + 1, (2,), generator=g)
    hat = TO_PREDICTION[output_type](output, x_t, t, s)
    signal, noise = (f.sqrt().reshape(-1, 1, 1, 1) for f in (s.alpha_bar[t], 1 - s.alpha_bar[t]))
    torch.testing.assert_close(signal * hat.x0 + noise * hat.eps, x_t, rtol=0, atol=1e-12)
    own = {"eps": hat.eps, "x0": hat.x0, "v": velocity(hat.x0, hat.eps, t, s)}[output_type]
    torch.testing.assert_close(own, output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_x0_is_finite_and_right_at_t_T(name, dtype, g):
    """v is rounded to a narrow number type, as a network's output may be; x0 comes out as exact as v went in."""
    s = make_schedule(name, 1000)
    x0, eps = pictures(g, 64, 1, 4, 4, dtype=torch.float32)
    t = torch.full((64,), 1000)
    x_t, v = add_noise(x0, t, eps, s), velocity(x0, eps, t, s)
    hat = from_v(v.to(dtype), x_t, t, s)
    exact = torch.finfo(dtype).eps
    assert hat.x0.dtype == hat.eps.dtype == torch.float32
    assert (hat.x0 - x0).abs().max() < 8 * exact
    assert (hat.eps - eps).abs().max() < 8 * exact
    # In contrast, computing x0 from eps multiplies the rounding by 1 / sqrt(alpha_bar_T).
    through_eps = from_eps(eps.to(torch.bfloat16), x_t, t, s)
    assert (through_eps.x0 - x0).abs().max() > 0.05


def test_half_precision_pictures_become_float32(g):
    x0, eps = pictures(g, 4, 3, dtype=torch.float32)
    t = torch.tensor([1, 10, 500, 1000])
    s = make_schedule("cosine")
    half = add_noise(x0.bfloat16(), t, eps.bfloat16(), s)
    assert half.dtype == torch.float32
    assert (half - add_noise(x0, t, eps, s)).abs().max() < 0.02


def test_bad_input_is_refused_in_words(g):
    s = make_schedule("linear", 10)
    x0, eps = pictures(g, 2, 1, 4, 4)
    t = torch.tensor([1, 2])
    for bad in (torch.tensor([1, 11]), torch.tensor([-1, 2])):
        for f in (add_noise, velocity, from_eps, from_x0, from_v):
            args = (x0, bad, eps, s) if f is add_noise else (x0, eps, bad, s)
            first = 1 if f is from_x0 else 0
            with pytest.raises(ValueError, match=rf"t must lie in {first}\.\.10, got {bad.min()}\.\.{bad.max()}"):
                f(*args)
    for bad in (3, torch.tensor(3), torch.tensor([3]), torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0])):
        with pytest.raises(ValueError, match="one integer for each of 2 pictures"):
            add_noise(x0, bad, eps, s)
    for f, args in ((add_noise, (x0, t, eps[:1], s)), (velocity, (x0, eps[:, :, :2], t, s)),
                    (from_v, (x0, eps[:1], t, s)), (forward_step, (x0, 1, eps[:1], s))):
        with pytest.raises(ValueError, match="the same shape"):
            f(*args)
    with pytest.raises(ValueError, match="float"):
        add_noise((x0 * 100).to(torch.uint8), t, eps, s)
    with pytest.raises(ValueError, match="no noise"):
        from_x0(x0, x0, torch.tensor([0, 1]), s)
    for at in (0, 11, -1):
        with pytest.raises(ValueError, match=r"1\.\.10"):
            forward_step(x0, at, eps, s)
