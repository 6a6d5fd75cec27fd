"""The course's rabbit, drawn from signed distances: how far a place lies outside a shape (negative: inside).

Places are x from -1 (left) to 1, y from -1 (bottom) to 1 (top); colours are red, green, blue from 0 to 1.
"""

import math

import torch

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
    picture = Painting(torch.stack([x, y], dim=-1), pixel=2 / size)
    landscape(picture)
    body(picture)
    face(picture)
    return picture.colour.movedim(-1, 0) * 2 - 1


class Painting:
    """A picture that shapes are painted onto, one over the other, with edges one pixel soft."""

    def __init__(self, place, pixel):
        self.place, self.pixel = place, pixel  # (H, W, 2)
        height = (place[..., 1:] + 1) / 2
        low, high = torch.tensor(HORIZON), torch.tensor(ZENITH)
        self.colour = low * (1 - height) + high * height  # (H, W, 3)

    def paint(self, distance, colour, opacity=1.0, blur=0.0):
        """Cover the inside of a shape; distance: (H, W)."""
        cover = opacity * (0.5 - distance / (self.pixel + blur)).clamp(0, 1)[..., None]
        self.colour = self.colour * (1 - cover) + torch.tensor(colour) * cover


def ellipse(place, centre, radii, degrees=0.0):
    """Distance to an ellipse, exact on its edge and nearly so beside it; degrees turn it anticlockwise."""
    turn = math.radians(degrees)
    x, y = (place - torch.tensor(centre)).unbind(-1)
    cos, sin = math.cos(turn), math.sin(turn)
    at = torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1)
    radii = torch.tensor(radii)
    inside = (at / radii).norm(dim=-1)  # 1 on the edge
    return inside * (inside - 1) / (at / radii**2).norm(dim=-1).clamp(min=1e-6)


def line(place, start, end, width):
    """Distance to a line with round ends."""
    start, along = torch.tensor(start), torch.tensor(end) - torch.tensor(start)
    share = ((place - start) @ along / along.dot(along)).clamp(0, 1)
    return (place - start - share[..., None] * along).norm(dim=-1) - width / 2


def melt(a, b, k=0.08):
    """Both shapes, with the corner between them filled like clay."""
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * k / 4


def mirrored(shape, place, centre, radii, degrees=0.0):
    """The shape and its image on the other side."""
    x, y = centre
    return torch.minimum(shape(place, (x, y), radii, degrees), shape(place, (-x, y), radii, -degrees))


def landscape(picture):
    place = picture.place
    x, y = place.unbind(-1)
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
    """Distance to the rabbit's outer edge, head to feet with ears and tail.  place: (..., 2) -> (...)"""
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
