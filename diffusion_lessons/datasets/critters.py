"""Critters: small scenes drawn in code, with a frog, a rabbit, a cat, an owl or a muppet in them, or with nobody.

A scene has four attributes and 48 random numbers for everything else that differs between two green frogs in the snow:
position, size, light, scenery. They are sampled once; the scene can then be rendered at any size.

The probabilities below were fixed before any network was trained:

- places: 30% kitchens, 17.5% each of the others
- nobody: in half of the kitchens, in 7% of the other places
- a critter in a kitchen is a muppet in 6% of cases; everywhere else all five are equally likely
- colours: all eight equally likely
- props: none 28%, each of the other four 18%

A scene with a pair from HELD_OUT is sampled again until it has none, which shifts the proportions. In the end 33% are
kitchens, 19% meadow and 19% snow, 15% beach and 15% night; 23% are empty, three quarters of them kitchens; a muppet is
in 3% of the kitchens; 10% of the coats are pink and 13% have each other colour; of the critters 32% carry nothing, 20%
wear a hat, and 16% each have stilts, a balloon or a pan.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diffusion_lessons.datasets.procedural import animals, scenery
from diffusion_lessons.datasets.procedural.shapes import Canvas, ellipse

SUBJECTS = (*animals.SUBJECTS, "nobody")
COATS = {
    "green": (.36, .72, .30), "red": (.86, .20, .20), "blue": (.22, .42, .88), "yellow": (.99, .84, .22),
    "purple": (.56, .32, .78), "pink": (.98, .58, .76), "orange": (.97, .54, .14), "white": (.94, .94, .95),
}  # fmt: skip
COLOURS = (*COATS, "none")
PROPS = ("none", "stilts", *animals.PROPS)
PLACES = tuple(scenery.PLACES)
ATTRIBUTES = {"subject": SUBJECTS, "colour": COLOURS, "prop": PROPS, "place": PLACES}
HELD_OUT = (("frog", "stilts"), ("owl", "cooking"), ("cat", "pink"), ("rabbit", "beach"), ("balloon", "night"))

KITCHEN, NOBODY, NOBODY_IN_KITCHEN, MUPPET_IN_KITCHEN, NO_PROP = 0.30, 0.07, 0.50, 0.06, 0.28
VARIATIONS = 48    # random numbers of a scene; `_draw_critter` and scenery.py say which one does what
SHADOW = (.10, .10, .12)


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of scenes: for each attribute (N,) indices into ATTRIBUTES, and (N, 48) random numbers in 0..1.

    len(scenes) is N; scenes[3:5], or scenes[a tensor of indices or booleans], selects some of them.
    """

    subject: Tensor
    colour: Tensor
    prop: Tensor
    place: Tensor
    variation: Tensor

    def __len__(self) -> int:
        return len(self.variation)

    def __getitem__(self, rows: slice | Tensor) -> "Scenes":
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: str | torch.device) -> "Scenes":
        """The same scenes on another device, where `render` will then run."""
        return Scenes(*(getattr(self, field.name).to(device) for field in fields(self)))

    def attributes(self) -> Tensor:
        """The four attributes side by side, in the order of ATTRIBUTES.  -> (N, 4)"""
        return torch.stack([getattr(self, name) for name in ATTRIBUTES], dim=1)

    def names(self, i: int) -> dict[str, str]:
        """The attributes of scene i by name, for instance {"subject": "frog", "colour": "green", ...}."""
        return to_names(getattr(self, name)[i] for name in ATTRIBUTES)


def to_names(row: Iterable) -> dict[str, str]:
    """The names for four indices in the order of ATTRIBUTES.  -> {"subject": "frog", "colour": "green", ...}"""
    return {name: values[int(i)] for (name, values), i in zip(ATTRIBUTES.items(), row, strict=True)}


def with_variation(attributes: Tensor, g: torch.Generator) -> Scenes:
    """Scenes with these attributes (N, 4), everything else random."""
    return Scenes(**dict(zip(ATTRIBUTES, attributes.unbind(1), strict=True)),
                  variation=torch.rand(len(attributes), VARIATIONS, generator=g))


def index(value: str) -> tuple[str, int]:
    """The attribute that a value belongs to, and its index there, for instance "stilts" -> ("prop", 1).

    Raises ValueError, with the values there are, for anything else.
    """
    for name, values in ATTRIBUTES.items():
        if value in values and value != "none":
            return name, values.index(value)
    known = ", ".join(value for values in ATTRIBUTES.values() for value in values if value != "none")
    raise ValueError(f"{value!r} is not an attribute of a scene; choose one of {known}")


def held_out(attributes: Tensor) -> Tensor:
    """Which rows have a pair that training never shows?  (N, 4) integers -> (N,) bool"""
    column = {name: k for k, name in enumerate(ATTRIBUTES)}
    rows = torch.zeros(len(attributes), dtype=torch.bool, device=attributes.device)
    for pair in HELD_OUT:
        (a, i), (b, j) = map(index, pair)
        rows |= (attributes[:, column[a]] == i) & (attributes[:, column[b]] == j)
    return rows


def sample_scenes(count: int, seed: int = 0) -> Scenes:
    """Scenes from the training distribution: by the probabilities above, none with a held-out pair."""
    g = torch.Generator().manual_seed(seed)
    attributes = _sample_attributes(count, g)
    while (again := held_out(attributes)).any():
        attributes[again] = _sample_attributes(int(again.sum()), g)
    return with_variation(attributes, g)


def sample_all_pairs(count: int, seed: int = 0) -> Scenes:
    """Scenes with all subjects, colours, props and places equally likely, held-out pairs included.

    The attribute classifiers learn from these.
    """
    g = torch.Generator().manual_seed(seed)
    columns = [torch.randint(len(values), (count,), generator=g) for values in (SUBJECTS, COATS, PROPS, PLACES)]
    return with_variation(_bare_if_nobody(*columns), g)


def scenes_with(count: int, seed: int = 0, **attributes: str) -> Scenes:
    """Scenes with these attributes, for instance scenes_with(9, subject="frog", prop="stilts").

    An attribute left out is sampled uniformly; a critter is present unless subject="nobody".
    Raises ValueError for unknown names.
    """
    g = torch.Generator().manual_seed(seed)
    sizes = {"subject": len(animals.SUBJECTS), "colour": len(COATS), "prop": len(PROPS), "place": len(PLACES)}
    columns = {name: torch.randint(size, (count,), generator=g) for name, size in sizes.items()}
    for name, value in attributes.items():
        if value not in ATTRIBUTES.get(name, ()):
            known = "; ".join(f"{name}: {', '.join(values)}" for name, values in ATTRIBUTES.items())
            raise ValueError(f"no scene has {name}={value!r}. Choose from {known}")
        columns[name] = torch.full((count,), ATTRIBUTES[name].index(value))
    return with_variation(_bare_if_nobody(**columns), g)


def _sample_attributes(count: int, g: torch.Generator) -> Tensor:
    """Attributes by the probabilities above, held-out pairs included.  -> (count, 4)"""

    def chance(p):
        return torch.rand(count, generator=g) < p

    def one_of(n):
        return torch.randint(n, (count,), generator=g)

    in_kitchen = chance(KITCHEN)
    kitchen, muppet = PLACES.index("kitchen"), SUBJECTS.index("muppet")
    elsewhere = torch.tensor([k for k in range(len(PLACES)) if k != kitchen])
    animal = torch.tensor([k for k in range(len(animals.SUBJECTS)) if k != muppet])
    place = torch.where(in_kitchen, kitchen, elsewhere[one_of(4)])
    cook = torch.where(chance(MUPPET_IN_KITCHEN), muppet, animal[one_of(4)])
    subject = torch.where(in_kitchen, cook, one_of(5))
    empty = torch.where(in_kitchen, chance(NOBODY_IN_KITCHEN), chance(NOBODY))
    subject = torch.where(empty, SUBJECTS.index("nobody"), subject)
    prop = torch.where(chance(NO_PROP), 0, 1 + one_of(len(PROPS) - 1))
    return _bare_if_nobody(subject, one_of(len(COATS)), prop, place)


def _bare_if_nobody(subject: Tensor, colour: Tensor, prop: Tensor, place: Tensor) -> Tensor:
    """An empty scene has no coat colour and no prop.  -> (N, 4)"""
    empty = subject == SUBJECTS.index("nobody")
    colour, prop = colour.masked_fill(empty, COLOURS.index("none")), prop.masked_fill(empty, PROPS.index("none"))
    return torch.stack([subject, colour, prop, place], dim=1)


def render(scenes: Scenes, size: int = 32, batch: int = 128) -> Tensor:
    """Render scenes at any size, on the device that holds them.

    size: width and height in pixels, 8 or more  ->  (N, 3, size, size) uint8
    Raises ValueError for any other size.
    """
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"size must be a whole number of pixels, 8 or more, not {size!r}")
    at = (torch.arange(size, device=scenes.variation.device) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    pictures = [_render(scenes[first:first + batch], x, y) for first in range(0, len(scenes), batch)]
    return torch.cat(pictures) if pictures else x.new_zeros(0, 3, size, size, dtype=torch.uint8)


def _render(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """One batch: the scenery, place by place; then the critters, kind by kind; then the light."""
    size = len(x)
    pictures = torch.zeros(len(scenes), 3, size, size, device=x.device)
    for kind, name in enumerate(PLACES):
        if len(rows := _rows(scenes.place == kind)):
            canvas = Canvas((x.expand(len(rows), -1, -1), y.expand(len(rows), -1, -1)), 2 / size, pictures[rows])
            scenery.PLACES[name](canvas, _numbers(scenes[rows]))
            pictures[rows] = canvas.colour
    for kind, name in enumerate(animals.SUBJECTS):
        if len(rows := _rows(scenes.subject == kind)):
            pictures[rows] = _draw_critter(pictures[rows], scenes[rows], name, x, y)
    light = .94 + .10 * scenes.variation[:, 47]
    return (pictures * light[:, None, None, None] * 255).round().clamp(0, 255).to(torch.uint8)


def _rows(mask: Tensor) -> Tensor:
    """The indices at which a mask is True."""
    return mask.nonzero().flatten()


def _numbers(scenes: Scenes) -> Callable[[int], Tensor]:
    """u(k): the k-th random number of each scene, shaped to broadcast over pixels, (N, 1, 1)."""
    return lambda k: scenes.variation[:, k, None, None]


def _draw_critter(pictures: Tensor, scenes: Scenes, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Draw the critters of one kind, with their props, into pictures of their places."""
    u, prop = _numbers(scenes), scenes.prop[:, None, None]
    on_stilts = prop == PROPS.index("stilts")
    scale = .80 + .25 * u(10)    # like `ground`, independent of the prop: nothing but the stilts may be new
    side = torch.where(u(11) < .5, -1., 1.)
    beside = (prop == PROPS.index("balloon")) | (prop == PROPS.index("cooking"))    # these need room on one side
    left = torch.where(beside, side * (-.28 + .14 * u(12)), .6 * u(12) - .3)
    length = torch.where(on_stilts, .36 + .16 * u(13), 0.)
    ground = torch.where(on_stilts, -.86 + .10 * u(14), -.84 + .32 * u(14))
    up = (y - ground - length) / scale
    xy = ((x - left) / scale * side - (.12 * u(15) - .06) * up, up)
    coat = pictures.new_tensor(list(COATS.values()))[scenes.colour]    # (n, 3)
    coat = coat * (.93 + .10 * scenes.variation[:, 16:17]) + .05 * (scenes.variation[:, 17:20] - .5)
    coat = coat.clamp(0, 1)[:, :, None, None]

    canvas = Canvas(xy, 2 / len(x) / scale, pictures)
    canvas.fill(ellipse(xy, (0., -length / scale), (.42, .07)), SHADOW, .3, blur=.08)
    if len(rows := _rows(scenes.prop == PROPS.index("stilts"))):
        canvas.apply(rows, animals.stilts, (length / scale)[rows])
    animals.SUBJECTS[name](canvas, coat, .74 * coat, coat + .55 * (1 - coat))
    for kind, carry in animals.PROPS.items():
        if len(rows := _rows(scenes.prop == PROPS.index(kind))):
            canvas.apply(rows, carry, *animals.HATS[name])
    return canvas.colour
