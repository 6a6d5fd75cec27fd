"""The forward process: adding noise, in one jump or step by step, and what a network may predict about it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lessons.schedules import Schedule


class Prediction(NamedTuple):
    """A denoiser's estimate: the noise in x_t and the clean picture behind it.

    Both (B, C, H, W) float32, tied together by x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.
    """

    eps: Tensor
    x0: Tensor


def alpha_sigma(t: Tensor, schedule: Schedule, like: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of the forward process, sqrt(alpha_bar_t) for the signal and sqrt(1 - alpha_bar_t) for the noise.

    (Papers on continuous time call them alpha_t and sigma_t; this alpha_t is not the 1 - beta_t of Ho et al.)

    t: (B,) integers in 0..T  ->  two (B, 1, 1, 1) tensors (as many 1s as `like` needs), on its device
    Raises ValueError when t does not fit the batch or leaves 0..T. (A GPU does not wait for the CPU to check the range:
    there it is up to the caller.)
    """
    signal, noise, _ = factors(t, schedule, like)
    return signal, noise


def factors(t: Tensor, schedule: Schedule, like: Tensor, first: int = 0) -> Tensor:
    """As `alpha_sigma`, and beta_t as the third; t in first..T.  -> (3, B, 1, 1, 1)"""
    if not like.is_floating_point():
        raise ValueError(f"pictures must be float in [-1, 1], not {like.dtype}: use datasets.to_float")
    if not isinstance(t, Tensor) or t.shape != like.shape[:1] or t.dtype.is_floating_point:
        given = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise ValueError(f"t must be a tensor with one integer for each of {len(like)} pictures, not {given}")
    table = schedule.table(like.device, torch.float64 if like.dtype == torch.float64 else torch.float32)
    try:
        gathered = table[:, first:].index_select(1, t - first)    # on the CPU, refuses what lies outside
    except (IndexError, RuntimeError) as error:
        reason = ": at t = 0 there is no noise to predict" if first == 1 else ""
        raise ValueError(f"t must lie in {first}..{schedule.T}, got {int(t.min())}..{int(t.max())}{reason}") from error
    return gathered.reshape(3, -1, *[1] * (like.ndim - 1))


def add_noise(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Jump straight from the clean picture to time t.

    x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps          (Ho et al. 2020, eq. 4)

    x0, eps: (B, C, H, W), x0 in [-1, 1];  t: (B,) integers in 0..T  ->  (B, C, H, W)
    Raises ValueError when the shapes disagree or t leaves 0..T (see `alpha_sigma`).
    """
    _same_shape(x0, eps)
    signal, noise = alpha_sigma(t, schedule, x0)
    return signal * x0 + noise * eps


def forward_step(x: Tensor, t: int, eps: Tensor, schedule: Schedule) -> Tensor:
    """One step of the forward process, from x_{t-1} to x_t: shrink the picture slightly, add a little noise.

    x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps               (Ho et al. 2020, eq. 2)

    x, eps: (B, C, H, W);  t: one integer in 1..T, the time of the result  ->  (B, C, H, W)
    """
    _same_shape(x, eps)
    if not 1 <= t <= schedule.T:
        raise ValueError(f"a step arrives at t in 1..{schedule.T}, not {t}")
    beta = schedule.beta[t].item()
    return (1 - beta) ** 0.5 * x + beta**0.5 * eps


def forward_process(x0: Tensor, schedule: Schedule, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Noise x0 step by step: an iterator over x_1, x_2, ... x_T, each with fresh noise.  (B, C, H, W) each"""
    x = x0
    for t in range(1, schedule.T + 1):
        x = forward_step(x, t, torch.randn(x.shape, generator=generator, dtype=x.dtype), schedule)
        yield x


def velocity(x0: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0         (Salimans & Ho 2022, section 4)"""
    _same_shape(x0, eps)
    signal, noise = alpha_sigma(t, schedule, x0)
    return signal * eps - noise * x0


def from_eps(eps: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """The Prediction that follows from a predicted eps: x0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t).

    Near t = T this divides by almost nothing and multiplies every error; `from_v` and `from_x0` do not.
    """
    _same_shape(x_t, eps)
    signal, noise = alpha_sigma(t, schedule, x_t)
    return Prediction(eps.to(signal.dtype), (x_t - noise * eps) / signal)


def from_x0(x0: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """The Prediction that follows from a predicted x0: eps = (x_t - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t).

    t in 1..T: at t = 0 the picture holds no noise to predict.
    """
    _same_shape(x_t, x0)
    signal, noise, _ = factors(t, schedule, x_t, first=1)
    return Prediction((x_t - signal * x0) / noise, x0.to(signal.dtype))


def from_v(v: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """The Prediction that follows from a predicted v, without a division at any t.

    x0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) v,   eps = sqrt(1 - alpha_bar_t) x_t + sqrt(alpha_bar_t) v
    """
    _same_shape(x_t, v)
    signal, noise = alpha_sigma(t, schedule, x_t)
    return Prediction(noise * x_t + signal * v, signal * x_t - noise * v)


TO_PREDICTION = {"eps": from_eps, "x0": from_x0, "v": from_v}


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the two must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
