"""Random input for the exercises. Few steps, so that a t that is off by one shows clearly."""

import torch

from diffusion_lessons.schedules import from_betas


def schedule(g):
    """A schedule of 12 to 20 uneven steps that leaves about a tenth of the variance."""
    T = int(torch.randint(12, 21, (), generator=g))
    beta = 0.03 + 0.2 * torch.rand(T, generator=g, dtype=torch.float64)
    return from_betas("random", beta)


def times(g, T, count=4, low=2):
    """Different times between `low` and T - 1.  (count,) int64"""
    return low + torch.randperm(T - low, generator=g)[:count]


def picture(g, count=4):
    """Pictures in [-1, 1] whose sides all differ, so that no wrong shape fits by accident.  (count, 3, 6, 5)"""
    return 2 * torch.rand(count, 3, 6, 5, generator=g) - 1


def noise(g, count=4):
    """(count, 3, 6, 5)"""
    return torch.randn(count, 3, 6, 5, generator=g)


def one(g, low, high):
    """One integer in low..high."""
    return int(torch.randint(low, high + 1, (), generator=g))


def factor(values, t):
    """values[t] in the shape that multiplies pictures.  (T+1,), (B,) -> (B, 1, 1, 1) float32"""
    return values[t].float().reshape(-1, 1, 1, 1)
