"""Point sets in the plane: data small enough to see all of a diffusion model at once.

Every set lies around zero with a standard deviation of about 1 (over both axes together), as the noise does.
"""

import math

import torch

from diffusion_lessons.datasets.procedural.rabbit import silhouette

RING_RADIUS, RING_SIGMA, RING_MODES = math.sqrt(2), 0.1, 8
RABBIT_CENTRE, RABBIT_SPREAD = (0.026, -0.010), 0.454  # of the outline as rabbit.py draws it


def ring_centres():
    """The means of the ring's Gaussians: (8, 2)"""
    turn = torch.arange(RING_MODES) * (2 * math.pi / RING_MODES)
    return RING_RADIUS * torch.stack([turn.cos(), turn.sin()], dim=1)


def ring(n, seed=0):
    """Eight narrow Gaussians on a circle: mean radius sqrt(2), sigma 0.1.  -> (n, 2) float32"""
    g = generator(n, seed)
    mode = torch.randint(RING_MODES, (n,), generator=g)
    return ring_centres()[mode] + RING_SIGMA * torch.randn(n, 2, generator=g)


def two_moons(n, seed=0):
    """Two half circles that reach into each other.  -> (n, 2) float32"""

    def moons(u):
        angle, upper = math.pi * ((2 * u) % 1), u < 0.5
        x = torch.where(upper, angle.cos(), 1 - angle.cos())
        y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
        return torch.stack([x, y], dim=1)

    return along(moons, n, seed, noise=0.08)


def spiral(n, seed=0):
    """One arm that winds outwards twice, evenly covered.  -> (n, 2) float32"""

    def arm(u):
        angle = 4 * math.pi * (0.02 + 0.98 * u).sqrt()  # the square root: more points where the arm is longer
        return angle[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)

    return along(arm, n, seed, noise=0.03)


def rabbit_outline(n, seed=0):
    """The outer edge of the course's rabbit (rabbit.py), ears and all.  -> (n, 2) float32

    Points of a thin band around the edge slide along the slope of the distance until they lie on it.
    """
    g = generator(n, seed)
    points = torch.empty(0, 2)
    while len(points) < n:
        anywhere = 2 * torch.rand(16 * n + 1000, 2, generator=g) - 1
        band = anywhere[silhouette(anywhere.T).abs() < 0.03]
        for _ in range(4):
            band = band - silhouette(band.T)[:, None] * slope(band)
        points = torch.cat([points, band[silhouette(band.T).abs() < 1e-3]])  # in a notch a few never settle
    points = points[:n]
    return (points - torch.tensor(RABBIT_CENTRE)) / RABBIT_SPREAD


def slope(points):
    """Which way the distance grows, as a vector divided by its squared length: (n, 2)"""
    at = points.clone().requires_grad_()
    (way,) = torch.autograd.grad(silhouette(at.T).sum(), at)
    return way / way.pow(2).sum(dim=1, keepdim=True).clamp(min=1e-3)


def along(curve, n, seed, noise):
    """Random points of a curve (u in 0..1 -> (len(u), 2)), brought to mean 0 and spread 1, a little noisy."""
    g = generator(n, seed)
    whole = curve((torch.arange(4096) + 0.5) / 4096)
    centre = whole.mean(dim=0)
    spread = (whole - centre).pow(2).mean().sqrt()
    points = (curve(torch.rand(n, generator=g)) - centre) / spread
    return points + noise * torch.randn(n, 2, generator=g)


def generator(n, seed):
    if n < 1:
        raise ValueError(f"the number of points must be at least 1, not {n}")
    return torch.Generator().manual_seed(seed)
