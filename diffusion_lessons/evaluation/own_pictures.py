"""Samples of a network that was trained on your own pictures: are they new, and as varied as the pictures?

There is no classifier for pictures that the course does not know. So the figures compare pixels, at 16x16 or fewer:

- nearest: the distance of a sample to its nearest training picture, as a share of the distance of a training picture
  to its nearest other one; both are medians. About 1 or more: new pictures. Far below 1: copies, learned by heart
- diversity: how different samples are from each other, as a share of how different the pictures are
- recall: the share of the pictures that lie close to some sample (metrics.recall)
- loss: the training loss on these pictures, the mean squared error of v
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffusion_lessons import runtime, weights
from diffusion_lessons.checks import need
from diffusion_lessons.datasets.captions import VOCAB
from diffusion_lessons.datasets.folder import OwnPictures
from diffusion_lessons.datasets.labeled_images import to_float
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.images import as_rgb, grid
from diffusion_lessons.pipelines.text_to_image import DEFAULT, sample_images
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.training import own_pictures, recipes
from diffusion_lessons.training.figures import held_out_loss

COPY, FAR = 0.5, 1.5    # shares of the pictures' own distances: nearer is called a copy, further not yet learned
OLD_PROMPTS = 40     # of a network that was fine-tuned, to see what it has forgotten
LOSSES = 400         # pictures, with repetitions, that a loss is the mean of
MOST = 5_000     # pictures that are compared with each other


def coarse(x: Tensor) -> Tensor:
    """Pictures as vectors of at most 16x16 pixels, where a shift by one pixel counts little.  -> (N, F) in [-1, 1]"""
    x = to_float(x) if x.dtype == torch.uint8 else x
    return F.adaptive_avg_pool2d(x, min(16, x.shape[-1])).flatten(1)


def nearest_ratio(x: Tensor, data: Tensor) -> float:
    """How far samples are from the nearest training picture, beside how far training pictures are from each other.

    median over samples of min_i |x - x_i|,  divided by  median over i of min_{j != i} |x_i - x_j|

    x: (N, C, S, S), data: (M, C, S, S), M >= 2, uint8 or float in [-1, 1]  ->  0 for copies, about 1 for new pictures
    """
    x, data = coarse(x), coarse(data[:MOST])
    among = torch.cat([torch.cdist(part, data).kthvalue(2, dim=1).values for part in data.split(500)])
    away = metrics.nearest_neighbours(x, data)[1] * x.shape[1] ** 0.5
    return (away.median() / among.median().clamp(min=1e-6)).item()


def verdict(ratio: float) -> str:
    """What a `nearest_ratio` means, in a sentence."""
    means = ("copies: it has learned the pictures by heart" if ratio < COPY else
             "close to the training pictures: look at the sheet" if ratio < 1 else
             "new pictures, not copies" if ratio < FAR else "unlike them all: it has not learned them yet")
    return (f"a sample lies {ratio:.2f} times as far from the nearest training picture as those do from each other: "
            f"{means}")


def nearest_sheet(x: Tensor, data: Tensor, zoom: int = 4) -> Image.Image:
    """Each sample with its nearest training picture to its right, in pairs on one sheet.

    x: (N, C, S, S), data: (M, C, S, S), uint8 or float in [-1, 1]
    """
    index, _ = metrics.nearest_neighbours(coarse(x), coarse(data))
    pairs = [grid([as_rgb(sample), as_rgb(data[k])], columns=2) for sample, k in zip(x, index.tolist(), strict=True)]
    sheet: np.ndarray = grid(pairs, gap=6, border=6)
    return Image.fromarray(sheet.repeat(zoom, 0).repeat(zoom, 1))


def samples_like(denoiser: Denoiser, card: dict[str, Any], texts: Sequence[str], count: int, *, w: float, seed: int = 0,
                 sampler: SamplerSettings = DEFAULT, batch: int = 100, progress: bool = False) -> Tensor:
    """Samples with the labels or captions of the training pictures, spread evenly over them.  -> (N, C, S, S)"""
    names = sorted(set(texts)) if card.get("labels") else list(texts)
    chosen = [names[k * max(1, len(names) // count) % len(names)] for k in range(count)]
    y = own_pictures.encode_for(card, chosen)
    return sample_images(denoiser, count if y is None else y, card["picture"], w=w, sampler=sampler, seed=seed,
                         batch=batch, progress=progress)


def report(model: str | Path, pictures: OwnPictures, count: int = 200, *, w: float | None = None, seed: int = 0,
           sampler: SamplerSettings = DEFAULT, batch: int = 100, progress: bool = False) -> dict[str, Any]:
    """The figures of a trained model beside these pictures, as a dict that JSON can hold.

    count: samples, 4 or more.  Raises ValueError when there are fewer than 2 pictures, or of labels it does not know.
    """
    card, denoiser = weights.card(model), weights.load_model(model, runtime.device())
    if len(pictures.x) < 2 or count < 4:
        raise ValueError(f"this needs 2 pictures and 4 samples, not {len(pictures.x)} and {count}")
    w = need(card, model, "w")[0] if w is None else w
    x = samples_like(denoiser, card, pictures.texts, count, w=w, seed=seed, sampler=sampler, batch=batch,
                     progress=progress)
    data = pictures.x[:MOST]
    real, fake = coarse(data), coarse(x)
    return {"count": count, "pictures": len(pictures.x), "w": w, "steps": sampler.steps, "seed": seed,
            "loss": loss(denoiser, card, pictures), "nearest": nearest_ratio(x, data),
            "recall": metrics.recall(real, fake),
            "diversity": metrics.mean_pairwise_distance(fake) / metrics.mean_pairwise_distance(real)}


def loss(denoiser: Denoiser, card: dict[str, Any], pictures: OwnPictures) -> float:
    """The training loss on these pictures, with their labels or captions, at random t."""
    return held_out_loss(denoiser, pictures.x, own_pictures.encode_for(card, pictures.texts), LOSSES)


def fine_tuning_figures(base: str | Path, trained: Denoiser, start: own_pictures.Start) -> dict[str, Any]:
    """What fine-tuning has changed: the loss on the new pictures, and how many of the old prompts are drawn as asked.

    base: the weights that it went on from. Old prompts are measured where the course has a classifier: critters, digits
    -> {"loss": (before, after)} and, if measured, {"count": of old prompts, "old_prompts": (share before, share after)}
    """
    card, before = weights.card(base), weights.load_model(base, next(trained.parameters()).device)
    x, texts, recipe = start.data.x[:len(start.texts)], start.texts, start.recipe
    known = own_pictures.encode_for(card, texts) if card.get("vocab") else None    # new labels it takes as "no label"
    y = own_pictures.encode_texts(texts, recipe.labels, recipe.vocab, recipe.longest)
    found: dict[str, Any] = {"loss": (held_out_loss(before, x, known, LOSSES), held_out_loss(trained, x, y, LOSSES))}
    if any(asked := (knows_critters(card), knows_digits(card))):
        draw = draw_critters if asked[0] else draw_digits
        shares = tuple(draw(net, card["w"], OLD_PROMPTS) for net in (before, trained))
        found |= {"count": OLD_PROMPTS, "old_prompts": shares}
    return found


def knows_critters(card: dict[str, Any]) -> bool:
    """Does the network behind this card read the critters' captions, whatever words have come after them?"""
    return tuple(card.get("vocab") or ())[:len(VOCAB)] == VOCAB and card.get("picture") == [3, 32, 32]


def knows_digits(card: dict[str, Any]) -> bool:
    """Does the network behind this card draw the ten digits, whatever labels have come after them?"""
    return tuple(card.get("labels") or ())[:10] == recipes.DIGITS and card.get("picture") == [1, 28, 28]


def draw_critters(denoiser: Denoiser, w: float, count: int) -> float:
    """The share of the critters' prompts that are drawn with all four attributes right."""
    rows = prompt_following.sample_rows(prompt_following.combinations(), count, seed=0)
    x = prompt_following.generate_images(denoiser, recipes.tokenizer(), rows, w, 0, sampler=SamplerSettings(steps=16))
    return metrics.attribute_accuracy(weights.load_model("critters_classifier"), x, rows)["all"]


def draw_digits(denoiser: Denoiser, w: float, count: int) -> float:
    """The share of digits that are read as the digit asked for."""
    y = torch.arange(count) % 10
    x = sample_images(denoiser, y, (1, 28, 28), w=w, sampler=metrics.PROTOCOL)
    return metrics.accuracy(weights.load_model("digits_classifier"), x, y)
