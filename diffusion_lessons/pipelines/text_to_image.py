"""From a prompt to pictures: tokenise, encode the text, run the sampling loop in batches."""

import numbers
import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_lessons import distributed, runtime, weights
from diffusion_lessons.checks import check_labels, need
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.models.text import Tokenizer, normalize
from diffusion_lessons.parameters import real_number, whole_number
from diffusion_lessons.samplers import PerSampleNoise, SamplerSettings

DEFAULT, IN_MEMORY = SamplerSettings(), 10_000


def sample_images(denoiser: Denoiser, condition: Tensor | int, shape: tuple[int, ...] | list[int],
                  **how: Any) -> Tensor:
    """Sample one picture for each label or each row of tokens; see `sample_batches`.

    ->  (N, C, H, W) float in [-1, 1] on the CPU
    """
    return torch.cat(list(sample_batches(denoiser, condition, shape, **how)))


@torch.no_grad()
def sample_batches(denoiser: Denoiser, condition: Tensor | int, shape: tuple[int, ...] | list[int], *, w: float = 1.0,
                   sampler: SamplerSettings = DEFAULT, seed: int = 0, batch: int = 100, clamp: bool = True,
                   progress: bool = False) -> Generator[Tensor, None, None]:
    """Sample one picture for each label or each row of tokens, a batch at a time, so that memory stays bounded.

    condition: (N,) labels, (N, L) tokens, or an integer N for N unconditional pictures;  shape: (C, H, W) of a picture
    w: the guidance scale;  sampler: method, number of steps, eta, and whether to clip x0_hat to [-1, 1] at every step
    clamp: also clamp the result to [-1, 1];  progress: show a bar of all steps, with the time left
    ->  (batch, C, H, W) float in [-1, 1] on the CPU, N in all. Picture i depends on (seed, i) and its condition, not on
    the batch. Several processes take turns (see `distributed`): call it in all of them, and each gets all pictures.
    Raises ValueError when the network does not know the labels or tokens, or has a different number of channels, and
    for numbers out of range (see `parameters`).
    """
    w, seed, batch = real_number("guidance", w), whole_number("seed", seed), whole_number("batch", batch)
    sampler = checked(sampler)
    if isinstance(condition, numbers.Integral):
        condition = count = whole_number("count", condition)
    else:
        condition = check_labels(condition, net=getattr(denoiser, "net", None))
        count = whole_number("count", len(condition))
    device, rank, world = next(denoiser.parameters()).device, distributed.rank(), distributed.world()
    firsts = range(0, count, batch)
    with tqdm(total=sampler.steps * -(-len(firsts) // world), desc="sampling", unit="step",
              disable=not progress or rank > 0, leave=False) as bar:
        for turn in range(0, len(firsts), world):
            first = firsts[min(turn + rank, len(firsts) - 1)]    # whoever has nothing left repeats the last batch
            noise = PerSampleNoise(seed, min(batch, count - first), first)
            guided: Any = denoiser
            if isinstance(condition, Tensor):
                guided = CFGDenoiser(denoiser, _encode(denoiser, condition[first:first + batch].to(device)), w)
            loop = sampler.loop(guided, noise(shape).to(device), denoiser.schedule, noise)
            for _ in loop:
                bar.update()
            x = loop.x_t.cpu().clamp(-1, 1) if clamp else loop.x_t.cpu()
            yield from distributed.gather(x)[:len(firsts) - turn]


def checked(sampler: SamplerSettings) -> SamplerSettings:
    """The settings with their numbers checked. Raises ValueError."""
    return replace(sampler, steps=whole_number("steps", sampler.steps), eta=real_number("eta", sampler.eta))


def _encode(denoiser, y):
    """Text is encoded once, not at every step; labels pass as they are."""
    return denoiser.net.encode_text(y) if y.ndim == 2 and hasattr(denoiser, "net") else y


def encode_prompt(model: str | Path, prompt: object) -> Tensor:
    """A prompt as a model takes it: a label for "7", tokens for a sentence.  -> () or (L,) int64

    0 for an unconditional model, whose only prompt is "".  Raises ValueError that lists what the model knows.
    """
    card = weights.card(model)
    if card.get("vocab"):
        return tokenizer(card)(str(prompt))[0]
    names, word = card.get("labels"), str(prompt).strip()
    if not names and not word and card.get("kind") == "denoiser":
        return torch.tensor(0)
    if not names:
        raise ValueError(f'{model} is unconditional, so it takes no prompt but ""; try critters, digits or cifar')
    exact, folded = list(map(str, names)), list(map(normalize, names))
    if word in exact:
        return torch.tensor(exact.index(word))
    if normalize(word) in folded:    # in upper or lower case
        return torch.tensor(folded.index(normalize(word)))
    raise ValueError(f"{model} does not know {str(prompt)!r}; it knows {', '.join(exact)}")


def tokenizer(card: dict) -> Tokenizer:
    """The tokenizer that a model was trained with, from its card."""
    return Tokenizer(card["vocab"], card["network"]["text"]["length"] - 2)


def default_model(prompt: object) -> str:
    """The shipped model for a prompt: "digits" for a single digit, "critters" for everything else."""
    return "digits" if re.fullmatch(r"\s*[0-9]\s*", str(prompt)) else "critters"


def generate(prompt: object, *, count: int = 4, **how: Any) -> Tensor:
    """Pictures of a prompt as a tensor; `diffusion_lessons.generate` returns them as images; see `generate_batches`.

    count: up to 10,000, as all are held in memory  -> (count, C, H, W) float in [-1, 1]
    """
    count = whole_number("count", count, 1, IN_MEMORY)
    return torch.cat(list(generate_batches(prompt, count=count, **how)))


def generate_batches(prompt: object, *, model: str | Path | None = None, count: int = 4, seed: int = 0,
                     w: float | None = None, sampler: SamplerSettings = DEFAULT, batch: int = 100,
                     progress: bool = False) -> Generator[Tensor, None, None]:
    """Pictures of a prompt, a batch at a time. What is wrong is said at the call, before anything is sampled.

    w: the guidance scale, the one on the model's card if left out;  the rest as in `sample_batches`
    -> (batch, C, H, W) float in [-1, 1], `count` in all
    """
    count, seed, batch = (whole_number(name, value) for name, value in
                          (("count", count), ("seed", seed), ("batch", batch)))
    sampler, model = checked(sampler), model or default_model(prompt)
    card, condition = weights.card(model), encode_prompt(model, prompt)
    (shape,) = need(card, model, "picture")
    w = need(card, model, "w")[0] if w is None else real_number("guidance", w)
    denoiser = weights.load_model(model, runtime.device())
    conditions = condition.expand(count, *condition.shape) if card.get("vocab") or card.get("labels") else count
    return sample_batches(denoiser, conditions, shape, w=w, sampler=sampler, seed=seed, batch=batch, progress=progress)
