"""The forward process: adding noise, in one jump or step by step, and what a network may predict about it."""

from typing import NamedTuple

import torch


class Prediction(NamedTuple):
    """What a denoiser says of x_t: the noise in it and the clean picture behind it.

    Both (B, C, H, W) float32, bound by x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.
    """

    eps: torch.Tensor
    x0: torch.Tensor


def signal_and_noise(t, schedule, like):
    """The two factors of the jump, sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), ready to multiply pictures.

    t: (B,) integers in 0..T  ->  two (B, 1, 1, 1) tensors (as many 1s as `like` needs), computed in float64.
    Raises ValueError when t leaves 0..T or does not fit the batch.
    """
    if not like.is_floating_point():
        raise ValueError(f"pictures must be float in [-1, 1], not {like.dtype}: use datasets.to_float")
    if not isinstance(t, torch.Tensor) or t.shape != like.shape[:1] or t.dtype.is_floating_point:
        raise ValueError(f"t must be a tensor with one integer for each of {len(like)} pictures, not {t!r}")
    t_cpu = t.detach().cpu()
    if len(t) and not 0 <= int(t_cpu.min()) <= int(t_cpu.max()) <= schedule.T:
        raise ValueError(f"t must lie in 0..{schedule.T}, got {int(t_cpu.min())}..{int(t_cpu.max())}")
    alpha_bar = schedule.alpha_bar[t_cpu].reshape(-1, *[1] * (like.ndim - 1))   # (B, 1, 1, 1)
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    return (alpha_bar.sqrt().to(dtype).to(like.device),
            (1 - alpha_bar).sqrt().to(dtype).to(like.device))


def add_noise(x0, t, eps, schedule):
    """Jump straight from the clean picture to time t.

    x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps          (Ho et al. 2020, eq. 4)

    x0, eps: (B, C, H, W), x0 in [-1, 1];  t: (B,) integers in 0..T  ->  (B, C, H, W)
    Raises ValueError when t leaves 0..T or the shapes disagree.
    """
    _same_shape(x0, eps)
    signal, noise = signal_and_noise(t, schedule, x0)
    return signal * x0 + noise * eps


def add_one_step(x, t, eps, schedule):
    """One step of the chain, from x_{t-1} to x_t: shrink a little, add a little noise.

    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps               (Ho et al. 2020, eq. 2)

    x, eps: (B, C, H, W);  t: one integer in 1..T, the time arrived at  ->  (B, C, H, W)
    """
    _same_shape(x, eps)
    if not 1 <= t <= schedule.T:
        raise ValueError(f"a step arrives at t in 1..{schedule.T}, not {t}")
    beta = schedule.beta[t].item()
    return (1 - beta) ** 0.5 * x + beta**0.5 * eps


def chain(x0, schedule, generator=None):
    """Noise x0 step by step; an iterator over x_1, x_2, ... x_T, each with fresh noise.  (B, C, H, W) each"""
    x = x0
    for t in range(1, schedule.T + 1):
        x = add_one_step(x, t, torch.randn(x.shape, generator=generator, dtype=x.dtype), schedule)
        yield x


def velocity(x0, eps, t, schedule):
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0         (Salimans & Ho 2022, section 4)"""
    _same_shape(x0, eps)
    signal, noise = signal_and_noise(t, schedule, x0)
    return signal * eps - noise * x0


def from_eps(eps, x_t, t, schedule):
    """Read a predicted noise as a Prediction: x0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t).

    Near t = T this divides by almost nothing and multiplies every error; `from_v` and `from_x0` do not.
    """
    _same_shape(x_t, eps)
    signal, noise = signal_and_noise(t, schedule, x_t)
    return Prediction(eps.to(signal.dtype), (x_t - noise * eps) / signal)


def from_x0(x0, x_t, t, schedule):
    """Read a predicted clean picture as a Prediction: eps = (x_t - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t).

    t in 1..T: at t = 0 there is no noise to speak of.
    """
    _same_shape(x_t, x0)
    signal, noise = signal_and_noise(t, schedule, x_t)
    if not bool((noise > 0).all()):
        raise ValueError("at t = 0 the picture holds no noise; ask for t in 1..T")
    return Prediction((x_t - signal * x0) / noise, x0.to(signal.dtype))


def from_v(v, x_t, t, schedule):
    """Read a predicted v as a Prediction, with no division at any t.

    x0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) v,   eps = sqrt(1 - alpha_bar_t) x_t + sqrt(alpha_bar_t) v
    """
    _same_shape(x_t, v)
    signal, noise = signal_and_noise(t, schedule, x_t)
    return Prediction(noise * x_t + signal * v, signal * x_t - noise * v)


READ_AS = {"eps": from_eps, "x0": from_x0, "v": from_v}


def _same_shape(a, b):
    if a.shape != b.shape:
        raise ValueError(f"the two must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
