"""The course's rabbit, drawn as signed distances (see shapes.py)."""

import math

import torch

from diffusion_lessons.datasets.procedural.shapes import (
    Canvas,
    Colour,
    Coordinates,
    Point,
    ellipse,
    line,
    mirrored,
    smooth_union,
)

FUR, SHADE, WHITE = (.82, .80, .83), (.66, .64, .69), (.98, .97, .96)
PINK, ROSE, DARK = (.97, .68, .74), (.93, .47, .56), (.13, .11, .15)
HORIZON, ZENITH = (.86, .95, 1.), (.47, .76, .96)
SUN, GLOW, CLOUD = (1., .86, .35), (1., .95, .72), (1., 1., 1.)
FAR_HILL, MEADOW, GRASS, POPPY = (.55, .76, .45), (.44, .72, .32), (.33, .61, .25), (.90, .28, .25)
FLOWERS = [(-.84, -.42), (-.62, -.72), (-.90, -.88), (.70, -.52), (.88, -.80), (.56, -.90)]


def rabbit(size: int = 64) -> torch.Tensor:
    """Render the rabbit in its meadow, at any resolution.

    size: pixels to a side  ->  (3, size, size) float32 in [-1, 1]
    Raises ValueError when size is not a positive whole number.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more, not {size!r}")
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    low, high = (torch.tensor(colour)[:, None, None] for colour in (HORIZON, ZENITH))
    canvas = Canvas((x, y), 2 / size, torch.lerp(low, high, (y + 1) / 2))
    landscape(canvas)
    body(canvas)
    face(canvas)
    return canvas.colour * 2 - 1


def landscape(canvas: Canvas) -> None:
    xy = canvas.xy
    x, y = xy
    canvas.fill(ellipse(xy, (.64, .66), (.20, .20)), GLOW, .7, blur=.16)
    canvas.fill(ellipse(xy, (.64, .66), (.15, .15)), SUN)
    for centre, radii in [((-.72, .60), (.17, .08)), ((-.56, .65), (.13, .11)), ((-.46, .60), (.13, .07))]:
        canvas.fill(ellipse(xy, centre, radii), CLOUD, .9)
    canvas.fill(y + .18 - .09 * torch.sin(2.6 * x + .6), FAR_HILL)
    canvas.fill(y + .38 - .06 * torch.sin(2.2 * x + 3.4), MEADOW)
    for i in range(14):
        foot = (-.95 + .146 * i, -.50 - .43 * ((i * 5) % 7) / 7)
        for lean in (-.03, .0, .03):
            canvas.fill(line(xy, foot, (foot[0] + lean, foot[1] + .08), .016), GRASS)
    for i, centre in enumerate(FLOWERS):
        flower(canvas, centre, POPPY if i % 3 == 1 else WHITE)


def flower(canvas: Canvas, centre: Point, colour: Colour) -> None:
    xy = canvas.xy
    canvas.fill(line(xy, centre, (centre[0], centre[1] - .13), .016), GRASS)
    for k in range(5):
        angle = 2 * math.pi * k / 5 + math.pi / 2
        petal = (centre[0] + .038 * math.cos(angle), centre[1] + .038 * math.sin(angle))
        canvas.fill(ellipse(xy, petal, (.03, .03)), colour)
    canvas.fill(ellipse(xy, centre, (.024, .024)), SUN)


def silhouette(xy: Coordinates) -> torch.Tensor:
    """Signed distance to the rabbit's outline, ears, feet and tail included."""
    trunk = trunk_of(xy)
    ears = torch.minimum(*ears_of(xy))
    feet = mirrored(ellipse, xy, (.20, -.77), (.18, .10), -6.)
    return torch.minimum(smooth_union(smooth_union(trunk, ears, .06), feet, .04), tail_of(xy))


def trunk_of(xy: Coordinates) -> torch.Tensor:
    return smooth_union(ellipse(xy, (0., .10), (.355, .29)), ellipse(xy, (0., -.44), (.33, .37)))


def ears_of(xy: Coordinates, slim: float = 1.0, short: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    left = ellipse(xy, (-.16, .56), (.092 * slim, .33 * short), 9.)
    right = ellipse(xy, (.20, .53), (.092 * slim, .33 * short), -17.)
    return left, right


def tail_of(xy: Coordinates) -> torch.Tensor:
    return ellipse(xy, (.36, -.60), (.12, .12))


def body(canvas: Canvas) -> None:
    xy = canvas.xy
    canvas.fill(ellipse(xy, (.02, -.84), (.46, .07)), GRASS, .8, blur=.05)  # shadow on the grass
    canvas.fill(tail_of(xy), WHITE)
    whole = torch.maximum(silhouette(xy), -tail_of(xy))
    canvas.fill(torch.minimum(whole, trunk_of(xy)), FUR)
    for ear in ears_of(xy, .52, .76):
        canvas.fill(ear, PINK)
    canvas.fill(mirrored(ellipse, xy, (.20, -.77), (.18, .10), -6.), SHADE)
    for toe in (-.27, -.20, .20, .27):
        canvas.fill(line(xy, (toe, -.84), (toe * .98, -.78), .012), FUR)
    canvas.fill(ellipse(xy, (0., -.48), (.20, .25)), WHITE, .85, blur=.03)
    canvas.fill(mirrored(ellipse, xy, (.12, -.36), (.07, .12), 14.), SHADE)


def face(canvas: Canvas) -> None:
    xy = canvas.xy
    canvas.fill(mirrored(ellipse, xy, (.235, .01), (.075, .055)), PINK, .75, blur=.05)
    canvas.fill(mirrored(ellipse, xy, (.06, -.01), (.085, .07)), WHITE)
    canvas.fill(ellipse(xy, (0., -.085), (.035, .05)), WHITE)
    canvas.fill(mirrored(ellipse, xy, (.15, .15), (.058, .078)), DARK)
    for centre in (-.132, .168):
        canvas.fill(ellipse(xy, (centre, .182), (.02, .024)), WHITE)
    canvas.fill(ellipse(xy, (0., .048), (.045, .032)), ROSE)
    canvas.fill(line(xy, (0., .03), (0., -.03), .012), SHADE)
    for side in (-1., 1.):
        canvas.fill(line(xy, (0., -.03), (.05 * side, -.055), .012), SHADE)
        for end in ((.42, .05), (.44, -.02), (.41, -.09)):
            canvas.fill(line(xy, (.15 * side, -.01), (end[0] * side, end[1]), .008), DARK, .4)
