"""Noise schedules: their two ends, their formulas, and what they refuse."""

import copy
import dataclasses
import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons import schedules
from diffusion_lessons.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    cosine,
    from_betas,
    linear,
    make_schedule,
    sigmoid,
)

NAMES = ("constant", "linear", "cosine", "sigmoid")


def test_these_schedules_are_offered():
    assert tuple(SCHEDULES) == NAMES


@given(name=st.sampled_from(NAMES), T=st.one_of(st.integers(1, 60), st.integers(61, 3000)))
def test_from_the_picture_to_noise(name, T):
    s = make_schedule(name, T)
    assert s.name == name
    assert s.T == T
    assert s.alpha_bar.dtype == torch.float64
    assert s.alpha_bar.shape == (T + 1,)
    assert s.alpha_bar[0] == 1
    assert (s.alpha_bar[1:] < s.alpha_bar[:-1]).all()
    # At t = T at most a thousandth of the picture's variance is left, for every T.
    assert 0 < s.alpha_bar[-1] <= 1.001e-3
    assert s.beta[0] == 0
    assert ((s.beta[1:] > 0) & (s.beta[1:] <= 0.999 + 1e-12)).all()
    torch.testing.assert_close(torch.cumprod(s.alpha, 0), s.alpha_bar, rtol=1e-10, atol=0)


@given(name=st.sampled_from(NAMES), T=st.integers(1, 2000))
def test_log_snr_is_the_log_of_picture_over_noise(name, T):
    s = make_schedule(name, T)
    assert s.log_snr[0] == math.inf
    assert (s.log_snr[1:] < s.log_snr[:-1]).all()
    torch.testing.assert_close(torch.sigmoid(s.log_snr), s.alpha_bar, rtol=1e-9, atol=0)


def test_linear_is_the_one_of_ho_et_al():
    s = linear(1000)
    beta = [1e-4 + (0.02 - 1e-4) * k / 999 for k in range(1000)]
    assert s.beta[1] == pytest.approx(1e-4, rel=1e-9)
    assert s.beta[1000] == pytest.approx(0.02, rel=1e-9)
    for t in (1, 10, 500, 1000):
        expected = math.exp(math.fsum(math.log1p(-b) for b in beta[:t]))
        assert s.alpha_bar[t].item() == pytest.approx(expected, rel=1e-9)
    assert s.alpha_bar[1000].item() == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("name, theirs", [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_betas_are_those_of_diffusers(name, theirs):
    expected = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs)
    s = make_schedule(name, 1000)
    torch.testing.assert_close(s.beta[1:], expected.betas.double(), rtol=2e-6, atol=1e-8)
    torch.testing.assert_close(s.alpha_bar[1:], expected.alphas_cumprod.double(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("t", [1, 250, 500, 900, 999])
def test_cosine_follows_its_formula(t):
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    assert cosine(1000).alpha_bar[t].item() == pytest.approx(f(t / 1000) / f(0), rel=1e-9)
    assert cosine(1000).alpha_bar[500].item() == pytest.approx(0.4938, abs=1e-4)


@pytest.mark.parametrize("t", [1, 250, 500, 900, 999])
def test_sigmoid_follows_its_formula(t):
    def f(u, tau):
        return 1 / (1 + math.exp((-3 + 6 * u) / tau))

    for tau in (1.0, 0.5):
        expected = (f(t / 1000, tau) - f(1, tau)) / (f(0, tau) - f(1, tau))
        assert sigmoid(1000, tau=tau).alpha_bar[t].item() == pytest.approx(expected, rel=1e-9)
    assert sigmoid(1000).alpha_bar[500].item() == pytest.approx(0.5, abs=1e-12)   # it is symmetric


def test_constant_has_the_same_beta_at_every_step():
    s = constant(1000)
    torch.testing.assert_close(s.beta[1:], s.beta[1].expand(1000), rtol=1e-9, atol=0)
    assert s.alpha_bar[1000].item() == pytest.approx(4e-5, rel=1e-9)
    assert s.alpha_bar[500].item() == pytest.approx(math.sqrt(4e-5), rel=1e-9)
    assert constant(20, beta=0.1).alpha_bar[7].item() == pytest.approx(0.9**7, rel=1e-12)


@pytest.mark.parametrize("T", [1, 2, 10, 50, 100, 400, 3000])
def test_linear_ends_in_noise_for_every_T_only_when_it_is_rescaled(T):
    assert linear(T).alpha_bar[-1] < 1.001e-3
    if T < 400:   # the ghost: more than a tenth of the picture's amplitude is left in x_T
        assert linear(T, rescale=False).alpha_bar[-1].sqrt() > 0.1


def test_a_rescaled_linear_schedule_follows_the_long_one():
    long, short = linear(1000).alpha_bar, linear(200).alpha_bar
    assert (long[::5] - short).abs().max() < 0.01
    assert (long[::5] - linear(200, rescale=False).alpha_bar).abs().max() > 0.3


@pytest.mark.parametrize("name", ["cosine", "sigmoid", "constant"])
def test_alpha_bar_as_a_function_of_t_over_T_does_not_depend_on_T(name):
    long, short = make_schedule(name, 1000).alpha_bar, make_schedule(name, 100).alpha_bar
    torch.testing.assert_close(long[::10][:-1], short[:-1], rtol=1e-9, atol=0)


def test_from_betas_gives_the_schedule_back_and_clamps_at_0_999():
    s = linear(37)
    torch.testing.assert_close(from_betas("again", s.beta[1:]).alpha_bar, s.alpha_bar, rtol=1e-12, atol=0)
    clamped = from_betas("all at once", [0.5, 1.0])
    assert clamped.alpha_bar.tolist() == pytest.approx([1, 0.5, 0.0005], rel=1e-12)


def test_bad_input_is_refused_in_words():
    with pytest.raises(ValueError, match="constant, linear, cosine, sigmoid"):
        make_schedule("quadratic")
    for name in NAMES:
        for T in (0, -1, 2.5, "10", None):
            with pytest.raises(ValueError, match="T must be a whole number"):
                make_schedule(name, T)
    for beta in ([], [0.0, 0.1], [0.1, -0.1], [0.1, 1.1], [0.1, math.nan], 0.1, [[0.1]]):
        with pytest.raises(ValueError, match="beta must be a vector"):
            from_betas("bad", beta)
    one = torch.ones(1, dtype=torch.float64)
    for alpha_bar in ([0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5, 0.6], [1.0, 0.0], [1.0, -0.1], [1.0, math.nan]):
        with pytest.raises(ValueError, match="begin with exactly 1, decrease at every step"):
            Schedule("bad", torch.tensor(alpha_bar, dtype=torch.float64))
    for alpha_bar in (one, one[0], torch.tensor([1.0, 0.5])):
        with pytest.raises(ValueError, match="float64 vector"):
            Schedule("bad", alpha_bar)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_table_holds_the_three_factors_rounded_once_and_is_made_once(name, dtype):
    s = make_schedule(name, 50)
    table = s.table(torch.device("cpu"), dtype)
    assert table.dtype == dtype
    for t in (0, 1, 25, 50):
        ab, before = s.alpha_bar[t].item(), s.alpha_bar[max(t - 1, 0)].item()
        exact = torch.tensor([math.sqrt(ab), math.sqrt(1 - ab), 1 - ab / before], dtype=torch.float64)
        assert torch.equal(table[:, t], exact.to(dtype))
        assert s.floats[t] == ab
    assert s.table(torch.device("cpu"), dtype) is table
    assert s.table(torch.device("cpu"), torch.bfloat16) is not table
    assert copy.deepcopy(s).table(torch.device("cpu"), dtype) is not table     # a copy shares nothing


def test_a_schedule_cannot_be_changed_but_compared():
    s = linear(10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.name = "other"
    assert s == s
    assert s != schedules.linear(10)   # without "Boolean value of Tensor is ambiguous"
    assert repr(linear(1000)) == "Schedule(linear, T=1000, alpha_bar_T=4e-05)"
