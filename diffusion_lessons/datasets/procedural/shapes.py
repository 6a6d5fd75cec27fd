"""Shapes as signed distances, how far a place lies outside (negative: inside), and a picture to paint them onto.

A place is a pair (x, y), x from -1 (left) to 1, y from -1 (bottom) to 1 (top), each of any one shape, say (H, W) or
(N, H, W). Every measure is a number, or a tensor that broadcasts, say (N, 1, 1): another one for each picture.
Colours are red, green, blue from 0 to 1.
"""

import math

import torch


class Painting:
    """Pictures that shapes are painted onto, one over the other, with edges one pixel soft.

    place: (x, y), each (..., H, W);  pixel: the width of a pixel in the units of place;  colour: (..., 3, H, W)
    """

    def __init__(self, place, pixel, colour):
        self.place, self.pixel, self.colour = place, pixel, colour

    def paint(self, distance, colour, opacity=1.0, blur=0.0):
        """Cover the inside of a shape; distance: (..., H, W), colour: three numbers or (..., 3, 1, 1)."""
        cover = (0.5 - distance / (self.pixel + blur)).clamp(0, 1)
        if opacity != 1.0:
            cover = opacity * cover
        self.colour = torch.lerp(self.colour, as_colour(colour, self.colour), cover.unsqueeze(-3))

    def some(self, rows, painter, *how):
        """Let painter(p, *how) paint on some of the pictures.  rows: their indices"""
        x, y = self.place
        p = Painting((x[rows], y[rows]), self.pixel[rows], self.colour[rows])
        painter(p, *how)
        self.colour[rows] = p.colour


def as_colour(colour, like):
    """Three numbers, or a tensor already, as something that broadcasts over (..., 3, H, W)."""
    return colour if torch.is_tensor(colour) else like.new_tensor(colour)[:, None, None]


def circle(place, centre, radius):
    x, y = place[0] - centre[0], place[1] - centre[1]
    return (x * x + y * y).sqrt() - radius


def ellipse(place, centre, radii, degrees=0.0):
    """Distance to an ellipse, exact on its edge and nearly so beside it; degrees turn it anticlockwise."""
    x, y = place[0] - centre[0], place[1] - centre[1]
    if torch.is_tensor(degrees) or degrees:
        turn = torch.as_tensor(degrees) * (math.pi / 180)
        cos, sin = turn.cos().to(x), turn.sin().to(x)
        x, y = x * cos + y * sin, y * cos - x * sin
    x, y = x / radii[0], y / radii[1]
    inside = (x * x + y * y).sqrt()    # 1 on the edge
    x, y = x / radii[0], y / radii[1]
    return inside * (inside - 1) / (x * x + y * y).sqrt().clamp(min=1e-6)


def line(place, start, end, width):
    """Distance to a line with round ends."""
    x, y = place[0] - start[0], place[1] - start[1]
    along = end[0] - start[0], end[1] - start[1]
    share = ((x * along[0] + y * along[1]) / (along[0] ** 2 + along[1] ** 2)).clamp(0, 1)
    x, y = x - share * along[0], y - share * along[1]
    return (x * x + y * y).sqrt() - width / 2


def box(place, centre, half):
    """Distance to an upright box; half: half its width and height. Beside a corner a little too short."""
    return torch.maximum((place[0] - centre[0]).abs() - half[0], (place[1] - centre[1]).abs() - half[1])


def triangle(place, top, half, height):
    """Distance to a triangle that stands on its side, with its point at `top`; half: half its width below."""
    x, down = (place[0] - top[0]).abs(), top[1] - place[1]
    slant = (x * height - down * half) / math.hypot(half, height)
    return torch.maximum(slant, down - height)


def melt(a, b, k=0.08):
    """Both shapes, with the corner between them filled like clay."""
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * k / 4


def mirrored(shape, place, centre, *size):
    """The shape and its image on the other side of x = 0."""
    return shape((place[0].abs(), place[1]), centre, *size)
