"""diffusion-lessons evaluate: how good the pictures of a model are, or given ones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lessons.cli.options import add_sampling, batch_size, file_name, sampler

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "measure how good pictures are"
DESCRIPTION = "Measure how good pictures are, by the course's one protocol for each data set."
EXAMPLES = """examples:
  figures to compare runs by
    {prog} evaluate digits --count 1000
  the full protocol, at another guidance scale
    {prog} evaluate digits --count 10000 --w 3
  do critters follow their prompts? printed as JSON
    {prog} evaluate critters --count 1000
  any pictures: x (N, 28, 28) uint8 and y (N,) labels
    {prog} evaluate --npz mine.npz
  a network of your own pictures, beside them; printed as JSON
    {prog} evaluate outputs/photos.safetensors --data photos --count 200

accuracy  the share that a classifier reads as the label asked for
Frechet   distance between the features of these pictures and of real ones:
          0 is best, and fewer pictures give more
recall    the share of the real variety that is covered: ten perfect
          prototypes score badly here
Critters: the share of pictures with all four attributes right, and with each
one, for combinations that training showed (seen) and never showed (held_out);
--count prompts of each, and 16 pictures of up to 50 prompts for the diversity.
Your own pictures: how far samples are from the nearest training picture, and
how different from each other, as shares of what these pictures are (below 0.5:
copies); recall, in pixels; the training loss on the pictures of --data.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("model", nargs="?", default="digits",
                        help="digits, critters, or a .safetensors file of one of them (default digits)")
    add_sampling(parser, 1000, 50_000, "ddpm for digits, ddim for critters", "25 for digits, 50 for critters")
    parser.add_argument("--npz", type=file_name(".npz"), metavar="FILE", help="measure these pictures, generate none")
    parser.add_argument("--data", type=Path, metavar="PATH", help="the folder or .npz of your own pictures that a "
                                                                  "model learned from, or others that it has not seen")


def run(options: argparse.Namespace) -> int:
    """Print the figures: of digits in words, of all others as JSON."""
    from diffusion_lessons import weights

    if options.data:
        return run_own(options)
    if not options.npz and weights.card(options.model).get("vocab"):
        return run_critters(options)
    x, y, what = digits_to_measure(options)
    return print_digits(x, y, what)


def digits_to_measure(options: argparse.Namespace) -> tuple[Tensor, Tensor, str]:
    """The pictures of the npz, or else of the model, their labels, and what they are."""
    import torch

    from diffusion_lessons import runtime, weights
    from diffusion_lessons.checks import need
    from diffusion_lessons.evaluation import metrics
    from diffusion_lessons.pipelines import text_to_image
    from diffusion_lessons.training import recipes

    if options.npz:
        return (*read_pictures(options.npz), str(options.npz))
    card = weights.card(options.model)
    if tuple(card.get("labels") or ())[:10] != recipes.DIGITS:    # a fine-tuned network knows more
        raise ValueError(f"evaluate measures digits and critters, and {options.model} generates something else: add "
                         "--data FOLDER with the pictures to compare it with")
    shape, w = need(card, options.model, "picture", "w")
    w = w if options.w is None else options.w
    y, how = torch.arange(options.count) % 10, sampler(options, metrics.PROTOCOL)
    denoiser = weights.load_model(options.model, runtime.device())
    x = text_to_image.sample_images(denoiser, y, shape, w=w, sampler=how, seed=options.seed, batch=batch_size(),
                                    progress=True)
    return x, y, f"{options.model}, w = {w:g}, {how.method}, {how.steps} steps, seed {options.seed}"


def print_digits(x: Tensor, y: Tensor, what: str) -> int:
    """Print the figures of digits, beside those of real ones."""
    from diffusion_lessons import weights
    from diffusion_lessons.evaluation import metrics

    real, card = weights.load("digits_real")
    found = metrics.report(weights.load_model("digits_classifier"), x, y, real["test"])
    print(f"{found['count']:,} pictures: {what}")
    print(f"accuracy          {found['accuracy']:.2%}   (with 95% confidence at least {found['accuracy_lower95']:.2%})")
    print(f"Frechet distance  {found['frechet']:.3f}")
    print(f"recall            {found['recall']:.2%}")
    if as_real := card.get("figures"):
        print(f"For comparison, {as_real['count']:,} real pictures: accuracy {as_real['accuracy']:.2%}, "
              f"Frechet distance {as_real['frechet']:.3f}, recall {as_real['recall']:.2%}")
        if as_real["count"] != found["count"]:
            print("Compare distances and recalls only between equal counts.")
    return 0


def run_critters(options: argparse.Namespace) -> int:
    """Print the figures of `prompt_following.report` as JSON."""
    from diffusion_lessons import runtime, weights
    from diffusion_lessons.checks import need
    from diffusion_lessons.evaluation import prompt_following
    from diffusion_lessons.pipelines import text_to_image

    if options.count < 4:
        raise ValueError("--count must be 4 or more for critters, as recall looks at neighbours")
    card, denoiser = weights.card(options.model), weights.load_model(options.model, runtime.device())
    classifiers = weights.load_model("critters_classifier"), weights.load_model("critters_second")
    w = need(card, options.model, "w")[0] if options.w is None else options.w
    found = prompt_following.report(denoiser, text_to_image.tokenizer(card), classifiers, w, options.count,
                                    options.seed, sampler=sampler(options, prompt_following.PROTOCOL),
                                    batch=batch_size(), progress=True)
    print(json.dumps({"model": options.model, **found}, indent=2))
    return 0


def run_own(options: argparse.Namespace) -> int:
    """Print the figures of `own_pictures.report` as JSON."""
    from diffusion_lessons import weights
    from diffusion_lessons.checks import need
    from diffusion_lessons.datasets.folder import load_pictures
    from diffusion_lessons.evaluation import own_pictures
    from diffusion_lessons.samplers import SamplerSettings

    card = weights.card(options.model)
    channels, size, _ = need(card, options.model, "picture")[0]
    kind = "captions" if card.get("vocab") else "labels" if card.get("labels") else "none"
    pictures = load_pictures(options.data, size, card.get("fit", "crop"), kind, channels=channels, progress=True)
    found = own_pictures.report(options.model, pictures, options.count, w=options.w, seed=options.seed,
                                sampler=sampler(options, SamplerSettings()), batch=batch_size(), progress=True)
    print(json.dumps({"model": options.model, **found}, indent=2))
    return 0


def read_pictures(path: str | Path) -> tuple[Tensor, Tensor]:
    """x (N, 28, 28) uint8 and y (N,) labels from an npz.  -> (N, 1, 28, 28) float in [-1, 1], (N,)"""
    import numpy as np

    from diffusion_lessons.datasets import to_float
    from diffusion_lessons.datasets.files import as_pictures, problem_with_labels

    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except FileNotFoundError:
        raise
    except Exception as error:  # a truncated file shows as almost any error
        raise ValueError(f"{path} is no npz with x and y, or is damaged ({error})") from error
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise ValueError(f"{path}: x must be (N, 28, 28) uint8, not {x.shape} {x.dtype}")
    if problem := problem_with_labels(y, len(x)):
        raise ValueError(f"{path}: {problem}")
    pictures = as_pictures(x, y, str(path))
    return to_float(pictures.x), pictures.y
