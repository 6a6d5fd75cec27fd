"""How few steps are enough, and with which sampler?

    python benchmarks/few_steps.py                    digits and critters: two hours on one core
    python benchmarks/few_steps.py digits --count 300     some of it, coarser

Writes docs/few_steps.md: for each sampler and number of steps the Frechet distance of the pictures from real ones, in
the features of a classifier that training never saw, and how many of them are what was asked for. All rows have the
same prompts and the same noise at t = T, so they differ in the sampler alone.
"""

import argparse
import datetime
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import weights
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.samplers import SamplerSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "few_steps.md"
METHODS, STEPS = ("ddim", "dpm++", "ddpm"), (5, 8, 10, 12, 16, 20, 25, 35, 50)
WITHIN = 1.1      # of the best Frechet distance


def digits(count):
    """(draw, real features, measure) for the digits: draw(sampler) -> pictures, measure(pictures) -> right, features"""
    denoiser, classifier = weights.load_model("digits"), weights.load_model("digits_classifier")
    y = torch.arange(count) % 10

    def draw(sampler):
        return text_to_image.sample_images(denoiser, y, (1, 28, 28), sampler=sampler)

    def measure(x):
        return metrics.accuracy(classifier, x, y), metrics.features(classifier, x)

    return draw, weights.load("digits_real")[0]["test"], measure


def critters(count):
    """The same for the critters, at the guidance scale on their card; right: all four attributes."""
    denoiser, card = weights.load_model("critters"), weights.card("critters")
    classifier, tokenizer = weights.load_model("critters_classifier"), text_to_image.tokenizer(card)
    rows = prompt_following.sample_rows(prompt_following.combinations(), count, seed=0)

    def draw(sampler):
        return prompt_following.generate_images(denoiser, tokenizer, rows, card["w"], seed=0, sampler=sampler)

    def measure(x):
        return metrics.attribute_accuracy(classifier, x, rows)["all"], metrics.features(classifier, x)

    return draw, metrics.features(classifier, prompt_following.reference_images(rows, seed=1)), measure


def points(draw, real, measure):
    """{(method, steps): (Frechet distance, share that is right, seconds a picture)}"""
    found = {}
    for key in (bar := tqdm([(method, steps) for steps in STEPS for method in METHODS])):
        began = time.process_time()
        x = draw(SamplerSettings(*key))
        seconds = (time.process_time() - began) / len(x)
        right, features = measure(x)
        found[key] = metrics.frechet_distance(features, real), right, seconds
        bar.write(f"{key[0]:6} {key[1]:3} steps: Frechet {found[key][0]:7.3f}, right {right:.1%}, {seconds:.3f} s")
    return found


def fewest(found):
    """The fewest steps whose Frechet distance is within a tenth of the best; of two samplers the better one."""
    limit = WITHIN * min(distance for distance, *_ in found.values())
    return min((key for key in found if found[key][0] <= limit), key=lambda key: (key[1], found[key][0]))


def section(name, found, count):
    """The table of one network, as Markdown."""
    method, steps = fewest(found)
    lines = [f"## {name.capitalize()}", "",
             f"{count:,} pictures a row. Fewest steps within 10% of the best: **{method}, {steps} steps**.", "",
             "| steps | " + " | ".join(f"{method}: Fréchet distance | right" for method in METHODS) + " |",
             "|---" * (1 + 2 * len(METHODS)) + "|"]
    for steps in STEPS:
        cells = (f"{found[method, steps][0]:.3g} | {found[method, steps][1]:.1%}" for method in METHODS)
        lines.append(f"| {steps} | " + " | ".join(cells) + " |")
    return lines + [""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["digits", "critters"], choices=["digits", "critters"])
    parser.add_argument("--count", type=int, default=1000, help="pictures a row, 100 or more")
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    if args.count < 100:
        parser.error("--count must be 100 or more")
    torch.set_num_threads(1)
    lines = ["# How few steps are enough", "", f"Written by `python benchmarks/few_steps.py {' '.join(args.names)} "
             f"--count {args.count}` on {datetime.date.today()}.", ""]
    for name in args.names:
        lines += section(name, points(*{"digits": digits, "critters": critters}[name](args.count)), args.count)
    with atomic_write(args.out) as scratch:
        scratch.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
