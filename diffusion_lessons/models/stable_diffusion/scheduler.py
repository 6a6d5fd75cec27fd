"""Schedules in the terms of Stable Diffusion's scheduler_config.json, brought to ours.

Time is counted differently there: their timestep 0 is the first noisy one, ours 1, and our 0 is the clean picture. So
alphas_cumprod[timestep] is alpha_bar[t] with t = timestep + 1. Here, and where the network is called (see
`pipelines.latent.LatentDenoiser`), are the only places where the two meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffusion_lessons.parameters import whole_number
from diffusion_lessons.samplers import timesteps
from diffusion_lessons.schedules import Schedule, from_betas

from .config import REQUIRED, read_config

SIZES = dict(num_train_timesteps=1000, beta_start=REQUIRED, beta_end=REQUIRED, beta_schedule=REQUIRED,
             prediction_type="epsilon", timestep_spacing=None, steps_offset=0, set_alpha_to_one=None, clip_sample=None)
FIXED = dict(
    interpolation_type=("linear",), timestep_type=("discrete",), final_sigmas_type=("zero",),
    algorithm_type=("dpmsolver++",), solver_order=(2,), solver_type=("midpoint",), lower_order_final=(True,),
    variance_type=(None,),
    # what the published files carry along, of things that are off or of other schedulers
    skip_prk_steps=(True, False), sample_max_value=(1.0,), clip_sample_range=(1.0,),
    dynamic_thresholding_ratio=(0.995,), flow_shift=(1.0,),
    lambda_min_clipped=(-float("inf"), "-Infinity"), time_shift_type=("exponential",),
)  # fmt: skip
# class: the method that draws, and what an entry is taken for when the file does not have it
KNOWN = {
    "DDIMScheduler": ("ddim", dict(timestep_spacing="leading", set_alpha_to_one=True, clip_sample=True)),
    "PNDMScheduler": ("ddim", dict(timestep_spacing="leading", set_alpha_to_one=False, clip_sample=False)),
    "EulerDiscreteScheduler": ("euler", dict(timestep_spacing="linspace", clip_sample=False)),
    "DPMSolverMultistepScheduler": ("dpm++", dict(timestep_spacing="linspace", clip_sample=False)),
}
PREDICTION_TYPES = {"epsilon": "eps", "v_prediction": "v"}    # theirs: ours


def scaled_linear(T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """sqrt(beta) grows linearly: Stable Diffusion's schedule            (Rombach et al. 2022, their published code)

    The picture is never quite gone: alpha_bar_T is 0.0047 with these numbers, 0.068 of its size.
    """
    return from_betas("scaled_linear", torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64) ** 2)


def plain_linear(T: int, beta_start: float, beta_end: float) -> Schedule:
    """beta grows linearly, with the two numbers as they are."""
    return from_betas("linear", torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


BETA_SCHEDULES = {"scaled_linear": scaled_linear, "linear": plain_linear}


@dataclass(frozen=True, eq=False)
class Scheduler:
    """A noise schedule, what the network predicts, and the times that a loop visits.

    prediction_type: "eps" or "v";  spacing: "leading" or "trailing";  offset: added to leading times
    last: the time at which DDIM ends: 0, or 1 where the config says set_alpha_to_one = false
    method: ddim, euler or dpm++, when none is asked for. (PNDM, the method of Stable Diffusion 1.5's file, is an older
    one that takes 50 steps; DDIM stands in for it.)
    """

    schedule: Schedule
    config: dict
    prediction_type: str
    spacing: str
    offset: int
    last: int
    method: str

    @classmethod
    def from_config(cls, config: dict) -> "Scheduler":
        """Read a scheduler_config.json. Raises ValueError that names the entry which is not implemented here."""
        name = config.get("_class_name")
        if name not in KNOWN:
            raise ValueError(f"unknown scheduler {name!r}; known are {', '.join(KNOWN)}")
        method, defaults = KNOWN[name]
        read = read_config(name, {**defaults, **config}, SIZES, FIXED)
        for entry, known in {"beta_schedule": tuple(BETA_SCHEDULES), "prediction_type": tuple(PREDICTION_TYPES),
                             "timestep_spacing": ("leading", "trailing"), "clip_sample": (False,)}.items():
            if read[entry] not in known:
                raise ValueError(f"the config of this {name} says {entry}={read[entry]!r}; this code implements only "
                                 f"{' or '.join(map(repr, known))}")
        schedule = BETA_SCHEDULES[read["beta_schedule"]](read["num_train_timesteps"], read["beta_start"],
                                                         read["beta_end"])
        return cls(schedule, dict(config), PREDICTION_TYPES[read["prediction_type"]], read["timestep_spacing"],
                   read["steps_offset"], 1 if method == "ddim" and not read["set_alpha_to_one"] else 0, method)

    def timesteps(self, steps: int, method: str | None = None) -> list[int]:
        """The timesteps of a loop of so many steps, decreasing, in our counting.        (Lin et al. 2023, table 2)

        "trailing" begins at t = T, where pure noise is; "leading" begins a little before, which is an old slip: the
        network is told less noise than there is.
        """
        T, method = self.schedule.T, method or self.method
        last = self.last if method in ("ddim", "ddpm") else 0
        if self.spacing == "trailing":
            times = timesteps(T, steps)[:-1]
        else:
            steps = whole_number("steps", steps, 1, T)
            extra = method == "dpm++"      # there the end counts as one of the times that share the way evenly
            times = [k * (T // (steps + extra)) + self.offset + 1 for k in reversed(range(extra, steps + extra))]
        if times[0] > T:
            raise ValueError(f"{steps} steps with an offset of {self.offset} begin after T = {T}: take fewer")
        return [t for t in times if t > last] + [last]

    def noise_scale(self, times: Sequence[int], method: str | None = None) -> float:
        """The size of the noise that a loop begins with: 1, or for Euler with trailing times sqrt(1 - ab_T).

        So it is in diffusers: there Euler begins with noise alone, sigma_T eps, and the picture's part is left out.
        """
        begins_bare = (method or self.method) == "euler" and self.spacing == "trailing"
        return (1 - self.schedule.alpha_bar[times[0]].item()) ** 0.5 if begins_bare else 1.0
