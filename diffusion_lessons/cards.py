"""What the card of a network may say: the type and range of every field that something is built from.

A card is a file from anywhere. `blocks: 1000000` must not cost minutes, nor `channels: [20000, 20000]` all the memory.
"""

from pathlib import Path
from typing import Any

from diffusion_lessons.parameters import RANGES, real_number, shown, whole_number

WHOLE = {    # the arguments of networks: from, to
    "in_channels": (1, 64), "blocks": (1, 32), "classes": (1, 100_000), "patch": (1, 16), "T": (1, 100_000),
    "width": (1, 8192), "latent": (1, 10_000), "vocab_size": (3, 100_000), "length": (2, 1000), "layers": (0, 48),
    "heads": (1, 256),
}  # fmt: skip
FLAGS = ("time_conditioned", "attention", "norm")
NAMES = ("kind", "class", "prediction_type", "data", "command", "code_version", "device", "note", "sha256")
LONGEST = 100_000    # labels or words
KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


def check_card(card: Any, path: str | Path) -> None:
    """Raise ValueError, which says what is wrong, unless this can be the card of weights of this course."""
    try:
        if not isinstance(card, dict):
            raise ValueError(f"the card must be an object, not {shown(card)}")
        for name in NAMES:
            if not isinstance(card.get(name, ""), str):
                raise ValueError(f"{name} must be a string, not {shown(card[name])}")
        if card.get("network") is not None:
            check_network(card["network"])
        if card.get("schedule") is not None:
            schedule = require(card["schedule"], "schedule", dict)
            require(schedule.get("name"), "the name of the schedule", str)
            whole_number("T", schedule.get("T"), *WHOLE["T"])
        if card.get("w") is not None:
            real_number("w", card["w"], *RANGES["guidance"])
        check_pictures_and_words(card)
    except ValueError as error:
        raise ValueError(f"{path} is not weights of this course, or its card is damaged: {error}") from error


def check_network(network: Any) -> None:
    """The arguments of a network, by name."""
    for name, value in require(network, "network", dict).items():
        if name == "text" and value is not None:
            check_network(value)
        elif name == "channels":
            if not 1 <= len(require(value, "channels", list)) <= 8:
                raise ValueError(f"channels must be 1 to 8 numbers, not {len(value)}")
            for width in value:
                whole_number("channels", width, *WHOLE["width"])
        elif name in FLAGS:
            require(value, name, bool)
        elif name in WHOLE:
            if value is not None:
                whole_number(name, value, *WHOLE[name])
        elif value is not None:
            raise ValueError(f"no network has {shown(name)}")


def check_pictures_and_words(card: dict[str, Any]) -> None:
    """The size of a picture, the names of the classes and the vocabulary, and whether the network has as many."""
    network = card.get("network") or {}
    if card.get("picture") is not None:
        if len(require(card["picture"], "picture", list)) != 3:
            raise ValueError(f"picture must be channels, height and width, not {shown(card['picture'])}")
        for name, value, high in zip(("channels", "height", "width"), card["picture"], (64, 512, 512), strict=True):
            whole_number(f"the {name} of the picture", value, 1, high)
    for key in ("labels", "vocab"):
        if card.get(key) is not None:
            words = require(card[key], key, list)
            if len(words) > LONGEST or not all(isinstance(word, str | int) for word in words):
                raise ValueError(f"{key} must be up to {LONGEST:,} words, not {shown(words)}")
    if card.get("labels") and network.get("classes") not in (None, len(card["labels"])):
        raise ValueError(f"there are {len(card['labels'])} labels for {network['classes']} classes")
    if card.get("vocab") and network:
        text = require(network.get("text"), "the text of the network", dict)
        size, length = (whole_number(name, text.get(name), *WHOLE[name]) for name in ("vocab_size", "length"))
        if size != len(card["vocab"]) + 3 or length < 3:    # three special tokens
            raise ValueError(f"there are {len(card['vocab'])} words for {size} tokens, {length} in a sentence")


def require(value: Any, name: str, kind: type) -> Any:
    """The value, if it is of this kind. Raises ValueError."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {KINDS[kind]}, not {shown(value)}")
    return value

