"""Training on your own pictures: the network and the recipe that suit them, from nothing or from trained weights."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lessons import runtime, weights
from diffusion_lessons.checks import need
from diffusion_lessons.datasets.folder import OwnPictures, some
from diffusion_lessons.datasets.labeled_images import LabeledImages
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.text import Tokenizer
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.training import recipes
from diffusion_lessons.training.recipes import Recipe

FEW = 500                # pictures; a network learns fewer by heart long before it can draw new ones
STEPS, FINE_STEPS = 8_000, 100    # of training from nothing, and from trained weights
MINUTES = 20             # the longest training that is proposed
LONGEST = 40             # words of a caption; what follows is cut off
TINY: Mapping[str, Any] = dict(channels=(32, 64), blocks=1, patch=1)  # for pictures of up to 16x16 on a CPU
SMALL: Mapping[str, Any] = dict(channels=(48, 96, 160), blocks=1)     # for a CPU: that of the photos
LARGE: Mapping[str, Any] = dict(channels=(96, 192, 288), blocks=2)    # for a GPU
TEXT = dict(width=128, layers=2, heads=4)
GUIDANCE = {"labels": 1.5, "captions": 3.0, "none": 1.0}


class Start(NamedTuple):
    """What a training on own pictures begins with.

    texts: the label or caption of each picture;  digest: differs where pictures, texts or network do
    """

    recipe: Recipe
    model: Denoiser
    data: LabeledImages
    texts: list[str]
    digest: str


def words_of(text: str) -> list[str]:
    """The words of a caption as the tokenizer splits it, in lower case."""
    return Tokenizer(()).tokenize(text)


def largest_size(device: torch.device | None = None) -> int:
    """The side of a picture that this machine can learn in minutes."""
    return 32 if (device or runtime.device()).type == "cpu" else 64


def recipe_for(pictures: OwnPictures) -> Recipe:
    """The recipe for these pictures on this machine.  Raises ValueError when captions hold no words."""
    large, (_, channels, size, _) = runtime.device().type == "cuda", pictures.x.shape
    network = dict(LARGE if large else SMALL if size > 16 else TINY, in_channels=channels)
    if size % 8:
        network["channels"] = network["channels"][:2]    # halved once less
    elif size > 32 and size % 16 == 0:
        network["patch"] = 4                             # 64x64 costs no more than 32x32
    labels = tuple(sorted(set(pictures.texts))) if pictures.kind == "labels" else None
    vocab, longest = None, LONGEST
    if pictures.kind == "captions":
        network["text"] = TEXT
        captions = [words_of(text) for text in pictures.texts]
        vocab = tuple(sorted({word for words in captions for word in words[:LONGEST]}))
        longest = max(1, min(LONGEST, max(map(len, captions))))
        if not vocab:
            raise ValueError("there is no word in any of the captions: choose --condition none to train without them")
    lr, batch = (6e-4, 128) if large else (1.5e-3, 32) if size > 16 else (2e-3, 16)
    return Recipe("own", network, labels, w=GUIDANCE[pictures.kind], steps=STEPS, lr=lr, batch=batch, vocab=vocab,
                  longest=longest)


def encode_texts(texts: Sequence[str], labels: Sequence[str] | None, vocab: Sequence[str] | None,
                 longest: int) -> Tensor | None:
    """Labels or captions as a network takes them; unknown words, and those after `longest`, are left out.

    -> (N,) labels, (N, longest + 2) tokens, or None for an unconditional network.  Raises ValueError for other labels.
    """
    if vocab:
        known = set(vocab)
        return Tokenizer(vocab, longest)([" ".join([word for word in words_of(text) if word in known][:longest])
                                          for text in texts])
    if not labels:
        return None
    index = {name: k for k, name in enumerate(labels)}
    if unknown := sorted(set(texts) - index.keys()):
        raise ValueError(f"the model has no label {some(unknown, 5)}; it knows {some(list(index), 20)}")
    return torch.tensor([index[text] for text in texts])


def encode_for(card: Mapping[str, Any], texts: Sequence[str]) -> Tensor | None:
    """The same, by the card of a trained network."""
    longest = card["network"]["text"]["length"] - 2 if card.get("vocab") else LONGEST
    return encode_texts(texts, card.get("labels"), card.get("vocab"), longest)


def begin(pictures: OwnPictures, init_from: str | Path | None = None, flip: bool = False, seed: int = 0) -> Start:
    """Recipe, network and data for a training on these pictures.

    init_from: shipped weights by name, or a .safetensors file, whose network goes on learning with room for new words
    flip: also train on the mirrored pictures.  Raises ValueError when the pictures and the weights do not fit together.
    """
    torch.manual_seed(seed)
    if init_from is None:
        recipe = recipes.replace(recipe_for(pictures), seed=seed, flip=flip)
        model = recipes.build(recipe)
    else:
        recipe, model = fine_tuning(pictures, init_from)
        recipe = recipes.replace(recipe, seed=seed, flip=flip)
        pictures = named(pictures, recipe)
    y = encode_texts(pictures.texts, recipe.labels, recipe.vocab, recipe.longest)
    data = recipes.with_mirrored(LabeledImages(pictures.x, torch.zeros(len(pictures.x)).long() if y is None else y,
                                               pictures.source), flip)
    content = hashlib.sha256(data.y.numpy().tobytes())
    for part in data.x.split(1000):    # a large set stays where it is, on the disk
        content.update(part.contiguous().numpy())
    content.update(repr((recipe.labels, recipe.vocab, model.net.config)).encode())
    content.update(str(weights.card(init_from).get("sha256") if init_from else "").encode())
    return Start(recipe, model, data, pictures.texts, content.hexdigest()[:8])


def describe(pictures: OwnPictures, fit: str = "crop") -> str:
    """What there is to learn from, how it was cut, and what to mind: a few lines for whoever trains on it."""
    count, channels, size, _ = pictures.x.shape
    what = "without labels or captions"
    if pictures.kind == "labels":
        classes = Counter(pictures.texts).most_common()
        what = f"of {len(classes)} classes: " + some([f"{name} ({number})" for name, number in classes], 8)
    elif pictures.kind == "captions":
        what = f'with captions such as "{next(filter(None, pictures.texts))[:60]}"'
    cut = ("scaled to its shorter side, and the middle kept (pad keeps all of it)" if fit == "crop" else
           "scaled to its longer side, on white (crop keeps the middle alone)")
    lines = [f"{count:,} pictures {what}", f"each {size}x{size} pixels, {'grey' if channels == 1 else 'colour'}: {cut}"]
    lines += [f"note: {note}" for note in pictures.notes]
    if count < FEW:
        lines.append(f"warning: only {count} pictures: the network will learn them by heart rather than draw new ones. "
                     f"It gets better with {FEW} or more; flip doubles them, if their mirror images are as good")
    return "\n".join(lines)


def example(start: Start) -> str:
    """A prompt that the trained network will know: a label, a caption, or "" where it takes none."""
    if start.recipe.labels:
        return start.texts[-1]
    known = [words_of(text)[:start.recipe.longest] for text in start.texts] if start.recipe.vocab else []
    return " ".join(next(filter(None, known), []))


def propose(start: Start) -> tuple[int, str]:
    """The length of a training that suits this machine, from three seconds of it.  -> (steps, a sentence about it)"""
    recipe, (count, _, size, _) = start.recipe, start.data.x.shape
    speed = recipes.steps_a_second(recipe, start.model, start.data)
    steps = max(1, min(recipe.steps, int(60 * MINUTES * speed)))
    return steps, (f"proposed for this machine: {size}x{size} pixels, {steps:,} steps, about {steps / speed / 60:.1f} "
                   f"minutes; each picture is seen {steps * recipe.batch / count:,.0f} times")


# Fine-tuning

def fine_tuning(pictures: OwnPictures, init_from: str | Path) -> tuple[Recipe, Denoiser]:
    """The recipe and the network, with room for new words or labels, to go on from trained weights.

    Raises ValueError when the pictures are of another size, or have captions where the network knows labels.
    """
    card = weights.card(init_from)
    if card.get("kind") != "denoiser":
        raise ValueError(f"{init_from} is no denoiser: choose critters, digits, cifar or weights that you have trained")
    shape, w = need(card, init_from, "picture", "w")
    if list(pictures.x.shape[1:]) != shape:
        raise ValueError(f"{init_from} draws pictures of {shape}, these are {list(pictures.x.shape[1:])}")
    labels, vocab, longest, new = None, None, LONGEST, 0
    if card.get("vocab"):
        longest = card["network"]["text"]["length"] - 2
        more = {word for text in name_all(pictures) for word in words_of(text)[:longest]} - set(card["vocab"])
        vocab, new = (*card["vocab"], *sorted(more)), len(more)
    elif card.get("labels"):
        if pictures.kind == "captions":
            raise ValueError(f"{init_from} knows labels, not captions: choose --condition labels or none, or go on "
                             "from critters")
        known = tuple(map(str, card["labels"]))
        labels = (*known, *sorted(set(name_all(pictures)) - set(known)))
        new = len(labels) - len(known)
    elif pictures.kind != "none":
        raise ValueError(f"{init_from} takes no prompt, so it has no use for {pictures.kind}: add --condition none")
    model = with_room(weights.load_model(init_from), new).to(runtime.device()).requires_grad_(True)
    recipe = Recipe("own", card["network"], labels, w=w, steps=FINE_STEPS, lr=3e-4, batch=16, vocab=vocab,
                    longest=longest)
    return recipe, model


def name_all(pictures: OwnPictures) -> list[str]:
    """The texts of the pictures; where they have none, all are called by the name of their folder."""
    if pictures.kind != "none":
        return pictures.texts
    name = " ".join(words_of(Path(pictures.source).stem.replace("_", " "))) or "mine"
    return [name] * len(pictures.texts)


def named(pictures: OwnPictures, recipe: Recipe) -> OwnPictures:
    """The pictures with a text each, where the network takes one."""
    return pictures._replace(texts=name_all(pictures)) if recipe.vocab or recipe.labels else pictures


def with_room(denoiser: Denoiser, new: int) -> Denoiser:
    """The same denoiser with rows for so many new words, or new labels, after the old ones; all else is as it was.

    A new word begins with random numbers, as all words did; a new label as "no label", whose row stays the last.
    """
    if not new:
        return denoiser
    net: Any = denoiser.net
    config, state = dict(net.config), net.state_dict()
    if net.text_encoder is not None:
        config["text"] = {**config["text"], "vocab_size": config["text"]["vocab_size"] + new}
        rows = state["text_encoder.token_embedding.weight"]
        fresh = nn.init.normal_(torch.empty(new, rows.shape[1]))
        state["text_encoder.token_embedding.weight"] = torch.cat([rows, fresh.to(rows)])
    else:
        config["classes"] += new
        rows = state["class_embedding.weight"]
        state["class_embedding.weight"] = torch.cat([rows, rows[-1:].expand(new, -1)])
    larger = UNet(**config)
    larger.load_state_dict(state)
    return type(denoiser)(larger, denoiser.schedule, denoiser.prediction_type).to(memory_format=torch.channels_last)
