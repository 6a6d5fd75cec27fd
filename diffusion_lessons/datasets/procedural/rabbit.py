"""The course's rabbit, drawn from signed distances (see shapes.py)."""

import math

import torch

from diffusion_lessons.datasets.procedural.shapes import Painting, ellipse, line, melt, mirrored

FUR, SHADE, WHITE = (.82, .80, .83), (.66, .64, .69), (.98, .97, .96)
PINK, ROSE, DARK = (.97, .68, .74), (.93, .47, .56), (.13, .11, .15)
HORIZON, ZENITH = (.86, .95, 1.), (.47, .76, .96)
SUN, GLOW, CLOUD = (1., .86, .35), (1., .95, .72), (1., 1., 1.)
FAR_HILL, MEADOW, GRASS, POPPY = (.55, .76, .45), (.44, .72, .32), (.33, .61, .25), (.90, .28, .25)
FLOWERS = [(-.84, -.42), (-.62, -.72), (-.90, -.88), (.70, -.52), (.88, -.80), (.56, -.90)]


def rabbit(size=64):
    """Paint the rabbit on its meadow, at any resolution.

    size: pixels to a side  ->  (3, size, size) float32 in [-1, 1]
    Raises ValueError when size is not a positive whole number.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more, not {size!r}")
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    low, high = (torch.tensor(colour)[:, None, None] for colour in (HORIZON, ZENITH))
    picture = Painting((x, y), 2 / size, torch.lerp(low, high, (y + 1) / 2))
    landscape(picture)
    body(picture)
    face(picture)
    return picture.colour * 2 - 1


def landscape(picture):
    place = picture.place
    x, y = place
    picture.paint(ellipse(place, (.64, .66), (.20, .20)), GLOW, .7, blur=.16)
    picture.paint(ellipse(place, (.64, .66), (.15, .15)), SUN)
    for centre, radii in [((-.72, .60), (.17, .08)), ((-.56, .65), (.13, .11)), ((-.46, .60), (.13, .07))]:
        picture.paint(ellipse(place, centre, radii), CLOUD, .9)
    picture.paint(y + .18 - .09 * torch.sin(2.6 * x + .6), FAR_HILL)
    picture.paint(y + .38 - .06 * torch.sin(2.2 * x + 3.4), MEADOW)
    for i in range(14):
        foot = (-.95 + .146 * i, -.50 - .43 * ((i * 5) % 7) / 7)
        for lean in (-.03, .0, .03):
            picture.paint(line(place, foot, (foot[0] + lean, foot[1] + .08), .016), GRASS)
    for i, centre in enumerate(FLOWERS):
        flower(picture, centre, POPPY if i % 3 == 1 else WHITE)


def flower(picture, centre, colour):
    place = picture.place
    picture.paint(line(place, centre, (centre[0], centre[1] - .13), .016), GRASS)
    for k in range(5):
        turn = 2 * math.pi * k / 5 + math.pi / 2
        petal = (centre[0] + .038 * math.cos(turn), centre[1] + .038 * math.sin(turn))
        picture.paint(ellipse(place, petal, (.03, .03)), colour)
    picture.paint(ellipse(place, centre, (.024, .024)), SUN)


def silhouette(place):
    """Distance to the rabbit's outer edge, head to feet with ears and tail.  place: (x, y)"""
    trunk = trunk_of(place)
    ears = torch.minimum(*ears_of(place))
    feet = mirrored(ellipse, place, (.20, -.77), (.18, .10), -6.)
    return torch.minimum(melt(melt(trunk, ears, .06), feet, .04), tail_of(place))


def trunk_of(place):
    return melt(ellipse(place, (0., .10), (.355, .29)), ellipse(place, (0., -.44), (.33, .37)))


def ears_of(place, slim=1.0, short=1.0):
    left = ellipse(place, (-.16, .56), (.092 * slim, .33 * short), 9.)
    right = ellipse(place, (.20, .53), (.092 * slim, .33 * short), -17.)
    return left, right


def tail_of(place):
    return ellipse(place, (.36, -.60), (.12, .12))


def body(picture):
    place = picture.place
    picture.paint(ellipse(place, (.02, -.84), (.46, .07)), GRASS, .8, blur=.05)  # its shadow on the grass
    picture.paint(tail_of(place), WHITE)
    whole = torch.maximum(silhouette(place), -tail_of(place))
    picture.paint(torch.minimum(whole, trunk_of(place)), FUR)
    for ear in ears_of(place, .52, .76):
        picture.paint(ear, PINK)
    picture.paint(mirrored(ellipse, place, (.20, -.77), (.18, .10), -6.), SHADE)
    for toe in (-.27, -.20, .20, .27):
        picture.paint(line(place, (toe, -.84), (toe * .98, -.78), .012), FUR)
    picture.paint(ellipse(place, (0., -.48), (.20, .25)), WHITE, .85, blur=.03)
    picture.paint(mirrored(ellipse, place, (.12, -.36), (.07, .12), 14.), SHADE)


def face(picture):
    place = picture.place
    picture.paint(mirrored(ellipse, place, (.235, .01), (.075, .055)), PINK, .75, blur=.05)
    picture.paint(mirrored(ellipse, place, (.06, -.01), (.085, .07)), WHITE)
    picture.paint(ellipse(place, (0., -.085), (.035, .05)), WHITE)
    picture.paint(mirrored(ellipse, place, (.15, .15), (.058, .078)), DARK)
    for centre in (-.132, .168):
        picture.paint(ellipse(place, (centre, .182), (.02, .024)), WHITE)
    picture.paint(ellipse(place, (0., .048), (.045, .032)), ROSE)
    picture.paint(line(place, (0., .03), (0., -.03), .012), SHADE)
    for side in (-1., 1.):
        picture.paint(line(place, (0., -.03), (.05 * side, -.055), .012), SHADE)
        for end in ((.42, .05), (.44, -.02), (.41, -.09)):
            picture.paint(line(place, (.15 * side, -.01), (end[0] * side, end[1]), .008), DARK, .4)
