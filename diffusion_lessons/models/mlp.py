"""A denoising network for points in the plane, where a "picture" is two numbers and training takes seconds."""

import torch
from torch import Tensor, nn

from diffusion_lessons.models.unet import time_embedding


class FourierFeatures(nn.Module):
    """A point with sines and cosines of it, which help a small network to learn sharp edges.  (B, 2) -> (B, 18)

    (x, sin kx, cos kx) for k = 1, 2, 4, 8                                       (Tancik et al. 2020)
    """

    frequencies, features = (1, 2, 4, 8), 18

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.cat([k * x for k in self.frequencies], 1)        # (B, 8)
        return torch.cat([x, angles.sin(), angles.cos()], 1)


class ToyMLP(nn.Module):
    """An MLP of three hidden layers, conditioned on the timestep.  x_t: (B, 2), t: (B,) in 0..T -> (B, 2)

    time_conditioned=False keeps the time from it.
    extra: how many more numbers it takes;  condition: (B, extra) these numbers, or None for zeros
    """

    def __init__(self, width: int = 128, T: int = 1000, time_conditioned: bool = True, extra: int = 0) -> None:
        super().__init__()
        self.config = dict(width=width, T=T, time_conditioned=time_conditioned, extra=extra)
        self.T, self.time_conditioned, self.extra, self.emb = T, time_conditioned, extra, 32
        self.fourier = FourierFeatures()
        inputs = FourierFeatures.features + extra + self.emb
        first, second = ([nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU()] for size in (inputs, width))
        self.layers = nn.Sequential(*first, *second, nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        extra = x_t.new_zeros(len(x_t), self.extra) if condition is None else condition
        time = time_embedding(t, self.emb, self.T) * self.time_conditioned       # (B, 32)
        return self.layers(torch.cat([self.fourier(x_t), extra, time], 1))
