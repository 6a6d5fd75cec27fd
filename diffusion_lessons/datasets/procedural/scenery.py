"""The places where critters live; each fills the whole picture. `u(k)`: the k-th random number of each scene, 0..1."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lessons.datasets.procedural.shapes import Canvas, Colour, as_colour, box, circle, ellipse, line, triangle

Uniform = Callable[[int], Tensor]

GROUND = -0.5    # roughly where the ground begins; critters stand slightly below
WHITE, GLOW, SUN = (1., 1., 1.), (1., .96, .75), (1., .84, .30)
SKY, HAZE, HILL, GRASS, BLOSSOM = (.45, .74, .96), (.82, .93, 1.), (.55, .76, .42), (.42, .70, .30), (.98, .93, .55)
SEA, FOAM, SAND, WET_SAND = (.16, .50, .76), (.84, .95, .98), (.96, .86, .62), (.86, .74, .50)
COLD, FROST, DRIFT, FIR, TRUNK = (.62, .71, .84), (.83, .88, .95), (.97, .98, 1.), (.24, .44, .38), (.42, .31, .24)
DARK, DUSK, WOODS, MOON = (.09, .10, .30), (.22, .24, .50), (.09, .16, .17), (.99, .95, .74)
TILE, JOINT, FLOOR, PLANK, STOVE, OVEN = (.97, .92, .81), (.88, .79, .65), (.62, .41, .28), (.53, .34, .23), \
    (.76, .78, .82), (.22, .23, .28)


def sky(p: Canvas, low: Colour, high: Colour) -> None:
    """A gradient from `low` at the horizon to `high` at the top."""
    low, high = (as_colour(colour, p.colour) for colour in (low, high))
    p.colour = torch.lerp(low, high, ((p.xy[1] - GROUND) / (1 - GROUND)).clamp(0, 1).unsqueeze(-3))


def hill(p: Canvas, height: float, bend: float, phase: Tensor) -> Tensor:
    """Signed distance to the region below a wavy line."""
    x, y = p.xy
    return y - height - bend * torch.sin(2.4 * x + phase)


def sun(p: Canvas, u: Uniform) -> None:
    at = (1.4 * u(0) - .7, .62 + .16 * u(1))
    p.fill(circle(p.xy, at, .20), GLOW, .6, blur=.12)
    p.fill(circle(p.xy, at, .14), SUN)


def dots(p: Canvas, u: Uniform, count: int, radius: float, low: float, colour: Colour, high: float = 1.) -> None:
    """Stars, snowflakes or flowers: one in each of `count` columns, at a random height between `low` and `high`."""
    centres = [(2 * (k + u(20 + k)) / count - 1, low + (high - low) * u(30 + k)) for k in range(count)]
    p.fill(torch.stack([circle(p.xy, centre, radius) for centre in centres]).amin(0), colour)


def meadow(p: Canvas, u: Uniform) -> None:
    sky(p, HAZE, SKY)
    sun(p, u)
    at = (1.6 * u(2) - .8, .42 + .3 * u(3))
    cloud = torch.minimum(ellipse(p.xy, at, (.26, .08)), ellipse(p.xy, (at[0] + .05, at[1] + .06), (.14, .10)))
    p.fill(cloud, WHITE, .9)
    p.fill(hill(p, GROUND + .16, .09, 6.3 * u(4)), HILL)
    p.fill(hill(p, GROUND, .04, 6.3 * u(5)), GRASS)
    dots(p, u, 5, .035, -.94, BLOSSOM, high=-.64)


def kitchen(p: Canvas, u: Uniform) -> None:
    x, y = p.xy
    p.fill(y * 0 - 1, TILE)
    odd = ((x + u(0)) / .3).floor() + (y / .3).floor()
    p.fill((odd.remainder(2) - .5) * p.pixel, JOINT, .55)
    at = (.9 * u(1) - .45, .60)
    p.fill(box(p.xy, at, (.29, .25)), WHITE)
    p.fill(box(p.xy, at, (.24, .20)), SKY)
    p.fill(torch.minimum(box(p.xy, at, (.24, .025)), box(p.xy, at, (.025, .20))), WHITE)
    p.fill(y - GROUND + .02, FLOOR)
    p.fill((y - GROUND + .02).abs() - .03, PLANK)
    side = torch.where(u(2) < .5, -1., 1.)
    stove = (side * (.66 + .12 * u(3)), GROUND + .02)
    p.fill(box(p.xy, stove, (.27, .26)), STOVE)
    p.fill(box(p.xy, (stove[0], stove[1] - .05), (.19, .14)), OVEN)
    p.fill(box(p.xy, (stove[0], stove[1] + .26), (.29, .03)), OVEN)


def beach(p: Canvas, u: Uniform) -> None:
    x, y = p.xy
    sky(p, HAZE, SKY)
    sun(p, u)
    p.fill(y - GROUND - .26, SEA)
    at = 1.5 * u(2) - .75
    p.fill(triangle(p.xy, (at, GROUND + .62), .13, .30), WHITE)
    p.fill(ellipse(p.xy, (at, GROUND + .28), (.18, .05)), TRUNK)
    shore = hill(p, GROUND - .02, .04, 6.3 * u(4))
    p.fill(shore - .05, FOAM)
    p.fill(shore, WET_SAND)
    p.fill(shore + .08, SAND)


def snow(p: Canvas, u: Uniform) -> None:
    sky(p, FROST, COLD)
    for k, side in ((0, -1.), (2, 1.)):
        at = side * (.52 + .36 * u(k))
        top = GROUND + .62 + .22 * u(k + 1)
        p.fill(line(p.xy, (at, GROUND - .1), (at, top - .3), .07), TRUNK)
        p.fill(triangle(p.xy, (at, top), .20, .34), FIR)
        p.fill(triangle(p.xy, (at, top - .2), .26, .38), FIR)
        p.fill(triangle(p.xy, (at, top), .10, .16), DRIFT)
    p.fill(hill(p, GROUND + .04, .06, 6.3 * u(4)), DRIFT)
    dots(p, u, 9, .035, -.3, WHITE)


def night(p: Canvas, u: Uniform) -> None:
    sky(p, DUSK, DARK)
    dots(p, u, 8, .026, -.1, GLOW)
    at = (1.4 * u(0) - .7, .62 + .14 * u(1))
    hollow = circle(p.xy, (at[0] + .09, at[1] + .05), .15)
    p.fill(torch.maximum(circle(p.xy, at, .18), -hollow), MOON)
    p.fill(hill(p, GROUND + .12, .08, 6.3 * u(4)), (.11, .20, .24))
    p.fill(hill(p, GROUND - .02, .04, 6.3 * u(5)), WOODS)


PLACES = {"meadow": meadow, "kitchen": kitchen, "beach": beach, "snow": snow, "night": night}
