"""Classifier-free guidance: call the denoiser with and without the condition, and exaggerate the difference."""

from typing import Any

from torch import Tensor

from diffusion_lessons.condition import AnyCondition
from diffusion_lessons.denoiser import ConditionalDenoiser
from diffusion_lessons.forward import Prediction, from_x0
from diffusion_lessons.parameters import real_number


class CFGDenoiser:
    """A denoiser steered towards a label or a sentence.

    eps = eps_uncond + w (eps_cond - eps_uncond)                            (Ho & Salimans 2022, with w = 1 + their w)

    w = 0 ignores the condition, w = 1 is plain conditioning (one pass), more exaggerates it. x0 is combined in the same
    way, which comes to the same, as x0 is linear in eps. Called with (x_t, t), this is itself a denoiser.
    Above 1, w is what `diffusers` calls guidance_scale. At 1 and below, its Stable Diffusion pipeline does not guide
    at all: it makes one pass, with the prompt, whatever the scale.

    denoiser: callable (x_t, t, condition) -> Prediction, where None is the null condition
    condition: handed to the denoiser as it is: labels (B,), tokens (B, L) or a Condition;  w: 0..100
    negative: a condition that takes the place of the null one: steers away from it
    interval: (low, high): guide where low <= t <= high, with w = 1 elsewhere           (Kynkaanniemi et al. 2024).
    Whether a second pass is needed is decided on the CPU, so on a GPU an interval costs a wait at each step
    rescale: 0..1, how far the standard deviation of each x0_hat is brought back to that of the conditional one
    (Lin et al. 2023, section 3.4, here on x0); it needs a denoiser that has a schedule
    """

    def __init__(self, denoiser: ConditionalDenoiser, condition: AnyCondition, w: float = 1.0, *,
                 negative: AnyCondition = None, interval: tuple[float, float] | None = None,
                 rescale: float = 0.0) -> None:
        w, rescale = real_number("guidance", w), real_number("rescale", rescale, 0, 1)
        if interval is not None and not interval[0] <= interval[1]:
            raise ValueError(f"interval must be (low, high) with low <= high, not {interval}")
        self.denoiser: Any = denoiser
        self.condition, self.w = condition, w
        self.negative, self.interval, self.rescale = negative, interval, rescale

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        w = self.w if self.interval is None or self.interval[0] <= int(t[0]) <= self.interval[1] else 1
        if w == 1:
            return self.denoiser(x_t, t, self.condition)
        if w == 0:
            return self.denoiser(x_t, t, self.negative)
        cond = self.denoiser(x_t, t, self.condition)
        uncond = self.denoiser(x_t, t, self.negative)
        guided = Prediction(*(u + w * (c - u) for u, c in zip(uncond, cond, strict=True)))
        if self.rescale == 0:
            return guided
        spread, wanted = (x0.flatten(1).std(1).reshape(-1, *[1] * (x_t.ndim - 1)) for x0 in (guided.x0, cond.x0))
        factor = 1 + self.rescale * (wanted / spread.clamp(min=1e-6) - 1)    # (B, 1, 1, 1)
        return from_x0(factor * guided.x0, x_t, t, self.denoiser.schedule)
