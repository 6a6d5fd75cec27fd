"""Draw docs/results.png, the picture in the README: the loop at work, and what the shipped networks drew.

    python tools/results_picture.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from diffusion_lessons import generation, prompted, samplers, weights
from diffusion_lessons.guidance import Guided

OUT = Path(__file__).resolve().parent.parent / "docs" / "results.png"
SHOWN = (0, 5, 10, 15, 20, 30, 49)      # which of the 50 steps the film shows
PROMPT = "an orange owl in a top hat at the beach"


def main():
    denoiser, card = weights.load_denoiser("critters"), weights.card("critters")
    tokenizer = generation.tokenizer(card)
    guided = Guided(denoiser, tokenizer(PROMPT), card["w"])
    noise = samplers.PictureNoise(0, 1)((3, 32, 32))
    steps = list(samplers.sample(guided, noise, denoiser.schedule, clip=True))
    rows = prompted.some_of(prompted.combinations(), 40, seed=0)
    critters = prompted.drawn(denoiser, tokenizer, rows, card["w"], seed=0)
    digits = generation.draw(weights.load_denoiser("digits"), torch.arange(40) // 4, (1, 28, 28),
                             w=weights.card("digits")["w"], seed=0)

    figure = Figure(figsize=(11, 9.4), layout="constrained", dpi=110)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1.1, 0.75, 0.45))
    axes = top.subplots(2, len(SHOWN))
    for column, k in enumerate(SHOWN):
        show(axes[0, column], steps[k].x_t[0] / 2)
        show(axes[1, column], steps[k].x0_hat[0])
        axes[0, column].set_title(f"t = {steps[k].t}", fontsize=13)
    axes[0, 0].set_ylabel("what goes in", fontsize=13)
    axes[1, 0].set_ylabel("its guess", fontsize=13)
    top.suptitle(f'"{PROMPT}": from noise to a picture, guess by guess', fontsize=15)
    show(middle.subplots(), sheet(critters, 13))
    middle.suptitle("Asked for by sentences, drawn by the shipped network", fontsize=15)
    show(bottom.subplots(), sheet(digits.reshape(10, 4, 1, 28, 28).transpose(0, 1).flatten(0, 1), 20))
    bottom.suptitle("Asked for by digits", fontsize=15)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT)
    print(OUT)


def sheet(x, across):
    """Pictures in full rows.  (N, C, H, W) -> (C, h, w)"""
    x = x[:len(x) // across * across].unflatten(0, (-1, across))
    return x.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)


def show(axis, x):
    """x: (C, H, W) in [-1, 1]"""
    axis.imshow(((x.clamp(-1, 1) + 1) / 2).expand(3, -1, -1).movedim(0, -1), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    main()
