"""How well do pictures of critters match their prompts? One protocol for all figures of lessons 05 and 06.

- Prompts mention all four attributes (a critter, its colour, a prop, a place) in the words of the captions. `seen`: the
  combinations that training may show, as evenly as possible; `held_out`: those with a pair that training never shows.
- Pictures are sampled by DDIM in 50 steps, as `generate` does, all at the same guidance scale w. (The lessons sample
  live in 16 steps, which is just as good here: lesson 05 measures it.)
- The classifier (`critters_classifier`) predicts the attributes of each picture. It learned from all pairs, and no
  generator learned from it. `second` is what a classifier with another architecture and another seed predicts.
- Diversity: how different the pictures of one prompt are (metrics.mean_pairwise_distance), as a share of how different
  real scenes with the same attributes are.
- Recall (metrics.recall) against real scenes with the attributes in the prompts, on the pictures themselves at 16x16:
  the classifier's features will not do, because it has learned to ignore everything but the attributes.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lessons.datasets import captions, critters, to_float
from diffusion_lessons.datasets.critters import ATTRIBUTES, COATS, PLACES, PROPS, SUBJECTS
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.classifiers import AttributeClassifier
from diffusion_lessons.models.text import Tokenizer
from diffusion_lessons.pipelines.text_to_image import sample_images
from diffusion_lessons.samplers import SamplerSettings

PROTOCOL = SamplerSettings("ddim", steps=50)
SHAPE = (3, 32, 32)


def combinations(held_out: bool = False) -> Tensor:
    """The attributes of all prompts that mention all four: those of training, or the held-out ones.  -> (M, 4)"""
    sizes = len(SUBJECTS) - 1, len(COATS), len(PROPS) - 1, len(PLACES)
    rows = torch.tensor(list(itertools.product(*map(range, sizes)))) + torch.tensor([0, 0, 1, 0])
    return rows[critters.held_out(rows) == held_out]


def sample_rows(rows: Tensor, count: int, seed: int) -> Tensor:
    """`count` of the rows in random order, each equally often as far as possible.  (M, 4) -> (count, 4)"""
    g = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(len(rows), generator=g) for _ in range(-(-count // len(rows)))]
    return rows[torch.cat(rounds)[:count]]


def prompts_for(attributes: Tensor, seed: int) -> list[str]:
    """A prompt for each row, in varying words.  (N, 4) -> N prompts"""
    choices = captions.RandomChoices(seed)
    return [captions.phrase(critters.to_names(row), choices) for row in attributes]


def subject_shares(mentions: dict[str, str], count: int, seed: int) -> tuple[int, dict[str, float]]:
    """P(subject | caption) for captions with exactly these attributes, counted in `count` new scenes.

    mentions: as in captions.Caption.mentions  ->  (the number of such captions, {subject: share})

    Only scenes that can have such a caption get one: captions never mention a wrong place, and never a wrong colour or
    prop of a critter that is there. So 500,000 scenes take seconds, and the result is that of captioning all of them.
    """
    scenes = critters.sample_scenes(count, seed)
    possible, empty = torch.ones(count, dtype=torch.bool), scenes.subject == SUBJECTS.index("nobody")
    for name in mentions.keys() - {"subject"}:
        right = getattr(scenes, name) == ATTRIBUTES[name].index(mentions[name])
        possible &= right if name == "place" else right | empty
    scenes = scenes[possible]
    number, shares = captions.attributes_given(scenes, captions.sample_captions(scenes, seed), mentions)
    return number, shares["subject"]


def reference_images(attributes: Tensor, seed: int) -> Tensor:
    """Real scenes with these attributes, everything else random.  (N, 4) -> (N, 3, 32, 32) in [-1, 1]"""
    return to_float(critters.render(critters.with_variation(attributes, torch.Generator().manual_seed(seed))))


def generate_images(denoiser: Denoiser, tokenizer: Tokenizer, attributes: Tensor, w: float, seed: int, *,
                    sampler: SamplerSettings = PROTOCOL, batch: int = 100, progress: bool = False) -> Tensor:
    """A model's pictures of one prompt for each row.  (N, 4) -> (N, 3, 32, 32) in [-1, 1]"""
    tokens = tokenizer(prompts_for(attributes, seed))
    return sample_images(denoiser, tokens, SHAPE, w=w, sampler=sampler, seed=seed, batch=batch, progress=progress)


def evaluate_prompts(denoiser: Denoiser, tokenizer: Tokenizer, classifiers: Sequence[AttributeClassifier], rows: Tensor,
                     count: int, w: float, seed: int, *, sampler: SamplerSettings = PROTOCOL, batch: int = 100,
                     progress: bool = False) -> tuple[dict, Tensor, Tensor]:
    """How often do pictures have the attributes in their prompts?  -> (figures, attributes, pictures)"""
    attributes = sample_rows(rows, count, seed)
    x = generate_images(denoiser, tokenizer, attributes, w, seed, sampler=sampler, batch=batch, progress=progress)
    first, second = (metrics.attribute_accuracy(classifier, x, attributes) for classifier in classifiers)
    return {"count": count, **first, "second": {name: second[name] for name in ("all", *ATTRIBUTES)}}, attributes, x


def diversity(denoiser: Denoiser, tokenizer: Tokenizer, rows: Tensor, prompts: int, each: int, w: float, seed: int, *,
              sampler: SamplerSettings = PROTOCOL, batch: int = 100, progress: bool = False) -> float:
    """How different the pictures of one prompt are, as a share of how different real scenes are; averaged over prompts.

    rows: (M, 4) to choose prompts from;  prompts: how many, each: pictures of each  ->  1 if as diverse as the data
    """
    attributes = sample_rows(rows, prompts, seed).repeat_interleave(each, dim=0)
    tokens = tokenizer(prompts_for(attributes[::each], seed)).repeat_interleave(each, dim=0)
    x = sample_images(denoiser, tokens, SHAPE, w=w, sampler=sampler, seed=seed, batch=batch, progress=progress)
    pairs = zip(x.split(each), reference_images(attributes, seed).split(each), strict=True)
    shares = [metrics.mean_pairwise_distance(a) / metrics.mean_pairwise_distance(b) for a, b in pairs]
    return sum(shares) / len(shares)


def report(denoiser: Denoiser, tokenizer: Tokenizer, classifiers: Sequence[AttributeClassifier], w: float,
           count: int = 1000, seed: int = 0, *, sampler: SamplerSettings = PROTOCOL, batch: int = 100,
           progress: bool = False) -> dict:
    """All figures of a model at the guidance scale w, as a dict that JSON can hold.

    classifiers: the classifier and the second one;  count: prompts of each kind, more than 3
    """
    how: dict[str, Any] = dict(sampler=sampler, batch=batch, progress=progress)
    figures: dict[str, Any] = {"w": w, "seed": seed, **dataclasses.asdict(sampler)}
    figures["seen"], attributes, x = evaluate_prompts(denoiser, tokenizer, classifiers, combinations(), count, w, seed,
                                                      **how)
    real, fake = (F.avg_pool2d(pictures, 2).flatten(1) for pictures in (reference_images(attributes, seed), x))
    figures["recall"] = metrics.recall(real, fake)
    unseen = combinations(held_out=True)
    figures["held_out"], attributes, x = evaluate_prompts(denoiser, tokenizer, classifiers, unseen, count, w, seed,
                                                          **how)
    frogs = (attributes[:, 0] == SUBJECTS.index("frog")) & (attributes[:, 2] == PROPS.index("stilts"))
    if frogs.any():
        figures["frogs_on_stilts"] = {"count": int(frogs.sum()),
                                      **metrics.attribute_accuracy(classifiers[0], x[frogs], attributes[frogs])}
    prompts, each = max(1, min(50, count // 20)), 16
    share = diversity(denoiser, tokenizer, combinations(), prompts, each, w, seed, **how)
    figures["diversity"] = {"prompts": prompts, "pictures_each": each, "share_of_real": share}
    return figures
