"""The best denoiser there can be for a finite set of pictures: no training, just Bayes' rule."""

import torch
from torch import Tensor

from diffusion_lessons.forward import Prediction, alpha_sigma, from_x0
from diffusion_lessons.schedules import Schedule


class IdealDenoiser:
    """The exact posterior mean when every picture of `data` is equally likely.

    x0_hat = sum_i w_i data_i,   w = softmax_i( -|x_t - sqrt(alpha_bar_t) data_i|^2 / (2 (1 - alpha_bar_t)) )

    (Bayes' rule; Karras et al. 2022, appendix B). It minimises the squared error at every t, and a loop run with it
    ends at pictures of the set: a perfect denoiser of the training set has memorised it.

    data: (N, C, H, W) or (N, D) float  ->  called with x_t (B, ...) and t (B,) in 1..T, a Prediction
    """

    def __init__(self, data: Tensor, schedule: Schedule) -> None:
        if len(data) == 0:
            raise ValueError("the ideal denoiser needs at least one picture")
        self.data, self.schedule = data, schedule

    def weights(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The probability of each picture of the set to be the one behind x_t: (B, N), rows sum to 1."""
        signal, noise = alpha_sigma(t, self.schedule, x_t)
        data, x = self.data.flatten(1), x_t.flatten(1)                              # (N, D), (B, D)
        signal, variance = signal.reshape(-1, 1), noise.reshape(-1, 1) ** 2         # (B, 1)
        # |x - s d|^2 = |x|^2 - 2 s x.d + s^2 |d|^2, and |x|^2 is the same for all i
        half = signal * (x @ data.T) - signal**2 * (data**2).sum(1) / 2             # (B, N)
        return torch.softmax(half / variance, dim=1)

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        x0 = (self.weights(x_t, t) @ self.data.flatten(1)).reshape(x_t.shape)
        return from_x0(x0, x_t, t, self.schedule)
