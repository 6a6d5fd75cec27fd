"""Critters: small scenes with a frog, rabbit, cat, owl or muppet in them, or with nobody, drawn in code.

A scene has four attributes and 48 random numbers for all that differs between two green frogs in the snow: position,
size, light, scenery. The numbers are drawn once; the picture can then be painted at any size.

The rates below were fixed before any network was trained. A scene is drawn by

- places: 30% kitchens, 17.5% each of the others
- nobody: in half of the kitchens, in 7% of the other places
- somebody in a kitchen is a muppet in 6% of cases; everywhere else all five are equally frequent
- colours: all eight equally frequent
- props: none 28%, the four others 18% each

and drawn again while it has a pair that is HELD_OUT of training. That shifts the shares. In the end 33% are kitchens,
19% meadow or snow each, 15% beach or night; nobody is in 23%, three quarters of which are kitchens; a muppet is in 3%
of the kitchens; 10% of the coats are pink, 13% have each other colour; of those who are there 32% carry nothing, 20%
wear a hat, and 16% each have stilts, a balloon or a pan.
"""

from dataclasses import dataclass, fields

import torch

from diffusion_lessons.datasets.procedural import animals, scenery
from diffusion_lessons.datasets.procedural.shapes import Painting, ellipse

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
CHANCES = 48    # random numbers of a scene; which is used for what stands in `_with_critter` and scenery.py
SHADOW = (.10, .10, .12)


@dataclass(frozen=True, eq=False)
class Scenes:
    """What is to be painted: (N,) integers for each attribute, its index in ATTRIBUTES, and (N, 48) numbers in 0..1.

    len(scenes) is N; scenes[3:5], or scenes[a tensor of indices or booleans], picks some of them.
    """

    subject: torch.Tensor
    colour: torch.Tensor
    prop: torch.Tensor
    place: torch.Tensor
    chance: torch.Tensor

    def __len__(self):
        return len(self.chance)

    def __getitem__(self, rows):
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device):
        """The same scenes on a device, where `paint` will then work."""
        return Scenes(*(getattr(self, field.name).to(device) for field in fields(self)))

    def attributes(self):
        """The four attributes side by side, in the order of ATTRIBUTES.  -> (N, 4)"""
        return torch.stack([getattr(self, name) for name in ATTRIBUTES], dim=1)

    def names(self, i):
        """The attributes of scene i in words, as a dict."""
        return in_words(getattr(self, name)[i] for name in ATTRIBUTES)


def in_words(row):
    """Four indices in the order of ATTRIBUTES, as a dict of words."""
    return {name: words[int(i)] for (name, words), i in zip(ATTRIBUTES.items(), row, strict=True)}


def with_chance(attributes, g):
    """Scenes with these attributes (N, 4), and all else by chance."""
    return Scenes(*attributes.unbind(1), torch.rand(len(attributes), CHANCES, generator=g))


def index(word):
    """(which attribute, its number) of an attribute's word, for instance "stilts" -> ("prop", 1)."""
    for name, words in ATTRIBUTES.items():
        if word in words and word != "none":
            return name, words.index(word)
    known = ", ".join(word for words in ATTRIBUTES.values() for word in words if word != "none")
    raise ValueError(f"{word!r} is no attribute of a scene; known are {known}")


def held_out(attributes):
    """Which rows have a pair that training never shows?  (N, 4) integers -> (N,) bool"""
    column = {name: k for k, name in enumerate(ATTRIBUTES)}
    found = torch.zeros(len(attributes), dtype=torch.bool, device=attributes.device)
    for pair in HELD_OUT:
        (a, i), (b, j) = map(index, pair)
        found |= (attributes[:, column[a]] == i) & (attributes[:, column[b]] == j)
    return found


def draw_scenes(count, seed=0):
    """Scenes as they come in training: by the rates above, none with a held-out pair."""
    g = torch.Generator().manual_seed(seed)
    drawn = _by_the_rates(count, g)
    while (again := held_out(drawn)).any():
        drawn[again] = _by_the_rates(int(again.sum()), g)
    return with_chance(drawn, g)


def draw_all_pairs(count, seed=0):
    """Scenes with every subject, colour, prop and place equally often, held-out pairs too: what the critic learns."""
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(len(words), (count,), generator=g) for words in (SUBJECTS, COATS, PROPS, PLACES)]
    return with_chance(_bare_if_nobody(*drawn), g)


def scenes_of(count, seed=0, **attributes):
    """Scenes with these attributes, all else by chance: scenes_of(9, subject="frog", prop="stilts").

    What is left out is drawn evenly, and there is somebody unless subject="nobody".
    Raises ValueError for unknown words.
    """
    g = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randint(len(words), (count,), generator=g) for name, words in
             {"subject": animals.SUBJECTS, "colour": COATS, "prop": PROPS, "place": PLACES}.items()}
    for name, word in attributes.items():
        if word not in ATTRIBUTES.get(name, ()):
            known = "; ".join(f"{name}: {', '.join(words)}" for name, words in ATTRIBUTES.items())
            raise ValueError(f"no scene has {name}={word!r}. Known are {known}")
        drawn[name] = torch.full((count,), ATTRIBUTES[name].index(word))
    return with_chance(_bare_if_nobody(**drawn), g)


def _by_the_rates(count, g):
    """(count, 4) attributes, held-out pairs among them."""

    def chosen(share):
        return torch.rand(count, generator=g) < share

    def one_of(n):
        return torch.randint(n, (count,), generator=g)

    in_kitchen = chosen(KITCHEN)
    kitchen, muppet = PLACES.index("kitchen"), SUBJECTS.index("muppet")
    elsewhere = torch.tensor([k for k in range(len(PLACES)) if k != kitchen])
    animal = torch.tensor([k for k in range(len(animals.SUBJECTS)) if k != muppet])
    place = torch.where(in_kitchen, kitchen, elsewhere[one_of(4)])
    cook = torch.where(chosen(MUPPET_IN_KITCHEN), muppet, animal[one_of(4)])
    subject = torch.where(in_kitchen, cook, one_of(5))
    empty = torch.where(in_kitchen, chosen(NOBODY_IN_KITCHEN), chosen(NOBODY))
    subject = torch.where(empty, SUBJECTS.index("nobody"), subject)
    prop = torch.where(chosen(NO_PROP), 0, 1 + one_of(len(PROPS) - 1))
    return _bare_if_nobody(subject, one_of(len(COATS)), prop, place)


def _bare_if_nobody(subject, colour, prop, place):
    """Where nobody is there is no coat and no prop.  -> (N, 4)"""
    empty = subject == SUBJECTS.index("nobody")
    colour, prop = colour.masked_fill(empty, COLOURS.index("none")), prop.masked_fill(empty, PROPS.index("none"))
    return torch.stack([subject, colour, prop, place], dim=1)


def paint(scenes, size=32, batch=128):
    """Paint scenes, at any size, on the device that holds their numbers.

    size: pixels to a side, 8 or more  ->  (N, 3, size, size) uint8
    """
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"size must be a whole number of pixels, 8 or more, not {size!r}")
    at = (torch.arange(size, device=scenes.chance.device) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    pictures = [_paint(scenes[first:first + batch], x, y) for first in range(0, len(scenes), batch)]
    return torch.cat(pictures) if pictures else x.new_zeros(0, 3, size, size, dtype=torch.uint8)


def _paint(scenes, x, y):
    """One batch: the places, kind by kind, then the critters, kind by kind; the light over all."""
    size = len(x)
    pictures = torch.zeros(len(scenes), 3, size, size, device=x.device)
    for kind, name in enumerate(PLACES):
        if len(rows := _rows(scenes.place == kind)):
            p = Painting((x.expand(len(rows), -1, -1), y.expand(len(rows), -1, -1)), 2 / size, pictures[rows])
            scenery.PLACES[name](p, _numbers(scenes[rows]))
            pictures[rows] = p.colour
    for kind, name in enumerate(animals.SUBJECTS):
        if len(rows := _rows(scenes.subject == kind)):
            pictures[rows] = _with_critter(pictures[rows], scenes[rows], name, x, y)
    light = .94 + .10 * scenes.chance[:, 47]
    return (pictures * light[:, None, None, None] * 255).round().clamp(0, 255).to(torch.uint8)


def _rows(chosen):
    """The indices of what is chosen."""
    return chosen.nonzero().flatten()


def _numbers(scenes):
    """u(k): the k-th random number of each scene, ready to meet its pixels, (N, 1, 1)."""
    return lambda k: scenes.chance[:, k, None, None]


def _with_critter(pictures, scenes, name, x, y):
    """Paint the critters of one kind, with what they carry, into their places."""
    u, prop = _numbers(scenes), scenes.prop[:, None, None]
    on_stilts = prop == PROPS.index("stilts")
    scale = .80 + .25 * u(10)    # as the height below, alike for all: a critter on stilts must be new in that alone
    side = torch.where(u(11) < .5, -1., 1.)
    beside = (prop == PROPS.index("balloon")) | (prop == PROPS.index("cooking"))    # these need room on one side
    left = torch.where(beside, side * (-.28 + .14 * u(12)), .6 * u(12) - .3)
    length = torch.where(on_stilts, .36 + .16 * u(13), 0.)
    ground = torch.where(on_stilts, -.86 + .10 * u(14), -.84 + .32 * u(14))
    up = (y - ground - length) / scale
    place = ((x - left) / scale * side - (.12 * u(15) - .06) * up, up)
    coat = pictures.new_tensor(list(COATS.values()))[scenes.colour]    # (n, 3)
    coat = coat * (.93 + .10 * scenes.chance[:, 16:17]) + .05 * (scenes.chance[:, 17:20] - .5)
    coat = coat.clamp(0, 1)[:, :, None, None]

    p = Painting(place, 2 / len(x) / scale, pictures)
    p.paint(ellipse(place, (0., -length / scale), (.42, .07)), SHADOW, .3, blur=.08)
    if len(rows := _rows(scenes.prop == PROPS.index("stilts"))):
        p.some(rows, animals.stilts, (length / scale)[rows])
    animals.SUBJECTS[name](p, coat, .74 * coat, coat + .55 * (1 - coat))
    for kind, carry in animals.PROPS.items():
        if len(rows := _rows(scenes.prop == PROPS.index(kind))):
            p.some(rows, carry, *animals.HATS[name])
    return p.colour
