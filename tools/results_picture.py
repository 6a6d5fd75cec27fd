"""Draw the README's pictures from shipped weights: docs/results.png, the loop at work and what the networks draw, and
docs/lessons.png, a strip from each lesson.

    python tools/results_picture.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from diffusion_lessons import datasets, forward, images, samplers, schedules, weights
from diffusion_lessons.evaluation import prompt_following
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.pipelines.published import load_stable_diffusion
from diffusion_lessons.samplers import PerSampleNoise

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHOWN = (0, 5, 10, 15, 20, 30, 49)      # which of the 50 steps the film shows
PROMPT, SEED = "an orange owl in a top hat at the beach", 0
HOW = dict(guidance_scale=4.0, method="dpm++")
ANIMALS = ("green frog", "pink rabbit", "orange cat", "blue owl", "red muppet", "yellow frog", "purple cat",
           "white owl", "blue rabbit")
SCENES = ("on stilts in the snow", "with a balloon in the meadow", "in a top hat at the beach", "in the kitchen",
          "with a balloon at night") * 2
SCALES = (0, 1, 2, 3, 4, 6, 8, 12, 16)


def results(pipeline):
    """Lesson 07's network at work on one prompt; what it draws of many; and digits."""
    steps = list(pipeline.sample(PROMPT, steps=50, seed=SEED, **HOW))
    rows = prompt_following.sample_rows(prompt_following.combinations(), 39, seed=0)
    critters = pipeline(prompt_following.prompts_for(rows, seed=0), seed=0, steps=20, **HOW)
    digits = text_to_image.sample_images(weights.load_model("digits"), torch.arange(40) // 4, (1, 28, 28),
                                         w=weights.card("digits")["w"], seed=0)

    figure = Figure(figsize=(11, 8.3), layout="constrained", dpi=110)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(3.75, 2.95, 1.6))
    axes = top.subplots(2, len(SHOWN))
    for column, k in enumerate(SHOWN):
        show(axes[0, column], steps[k].x_t[0, :3] / 2)
        show(axes[1, column], pipeline.decode(steps[k].x0_hat)[0])
        axes[0, column].set_title(f"t = {steps[k].t}", fontsize=13)
    axes[0, 0].set_ylabel("latents", fontsize=13)
    axes[1, 0].set_ylabel("its guess", fontsize=13)
    top.suptitle(f'"{PROMPT}": Stable Diffusion in miniature', fontsize=15)
    show(middle.subplots(), critters, 13)
    middle.suptitle("Asked for by sentences (64 x 64, lesson 07)", fontsize=15)
    show(bottom.subplots(), digits.reshape(10, 4, 1, 28, 28).transpose(0, 1).flatten(0, 1), 20)
    bottom.suptitle("Asked for by digits (28 x 28, lesson 04)", fontsize=15)
    return figure


def lessons(denoiser, tokenizer, pipeline):
    """A strip of pictures from each lesson."""
    def sampled(prompts, w, noise):
        guided = CFGDenoiser(denoiser, tokenizer(prompts), w)
        return samplers.run(samplers.sample(guided, noise, denoiser.schedule, clip=True))

    z = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        healthy, collapsed = weights.load_model("gan_healthy")(z), weights.load_model("gan_collapsed")(z[:, :4])
    strips = {"01  Of two generators, one\nmakes the same few things": torch.cat([healthy, collapsed])}

    rabbit, linear = datasets.rabbit(64)[None], schedules.linear(1000)
    times = torch.tensor([0, 20, 50, 100, 150, 200, 300, 500, 1000])
    eps = torch.randn(9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    strips["02  A rabbit becomes noise"] = forward.add_noise(rabbit.expand(9, -1, -1, -1), times, eps, linear)

    digits = weights.load_model("digits")
    outline = -torch.ones(9, 1, 28, 28)
    at = (datasets.rabbit_outline(4000) * 5 + 14).long()
    outline[:, 0, 27 - at[:, 1], at[:, 0]] = 1.0
    labels = torch.arange(1, 10)
    guided, x_T = CFGDenoiser(digits, labels), PerSampleNoise(0, 9)((1, 28, 28))
    x = samplers.run(samplers.sample(guided, x_T, digits.schedule, 20, clip=True))
    t = torch.full((9,), 700)
    x_t = forward.add_noise(x, t, PerSampleNoise(1, 9)((1, 28, 28)), digits.schedule)
    with torch.no_grad():
        guess = digits(x_t, t, labels).x0
    strips["03  The noise, taken away\nin one guess"] = torch.cat([x_t / 2, guess])
    begun = samplers.img2img(CFGDenoiser(digits, labels), outline, digits.schedule, 0.7, PerSampleNoise(14, 9), 20)
    strips["04  The outline of a rabbit,\nasked to be 1 to 9"] = samplers.run(begun)

    one = PerSampleNoise(5, 1)((3, 32, 32)).expand(9, -1, -1, -1)
    words = ("green", "red", "blue", "yellow", "purple")
    strips["05  One word changed:\nthe colour, then the animal"] = sampled(
        [f"a {word} muppet in a top hat in the snow" for word in words]
        + [f"a purple {word} in a top hat in the snow" for word in ("frog", "rabbit", "cat", "owl")], 4.0, one)
    noise = PerSampleNoise(2, 1)((3, 32, 32))
    strips["06  \"A muppet cooking\",\nw from 0 to 16"] = torch.cat(
        [sampled("a muppet cooking in the kitchen", w, noise) for w in SCALES])
    strips["07  Stable Diffusion\nin miniature"] = pipeline(
        [f"a {animal} {scene}" for animal, scene in zip(ANIMALS, SCENES)], seed=1, steps=20, **HOW)

    figure = Figure(figsize=(11, 9.7), layout="constrained", dpi=110)
    heights = [len(x) / 9 for x in strips.values()]
    for ax, (name, x) in zip(figure.subplots(len(strips), 1, height_ratios=heights), strips.items(), strict=True):
        x = F.interpolate(x.clamp(-1, 1), 128, mode="nearest")
        show(ax, x, 9, gap=6)
        ax.set_ylabel(name, fontsize=13, rotation=0, ha="right", va="center", labelpad=12)
    return figure


def show(axis, x, columns=1, gap=0):
    """x: (C, H, W), or (N, C, H, W) as full rows of pictures, in [-1, 1]"""
    x = x[:len(x) // columns * columns] if x.ndim == 4 else x[None]
    axis.imshow(images.grid([images.as_rgb(picture) for picture in x], columns, gap), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)


def main():
    denoiser, pipeline = weights.load_model("critters"), load_stable_diffusion("critters")
    tokenizer = text_to_image.tokenizer(weights.card("critters"))
    for name, figure in (("results", results(pipeline)), ("lessons", lessons(denoiser, tokenizer, pipeline))):
        figure.savefig(DOCS / f"{name}.png")
        print(DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
