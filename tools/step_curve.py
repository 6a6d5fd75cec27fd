"""How good are the digits after 1000, 250, ... 5 steps, and how long do they take?    (claim T6)

    python tools/step_curve.py              about half an hour on one core
    python tools/step_curve.py --count 100 --out /tmp/steps.json      a short try

Writes pretrained/curves/steps.json: the command, the weights' SHA-256, and for each sampler and number of steps the
figures of all samples and of the first 100 of them, which lesson 04 draws again and compares.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, generation, metrics, weights
from diffusion_lessons.runtime import atomic_write

STEPS, METHODS, FIRST = (1000, 250, 100, 50, 20, 10, 5), ("ddim", "ddpm"), 100


def figures(x, y, judge, real):
    """Accuracy and Frechet distance of some samples."""
    return {"count": len(x), "accuracy": metrics.accuracy(judge, x, y),
            "frechet": metrics.frechet_distance(metrics.features(judge, x), real)}


def one_point(denoiser, judge, real, count, steps, method):
    """Draw `count` digits with so many steps, and judge them."""
    y, began = torch.arange(count) % 10, time.process_time()
    x = generation.draw(denoiser, y, (1, 28, 28), steps=steps, method=method, seed=0, batch=100, clip=False)
    return {"method": method, "steps": steps, "cpu_seconds_per_picture": (time.process_time() - began) / count,
            "all": figures(x, y, judge, real), "first": figures(x[:FIRST], y[:FIRST], judge, real)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="digits per point, at least 100")
    parser.add_argument("--out", type=Path, default=weights.FOLDER / "curves" / "steps.json")
    args = parser.parse_args()
    if args.count < FIRST:
        parser.error(f"--count must be {FIRST} or more")
    torch.set_num_threads(1)      # so that the seconds mean seconds of one core
    denoiser, judge = weights.load_denoiser("digits"), weights.load_classifier()
    real = weights.load("digits_real")[0]["test"]
    jobs = [(steps, method) for steps in reversed(STEPS) for method in METHODS]
    points = []
    for steps, method in (bar := tqdm(jobs)):
        points.append(one_point(denoiser, judge, real, args.count, steps, method))
        bar.write(f"{method}, {steps} steps: accuracy {points[-1]['all']['accuracy']:.3f}, "
                  f"Frechet {points[-1]['all']['frechet']:.2f}")
    curve = {"command": f"python tools/step_curve.py --count {args.count}", "weights": "digits", "w": 1.0, "seed": 0,
             "sha256": weights.load("digits")[1]["sha256"], "code_version": __version__, "points": points}
    with atomic_write(args.out) as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
