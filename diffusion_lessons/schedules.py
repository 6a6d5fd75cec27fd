"""Noise schedules: alpha_bar_t, the share of the picture's variance that is left at time t.

t = 0 is the clean picture and t = T the noise, as in the video. A schedule is computed in float64 on the CPU; a
device gets its factors as tables, in float32 (Apple's GPUs have no float64).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

MAX_BETA = 0.999  # no single step may destroy the whole signal (Nichol & Dhariwal 2021, section 3.2)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule: alpha_bar[t] = prod_{i<=t} (1 - beta_i)          (Ho et al. 2020, below eq. 3)

    alpha_bar: (T+1,) float64, alpha_bar[0] == 1, strictly decreasing, above 0.
    Raises ValueError when alpha_bar is not such a sequence.
    """

    name: str
    alpha_bar: Tensor
    _tables: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        a = self.alpha_bar
        if a.dtype != torch.float64 or a.ndim != 1 or len(a) < 2:
            raise ValueError("alpha_bar must be a float64 vector with T + 1 >= 2 entries")
        if a[0] != 1 or not bool((a[1:] < a[:-1]).all()) or not a[-1] > 0:
            raise ValueError("alpha_bar must begin with exactly 1, decrease at every step and stay above 0")

    @property
    def T(self) -> int:
        """The number of noising steps."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self) -> Tensor:
        """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, the variance added by step t; beta[0] = 0.  (T+1,)"""
        return torch.cat([torch.zeros(1, dtype=torch.float64), 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @property
    def alpha(self) -> Tensor:
        """alpha_t = 1 - beta_t.  (T+1,)"""
        return 1 - self.beta

    @property
    def log_snr(self) -> Tensor:
        """log(alpha_bar_t / (1 - alpha_bar_t)), the log signal-to-noise ratio; infinite at t = 0.  (T+1,)"""
        return torch.log(self.alpha_bar) - torch.log1p(-self.alpha_bar)

    @cached_property
    def floats(self) -> list[float]:
        """alpha_bar as Python floats, for the samplers' own arithmetic.  T+1 of them"""
        return self.alpha_bar.tolist()

    def table(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """Three factors for every t: sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t) and beta_t.  -> (3, T+1)

        Computed in float64, moved to the device once and kept there, so that no step of training or sampling waits
        for the CPU. (The tables belong to the schedule rather than to a module's buffers: one schedule serves
        networks on several devices, and `.half()` of a network leaves them alone.)
        """
        if (device, dtype) not in self._tables:
            exact = torch.stack([self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt(), self.beta])
            self._tables[device, dtype] = exact.to(dtype).to(device, non_blocking=device.type == "cuda")
        return self._tables[device, dtype]

    def __repr__(self) -> str:
        return f"Schedule({self.name}, T={self.T}, alpha_bar_T={self.alpha_bar[-1]:.2g})"


def from_betas(name: str, beta: Tensor | Sequence[float]) -> Schedule:
    """The schedule whose steps add the given variances.

    beta: (T,) values in (0, 1), one for each of t = 1..T; values above 0.999 are clamped to it.
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    if beta.ndim != 1 or len(beta) < 1 or not bool(((beta > 0) & (beta <= 1)).all()):
        raise ValueError("beta must be a vector of values in (0, 1], one for each t = 1..T")
    alpha_bar = torch.cumprod(1 - beta.clamp(max=MAX_BETA), 0)
    return Schedule(name, torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar]))


def constant(T: int = 1000, beta: float | None = None) -> Schedule:
    """The same beta at every step: the schedule that the video calls linear.

    The default beta ends where `linear` does, at alpha_bar_T = 4e-5.
    """
    _check_T(T)
    beta = 1 - 4e-5 ** (1 / T) if beta is None else beta
    return from_betas("constant", torch.full((T,), float(beta), dtype=torch.float64))


def linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rescale: bool = True) -> Schedule:
    """beta grows linearly from beta_start to beta_end               (Ho et al. 2020, section 4)

    The two ends were chosen for T = 1000. `rescale` multiplies them by 1000 / T, so that x_T is equally noisy
    for every T; without it, a short schedule leaves a ghost of the picture in x_T.
    """
    _check_T(T)
    factor = 1000 / T if rescale else 1.0
    # built from the end, so that a schedule of one step gets the largest beta
    beta = torch.linspace(beta_end * factor, beta_start * factor, T, dtype=torch.float64).flip(0)
    return from_betas("linear", beta.clamp(max=MAX_BETA))


def cosine(T: int = 1000, s: float = 0.008) -> Schedule:
    """alpha_bar_t = f(t) / f(0), f(t) = cos((t/T + s) / (1 + s) pi/2)^2    (Nichol & Dhariwal 2021, eq. 17)"""
    return _from_curve("cosine", T, lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2)


def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """alpha_bar_t follows sigmoid(-(start + (end - start) t/T) / tau), shifted and scaled to run from 1 to 0.

    (Jabri et al. 2022; Chen 2023, section 2.1)
    """
    def curve(u: Tensor) -> Tensor:
        value = torch.sigmoid(-(start + (end - start) * u) / tau)
        return (value - value[-1]) / (value[0] - value[-1])

    return _from_curve("sigmoid", T, curve)


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": constant, "linear": linear, "cosine": cosine, "sigmoid": sigmoid,
}  # fmt: skip


def make_schedule(name: str, T: int = 1000) -> Schedule:
    """The schedule of that name with its default settings.  Raises ValueError, listing the known names."""
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; known are {', '.join(SCHEDULES)}")
    return SCHEDULES[name](T)


def _from_curve(name: str, T: int, curve: Callable[[Tensor], Tensor]) -> Schedule:
    """The schedule whose alpha_bar follows curve(t/T), except where a beta is clamped to MAX_BETA."""
    _check_T(T)
    alpha_bar = curve(torch.linspace(0, 1, T + 1, dtype=torch.float64)).clamp(min=0)
    return from_betas(name, 1 - alpha_bar[1:] / alpha_bar[:-1])


def _check_T(T: int) -> None:
    if not isinstance(T, int) or T < 1:
        raise ValueError(f"T must be a whole number of steps, 1 or more, not {T!r}")
