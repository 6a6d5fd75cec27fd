"""Point sets in the plane: data so small that a whole diffusion model can be plotted.

Each set has mean 0 and a standard deviation of about 1 (over both coordinates together), as the noise does.
"""

import math

import torch
from torch import Tensor

from diffusion_lessons.datasets.procedural.rabbit import silhouette

RING_RADIUS, RING_SIGMA, RING_MODES = math.sqrt(2), 0.1, 8
RABBIT_CENTRE, RABBIT_STD = (0.026, -0.010), 0.454  # of the outline in the coordinates of rabbit.py


def ring_centres() -> Tensor:
    """The means of the ring's Gaussians.  -> (8, 2)"""
    angle = torch.arange(RING_MODES) * (2 * math.pi / RING_MODES)
    return RING_RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring(n: int, seed: int = 0) -> Tensor:
    """Eight narrow Gaussians on a circle of radius sqrt(2), each with sigma 0.1.  -> (n, 2) float32"""
    g = _generator(n, seed)
    mode = torch.randint(RING_MODES, (n,), generator=g)
    return ring_centres()[mode] + RING_SIGMA * torch.randn(n, 2, generator=g)


def rabbit_outline(n: int, seed: int = 0) -> Tensor:
    """Points on the outline of the course's rabbit (rabbit.py), ears included.  -> (n, 2) float32

    Points near the outline move along the gradient of the signed distance until they lie on it (Newton's method).
    """
    g = _generator(n, seed)
    points = torch.empty(0, 2)
    while len(points) < n:
        candidates = 2 * torch.rand(16 * n + 1000, 2, generator=g) - 1
        band = candidates[silhouette(_xy(candidates)).abs() < 0.03]
        for _ in range(4):
            band = band - silhouette(_xy(band))[:, None] * _newton_direction(band)
        points = torch.cat([points, band[silhouette(_xy(band)).abs() < 1e-3]])  # a few in a notch never converge
    return (points[:n] - torch.tensor(RABBIT_CENTRE)) / RABBIT_STD


def _xy(points: Tensor) -> tuple[Tensor, Tensor]:
    return points[:, 0], points[:, 1]


def _newton_direction(points: Tensor) -> Tensor:
    """The gradient of the signed distance, divided by its squared length.  (n, 2) -> (n, 2)"""
    at = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(silhouette(_xy(at)).sum(), at)
    return gradient / gradient.pow(2).sum(dim=1, keepdim=True).clamp(min=1e-3)


def _generator(n: int, seed: int) -> torch.Generator:
    if n < 1:
        raise ValueError(f"the number of points must be at least 1, not {n}")
    return torch.Generator().manual_seed(seed)
