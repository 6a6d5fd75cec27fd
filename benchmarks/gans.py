"""The GANs of lesson 01: healthy and ill ones, by the recipes of `recipes`.

    python benchmarks/gans.py digits          healthy, collapsed, without noise: pretrained/gan_*, some minutes each
    python benchmarks/gans.py ring            five seeds of each: pretrained/curves/gan_ring.json, a few minutes
"""

import argparse
import json
import time
from dataclasses import asdict

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, runtime, training, weights
from diffusion_lessons.datasets import load_digits, ring, toy
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.training import recipes

SEEDS, POINTS = range(5), 20_000


@torch.no_grad()
def pictures(generator, count, noise=1.0, seed=0, batch=500):
    """Pictures of a generator, the same for the same seed.  -> (count, 1, 28, 28) on the CPU"""
    z = noise * torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    device = next(generator.parameters()).device
    return torch.cat([generator(part.to(device)).cpu() for part in z.split(batch)])


def measured(generator, noise, count=10_000):
    """The figures of unconditional pictures."""
    x = pictures(generator, count, noise)
    figures = metrics.report(weights.load_model("digits_classifier"), x, None, weights.load("digits_real")[0]["test"])
    return {**figures, "mean_pairwise_distance_of_256": metrics.mean_pairwise_distance(x[:256])}


def digits(names):
    """Train the GANs of digits, and ship their generators."""
    data = load_digits("train", "mnist")
    for name in names:
        recipe, began = recipes.DIGIT_GANS[name], time.time()
        trainer = recipes.gan(recipe, data.x)
        bar = tqdm(total=trainer.steps, mininterval=20, desc=name)
        generator = training.run(trainer, callback=lambda step, bar=bar: bar.update(1))
        bar.close()
        minutes = round((time.time() - began) / 60, 1)
        figures = {"minutes": minutes, **measured(generator, recipe.noise)}
        print(name, figures, flush=True)
        card = {"kind": "generator", "network": generator.config, "data": "MNIST", "recipe": asdict(recipe), "seed": 0,
                "steps": recipe.steps, "picture": [1, 28, 28], "code_version": __version__,
                "command": f"python benchmarks/gans.py digits {name}", "figures": figures}
        weights.save(weights.FOLDER / f"gan_{name}", generator.state_dict(), card, torch.float16)


@torch.no_grad()
def on_ring(generator, count=2000):
    """Which modes a generator of points covers."""
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(0))
    return metrics.modes(generator(z.to(runtime.device())).cpu(), toy.ring_centres(), toy.RING_SIGMA)


def ring_runs():
    """Every recipe with every seed -> curves/gan_ring.json"""
    data, began, runs = ring(POINTS), time.time(), []
    for name, recipe in recipes.POINT_GANS.items():
        for seed in SEEDS:
            trainer = recipes.gan(recipe, data, seed)
            covered = [on_ring(trainer.generator).covered for step in trainer if step.step % 100 == 0]
            end = on_ring(trainer.generator)
            runs.append({"label": name, "seed": seed, "covered": end.covered, "precision": end.precision,
                         "mode_balance": end.mode_balance, "covered_every_100_steps": covered})
            print(f"{name}, seed {seed}: {end.covered} of 8 modes, {end.precision:.1%} of points on them", flush=True)
    curve = {"command": "python benchmarks/gans.py ring", "minutes": round((time.time() - began) / 60, 1),
             "points": POINTS, "code_version": __version__, "runs": runs,
             "recipes": {name: asdict(recipe) for name, recipe in recipes.POINT_GANS.items()}}
    with atomic_write(weights.FOLDER / "curves" / "gan_ring.json") as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "ring"))
    parser.add_argument("names", nargs="*", help=f"which GANs of digits: {', '.join(recipes.DIGIT_GANS)}; all if none")
    args = parser.parse_args()
    if unknown := set(args.names) - set(recipes.DIGIT_GANS):
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(recipes.DIGIT_GANS)}")
    if args.what == "ring":
        ring_runs()
    else:
        digits(args.names or recipes.DIGIT_GANS)


if __name__ == "__main__":
    main()
