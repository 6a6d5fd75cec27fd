"""Train the weights that the course ships, each by its recipe, and measure them by the protocol of `metrics`.

    python tools/make_weights.py digits          about 45 minutes on two cores
    python tools/make_weights.py cifar           some hours on two cores; --full, the large network, is for a GPU
    python tools/make_weights.py critters        two hours on two cores, ten minutes on a fast GPU (estimated)
    python tools/make_weights.py digits --steps 300 --out /tmp/try     a short try

Kill it when you like: it goes on from its checkpoint in checkpoints/.
"""

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import training, weights
from diffusion_lessons.datasets import load_cifar, to_float
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.forward import add_noise
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.training import recipes


def judged(denoiser, recipe, count, seed=0):
    """The figures of `count` digits at the recipe's w."""
    judge, real = weights.load_classifier(), weights.load("digits_real")[0]["test"]
    y = torch.arange(count) % 10
    x = text_to_image.draw(denoiser, y, (1, 28, 28), w=recipe["w"], seed=seed, progress=True, **metrics.PROTOCOL)
    return {**metrics.report(judge, x, y, real), "w": recipe["w"], **metrics.PROTOCOL}


@torch.no_grad()
def held_out_loss(denoiser, pictures, count=2000):
    """The training loss on pictures never seen: the mean squared error of v, random t, labels told."""
    device = next(denoiser.parameters()).device
    g, losses = torch.Generator().manual_seed(0), []
    for x, y in zip(pictures.x[:count].split(200), pictures.y[:count].split(200)):
        x0, t = to_float(x), torch.randint(1, denoiser.schedule.T + 1, (len(x),), generator=g)
        eps = torch.randn(x0.shape, generator=g)
        x_t = add_noise(x0, t, eps, denoiser.schedule)
        losses.append(denoiser.loss(*(z.to(device) for z in (x0, x_t, t, eps, y))).mean().item())
    return sum(losses) / len(losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=recipes.RECIPES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--w", type=float, help="guidance scale to measure and recommend")
    parser.add_argument("--count", type=int, default=10_000,
                        help="samples that the figures are computed from (of critters a tenth as many prompts)")
    parser.add_argument("--full", action="store_true", help="the large network, for a GPU")
    parser.add_argument("--out", type=Path, help="where to write the weights (default: the package's own folder)")
    args = parser.parse_args()
    if args.count < 40:
        parser.error("--count must be 40 or more")
    known = recipes.FULL if args.full else recipes.RECIPES
    if args.name not in known:
        parser.error(f"there is no large recipe for {args.name}")
    recipe = {**known[args.name], **{k: v for k in ("steps", "w") if (v := getattr(args, k)) is not None}}
    data = recipes.training_set(args.name, recipe["flip"], "mnist")
    denoiser = recipes.build(recipe, args.seed)
    trainer = recipes.trainer(recipe, denoiser, data, args.seed)
    began, bar = time.time(), tqdm(total=recipe["steps"], mininterval=20)
    checkpoint = Path("checkpoints") / f"{args.name}{'-full' * args.full}-{recipe['steps']}-{args.seed}.pt"
    average = training.run(trainer, checkpoint,
                           watch=lambda s: (bar.update(s.step - bar.n), bar.set_postfix(loss=s.loss, refresh=False)))
    average.half().float()    # the figures are those of the weights as stored
    figures = {"minutes_of_last_run": round((time.time() - began) / 60, 1)}
    if args.name == "digits":
        figures |= judged(average, recipe, args.count)
    elif args.name == "critters":
        critics = weights.load_critic("critters_critic"), weights.load_critic("critters_second")
        figures |= prompt_following.report(average, recipes.tokenizer(), critics, recipe["w"], args.count // 10,
                                           progress=True)
    else:
        figures["held_out_loss"] = held_out_loss(average, load_cifar("test"))
    print(f"\n{figures}")
    command = (f"python tools/make_weights.py {args.name} --steps {recipe['steps']} --seed {args.seed} "
               f"--w {recipe['w']:g} --count {args.count}{' --full' * args.full}")
    card = recipes.card(average, recipe, data, args.seed, figures=figures, command=command)
    weights.save(args.out or weights.FOLDER / args.name, average.state_dict(), card, torch.float16)


if __name__ == "__main__":
    main()
