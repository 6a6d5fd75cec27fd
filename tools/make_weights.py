"""Train the weights that the course ships, each by a written recipe, and measure them by the protocol of `metrics`.

    python tools/make_weights.py digits          about 40 minutes on two cores
    python tools/make_weights.py cifar           some hours on two cores, minutes on a GPU with --full
    python tools/make_weights.py digits --steps 300 --out /tmp/try     a short try

Kill it when you like: it goes on from its checkpoint in checkpoints/.
"""

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, generation, metrics, runtime, schedules, training, weights
from diffusion_lessons.datasets import cifar, digits
from diffusion_lessons.models.denoiser import Denoiser
from diffusion_lessons.models.unet import UNet

CIFAR = dict(load=cifar.load_cifar, labels=[name.lower() for name in cifar.CLASSES], flip=True)
RECIPES = {
    "digits": dict(load=lambda split: digits.load_digits(split, source="mnist"), labels=[str(d) for d in range(10)],
                   network=dict(in_channels=1, channels=(48, 96), blocks=1), w=1.0, steps=30_000, batch=64, lr=2e-3),
    "cifar": dict(**CIFAR, network=dict(in_channels=3, channels=(48, 96, 160), blocks=1), w=1.5,
                  steps=12_000, batch=64, lr=1.5e-3),
}
FULL = {"cifar": dict(**CIFAR, network=dict(in_channels=3, channels=(128, 256, 384), blocks=2), w=1.5,
                      steps=60_000, batch=256, lr=6e-4)}


def build(recipe, seed=0):
    """An untrained denoiser by the recipe, the same for the same seed."""
    torch.manual_seed(seed)
    net = UNet(classes=len(recipe["labels"]), **recipe["network"])
    return Denoiser(net, schedules.cosine(1000), "v").to(runtime.device())


def judged(denoiser, recipe, count, seed=0):
    """The figures of `count` digits at the recipe's w."""
    judge, real = weights.load_classifier(), weights.load("digits_real")[0]["test"]
    y = torch.arange(count) % 10
    x = generation.draw(denoiser, y, (1, 28, 28), w=recipe["w"], seed=seed, progress=True)
    return metrics.report(judge, x, y, real)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--w", type=float, help="guidance scale to measure and recommend")
    parser.add_argument("--count", type=int, default=10_000, help="samples that the figures are computed from")
    parser.add_argument("--full", action="store_true", help="the large network, for a GPU")
    parser.add_argument("--out", type=Path, help="where to write the weights (default: the package's own folder)")
    args = parser.parse_args()
    recipe = {**(FULL if args.full else RECIPES)[args.name]}
    recipe.update({k: v for k in ("steps", "w") if (v := getattr(args, k)) is not None})
    data = recipe["load"]("train")
    if recipe.get("flip"):     # a mirrored photo is as good a photo
        data = data._replace(x=torch.cat([data.x, data.x.flip(-1)]), y=data.y.repeat(2))
    denoiser = build(recipe, args.seed)
    trainer = training.Trainer(denoiser, data.x, data.y, seed=args.seed,
                               **{k: recipe[k] for k in ("steps", "batch", "lr")})
    began, bar = time.time(), tqdm(total=recipe["steps"], mininterval=20)
    checkpoint = Path("checkpoints") / f"{args.name}{'-full' * args.full}-{recipe['steps']}-{args.seed}.pt"
    average = training.run(trainer, checkpoint, watch=lambda s: (bar.update(s.step - bar.n), bar.set_postfix(loss=s.loss)))
    minutes = (time.time() - began) / 60
    figures = {"minutes_of_last_run": round(minutes, 1)}
    if args.name == "digits":
        figures |= judged(average, recipe, args.count)
    print(figures)
    command = f"python tools/make_weights.py {args.name} --steps {recipe['steps']} --seed {args.seed} --w {recipe['w']:g}"
    card = weights.denoiser_card(
        average, data=data.source, steps=recipe["steps"], batch=recipe["batch"], lr=recipe["lr"], seed=args.seed,
        figures=figures, w=recipe["w"], picture=list(data.x.shape[1:]), labels=recipe["labels"], code_version=__version__,
        device=str(trainer.device), command=command + " --full" * args.full)
    weights.save(args.out or weights.FOLDER / args.name, average.state_dict(), card, torch.float16)


if __name__ == "__main__":
    main()
