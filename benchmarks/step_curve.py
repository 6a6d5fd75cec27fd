"""How good are the digits after 1000, 250, ... 2, 1 steps, and how long do they take?    (claim T6)

    python benchmarks/step_curve.py              about a quarter of an hour on one core
    python benchmarks/step_curve.py --count 300      a finer one

Writes pretrained/curves/steps.json: the command, the weights' SHA-256, and for each sampler and number of steps
the figures of all samples, and of the first 100 of them, which lesson 04 draws again and compares; seconds are of
one core, for one picture.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, weights
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.samplers import SamplerSettings

STEPS, METHODS, FIRST = (1, 2, 3, 5, 10, 20, 50, 100, 250, 1000), ("ddim", "ddpm"), 100


def figures(x, y, classifier, real):
    """Accuracy and Frechet distance of some samples."""
    return metrics.accuracy(classifier, x, y), metrics.frechet_distance(metrics.features(classifier, x), real)


def one_point(denoiser, classifier, real, count, steps, method):
    """Sample `count` digits with so many steps, and measure them."""
    y, began = torch.arange(count) % 10, time.process_time()
    x = text_to_image.sample_images(denoiser, y, (1, 28, 28), sampler=SamplerSettings(method, steps), batch=100)
    point = {"seconds": (time.process_time() - began) / count}
    point["accuracy"], point["frechet"] = figures(x, y, classifier, real)
    point["first_accuracy"], point["first_frechet"] = figures(x[:FIRST], y[:FIRST], classifier, real)
    return point


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="digits per point, at least 100")
    parser.add_argument("--out", type=Path, default=weights.FOLDER / "curves" / "steps.json")
    args = parser.parse_args()
    if args.count < FIRST:
        parser.error(f"--count must be {FIRST} or more")
    torch.set_num_threads(1)      # so that the seconds mean seconds of one core
    denoiser, classifier = weights.load_model("digits"), weights.load_model("digits_classifier")
    real, card = weights.load("digits_real")[0]["test"], weights.load("digits")[1]
    curve = {"command": f"python benchmarks/step_curve.py --count {args.count}", "weights": "digits",
             "sha256": card["sha256"], "code_version": __version__, "count": args.count, "first": FIRST,
             "seed": 0, "w": 1.0, "steps": STEPS, **{method: {} for method in METHODS}}
    for steps, method in (bar := tqdm([(steps, method) for steps in STEPS for method in METHODS])):
        point = one_point(denoiser, classifier, real, args.count, steps, method)
        for name, value in point.items():
            curve[method].setdefault(name, []).append(value)
        bar.write(f"{method}, {steps} steps: accuracy {point['accuracy']:.3f}, Frechet {point['frechet']:.2f}")
    with atomic_write(args.out) as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
