"""The captions of critters: varied, seldom complete, and sometimes wrong.

The probabilities below were fixed before any network was trained:

- 12% of the captions name the wrong subject; for an empty scene they invent a critter, its colour and its prop
- of the others, one in five captions of a critter does not say which critter it is
- the colour is mentioned in 75%, the prop (if there is one) in 90%, the place in 85%; a caption that
  would mention nothing at all mentions the place
- one in five captions that name a critter is in the plural ("owls in top hats"), whatever the picture shows
- no caption contains a held-out pair, alone or together with its picture: a wrong subject that would is sampled again

So a caption may omit anything, but only the subject is ever wrong, or everything invented about an empty scene.
`diffusion-lessons captions` measures this on the captions of the training set, with P(attribute | caption).
"""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from diffusion_lessons.datasets.critters import ATTRIBUTES, COATS, HELD_OUT, NO_PROP, PROPS, SUBJECTS, Scenes

Option = TypeVar("Option")

LEFT_OUT, WRONG, COLOUR, PROP, PLACE, PLURAL, PLACE_FIRST = 0.20, 0.12, 0.75, 0.90, 0.85, 0.20, 0.15
LONGEST = 16    # words in a caption
CRITTERS = SUBJECTS[:-1]

NAMES = {    # singular and plural
    "frog": [("frog", "frogs"), ("frog", "frogs"), ("frog", "frogs"), ("toad", "toads")],
    "rabbit": [("rabbit", "rabbits"), ("rabbit", "rabbits"), ("rabbit", "rabbits"), ("bunny", "bunnies")],
    "cat": [("cat", "cats"), ("cat", "cats"), ("cat", "cats"), ("kitten", "kittens")],
    "owl": [("owl", "owls")],
    "muppet": [("muppet", "muppets"), ("muppet", "muppets"), ("muppet", "muppets"), ("puppet", "puppets")],
}  # fmt: skip
UNNAMED = ["someone {colour}", "somebody {colour}", "a {colour} creature", "a {colour} animal", ""]
WITH_PROP = {
    "stilts": ["on stilts", "on stilts", "walking on stilts", "standing on tall stilts"],
    "hat": ["in a top hat", "wearing a top hat", "with a top hat", "in a hat"],
    "balloon": ["with a balloon", "holding a balloon", "with a big balloon", "carrying a balloon"],
    "cooking": ["cooking", "cooking an egg", "frying an egg", "with a frying pan"],
}
HATS = ["in top hats", "wearing top hats", "with top hats", "in hats"]    # the only prop with its own plural
AT_PLACE = {
    "meadow": ["in the meadow", "in a meadow", "on the grass", "in the hills"],
    "kitchen": ["in the kitchen", "in a kitchen", "in the kitchen", "by the stove"],
    "beach": ["at the beach", "on the beach", "by the sea", "on the sand"],
    "snow": ["in the snow", "in the snow", "on a snowy day", "in winter"],
    "night": ["at night", "at night", "under the stars", "in the moonlight"],
}
EMPTY = {    # empty scenes
    "meadow": ["a meadow", "an empty meadow", "the meadow on a sunny day", "nobody in the meadow"],
    "kitchen": ["a kitchen", "an empty kitchen", "the kitchen with a window", "nobody in the kitchen"],
    "beach": ["a beach", "an empty beach", "the beach on a sunny day", "nobody at the beach"],
    "snow": ["snow", "a snowy day", "empty snow", "nobody in the snow"],
    "night": ["the night sky", "a starry night", "an empty night", "nobody at night"],
}
KEYWORDS = {    # words that identify a prop or a place
    "stilts": "stilts", "hat": "hat hats", "balloon": "balloon", "cooking": "cooking frying egg pan",
    "meadow": "meadow grass hills", "kitchen": "kitchen stove", "beach": "beach sea sand",
    "snow": "snow snowy winter", "night": "night starry stars moonlight",
}  # fmt: skip
OPENINGS = ["", "", "", "", "", "a picture of", "a photo of", "look at"]


class Caption(NamedTuple):
    """A caption, and the attributes it mentions, for instance {"subject": "frog", "place": "snow"}."""

    text: str
    mentions: dict[str, str]


class Choices(Protocol):
    """How a caption is varied: what `phrase` needs to know at each point where there is a choice."""

    def chance(self, p: float) -> bool: ...

    def one_of(self, options: Sequence[Option]) -> Option: ...


class RandomChoices:
    """Random choices in plain Python: the same for the same seed, on every version."""

    def __init__(self, seed: int):
        self.random = random.Random(seed).random

    def chance(self, p: float) -> bool:
        return self.random() < p

    def one_of(self, options: Sequence[Option]) -> Option:
        return options[int(self.random() * len(options))]


class FirstChoices:
    """No randomness: always the first option, and never anything unusual."""

    def chance(self, p: float) -> bool:
        return False

    def one_of(self, options: Sequence[Option]) -> Option:
        return options[0]


def phrase(attributes: dict[str, str], choices: Choices | None = None) -> str:
    """An English caption for a dict of attributes.

        phrase({"subject": "frog", "colour": "green", "prop": "stilts", "place": "snow"})
        'a green frog on stilts in the snow'

    choices: RandomChoices to vary the wording; the plainest wording if left out
    Raises ValueError for an empty scene without a place.
    """
    choices = choices or FirstChoices()
    name, colour, prop, place = (attributes.get(key) for key in ATTRIBUTES)
    if name == "nobody":
        if place is None:
            raise ValueError('an empty scene has nothing but a place to describe: add "place"')
        return choices.one_of(EMPTY[place])
    plural = name is not None and choices.chance(PLURAL)
    if name is None:
        who = choices.one_of(UNNAMED[:4] if colour else UNNAMED).format(colour=colour or "")
    elif plural:
        who = f"{colour or ''} {choices.one_of(NAMES[name])[1]}"
    else:
        who = f"a {colour or ''} {choices.one_of(NAMES[name])[0]}"
    carries = ""
    if prop is not None and prop != "none":
        carries = choices.one_of(HATS if plural and prop == "hat" else WITH_PROP[prop])
    where = choices.one_of(AT_PLACE[place]) if place else ""
    if where and choices.chance(PLACE_FIRST):
        return join(where, who, carries)
    return join(choices.one_of(OPENINGS) if who else "", who, carries, where)


def join(*parts: str) -> str:
    """The parts in one line, with single spaces between them, and "an" where it is needed."""
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(" ".join(parts).split()))


def sample_captions(scenes: Scenes, seed: int = 0) -> list[Caption]:
    """One caption for each scene."""
    choices = RandomChoices(seed)
    return [sample_caption(scenes.names(i), choices) for i in range(len(scenes))]


def sample_caption(names: dict[str, str], choices: Choices) -> Caption:
    """One caption for a scene, given its attributes by name."""
    wrong = choices.chance(WRONG)
    described = misdescribe(names, choices) if wrong else names
    if described["subject"] == "nobody":
        mentions = {"subject": "nobody", "place": described["place"]}
        return Caption(phrase(mentions, choices), mentions)
    included = {
        "subject": wrong or not choices.chance(LEFT_OUT),
        "colour": choices.chance(COLOUR),
        "prop": choices.chance(PROP) and described["prop"] != "none",
        "place": choices.chance(PLACE),
    }
    included["place"] |= not any(included.values())
    mentions = {name: described[name] for name, include in included.items() if include}
    return Caption(phrase(mentions, choices), mentions)


def misdescribe(names: dict[str, str], choices: Choices) -> dict[str, str]:
    """The scene as a careless writer describes it: another subject; for an empty scene, a colour and a prop too."""
    while True:
        described = {**names, "subject": choices.one_of([name for name in CRITTERS if name != names["subject"]])}
        if names["subject"] == "nobody":
            described["colour"] = choices.one_of(list(COATS))
            described["prop"] = "none" if choices.chance(NO_PROP) else choices.one_of(PROPS[1:])
        if not any(set(pair) <= set(described.values()) for pair in HELD_OUT):
            return described


def keywords() -> dict[str, tuple[str, str]]:
    """The words that identify an attribute.  -> {word: (attribute, value)}"""
    table = {colour: ("colour", colour) for colour in COATS}
    for name, forms in NAMES.items():
        table |= dict.fromkeys(itertools.chain(*forms), ("subject", name))
    table |= dict.fromkeys(("nobody", "empty"), ("subject", "nobody"))
    for name, words in KEYWORDS.items():
        table |= dict.fromkeys(words.split(), ("prop" if name in PROPS else "place", name))
    return table


def parse_caption(text: str) -> dict[str, str]:
    """The attributes that a caption mentions; the inverse of `phrase`.

    parse_caption("toads on stilts") == {"subject": "frog", "prop": "stilts"};  "a kitchen" means an empty one
    """
    table, words = keywords(), re.findall(r"\w+", text.lower())
    empty = " ".join(words) in itertools.chain(*EMPTY.values())
    return {**({"subject": "nobody"} if empty else {}), **dict(table[word] for word in words if word in table)}


def vocabulary() -> tuple[str, ...]:
    """Every word that can occur in a caption, in alphabetical order."""
    texts = [*UNNAMED, *HATS, *OPENINGS, *COATS]
    for table in (WITH_PROP, AT_PLACE, EMPTY):
        texts += [text for forms in table.values() for text in forms]
    texts += [word for forms in NAMES.values() for pair in forms for word in pair]
    return tuple(sorted({"an", *" ".join(texts).replace("{colour}", "").split()}))


VOCAB = vocabulary()


def report(scenes: Scenes, captions: Sequence[Caption]) -> dict:
    """How reliable are the captions? Counted, not computed from the probabilities.

    -> a dict: "mentioned": the share of captions that mention each attribute;  "correct": how often they are right;
    "subjects": for each subject mentioned, the shares of the subjects that are really there
    """
    names = [scenes.names(i) for i in range(len(scenes))]
    pairs = list(zip(captions, names, strict=True))
    mentioned, correct, subjects = {}, {}, {}
    for attribute in ATTRIBUTES:
        right = [caption.mentions[attribute] == name[attribute] for caption, name in pairs
                 if attribute in caption.mentions]
        mentioned[attribute] = len(right) / len(pairs)
        correct[attribute] = sum(right) / max(1, len(right))
    for subject in SUBJECTS:
        subjects[subject] = shares(name["subject"] for caption, name in pairs
                                   if caption.mentions.get("subject") == subject)
    return {"captions": len(pairs), "mentioned": mentioned, "correct": correct, "subjects": subjects}


def attributes_given(scenes: Scenes, captions: Sequence[Caption],
                     mentions: dict[str, str]) -> tuple[int, dict[str, dict[str, float]]]:
    """P(attribute | caption), over all scenes whose caption mentions exactly these attributes.

    mentions: as in Caption.mentions  ->  (the number of such captions, {attribute: {value: share}})
    """
    rows = [scenes.names(i) for i, caption in enumerate(captions) if caption.mentions == mentions]
    return len(rows), {attribute: shares(names[attribute] for names in rows) for attribute in ATTRIBUTES}


def shares(values: Iterable[str]) -> dict[str, float]:
    """The share of each value, the most frequent first."""
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}
