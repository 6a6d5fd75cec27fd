"""Synthetic digits: pen strokes with natural variation, a substitute for MNIST where that is not available.

Four steps: choose a way of writing, vary it like a hand, fit it into MNIST's frame, put ink on paper.
"""

import functools
import math

import torch
from torch import Tensor

from diffusion_lessons.datasets.labeled_images import LabeledImages
from diffusion_lessons.datasets.procedural.glyphs import GLYPHS, Stroke

POINTS = 96  # on the pen's path
FRAME, BOX = 28.0, 20.0  # as in MNIST: digits fit into 20x20 pixels, with their centre of mass in the middle of 28x28


def synthetic_digits(count: int, seed: int, size: int = 28) -> LabeledImages:
    """Digits 0..9, the same number of each, in random order.

    count: how many;  seed: the same seed gives the same pictures;  size: width and height in pixels
    -> LabeledImages with x (count, 1, size, size) uint8, y (count,)
    Raises ValueError when count or size is not positive.
    """
    if count < 1 or size < 1:
        raise ValueError(f"count and size must be at least 1, not {count} and {size}")
    g = torch.Generator().manual_seed(seed)
    y = (torch.arange(count) % 10)[torch.randperm(count, generator=g)]
    path, pen_down = write(y, g)
    path = shake(path, g)
    path, radius = fit(path, pen_down, g)
    softness = uniform(count, 0.8, 1.2, g)
    batches = zip(path.split(32), radius.split(32), softness.split(32))  # small batches stay in the cache
    x = torch.cat([ink(*strokes, size) for strokes in batches])
    return LabeledImages(x[:, None], y, "synthetic digits")


def write(y: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose a variant for each label and move its control points slightly.

    y: (N,)  ->  path (N, POINTS, 2), pen_down (N, POINTS), False where the pen is lifted after a point
    """
    path = torch.empty(len(y), POINTS, 2)
    pen_down = torch.empty(len(y), POINTS, dtype=torch.bool)
    for digit, variants in GLYPHS.items():
        here = (y == digit).nonzero()[:, 0]
        weights = torch.tensor([float(weight) for weight, _ in variants])
        chosen = torch.multinomial(weights, max(len(here), 1), replacement=True, generator=g)[: len(here)]
        for k in range(len(variants)):
            rows = here[chosen == k]
            control, curve, down = pen_path(digit, k)
            moved = control + 0.03 * torch.randn(len(rows), *control.shape, generator=g)
            path[rows] = curve @ moved  # (n, POINTS, 2)
            pen_down[rows] = down
    return path, pen_down


@functools.cache
def pen_path(digit: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Variant k of a digit: a matrix from its control points to POINTS points evenly spaced along the path.

    -> control (K, 2), curve (POINTS, K), pen_down (POINTS,) as in write
    """
    strokes = GLYPHS[digit][k][1]
    control = torch.tensor([point[:2] for stroke in strokes for point in stroke])
    fine, first = [], 0
    for stroke in strokes:
        fine.append(smooth(stroke, first, len(control)))
        first += len(stroke)
    length = torch.stack([(f @ control).diff(dim=0).norm(dim=1).sum() for f in fine])
    ends = (POINTS * length.cumsum(0) / length.sum()).round().long()  # where each stroke ends
    counts = ends.diff(prepend=torch.zeros(1, dtype=torch.long))
    curve = torch.cat([evenly(f, control, int(n)) for f, n in zip(fine, counts)])
    pen_down = torch.ones(POINTS, dtype=torch.bool)
    pen_down[ends - 1] = False
    return control, curve, pen_down


def smooth(stroke: Stroke, first: int, total: int) -> Tensor:
    """A Catmull-Rom spline through a stroke's points, broken at its corners.

    first: index of its first point among the `total` control points  ->  (samples, total) weights of the points
    """
    corners = [i for i, point in enumerate(stroke) if len(point) == 3]
    u = torch.arange(33)[:, None] / 32
    terms = [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2]
    blend = torch.cat(terms, dim=1) / 2  # (33, 4)
    rows = []
    for start, end in zip([0, *corners], [*corners, len(stroke) - 1]):
        order = [start, *range(start, end + 1), end]  # each end also stands in for its missing neighbour
        rows += [blend @ torch.eye(total)[first:][order[i : i + 4]] for i in range(end - start)]
    return torch.cat(rows)


def evenly(fine: Tensor, control: Tensor, n: int) -> Tensor:
    """n rows of `fine`, evenly spaced along the curve."""
    steps = (fine @ control).diff(dim=0).norm(dim=1)
    length = torch.cat([torch.zeros(1), steps.cumsum(0)])
    at = torch.searchsorted(length, torch.linspace(0, float(length[-1]), n))
    return fine[at.clamp(max=len(fine) - 1)]


def shake(path: Tensor, g: torch.Generator) -> Tensor:
    """Vary the handwriting: slant, rotation, width, bend, a wider top or bottom, and a smooth wobble.

    path: (N, POINTS, 2), about one unit high  ->  the same
    """
    n = len(path)
    x, y = (path - path.mean(dim=1, keepdim=True)).unbind(-1)  # (N, POINTS)
    x = x * (0.08 + normal(n, 0.2, g) + normal(n, 0.25, g) * y).exp()  # width, and more of it at the top or bottom
    y = y + normal(n, 0.2, g) * (0.25 - y**2) + normal(n, 0.08, g) * x  # waist up or down, rising or falling
    x = x + normal(n, 0.12, g) * y**2 - (0.12 + normal(n, 0.22, g)) * y  # bend, slant
    for _ in range(2):
        a, b, c = uniform(n, -5, 5, g), uniform(n, -5, 5, g), uniform(n, 0, 2 * math.pi, g)
        wave = torch.sin(a * x + b * y + c)
        x, y = x + normal(n, 0.035, g) * wave, y + normal(n, 0.035, g) * wave
    angle = normal(n, 0.08, g)
    return torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)


def fit(path: Tensor, pen_down: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose a pen, and fit the digit into MNIST's frame.

    path: (N, POINTS, 2)  ->  path in pixels of the 28x28 frame, radius (N, POINTS) in pixels
    """
    n = len(path)
    pen = (0.3 + normal(n, 0.27, g)).exp().clamp(0.85, 2.4)
    along = torch.linspace(0, 1, POINTS)
    pressure = uniform(n, 0, 0.25, g) * torch.sin(uniform(n, 2, 9, g) * along + uniform(n, 0, 2 * math.pi, g))
    radius = pen * (1 + pressure)
    extent = path.amax(dim=1) - path.amin(dim=1)  # (N, 2)
    path = path * ((BOX - 0.4 - 2 * pen) / extent.amax(dim=1, keepdim=True))[..., None]
    step = path.diff(dim=1, append=path[:, -1:]).norm(dim=-1) * pen_down
    mass = (radius * (step + step.roll(1, dims=1)))[..., None]  # the ink of a point: that of the path to its neighbours
    centre = (path * mass).sum(dim=1, keepdim=True) / mass.sum(dim=1, keepdim=True)
    return path - centre + FRAME / 2, radius


def ink(path: Tensor, radius: Tensor, softness: Tensor, size: int) -> Tensor:
    """Put ink on each pixel that is closer to the path than the pen's radius, with a soft edge.

    Near the edge of a dot, |p - q| - r = (|p - q|^2 - r^2) / 2r, and the right side is linear in
    (|p|^2, p, 1): one matrix product gives it for all pixels p and all points q of the path.

    path: (B, POINTS, 2), radius: (B, POINTS), softness: (B, 1) pixels  ->  (B, size, size) uint8
    """
    at = (torch.arange(size) + 0.5) * FRAME / size
    py, px = torch.meshgrid(at, at, indexing="ij")
    pixels = torch.stack([px**2 + py**2, px, py, torch.ones_like(px)], dim=-1).view(-1, 4)  # (size*size, 4)
    qx, qy = path.unbind(-1)
    dots = torch.stack([torch.ones_like(qx), -2 * qx, -2 * qy, qx**2 + qy**2 - radius**2], dim=1)
    dots = dots / (2 * radius)[:, None]  # (B, 4, POINTS)
    beyond = (pixels @ dots).amin(dim=-1)  # (B, size*size) pixels beyond the edge of the ink
    shade = (0.5 - beyond / softness).clamp(0, 1)
    return (shade * 255).round().to(torch.uint8).view(-1, size, size)


def normal(n: int, sigma: float, g: torch.Generator) -> Tensor:
    """(n, 1) numbers from N(0, sigma^2)."""
    return sigma * torch.randn(n, 1, generator=g)


def uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    """(n, 1) numbers between low and high."""
    return low + (high - low) * torch.rand(n, 1, generator=g)
