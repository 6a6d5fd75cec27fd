"""How much noise at which t: alpha_bar, the share of the picture's variance that is left at time t.

t = 0 is the clean picture and t = T the noise, as in the video. Everything is float64 on the CPU;
whoever needs float32 converts at the last moment.
"""

import math
from dataclasses import dataclass

import torch

MAX_BETA = 0.999  # no single step may wipe out everything (Nichol & Dhariwal 2021, section 3.2)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule: alpha_bar[t] = prod_{i<=t} (1 - beta_i)          (Ho et al. 2020, below eq. 3)

    alpha_bar: (T+1,) float64, alpha_bar[0] == 1, strictly falling, above 0.
    Raises ValueError when alpha_bar is not such a sequence.
    """

    name: str
    alpha_bar: torch.Tensor

    def __post_init__(self):
        a = self.alpha_bar
        if a.dtype != torch.float64 or a.ndim != 1 or len(a) < 2:
            raise ValueError("alpha_bar must be a float64 vector with T + 1 >= 2 entries")
        if a[0] != 1 or not bool((a[1:] < a[:-1]).all()) or not a[-1] > 0:
            raise ValueError("alpha_bar must begin with exactly 1, fall at every step and stay above 0")

    @property
    def T(self):
        """The number of noising steps."""
        return len(self.alpha_bar) - 1

    @property
    def beta(self):
        """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, the variance added by step t; beta[0] = 0.  (T+1,)"""
        return torch.cat([torch.zeros(1, dtype=torch.float64), 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @property
    def alpha(self):
        """alpha_t = 1 - beta_t.  (T+1,)"""
        return 1 - self.beta

    @property
    def log_snr(self):
        """log(alpha_bar_t / (1 - alpha_bar_t)): picture against noise; infinite at t = 0.  (T+1,)"""
        return torch.log(self.alpha_bar) - torch.log1p(-self.alpha_bar)

    def __repr__(self):
        return f"Schedule({self.name}, T={self.T}, alpha_bar_T={self.alpha_bar[-1]:.2g})"


def from_betas(name, beta):
    """The schedule whose steps add the given variances.

    beta: (T,) values in (0, 1), one for each of t = 1..T; above 0.999 they are cut to it.
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    if beta.ndim != 1 or len(beta) < 1 or not bool(((beta > 0) & (beta <= 1)).all()):
        raise ValueError("beta must be a vector of values in (0, 1], one for each t = 1..T")
    kept = torch.cumprod(1 - beta.clamp(max=MAX_BETA), 0)
    return Schedule(name, torch.cat([torch.ones(1, dtype=torch.float64), kept]))


def constant(T=1000, beta=None):
    """The same beta at every step: the schedule that the video calls linear.

    Without a beta, the one that ends where `linear` does, alpha_bar_T = 4e-5.
    """
    _check_T(T)
    beta = 1 - 4e-5 ** (1 / T) if beta is None else beta
    return from_betas("constant", torch.full((T,), float(beta), dtype=torch.float64))


def linear(T=1000, beta_start=1e-4, beta_end=0.02, rescale=True):
    """beta grows linearly from beta_start to beta_end               (Ho et al. 2020, section 4)

    Those two numbers were chosen for T = 1000. With `rescale` they are multiplied by 1000 / T, so that
    the end is as noisy for every T; without it a short schedule leaves a ghost of the picture in x_T.
    """
    _check_T(T)
    factor = 1000 / T if rescale else 1.0
    # counted from the end, so that a schedule of one step makes all the noise in it
    beta = torch.linspace(beta_end * factor, beta_start * factor, T, dtype=torch.float64).flip(0)
    return from_betas("linear", beta.clamp(max=MAX_BETA))


def cosine(T=1000, s=0.008):
    """alpha_bar_t = f(t) / f(0), f(t) = cos((t/T + s) / (1 + s) pi/2)^2    (Nichol & Dhariwal 2021, eq. 17)"""
    return _from_curve("cosine", T, lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2)


def sigmoid(T=1000, start=-3.0, end=3.0, tau=1.0):
    """alpha_bar_t falls from 1 to 0 like sigmoid(-(start + (end - start) t/T) / tau), shifted and scaled to do so.

    (Jabri et al. 2022; Chen 2023, section 2.1)
    """
    def curve(u):
        value = torch.sigmoid(-(start + (end - start) * u) / tau)
        return (value - value[-1]) / (value[0] - value[-1])

    return _from_curve("sigmoid", T, curve)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "sigmoid": sigmoid}


def make_schedule(name, T=1000):
    """The schedule of that name with its usual settings. Raises ValueError that lists the known names."""
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; known are {', '.join(SCHEDULES)}")
    return SCHEDULES[name](T)


def _from_curve(name, T, curve):
    """The schedule that follows curve(t/T), the last steps softened to MAX_BETA."""
    _check_T(T)
    kept = curve(torch.linspace(0, 1, T + 1, dtype=torch.float64)).clamp(min=0)
    return from_betas(name, 1 - kept[1:] / kept[:-1])


def _check_T(T):
    if not isinstance(T, int) or T < 1:
        raise ValueError(f"T must be a whole number of steps, 1 or more, not {T!r}")
