"""A denoising network for points in the plane, where a picture is two numbers and training takes seconds."""

import torch
from torch import nn

from diffusion_lessons.models.unet import time_embedding


class Waves(nn.Module):
    """A point, and sines and cosines of it, which help a small network to draw sharp edges.  (B, 2) -> (B, 18)"""

    frequencies, features = (1, 2, 4, 8), 18

    def forward(self, x):
        waves = torch.cat([k * x for k in self.frequencies], 1)        # (B, 8)
        return torch.cat([x, waves.sin(), waves.cos()], 1)


class PointNet(nn.Module):
    """Three layers that are told the time.  x_t: (B, 2), t: (B,) in 0..T -> (B, 2)

    told_t=False keeps the time from it.
    extra: how many further numbers it is told;  y: (B, extra) these numbers, or None for zeros
    """

    def __init__(self, width=128, T=1000, told_t=True, extra=0):
        super().__init__()
        self.config = dict(width=width, T=T, told_t=told_t, extra=extra)
        self.T, self.told_t, self.extra, self.emb = T, told_t, extra, 32
        self.waves = Waves()
        inputs = Waves.features + extra + self.emb
        first, second = ([nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU()] for size in (inputs, width))
        self.layers = nn.Sequential(*first, *second, nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x_t, t, y=None):
        y = x_t.new_zeros(len(x_t), self.extra) if y is None else y
        time = time_embedding(t, self.emb, self.T) * self.told_t       # (B, 32)
        return self.layers(torch.cat([self.waves(x_t), y, time], 1))
