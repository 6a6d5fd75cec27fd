"""Shapes as signed distances (negative inside), and a canvas to fill them on.

A shape is a function of the coordinates xy = (x, y), with x from -1 (left) to 1 and y from -1 (bottom) to 1 (top); both
tensors have the same shape, for instance (H, W) or (N, H, W). Each measure is a number, or a tensor that broadcasts,
for instance (N, 1, 1), with a different value for each picture. Colours are (red, green, blue), from 0 to 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Coordinates = tuple[Tensor, Tensor]
Number = float | Tensor
Point = Sequence[Number]
Colour = Sequence[float] | Tensor


class Canvas:
    """A batch of pictures on which shapes are filled one after another, with edges one pixel soft.

    xy: two (..., H, W);  pixel: the width of a pixel in the units of xy;  colour: (..., 3, H, W)
    """

    def __init__(self, xy: Coordinates, pixel: Number, colour: Tensor):
        self.xy, self.pixel, self.colour = xy, pixel, colour

    def fill(self, distance: Tensor, colour: Colour, opacity: float = 1.0, blur: float = 0.0) -> None:
        """Fill the inside of a shape.  distance: (..., H, W);  colour: three numbers or (..., 3, 1, 1)"""
        cover = (0.5 - distance / (self.pixel + blur)).clamp(0, 1)
        if opacity != 1.0:
            cover = opacity * cover
        self.colour = torch.lerp(self.colour, as_colour(colour, self.colour), cover.unsqueeze(-3))

    def apply(self, rows: Tensor, painter: Callable, *args: Any) -> None:
        """Call painter(canvas, *args) on some of the pictures only.  rows: their indices"""
        x, y = self.xy
        assert isinstance(self.pixel, Tensor)
        part = Canvas((x[rows], y[rows]), self.pixel[rows], self.colour[rows])
        painter(part, *args)
        self.colour[rows] = part.colour


def as_colour(colour: Colour, like: Tensor) -> Tensor:
    """A colour as a tensor that broadcasts over (..., 3, H, W)."""
    return colour if isinstance(colour, Tensor) else like.new_tensor(colour)[:, None, None]


def circle(xy: Coordinates, centre: Point, radius: Number) -> Tensor:
    """Signed distance to a circle."""
    x, y = xy[0] - centre[0], xy[1] - centre[1]
    return (x * x + y * y).sqrt() - radius


def ellipse(xy: Coordinates, centre: Point, radii: Point, degrees: Number = 0.0) -> Tensor:
    """Signed distance to an ellipse, rotated anticlockwise by `degrees`: exact on the edge, approximate elsewhere."""
    x, y = xy[0] - centre[0], xy[1] - centre[1]
    if torch.is_tensor(degrees) or degrees:
        angle = torch.as_tensor(degrees) * (math.pi / 180)
        cos, sin = angle.cos().to(x), angle.sin().to(x)
        x, y = x * cos + y * sin, y * cos - x * sin
    x, y = x / radii[0], y / radii[1]
    inside = (x * x + y * y).sqrt()    # 1 on the edge
    x, y = x / radii[0], y / radii[1]
    return inside * (inside - 1) / (x * x + y * y).sqrt().clamp(min=1e-6)


def line(xy: Coordinates, start: Point, end: Point, width: Number) -> Tensor:
    """Signed distance to a line segment with round ends."""
    x, y = xy[0] - start[0], xy[1] - start[1]
    along = end[0] - start[0], end[1] - start[1]
    share = ((x * along[0] + y * along[1]) / (along[0] ** 2 + along[1] ** 2)).clamp(0, 1)
    x, y = x - share * along[0], y - share * along[1]
    return (x * x + y * y).sqrt() - width / 2


def box(xy: Coordinates, centre: Point, half: Point) -> Tensor:
    """Signed distance to an upright box of half the width and height `half`; near the corners a little too short."""
    return torch.maximum((xy[0] - centre[0]).abs() - half[0], (xy[1] - centre[1]).abs() - half[1])


def triangle(xy: Coordinates, top: Point, half: Number, height: Number) -> Tensor:
    """Signed distance to an upright triangle with its apex at `top` and a base 2 `half` wide."""
    x, down = (xy[0] - top[0]).abs(), top[1] - xy[1]
    slant = (x * height - down * half) / math.hypot(half, height)
    return torch.maximum(slant, down - height)


def smooth_union(a: Tensor, b: Tensor, k: float = 0.08) -> Tensor:
    """The union of two shapes, with the corner between them rounded (Quilez: polynomial smooth minimum)."""
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * k / 4


def mirrored(shape: Callable, xy: Coordinates, centre: Point, *size: Any) -> Tensor:
    """The shape and its mirror image across x = 0."""
    return shape((xy[0].abs(), xy[1]), centre, *size)
