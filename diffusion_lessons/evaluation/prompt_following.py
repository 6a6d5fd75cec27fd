"""How well do pictures of critters follow their sentences? One protocol for every figure of lessons 05 and 06.

- Prompts name all four attributes (somebody, a colour, a prop, a place) in the words that captions use. `seen`: the
  combinations that training may show, as evenly as can be; `held_out`: those with a pair that it never shows.
- Pictures are drawn by DDIM in 50 steps, as `generate` does. All figures are of one scale w. (What the lessons draw
  live takes 16 steps, which do as well here: lesson 05 measures it.)
- The critic (`critters_critic`) reads the attributes back. It learned from all pairs, and no generator learned from it.
  `second` is what a critic of another shape and another seed says.
- Diversity: how different the pictures of one prompt are (metrics.variety), as a share of how different real scenes
  with the same attributes are.
- Recall (metrics.recall) against real scenes with the attributes that were asked for, on the pictures themselves at
  16x16: the critic's features will not do, as it has learned to forget all but the attributes.
"""

import itertools

import torch
import torch.nn.functional as F

from diffusion_lessons.datasets import captions, critters, to_float
from diffusion_lessons.datasets.critters import ATTRIBUTES, COATS, PLACES, PROPS, SUBJECTS
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.pipelines import text_to_image

PROTOCOL = {"method": "ddim", "steps": 50, "eta": 0.0}


def combinations(held_out=False):
    """The attributes of all prompts that name all four: those of training, or those it never shows.  -> (M, 4)"""
    sizes = len(SUBJECTS) - 1, len(COATS), len(PROPS) - 1, len(PLACES)
    rows = torch.tensor(list(itertools.product(*map(range, sizes)))) + torch.tensor([0, 0, 1, 0])
    return rows[critters.held_out(rows) == held_out]


def some_of(rows, count, seed):
    """`count` of the rows, each as often as the others, in random order.  (M, 4) -> (count, 4)"""
    g = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(len(rows), generator=g) for _ in range(-(-count // len(rows)))]
    return rows[torch.cat(rounds)[:count]]


def sentences(attributes, seed):
    """A prompt for every row, in varying words.  (N, 4) -> a list of N strings"""
    dice = captions.Dice(seed)
    return [captions.phrase(critters.in_words(row), dice) for row in attributes]


def truth(said: dict, count: int, seed: int) -> tuple[int, dict]:
    """Who is really there when a caption says just this and no more? Counted in `count` fresh scenes.

    said: attributes in words, as in captions.Caption.said  ->  (how many such captions, {subject: share})

    Only scenes that can have such a caption get one: captions never name a wrong place, nor a wrong colour or prop
    where somebody is. So 500,000 scenes take seconds, and the count is the same as if all had been captioned.
    """
    scenes = critters.draw_scenes(count, seed)
    could, empty = torch.ones(count, dtype=torch.bool), scenes.subject == SUBJECTS.index("nobody")
    for name in said.keys() - {"subject"}:
        fits = getattr(scenes, name) == ATTRIBUTES[name].index(said[name])
        could &= fits if name == "place" else fits | empty
    scenes = scenes[could]
    found, there = captions.given(scenes, captions.draw_captions(scenes, seed), said)
    return found, there["subject"]


def real_scenes(attributes, seed):
    """Real pictures with these attributes, all else by chance.  (N, 4) -> (N, 3, 32, 32) in [-1, 1]"""
    return to_float(critters.paint(critters.with_chance(attributes, torch.Generator().manual_seed(seed))))


def drawn(denoiser, tokenizer, attributes, w, seed, **how):
    """The pictures that a model makes of a prompt for every row.  (N, 4) -> (N, 3, 32, 32) in [-1, 1]"""
    tokens = tokenizer(sentences(attributes, seed))
    return text_to_image.draw(denoiser, tokens, (3, 32, 32), w=w, seed=seed, **{**PROTOCOL, **how})


def followed(denoiser, tokenizer, critics, rows, count, w, seed, **how):
    """How often do pictures have the attributes that were asked for?  -> (figures, attributes, pictures)"""
    attributes = some_of(rows, count, seed)
    x = drawn(denoiser, tokenizer, attributes, w, seed, **how)
    first, second = (metrics.attributes_right(critic, x, attributes) for critic in critics)
    return {"count": count, **first, "second": {name: second[name] for name in ("all", *ATTRIBUTES)}}, attributes, x


def diversity(denoiser, tokenizer, rows, prompts, each, w, seed, **how):
    """The variety of the pictures of one prompt over that of real scenes, the mean over some prompts.

    rows: (M, 4) to choose prompts from;  prompts: how many, each: pictures of each  ->  1 for as much as in the data
    """
    attributes = some_of(rows, prompts, seed).repeat_interleave(each, dim=0)
    tokens = tokenizer(sentences(attributes[::each], seed)).repeat_interleave(each, dim=0)
    x = text_to_image.draw(denoiser, tokens, (3, 32, 32), w=w, seed=seed, **{**PROTOCOL, **how})
    real = real_scenes(attributes, seed)
    shares = [metrics.variety(a) / metrics.variety(b) for a, b in zip(x.split(each), real.split(each))]
    return sum(shares) / len(shares)


def report(denoiser, tokenizer, critics, w, count=1000, seed=0, **how):
    """All figures of a model at the scale w, as a dict that can be written as JSON.

    critics: the critic and the second one;  count: prompts of each kind, more than 3;  how: see text_to_image.draw
    """
    figures = {"w": w, "seed": seed, **{**PROTOCOL, **{k: how[k] for k in PROTOCOL if k in how}}}
    figures["seen"], attributes, x = followed(denoiser, tokenizer, critics, combinations(), count, w, seed, **how)
    real, fake = (F.avg_pool2d(pictures, 2).flatten(1) for pictures in (real_scenes(attributes, seed), x))
    figures["recall"] = metrics.recall(real, fake)
    unseen = combinations(held_out=True)
    figures["held_out"], attributes, x = followed(denoiser, tokenizer, critics, unseen, count, w, seed, **how)
    frogs = (attributes[:, 0] == SUBJECTS.index("frog")) & (attributes[:, 2] == PROPS.index("stilts"))
    if frogs.any():
        figures["frogs_on_stilts"] = {"count": int(frogs.sum()),
                                      **metrics.attributes_right(critics[0], x[frogs], attributes[frogs])}
    prompts, each = max(1, min(50, count // 20)), 16
    share = diversity(denoiser, tokenizer, combinations(), prompts, each, w, seed, **how)
    figures["diversity"] = {"prompts": prompts, "pictures_each": each, "share_of_real": share}
    return figures
