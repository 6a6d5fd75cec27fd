"""From noise to pictures: one step (DDPM or DDIM) and the sampling loop, an iterator that you can step into.

The steps of Euler and DPM-Solver++, which the loop knows as well, are in `solvers`.

A denoiser is any callable (x_t, t) -> Prediction; nothing here knows what is behind it.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, Unpack

import torch
from torch import Tensor

from diffusion_lessons.forward import Prediction, add_noise, from_x0
from diffusion_lessons.parameters import real_number, whole_number
from diffusion_lessons.schedules import Schedule
from diffusion_lessons.solvers import dpmpp_2m_step, euler_step

DenoiserFunction: TypeAlias = Callable[[Tensor, Tensor], Prediction]
Noise: TypeAlias = Callable[[Sequence[int]], Tensor]    # (C, H, W) -> (B, C, H, W), fresh at each call
METHODS = ("ddim", "ddpm", "euler", "dpm++")


class LoopSettings(TypedDict, total=False):
    """Optional settings of a `SamplingLoop`, which explains them."""

    method: str
    eta: float
    clip: bool | tuple[float, float]


@dataclass(frozen=True, eq=False)
class Step:
    """Input, prediction and output of one sampling step, from t down to s.

    x_t, eps_hat, x0_hat, x_s: (B, C, H, W).
    """

    t: int
    s: int
    x_t: Tensor
    eps_hat: Tensor
    x0_hat: Tensor
    x_s: Tensor


class PerSampleNoise:
    """Gaussian noise with one generator per picture, so that a picture depends on (seed, index) alone.

    The same seed gives the same picture whatever the batch it is made in and whatever the device:
    the numbers are always drawn on the CPU.

    seed: an integer in 0..2^32 - 1;  count: pictures in this batch;  first: the index of its first picture
    """

    def __init__(self, seed: int, count: int, first: int = 0) -> None:
        seed, count = whole_number("seed", seed), whole_number("count", count, 0, 2**32)
        # Both multipliers are odd, so within one seed no two of the 2**32 indices share a generator's seed.
        keys = [(seed * 0x9E3779B1 + index * 0x85EBCA6B) % 2**32 for index in range(first, first + count)]
        self.generators = [torch.Generator().manual_seed(key) for key in keys]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Fresh noise of the given shape for every picture: (C, H, W) -> (count, C, H, W) float32."""
        return torch.stack([torch.randn(tuple(shape), generator=g, device="cpu") for g in self.generators])


def timesteps(T: int, steps: int) -> list[int]:
    """The timesteps of a loop, from T down to 0, evenly spaced ("trailing": Lin et al. 2023, table 2).

    steps: 1..T  ->  a list of steps + 1 decreasing integers, T first and 0 last
    """
    steps = whole_number("steps", steps, 1, T)
    return [round(T - k * T / steps) for k in range(steps)] + [0]


def ddpm_step(x_t: Tensor, t: int, s: int, prediction: Prediction, schedule: Schedule, z: Tensor | float) -> Tensor:
    """From x_t to x_s as in DDPM: the mean of q(x_s | x_t, x0_hat), plus fresh noise.

    x_s = sqrt(ab_s) (1 - a) / (1 - ab_t) x0_hat + sqrt(a) (1 - ab_s) / (1 - ab_t) x_t + sigma z
    a = ab_t / ab_s,   sigma^2 = (1 - ab_s) / (1 - ab_t) (1 - a)           (Ho et al. 2020, eq. 6 and 7)

    z: standard noise like x_t. At s = 0 sigma is 0: the last step adds no noise.
    """
    ab_t, ab_s = schedule.floats[t], schedule.floats[s]
    a = ab_t / ab_s
    mean = (ab_s**0.5 * (1 - a) * prediction.x0 + a**0.5 * (1 - ab_s) * x_t) / (1 - ab_t)
    return mean + ((1 - ab_s) / (1 - ab_t) * (1 - a)) ** 0.5 * z


def ddim_step(x_t: Tensor, t: int, s: int, prediction: Prediction, schedule: Schedule, z: Tensor | float,
              eta: float = 0.0) -> Tensor:
    """From x_t to x_s as in DDIM: put the predicted noise back onto x0_hat, only less of it.

    x_s = sqrt(ab_s) x0_hat + sqrt(1 - ab_s - sigma^2) eps_hat + sigma z
    sigma^2 = eta^2 (1 - ab_s) / (1 - ab_t) (1 - ab_t / ab_s)              (Song et al. 2021, eq. 12 and 16)

    eta = 0: no fresh noise at all; eta = 1: as much as DDPM.
    """
    ab_t, ab_s = schedule.floats[t], schedule.floats[s]
    variance = eta**2 * (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)
    return ab_s**0.5 * prediction.x0 + max(1 - ab_s - variance, 0) ** 0.5 * prediction.eps + variance**0.5 * z


class SamplingLoop:
    """The sampling loop as an iterator over `Step`s. Its state can be read and changed from outside.

    for step in loop:                      # from t = T down to 0
        loop.x_t = edit(loop.x_t)          # what the next step starts from
        loop.denoiser = another_one        # or switch to another denoiser

    When it ends, `loop.x_t` is the picture.

    x_t: (B, C, H, W), noisy as at the first timestep;  timesteps: decreasing integers in 0..T
    method: "ddim", "ddpm", "euler" or "dpm++";  eta: 0..1, how much fresh noise ddim adds (1: as much as ddpm)
    noise: such as PerSampleNoise(seed, B), where fresh noise is wanted
    clip: True keeps x0_hat inside [-1, 1], a pair inside other limits; eps_hat is adjusted to match
    Raises ValueError for settings out of range.
    """

    def __init__(self, denoiser: DenoiserFunction, x_t: Tensor, schedule: Schedule, timesteps: Iterable[int], *,
                 method: str = "ddim", eta: float = 0.0, noise: Noise | None = None,
                 clip: bool | tuple[float, float] = False) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
        eta = real_number("eta", eta)
        times = [int(t) for t in timesteps]
        decreasing = all(t > s for t, s in itertools.pairwise(times))
        if not (times and decreasing and times[0] <= schedule.T and times[-1] >= 0):
            raise ValueError(f"timesteps must decrease at every step and lie in 0..{schedule.T}, got {times}")
        self.denoiser, self.x_t, self.schedule, self.timesteps = denoiser, x_t, schedule, times
        self.method, self.eta, self.noise = method, eta, noise
        self.clip = (-1, 1) if clip is True else clip
        self.k = 0
        self.previous: tuple[int, Tensor] | None = None    # t and x0_hat of the step before, for dpm++

    def __iter__(self) -> "SamplingLoop":
        return self

    def __len__(self) -> int:
        return len(self.timesteps) - 1

    @torch.no_grad()
    def __next__(self) -> Step:
        if self.k == len(self):
            raise StopIteration
        t, s = self.timesteps[self.k], self.timesteps[self.k + 1]
        x_t, t_batch = self.x_t, torch.full((len(self.x_t),), t, device=self.x_t.device)
        prediction = self.denoiser(x_t, t_batch)
        if self.clip:    # eps_hat must follow, or the two no longer add up to x_t and the error grows from step to step
            prediction = from_x0(prediction.x0.clamp(*self.clip), x_t, t_batch, self.schedule)
        x_s = self._step(x_t, t, s, prediction)
        self.x_t, self.k, self.previous = x_s, self.k + 1, (t, prediction.x0)
        return Step(t, s, x_t, *prediction, x_s)

    def _step(self, x_t: Tensor, t: int, s: int, prediction: Prediction) -> Tensor:
        """From x_t to x_s by the loop's method."""
        if self.method == "euler":
            return euler_step(x_t, t, s, prediction, self.schedule)
        if self.method == "dpm++":
            return dpmpp_2m_step(x_t, t, s, prediction, self.schedule, self.previous)
        z = self._fresh_noise(s)
        if self.method == "ddpm":
            return ddpm_step(x_t, t, s, prediction, self.schedule, z)
        return ddim_step(x_t, t, s, prediction, self.schedule, z, self.eta)

    def _fresh_noise(self, s: int) -> Tensor | float:
        """z for the step that arrives at s; 0 where the sampler adds no noise."""
        if s == 0 or (self.method == "ddim" and self.eta == 0):
            return 0.0
        if self.noise is None:
            raise ValueError("this sampler adds fresh noise: pass noise=PerSampleNoise(seed, count)")
        return _noise_for(self.x_t, self.noise)


def sample(denoiser: DenoiserFunction, x_T: Tensor, schedule: Schedule, steps: int = 50, *, noise: Noise | None = None,
           **settings: Unpack[LoopSettings]) -> SamplingLoop:
    """The whole way from noise to picture, as an iterator over `Step`s.

    x_T: (B, C, H, W) standard Gaussian noise;  steps: 1..T
    noise and settings (method, eta, clip): see `SamplingLoop`
    """
    return SamplingLoop(denoiser, x_T, schedule, timesteps(schedule.T, steps), noise=noise, **settings)


@dataclass(frozen=True)
class SamplerSettings:
    """The settings of a sampler in one value, to be passed on; `SamplingLoop` explains them."""

    method: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    clip: bool | tuple[float, float] = True

    def loop(self, denoiser: DenoiserFunction, x_T: Tensor, schedule: Schedule, noise: Noise) -> SamplingLoop:
        """The whole way from noise to picture with these settings; see `sample`."""
        return sample(denoiser, x_T, schedule, self.steps, noise=noise,
                      method=self.method, eta=self.eta, clip=self.clip)


def run(loop: SamplingLoop | Iterator[Step]) -> Tensor:
    """Run a sampling loop to its end and return the picture.  (B, C, H, W)"""
    steps = collections.deque(loop, maxlen=1)    # keeps the last step only
    if not steps and isinstance(loop, SamplingLoop):
        return loop.x_t                          # it had already run
    return steps[0].x_s


def img2img(denoiser: DenoiserFunction, x0: Tensor, schedule: Schedule, strength: float, noise: Noise,
            steps: int = 50, **settings: Unpack[LoopSettings]) -> SamplingLoop:
    """Noise a picture up to t = strength * T and sample from there.                     (SDEdit: Meng et al. 2021)

    x0: (B, C, H, W);  strength in (0, 1]: 1 forgets the picture, a small one keeps most of it
    """
    if real_number("strength", strength) == 0:
        raise ValueError("strength must be more than 0")
    start = max(1, round(strength * schedule.T))
    times = [start] + [t for t in timesteps(schedule.T, steps) if t < start]
    t = torch.full((len(x0),), start, device=x0.device)
    x_t = add_noise(x0, t, _noise_for(x0, noise), schedule)
    return SamplingLoop(denoiser, x_t, schedule, times, noise=noise, **settings)


def inpaint(denoiser: DenoiserFunction, x0: Tensor, mask: Tensor, schedule: Schedule, noise: Noise, steps: int = 50,
            **settings: Unpack[LoopSettings]) -> Iterator[Step]:
    """Fill in the part of the picture where mask is 1 and keep the rest; an iterator over `Step`s.

    After every step the known part is put back, noised to the same time s:

    x_s = mask x_s + (1 - mask) (sqrt(ab_s) x0 + sqrt(1 - ab_s) eps)              (Lugmayr et al. 2022, eq. 8)

    This replacement is older than RePaint (Song & Ermon 2019; Y. Song et al. 2021), and it is biased: each step sees
    the known part as noisy as the rest of x_t, although we know it without noise. So even a perfect denoiser does not
    sample from the pictures that share the known part. RePaint's own idea (Lugmayr et al. 2022) is resampling: go a few
    steps back up and down again, many times, which brings the two parts into harmony. That is not done here.

    x0: (B, C, H, W);  mask: 0 = keep, 1 = fill in, of a shape that fits x0. The last step's x_s is the result.
    """
    mask = mask.to(x0)
    loop = sample(denoiser, _noise_for(x0, noise), schedule, steps, noise=noise, **settings)
    for step in loop:
        s = torch.full((len(x0),), step.s, device=x0.device)
        known = add_noise(x0, s, _noise_for(x0, noise), schedule)
        loop.x_t = mask * loop.x_t + (1 - mask) * known
        yield Step(step.t, step.s, step.x_t, step.eps_hat, step.x0_hat, loop.x_t)


def _noise_for(x: Tensor, noise: Noise) -> Tensor:
    """Fresh noise for each picture of x."""
    z = noise(x.shape[1:])
    if z.shape != x.shape:
        raise ValueError(f"the noise is for {len(z)} pictures, but there are {len(x)}: PerSampleNoise(seed, {len(x)})")
    return z.to(x.device, x.dtype, non_blocking=x.is_cuda)
