"""The GANs of lesson 01: healthy and ill ones, by the recipes of `recipes`.

    python tools/gans.py digits          healthy, collapsed, without noise: pretrained/gan_*, some minutes each
    python tools/gans.py ring            five seeds of each: pretrained/curves/gan_ring.json, about 15 minutes

Names after either choose some of the recipes; what the file of the ring holds of the others is kept.
A game on the ring goes up and down. So the figures are means over the last 500 steps, one look every 50: of the
generator as it stands at that step, and of its running average, which is the one to judge; `lowest` is the worst look.
"""

import argparse
import json
import time

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, metrics, recipes, runtime, training, weights
from diffusion_lessons.datasets import load_digits, ring, toy
from diffusion_lessons.runtime import atomic_write

SEEDS, POINTS = range(5), 20_000
LAST, EVERY = 500, 50       # the games on the ring are judged over so many steps, one look every so many


@torch.no_grad()
def pictures(generator, count, noise=1.0, seed=0, batch=500):
    """Pictures of a generator, the same for the same seed.  -> (count, 1, 28, 28) on the CPU"""
    z = noise * torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    device = next(generator.parameters()).device
    return torch.cat([generator(part.to(device)).cpu() for part in z.split(batch)])


def judged(generator, noise, count=10_000):
    """The figures of pictures that nothing was asked for."""
    x = pictures(generator, count, noise)
    figures = metrics.report(weights.load_classifier(), x, None, weights.load("digits_real")[0]["test"])
    return {**figures, "variety_of_256": metrics.variety(x[:256])}


def digits(names):
    """Train the GANs of digits, and ship their generators."""
    data = load_digits("train", "mnist")
    for name in names:
        recipe, began = recipes.DIGIT_GANS[name], time.time()
        trainer = recipes.gan(recipe, data.x)
        bar = tqdm(total=trainer.steps, mininterval=20, desc=name)
        generator = training.run(trainer, watch=lambda step, bar=bar: bar.update(1))
        bar.close()
        minutes = round((time.time() - began) / 60, 1)
        figures = {"minutes": minutes, **judged(generator, recipe.get("noise", 1.0))}
        print(name, figures, flush=True)
        card = {"kind": "generator", "network": generator.config, "data": "MNIST", "recipe": recipe, "seed": 0,
                "steps": recipe["steps"], "picture": [1, 28, 28], "code_version": __version__,
                "command": f"python tools/gans.py digits {name}", "figures": figures}
        weights.save(weights.FOLDER / f"gan_{name}", generator.state_dict(), card, torch.float16)


@torch.no_grad()
def on_ring(generator, count=2000):
    """Which modes a generator of points covers."""
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(0))
    return metrics.modes(generator(z.to(runtime.device())).cpu(), toy.ring_centres(), toy.RING_SIGMA)


def settled(looks):
    """Means over several looks at a generator, and the lowest share of points on modes among them."""
    means = {name: sum(getattr(look, name) for look in looks) / len(looks) for name in ("covered", "on_modes", "even")}
    return {**means, "lowest": min(look.on_modes for look in looks)}


def one_game(recipe, seed, data):
    """One game on the ring, and what it settles at."""
    trainer = recipes.gan(recipe, data, seed)
    looks = {"average": [], "generator": []}
    for step in trainer:
        if step.step > trainer.steps - LAST and step.step % EVERY == 0:
            for name, kept in looks.items():
                kept.append(on_ring(getattr(trainer, name)))
    return {name: settled(kept) for name, kept in looks.items()}


def ring_runs(names):
    """Every recipe of these names with every seed -> curves/gan_ring.json"""
    path, data = weights.FOLDER / "curves" / "gan_ring.json", ring(POINTS)
    before = json.loads(path.read_text()) if path.exists() else {"recipes": {}, "runs": []}
    runs = [run for run in before["runs"] if run["label"] not in names
            and before["recipes"].get(run["label"]) == recipes.POINT_GANS.get(run["label"])]
    for name in names:
        for seed in SEEDS:
            runs.append({"label": name, "seed": seed, **one_game(recipes.POINT_GANS[name], seed, data)})
            average = runs[-1]["average"]
            print(f"{name}, seed {seed}: on average {average['covered']:.1f} of 8 modes, "
                  f"{average['on_modes']:.1%} of points on them", flush=True)
    runs.sort(key=lambda run: (list(recipes.POINT_GANS).index(run["label"]), run["seed"]))
    curve = {"command": "python tools/gans.py ring", "points": POINTS, "last_steps": LAST, "every": EVERY,
             "code_version": __version__, "recipes": recipes.POINT_GANS, "runs": runs}
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "ring"))
    parser.add_argument("names", nargs="*", help="which recipes; all if none")
    args = parser.parse_args()
    known = {"digits": recipes.DIGIT_GANS, "ring": recipes.POINT_GANS}[args.what]
    if unknown := set(args.names) - set(known):
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    {"digits": digits, "ring": ring_runs}[args.what](args.names or list(known))


if __name__ == "__main__":
    main()
