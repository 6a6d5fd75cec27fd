"""What people write under pictures of critters: in many ways, seldom all of it, and sometimes not true.

The rates below were fixed before any network was trained:

- 12% of the captions name the wrong subject; where nobody is they make up somebody, and what goes with it
- of the others, one in five about somebody leaves out who it is
- the colour is said in 75%, the prop (if there is one) in 90%, the place in 85%; a caption that
  would say nothing at all says the place
- one in five captions that name somebody speaks in the plural ("owls in top hats"), whatever the picture shows
- no caption makes a held-out pair, in itself or with its picture: a wrong name that would is drawn again

So a caption may keep quiet, but only the subject is ever untrue, or all of a story about nobody.
`python -m diffusion_lessons captions` counts it, with P(attribute | caption), in the captions of the training set.
"""

import itertools
import random
import re
from collections import Counter
from typing import NamedTuple

from diffusion_lessons.datasets.critters import ATTRIBUTES, COATS, HELD_OUT, NO_PROP, PROPS, SUBJECTS

LEFT_OUT, WRONG, COLOUR, PROP, PLACE, PLURAL, PLACE_FIRST = 0.20, 0.12, 0.75, 0.90, 0.85, 0.20, 0.15
LONGEST = 16    # words in a caption
SOMEBODIES = SUBJECTS[:-1]

NAMES = {    # singular and plural
    "frog": [("frog", "frogs"), ("frog", "frogs"), ("frog", "frogs"), ("toad", "toads")],
    "rabbit": [("rabbit", "rabbits"), ("rabbit", "rabbits"), ("rabbit", "rabbits"), ("bunny", "bunnies")],
    "cat": [("cat", "cats"), ("cat", "cats"), ("cat", "cats"), ("kitten", "kittens")],
    "owl": [("owl", "owls")],
    "muppet": [("muppet", "muppets"), ("muppet", "muppets"), ("muppet", "muppets"), ("puppet", "puppets")],
}  # fmt: skip
SOMEBODY = ["someone {colour}", "somebody {colour}", "a {colour} creature", "a {colour} animal", ""]
WITH_PROP = {
    "stilts": ["on stilts", "on stilts", "walking on stilts", "standing on tall stilts"],
    "hat": ["in a top hat", "wearing a top hat", "with a top hat", "in a hat"],
    "balloon": ["with a balloon", "holding a balloon", "with a big balloon", "carrying a balloon"],
    "cooking": ["cooking", "cooking an egg", "frying an egg", "with a frying pan"],
}
HATS = ["in top hats", "wearing top hats", "with top hats", "in hats"]    # the one prop with a plural of its own
AT_PLACE = {
    "meadow": ["in the meadow", "in a meadow", "on the grass", "in the hills"],
    "kitchen": ["in the kitchen", "in a kitchen", "in the kitchen", "by the stove"],
    "beach": ["at the beach", "on the beach", "by the sea", "on the sand"],
    "snow": ["in the snow", "in the snow", "on a snowy day", "in winter"],
    "night": ["at night", "at night", "under the stars", "in the moonlight"],
}
ALONE = {    # where nobody is
    "meadow": ["a meadow", "an empty meadow", "the meadow on a sunny day", "nobody in the meadow"],
    "kitchen": ["a kitchen", "an empty kitchen", "the kitchen with a window", "nobody in the kitchen"],
    "beach": ["a beach", "an empty beach", "the beach on a sunny day", "nobody at the beach"],
    "snow": ["snow", "a snowy day", "empty snow", "nobody in the snow"],
    "night": ["the night sky", "a starry night", "an empty night", "nobody at night"],
}
KEYWORDS = {    # what gives a prop or a place away
    "stilts": "stilts", "hat": "hat hats", "balloon": "balloon", "cooking": "cooking frying egg pan",
    "meadow": "meadow grass hills", "kitchen": "kitchen stove", "beach": "beach sea sand",
    "snow": "snow snowy winter", "night": "night starry stars moonlight",
}  # fmt: skip
OPENINGS = ["", "", "", "", "", "a picture of", "a photo of", "look at"]


class Caption(NamedTuple):
    """A caption, and what it says: a dict of attributes in words, for instance {"subject": "frog", "place": "snow"}."""

    text: str
    said: dict


class Dice:
    """Random choices in plain Python, the same for the same seed on every version."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def chance(self, share):
        return self.random() < share

    def one_of(self, words):
        return words[int(self.random() * len(words))]


class First:
    """No chance at all: the first of every choice, and nothing unusual."""

    def chance(self, share):
        return False

    def one_of(self, words):
        return words[0]


def phrase(said, dice=None):
    """English for a dict of attributes.  -> a string

        phrase({"subject": "frog", "colour": "green", "prop": "stilts", "place": "snow"})
        'a green frog on stilts in the snow'

    dice: a Dice to choose among the ways of saying it; the plainest one if left out
    """
    dice = dice or First()
    name, colour, prop, place = (said.get(key) for key in ATTRIBUTES)
    if name == "nobody":
        if place is None:
            raise ValueError("where nobody is, only the place is left to speak of: name one")
        return dice.one_of(ALONE[place])
    plural = name is not None and dice.chance(PLURAL)
    if name is None:
        who = dice.one_of(SOMEBODY[:4] if colour else SOMEBODY).format(colour=colour or "")
    elif plural:
        who = f"{colour or ''} {dice.one_of(NAMES[name])[1]}"
    else:
        who = f"a {colour or ''} {dice.one_of(NAMES[name])[0]}"
    carries = "" if prop in (None, "none") else dice.one_of(HATS if plural and prop == "hat" else WITH_PROP[prop])
    where = dice.one_of(AT_PLACE[place]) if place else ""
    if where and dice.chance(PLACE_FIRST):
        return sentence(where, who, carries)
    return sentence(dice.one_of(OPENINGS) if who else "", who, carries, where)


def sentence(*parts):
    """The parts in one line, single spaces between, and "an" where it belongs."""
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(" ".join(parts).split()))


def draw_captions(scenes, seed=0):
    """One caption for every scene.  -> a list of Caption"""
    dice = Dice(seed)
    return [draw_caption(scenes.names(i), dice) for i in range(len(scenes))]


def draw_caption(names, dice):
    """One caption for a scene, given its attributes in words.  -> Caption"""
    wrong = dice.chance(WRONG)
    told = somebody_else(names, dice) if wrong else names
    if told["subject"] == "nobody":
        said = {"subject": "nobody", "place": told["place"]}
        return Caption(phrase(said, dice), said)
    said = {
        "subject": wrong or not dice.chance(LEFT_OUT),
        "colour": dice.chance(COLOUR),
        "prop": dice.chance(PROP) and told["prop"] != "none",
        "place": dice.chance(PLACE),
    }
    said["place"] |= not any(said.values())
    said = {name: told[name] for name, say in said.items() if say}
    return Caption(phrase(said, dice), said)


def somebody_else(names, dice):
    """The scene as a careless writer tells it: another subject, and where nobody is, a coat and a prop as well."""
    while True:
        told = {**names, "subject": dice.one_of([name for name in SOMEBODIES if name != names["subject"]])}
        if names["subject"] == "nobody":
            told["colour"] = dice.one_of(list(COATS))
            told["prop"] = "none" if dice.chance(NO_PROP) else dice.one_of(PROPS[1:])
        if not any(set(pair) <= set(told.values()) for pair in HELD_OUT):
            return told


def keywords():
    """Which words give an attribute away.  -> {word: (attribute, value)}"""
    found = {colour: ("colour", colour) for colour in COATS}
    for name, forms in NAMES.items():
        found |= dict.fromkeys(itertools.chain(*forms), ("subject", name))
    found |= dict.fromkeys(("nobody", "empty"), ("subject", "nobody"))
    for name, words in KEYWORDS.items():
        found |= dict.fromkeys(words.split(), ("prop" if name in PROPS else "place", name))
    return found


def understood(text):
    """What a caption says, as a dict of attributes; the inverse of `phrase`.

    understood("toads on stilts") == {"subject": "frog", "prop": "stilts"};  "a kitchen" says that nobody is there
    """
    known, words = keywords(), re.findall(r"\w+", text.lower())
    alone = " ".join(words) in itertools.chain(*ALONE.values())
    return {**({"subject": "nobody"} if alone else {}), **dict(known[word] for word in words if word in known)}


def all_words():
    """Every word that a caption can have, in alphabetical order: the vocabulary."""
    texts = [*SOMEBODY, *HATS, *OPENINGS, *COATS]
    for table in (WITH_PROP, AT_PLACE, ALONE):
        texts += [text for forms in table.values() for text in forms]
    texts += [word for forms in NAMES.values() for pair in forms for word in pair]
    return tuple(sorted({"an", *" ".join(texts).replace("{colour}", "").split()}))


WORDS = all_words()


def report(scenes, captions):
    """How far can captions be trusted? Counted, not computed from the rates.

    -> a dict: "says": the share of captions that say each attribute;  "true": how often what they say is true;
    "subjects": for each name said, the shares of who is really there
    """
    names = [scenes.names(i) for i in range(len(scenes))]
    pairs = list(zip(captions, names, strict=True))
    found = {"captions": len(pairs), "says": {}, "true": {}, "subjects": {}}
    for attribute in ATTRIBUTES:
        right = [caption.said[attribute] == name[attribute] for caption, name in pairs if attribute in caption.said]
        found["says"][attribute] = len(right) / len(pairs)
        found["true"][attribute] = sum(right) / max(1, len(right))
    for said in SUBJECTS:
        there = (name["subject"] for caption, name in pairs if caption.said.get("subject") == said)
        found["subjects"][said] = shares(there)
    return found


def given(scenes, captions, said):
    """P(attribute | caption): of all scenes whose caption says just this and no more, the shares of each attribute.

    said: a dict as in Caption.said  ->  (how many such captions, {attribute: {word: share}})
    """
    rows = [scenes.names(i) for i, caption in enumerate(captions) if caption.said == said]
    return len(rows), {attribute: shares(names[attribute] for names in rows) for attribute in ATTRIBUTES}


def shares(words):
    """The share of each word, the most frequent first."""
    counted = Counter(words)
    return {word: count / counted.total() for word, count in counted.most_common()}
