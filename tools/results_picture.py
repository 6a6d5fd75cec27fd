"""Draw docs/results.png, the picture in the README: the loop at work, and digits that the shipped network drew.

    python tools/results_picture.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from diffusion_lessons import generation, samplers, weights
from diffusion_lessons.guidance import Guided

OUT = Path(__file__).resolve().parent.parent / "docs" / "results.png"
SHOWN = (0, 8, 16, 24, 32, 40, 49)      # which of the 50 steps the film shows


def main():
    denoiser, card = weights.load_denoiser("digits"), weights.load("digits")[1]
    noise = samplers.PictureNoise(3, 1)
    steps = list(samplers.sample(Guided(denoiser, torch.tensor([2]), card["w"]), noise((1, 28, 28)),
                                 denoiser.schedule, clip=True))
    digits = generation.draw(denoiser, torch.arange(100) // 10, (1, 28, 28), w=card["w"], seed=0)

    figure = Figure(figsize=(11, 6.8), layout="constrained", dpi=110)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    axes = top.subplots(2, len(SHOWN))
    for column, k in enumerate(SHOWN):
        show(axes[0, column], steps[k].x_t[0, 0], limit=2)
        show(axes[1, column], steps[k].x0_hat[0, 0])
        axes[0, column].set_title(f"t = {steps[k].t}", fontsize=13)
    axes[0, 0].set_ylabel("what goes in", fontsize=13)
    axes[1, 0].set_ylabel("its guess", fontsize=13)
    top.suptitle('From noise to a "2": the network guesses the picture, again and again', fontsize=15)
    axis = bottom.subplots()
    sheet = digits[:, 0].reshape(10, 5, 2, 28, 28).permute(1, 3, 0, 2, 4)         # 5 down, 10 x 2 across
    show(axis, sheet.reshape(5 * 28, 20 * 28))
    bottom.suptitle("Ten of each digit, all drawn by the shipped network", fontsize=15)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT)
    print(OUT)


def show(axis, x, limit=1):
    axis.imshow(x, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    main()
