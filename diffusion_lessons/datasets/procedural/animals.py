"""The critters and their props, in coordinates of their own: feet at y = 0, one unit tall, facing the viewer.

Each painter gets p, the canvas in these coordinates, and the coat colour in three tones: plain, shaded, light.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lessons.datasets.procedural.shapes import (
    Canvas,
    Colour,
    box,
    circle,
    ellipse,
    line,
    mirrored,
    smooth_union,
    triangle,
)

WHITE, BLACK, INK, PINK = (1., 1., 1.), (.10, .09, .12), (.18, .14, .18), (.98, .66, .72)
BEAK, AMBER, MOUTH, TONGUE = (.98, .66, .14), (1., .83, .32), (.45, .07, .13), (.95, .45, .48)
FELT, RIBBON, WOOD, FOOT_REST = (.15, .14, .19), (.85, .16, .20), (.60, .40, .22), (.45, .29, .16)
BALLOON, SHINE, STRING, IRON, EGG = (.90, .17, .26), (1., .72, .74), (.30, .28, .32), (.27, .27, .31), (1., .99, .96)
# the height of a hat's brim and half its width: between the ears, where there are ears
HATS = {"frog": (.88, .21), "rabbit": (.86, .14), "cat": (.90, .15), "owl": (.93, .20), "muppet": (1.06, .19)}


def eyes(p: Canvas, apart: float, height: float, radius: float, pupil: float) -> None:
    """White eyes with dark pupils, looking slightly inwards."""
    p.fill(mirrored(circle, p.xy, (apart, height), radius), WHITE)
    p.fill(mirrored(circle, p.xy, (apart * .86, height - .01), pupil), BLACK)


def frog(p: Canvas, coat: Colour, shade: Colour, light: Colour) -> None:
    xy = p.xy
    p.fill(mirrored(ellipse, xy, (.36, .15), (.17, .19), 20.), shade)
    body = ellipse(xy, (0., .30), (.33, .30))
    head = smooth_union(ellipse(xy, (0., .60), (.40, .24)), mirrored(circle, xy, (.23, .83), .15), .06)
    p.fill(torch.minimum(body, head), coat)
    p.fill(ellipse(xy, (0., .24), (.21, .19)), light)
    p.fill(mirrored(ellipse, xy, (.33, .04), (.22, .07)), shade)
    eyes(p, .23, .85, .11, .062)
    smile = (ellipse(xy, (0., .62), (.27, .13))).abs() - .022
    p.fill(torch.maximum(smile, xy[1] - .58), INK)


def rabbit(p: Canvas, coat: Colour, shade: Colour, light: Colour) -> None:
    xy = p.xy
    p.fill(circle(xy, (.30, .16), .11), light)
    p.fill(mirrored(ellipse, xy, (.19, 1.06), (.095, .32), -13.), coat)
    p.fill(mirrored(ellipse, xy, (.19, 1.04), (.05, .24), -13.), PINK)
    p.fill(torch.minimum(ellipse(xy, (0., .28), (.29, .29)), ellipse(xy, (0., .68), (.28, .24))), coat)
    p.fill(ellipse(xy, (0., .24), (.18, .19)), light)
    p.fill(mirrored(ellipse, xy, (.19, .04), (.16, .07)), shade)
    p.fill(mirrored(ellipse, xy, (.13, .72), (.048, .068)), BLACK)
    p.fill(mirrored(ellipse, xy, (.06, .59), (.075, .06)), WHITE)
    p.fill(ellipse(xy, (0., .635), (.05, .035)), PINK)


def cat(p: Canvas, coat: Colour, shade: Colour, light: Colour) -> None:
    xy = p.xy
    tail = torch.minimum(line(xy, (.24, .12), (.50, .26), .11), line(xy, (.50, .26), (.47, .58), .11))
    p.fill(tail, shade)
    p.fill(mirrored(triangle, xy, (.23, 1.05), .14, .26), coat)
    p.fill(mirrored(triangle, xy, (.23, .98), .07, .14), PINK)
    p.fill(torch.minimum(ellipse(xy, (0., .30), (.29, .31)), ellipse(xy, (0., .70), (.35, .24))), coat)
    p.fill(ellipse(xy, (0., .26), (.17, .20)), light)
    p.fill(mirrored(ellipse, xy, (.16, .04), (.13, .06)), shade)
    p.fill(mirrored(ellipse, xy, (.16, .73), (.095, .085)), AMBER)
    p.fill(mirrored(ellipse, xy, (.16, .73), (.036, .08)), BLACK)
    p.fill(ellipse(xy, (0., .60), (.12, .075)), light)
    p.fill(ellipse(xy, (0., .635), (.045, .032)), PINK)
    for tilt in (-.04, .03):
        p.fill(mirrored(line, xy, (.14, .60), (.42, .60 + tilt), .016), INK, .7)


def owl(p: Canvas, coat: Colour, shade: Colour, light: Colour) -> None:
    xy = p.xy
    p.fill(mirrored(triangle, xy, (.25, 1.04), .11, .26), coat)
    p.fill(ellipse(xy, (0., .48), (.40, .47)), coat)
    p.fill(ellipse(xy, (0., .30), (.24, .26)), light)
    p.fill(mirrored(ellipse, xy, (.39, .40), (.12, .31), 10.), shade)
    p.fill(mirrored(ellipse, xy, (.13, .03), (.10, .05)), BEAK)
    p.fill(mirrored(circle, xy, (.17, .70), .185), light)
    eyes(p, .17, .70, .145, .08)
    p.fill(triangle((xy[0], -xy[1]), (0., -.50), .08, .13), BEAK)


def muppet(p: Canvas, coat: Colour, shade: Colour, light: Colour) -> None:
    x, y = xy = p.xy
    p.fill(mirrored(line, xy, (.15, .02), (.15, .2), .11), shade)
    p.fill(mirrored(ellipse, xy, (.18, .03), (.15, .05)), shade)
    p.fill(mirrored(line, xy, (.28, .48), (.47, .24), .11), coat)
    fur = .035 * torch.sin(15 * torch.atan2(x, y - .5))
    p.fill(ellipse(xy, (0., .53), (.35, .44)) - fur, coat)
    p.fill(torch.maximum(ellipse(xy, (0., .58), (.25, .25)), y - .60), MOUTH)
    p.fill(torch.maximum(ellipse(xy, (0., .42), (.14, .08)), ellipse(xy, (0., .58), (.25, .25))), TONGUE)
    p.fill(circle(xy, (0., .69), .085), BEAK)
    eyes(p, .13, .93, .135, .06)


SUBJECTS: dict[str, Callable[..., None]] = {"frog": frog, "rabbit": rabbit, "cat": cat, "owl": owl, "muppet": muppet}


def stilts(p: Canvas, length: Tensor) -> None:
    """Two poles down to the ground; drawn before the critter that stands on them."""
    for side in (-.2, .2):
        p.fill(line(p.xy, (side, -length), (side, .16), .085), WOOD)
        p.fill(line(p.xy, (side - .09, -.01), (side + .09, -.01), .06), FOOT_REST)


def hat(p: Canvas, top: float, half: float) -> None:
    p.fill(box(p.xy, (0., top + .19), (half, .19)), FELT)
    p.fill(box(p.xy, (0., top + .09), (half, .05)), RIBBON)
    p.fill(box(p.xy, (0., top + .01), (half + .12, .045)), FELT)


def balloon(p: Canvas, *_: float) -> None:
    p.fill(line(p.xy, (.42, .34), (.64, 1.0), .03), STRING)
    p.fill(ellipse(p.xy, (.66, 1.20), (.21, .25)), BALLOON)
    p.fill(ellipse(p.xy, (.59, 1.29), (.05, .07), 20.), SHINE)


def pan(p: Canvas, *_: float) -> None:
    p.fill(line(p.xy, (.36, .40), (.62, .44), .08), INK)
    p.fill(ellipse(p.xy, (.78, .46), (.27, .11)), IRON)
    p.fill(ellipse(p.xy, (.78, .49), (.19, .07)), EGG)
    p.fill(circle(p.xy, (.80, .51), .055), AMBER)


PROPS: dict[str, Callable[..., None]] = {"hat": hat, "balloon": balloon, "cooking": pan}
