"""Classifier-free guidance: ask twice, with and without the label, and exaggerate the difference."""

import torch

from diffusion_lessons.forward import Prediction


class Guided:
    """A denoiser steered towards a label.

    eps = eps_u + w (eps_c - eps_u)                                  (Ho & Salimans 2022, eq. 6, with w = 1 + their w)

    w = 0 ignores the label, w = 1 is plain conditioning (one pass), more exaggerates it. x0 is combined alike,
    which is the same thing, as eps and x0 hang together linearly. Called with (x_t, t), it is itself a denoiser.

    denoiser: callable (x_t, t, y) -> Prediction where y = None means "no label";  y: (B,) integers, w: a number >= 0
    """

    def __init__(self, denoiser, y, w=1.0):
        if not w >= 0:
            raise ValueError(f"the guidance scale w must be 0 or more, not {w}")
        self.denoiser, self.y, self.w = denoiser, y, w

    def __call__(self, x_t, t):
        if self.w == 1:
            return self.denoiser(x_t, t, self.y)
        if self.w == 0:
            return self.denoiser(x_t, t, None)
        with_label = self.denoiser(x_t, t, self.y)
        without = self.denoiser(x_t, t, None)
        return Prediction(*(torch.lerp(u, c, self.w) for u, c in zip(without, with_label, strict=True)))
