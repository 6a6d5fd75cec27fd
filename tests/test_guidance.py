"""Classifier-free guidance: one formula, for eps and x0 alike."""

import math

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance

from diffusion_lessons.forward import Prediction, from_v
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.samplers import PerSampleNoise, run, sample
from diffusion_lessons.schedules import make_schedule

SCHEDULE = make_schedule("cosine", 1000)


class Labelled:
    """Predicts a different v for every label, and another one without; records the conditions it was given."""

    def __init__(self):
        self.conditions = []

    def __call__(self, x_t, t, y):
        self.conditions.append(y)
        tilt = torch.full((len(x_t),), -0.7) if y is None else 0.3 * y
        return from_v(torch.sin(2 * x_t + tilt.reshape(-1, 1, 1, 1).to(x_t)), x_t, t, SCHEDULE)


@pytest.fixture
def case(g):
    return torch.randn(4, 1, 3, 3, generator=g, dtype=torch.float64), torch.tensor([1, 300, 700, 1000])


Y = torch.tensor([3, 1, 4, 2])


@pytest.mark.parametrize("w", [0, 0.0, 0.3, 0.5, 1, 1.0, 1.7, 3.0, 20.0])
def test_guidance_is_its_formula_on_eps_and_on_x0(w, case):
    inner = Labelled()
    uncond, cond = inner(*case, None), inner(*case, Y)
    hat = CFGDenoiser(inner, Y, w)(*case)
    assert isinstance(hat, Prediction)
    for name in ("eps", "x0"):
        u, c = getattr(uncond, name), getattr(cond, name)
        torch.testing.assert_close(getattr(hat, name), u + w * (c - u), rtol=0, atol=1e-12)


@pytest.mark.parametrize("w", [0.5, 3.0, 7.5])
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_guidance_is_that_of_the_pipelines_of_diffusers(w, rescale, case):
    inner = Labelled()
    inner.schedule = SCHEDULE
    uncond, cond, hat = inner(*case, None), inner(*case, Y), CFGDenoiser(inner, Y, w, rescale=rescale)(*case)
    theirs = ClassifierFreeGuidance(guidance_scale=w, guidance_rescale=rescale).forward(cond.x0, uncond.x0).pred
    torch.testing.assert_close(hat.x0, theirs, rtol=0, atol=1e-10)
    if rescale == 0:
        theirs = ClassifierFreeGuidance(guidance_scale=w).forward(cond.eps, uncond.eps).pred
        torch.testing.assert_close(hat.eps, theirs, rtol=0, atol=1e-12)
        original = ClassifierFreeGuidance(guidance_scale=w - 1, use_original_formulation=True)     # our w = 1 + theirs
        torch.testing.assert_close(hat.eps, original.forward(cond.eps, uncond.eps).pred, rtol=0, atol=1e-12)


def test_w_0_never_uses_the_label_and_w_1_makes_one_pass(case):
    for w, expected in ((0, [None]), (1, [Y]), (2, [Y, None])):
        inner = Labelled()
        CFGDenoiser(inner, Y, w)(*case)
        assert len(inner.conditions) == len(expected)
        assert all(a is b for a, b in zip(inner.conditions, expected, strict=True))


@pytest.mark.parametrize("w", [0, 0.4, 1, 3, 7.5])
def test_guided_eps_and_x0_still_add_up_to_x_t(w, case):
    x_t, t = case
    hat = CFGDenoiser(Labelled(), Y, w)(x_t, t)
    ab = SCHEDULE.alpha_bar[t].reshape(-1, 1, 1, 1)
    signal, noise = ab.sqrt(), (1 - ab).sqrt()
    torch.testing.assert_close(signal * hat.x0 + noise * hat.eps, x_t, rtol=0, atol=1e-12)


def test_guidance_steers_a_loop_to_the_label():
    """Data: two near points for each of two labels. With w = 1 the loop lands on both points of the label."""
    points = torch.tensor([[-1.0, 0.2], [-1.0, -0.2], [1.0, 0.2], [1.0, -0.2]])
    everything = IdealDenoiser(points, SCHEDULE)
    of_label = [IdealDenoiser(points[:2], SCHEDULE), IdealDenoiser(points[2:], SCHEDULE)]

    def denoiser(x_t, t, y):
        if y is None:
            return everything(x_t, t)
        return of_label[int(y[0])](x_t, t)

    def sampled(y, w):
        noise = PerSampleNoise(0, 100)
        guided = CFGDenoiser(denoiser, torch.full((100,), y), w)
        return run(sample(guided, noise((2,)), SCHEDULE, 100))

    for y, side in ((0, -1), (1, 1)):
        made = sampled(y, 1.0)
        assert (made[:, 0] - side).abs().max() < 0.01
        assert 25 < (made[:, 1] > 0).sum() < 75
    assert 25 < (sampled(0, 0.0)[:, 0] > 0).sum() < 75   # w = 0: as if there were no label
    torch.testing.assert_close(sampled(0, 0.0), sampled(1, 0.0))


@pytest.mark.parametrize("w", [-0.1, -3, math.nan, math.inf, "2", [2], None])
def test_a_scale_that_is_negative_or_no_number_is_refused(w):
    with pytest.raises(ValueError, match="guidance must be a number from 0 to 100"):
        CFGDenoiser(Labelled(), Y, w)


def test_a_negative_replaces_the_null_condition(case):
    inner, other = Labelled(), torch.tensor([5, 2, 0, 1])
    away, towards = inner(*case, other), inner(*case, Y)
    for w in (0.0, 0.4, 3.0):
        hat = CFGDenoiser(inner, Y, w, negative=other)(*case)
        torch.testing.assert_close(hat.eps, away.eps + w * (towards.eps - away.eps), rtol=0, atol=1e-12)
    same = CFGDenoiser(inner, Y, 7.0, negative=Y)(*case)
    torch.testing.assert_close(same.x0, towards.x0, rtol=0, atol=1e-12)    # away from and towards the same: plain


def test_outside_its_interval_guidance_is_plain_conditioning(case):
    x_t, inner = case[0], Labelled()
    for t in (1, 299, 300, 500, 700, 701, 1000):
        t_all = torch.full((4,), t)
        hat = CFGDenoiser(inner, Y, 4.0, interval=(300, 700))(x_t, t_all)
        plain = CFGDenoiser(inner, Y, 4.0 if 300 <= t <= 700 else 1.0)(x_t, t_all)
        assert torch.equal(hat.eps, plain.eps)
        assert torch.equal(hat.x0, plain.x0)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_rescaling_restores_the_standard_deviation(share, case):
    """The formula of Lin et al. 2023, section 3.4, written out; and eps follows x0."""
    x_t, t = case
    inner = Labelled()
    inner.schedule = SCHEDULE
    plain, strong = CFGDenoiser(inner, Y, 1.0)(x_t, t).x0, CFGDenoiser(inner, Y, 8.0)(x_t, t).x0
    hat = CFGDenoiser(inner, Y, 8.0, rescale=share)(x_t, t)
    for i in range(4):
        rescaled = strong[i] * plain[i].std() / strong[i].std()
        torch.testing.assert_close(hat.x0[i], share * rescaled + (1 - share) * strong[i], rtol=0, atol=1e-9)
    if share == 1:
        torch.testing.assert_close(hat.x0.flatten(1).std(1), plain.flatten(1).std(1), rtol=0, atol=1e-9)
    ab = SCHEDULE.alpha_bar[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(ab.sqrt() * hat.x0 + (1 - ab).sqrt() * hat.eps, x_t, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("how", "words"), [
    (dict(rescale=1.5), "rescale must be a number from 0 to 1"), (dict(rescale="1"), "rescale must be a number from 0"),
    (dict(interval=(500, 300)), "low <= high"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        CFGDenoiser(Labelled(), Y, 2.0, **how)
