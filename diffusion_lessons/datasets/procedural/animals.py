"""The critters and what they carry, painted in a frame of their own: feet at y = 0, one unit tall, facing us.

Each painter gets p, the painting in that frame, and the coat's colour in three tones: plain, in shade, in light.
"""

import torch

from diffusion_lessons.datasets.procedural.shapes import box, circle, ellipse, line, melt, mirrored, triangle

WHITE, BLACK, INK, PINK = (1., 1., 1.), (.10, .09, .12), (.18, .14, .18), (.98, .66, .72)
BEAK, AMBER, MOUTH, TONGUE = (.98, .66, .14), (1., .83, .32), (.45, .07, .13), (.95, .45, .48)
FELT, RIBBON, WOOD, FOOT_REST = (.15, .14, .19), (.85, .16, .20), (.60, .40, .22), (.45, .29, .16)
BALLOON, SHINE, STRING, IRON, EGG = (.90, .17, .26), (1., .72, .74), (.30, .28, .32), (.27, .27, .31), (1., .99, .96)
# where a hat sits, and half its width: between the ears, where there are ears
HATS = {"frog": (.88, .21), "rabbit": (.86, .14), "cat": (.90, .15), "owl": (.93, .20), "muppet": (1.06, .19)}


def eyes(p, apart, height, radius, pupil):
    """White eyes with dark pupils that look a little inwards."""
    p.paint(mirrored(circle, p.place, (apart, height), radius), WHITE)
    p.paint(mirrored(circle, p.place, (apart * .86, height - .01), pupil), BLACK)


def frog(p, coat, shade, light):
    at = p.place
    p.paint(mirrored(ellipse, at, (.36, .15), (.17, .19), 20.), shade)
    body = ellipse(at, (0., .30), (.33, .30))
    head = melt(ellipse(at, (0., .60), (.40, .24)), mirrored(circle, at, (.23, .83), .15), .06)
    p.paint(torch.minimum(body, head), coat)
    p.paint(ellipse(at, (0., .24), (.21, .19)), light)
    p.paint(mirrored(ellipse, at, (.33, .04), (.22, .07)), shade)
    eyes(p, .23, .85, .11, .062)
    smile = (ellipse(at, (0., .62), (.27, .13))).abs() - .022
    p.paint(torch.maximum(smile, at[1] - .58), INK)


def rabbit(p, coat, shade, light):
    at = p.place
    p.paint(circle(at, (.30, .16), .11), light)
    p.paint(mirrored(ellipse, at, (.19, 1.06), (.095, .32), -13.), coat)
    p.paint(mirrored(ellipse, at, (.19, 1.04), (.05, .24), -13.), PINK)
    p.paint(torch.minimum(ellipse(at, (0., .28), (.29, .29)), ellipse(at, (0., .68), (.28, .24))), coat)
    p.paint(ellipse(at, (0., .24), (.18, .19)), light)
    p.paint(mirrored(ellipse, at, (.19, .04), (.16, .07)), shade)
    p.paint(mirrored(ellipse, at, (.13, .72), (.048, .068)), BLACK)
    p.paint(mirrored(ellipse, at, (.06, .59), (.075, .06)), WHITE)
    p.paint(ellipse(at, (0., .635), (.05, .035)), PINK)


def cat(p, coat, shade, light):
    at = p.place
    tail = torch.minimum(line(at, (.24, .12), (.50, .26), .11), line(at, (.50, .26), (.47, .58), .11))
    p.paint(tail, shade)
    p.paint(mirrored(triangle, at, (.23, 1.05), .14, .26), coat)
    p.paint(mirrored(triangle, at, (.23, .98), .07, .14), PINK)
    p.paint(torch.minimum(ellipse(at, (0., .30), (.29, .31)), ellipse(at, (0., .70), (.35, .24))), coat)
    p.paint(ellipse(at, (0., .26), (.17, .20)), light)
    p.paint(mirrored(ellipse, at, (.16, .04), (.13, .06)), shade)
    p.paint(mirrored(ellipse, at, (.16, .73), (.095, .085)), AMBER)
    p.paint(mirrored(ellipse, at, (.16, .73), (.036, .08)), BLACK)
    p.paint(ellipse(at, (0., .60), (.12, .075)), light)
    p.paint(ellipse(at, (0., .635), (.045, .032)), PINK)
    for tilt in (-.04, .03):
        p.paint(mirrored(line, at, (.14, .60), (.42, .60 + tilt), .016), INK, .7)


def owl(p, coat, shade, light):
    at = p.place
    p.paint(mirrored(triangle, at, (.25, 1.04), .11, .26), coat)
    p.paint(ellipse(at, (0., .48), (.40, .47)), coat)
    p.paint(ellipse(at, (0., .30), (.24, .26)), light)
    p.paint(mirrored(ellipse, at, (.39, .40), (.12, .31), 10.), shade)
    p.paint(mirrored(ellipse, at, (.13, .03), (.10, .05)), BEAK)
    p.paint(mirrored(circle, at, (.17, .70), .185), light)
    eyes(p, .17, .70, .145, .08)
    p.paint(triangle((at[0], -at[1]), (0., -.50), .08, .13), BEAK)


def muppet(p, coat, shade, light):
    x, y = at = p.place
    p.paint(mirrored(line, at, (.15, .02), (.15, .2), .11), shade)
    p.paint(mirrored(ellipse, at, (.18, .03), (.15, .05)), shade)
    p.paint(mirrored(line, at, (.28, .48), (.47, .24), .11), coat)
    fur = .035 * torch.sin(15 * torch.atan2(x, y - .5))
    p.paint(ellipse(at, (0., .53), (.35, .44)) - fur, coat)
    p.paint(torch.maximum(ellipse(at, (0., .58), (.25, .25)), y - .60), MOUTH)
    p.paint(torch.maximum(ellipse(at, (0., .42), (.14, .08)), ellipse(at, (0., .58), (.25, .25))), TONGUE)
    p.paint(circle(at, (0., .69), .085), BEAK)
    eyes(p, .13, .93, .135, .06)


SUBJECTS = {"frog": frog, "rabbit": rabbit, "cat": cat, "owl": owl, "muppet": muppet}


def stilts(p, length):
    """Two poles down to the ground; painted before the critter that stands on them."""
    for side in (-.2, .2):
        p.paint(line(p.place, (side, -length), (side, .16), .085), WOOD)
        p.paint(line(p.place, (side - .09, -.01), (side + .09, -.01), .06), FOOT_REST)


def hat(p, top, half):
    p.paint(box(p.place, (0., top + .19), (half, .19)), FELT)
    p.paint(box(p.place, (0., top + .09), (half, .05)), RIBBON)
    p.paint(box(p.place, (0., top + .01), (half + .12, .045)), FELT)


def balloon(p, *_):
    p.paint(line(p.place, (.42, .34), (.64, 1.0), .03), STRING)
    p.paint(ellipse(p.place, (.66, 1.20), (.21, .25)), BALLOON)
    p.paint(ellipse(p.place, (.59, 1.29), (.05, .07), 20.), SHINE)


def pan(p, *_):
    p.paint(line(p.place, (.36, .40), (.62, .44), .08), INK)
    p.paint(ellipse(p.place, (.78, .46), (.27, .11)), IRON)
    p.paint(ellipse(p.place, (.78, .49), (.19, .07)), EGG)
    p.paint(circle(p.place, (.80, .51), .055), AMBER)


PROPS = {"hat": hat, "balloon": balloon, "cooking": pan}
