"""Random input for the exercises. Few steps, so that a t that is off by one shows clearly.

The tries of one check differ in kind: k = 0 is an ordinary batch, 1 a single picture, 2 a batch with both ends of time.
"""

import torch
import torch.nn.functional as F

from diffusion_lessons.schedules import from_betas


def schedule(g):
    """A schedule of 12 to 20 uneven steps that leaves about a tenth of the variance."""
    T = int(torch.randint(12, 21, (), generator=g))
    beta = 0.03 + 0.2 * torch.rand(T, generator=g, dtype=torch.float64)
    return from_betas("random", beta)


def shape(g, k=0):
    """(B, C, H, W), all different, so that no wrong shape fits by accident; B = 1 for every third k."""
    return 1 if k % 3 == 1 else one(g, 4, 5), (3, 2)[k % 2], *(6 + torch.randperm(4, generator=g)[:2]).tolist()


def times(g, T, count=4, k=0, first=0):
    """Different times between 2 and T - 1 for k = 0; an end, and both ends: first and T.  (count,) int64"""
    t = 2 + torch.randperm(T - 2, generator=g)[:count]
    if k % 3 == 1:
        t[0] = (first, T)[one(g, 0, 1)]
    elif k % 3 == 2:
        t[torch.randperm(count, generator=g)[:2]] = torch.tensor([first, T])
    return t


def picture(g, shape=(4, 3, 6, 5)):
    """Pictures in [-1, 1].  (B, C, H, W)"""
    return 2 * torch.rand(shape, generator=g) - 1


def noise(g, shape=(4, 3, 6, 5)):
    """(B, C, H, W)"""
    return torch.randn(shape, generator=g)


def one(g, low, high):
    """One integer in low..high."""
    return int(torch.randint(low, high + 1, (), generator=g))


def factor(values, t):
    """values[t] in the shape that multiplies pictures.  (T+1,), (B,) -> (B, 1, 1, 1) float32"""
    return values[t].float().reshape(-1, 1, 1, 1)


def as_a_network(x, t):
    """x as it is. Raises, as a network would, when it is not float32 or t is not a tensor with a time for each."""
    if not isinstance(t, torch.Tensor) or t.shape != x.shape[:1]:
        raise ValueError(f"t must be a tensor with one time for each of {len(x)} pictures, not {t!r}")
    return F.linear(x[..., None], torch.ones(1, 1))[..., 0]
