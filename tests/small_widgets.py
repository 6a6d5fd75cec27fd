"""Every widget of the course, with networks and pictures so small that it is shown at once."""

import torch

from diffusion_lessons import schedules
from diffusion_lessons.classroom import (
    brush,
    denoise_slider,
    loop_player,
    prompt_lab,
    sampler_bench,
    schedule_explorer,
    walk_slider,
)
from diffusion_lessons.forward import from_x0
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.samplers import sample
from diffusion_lessons.training import recipes


def reader():
    """A small text-conditioned denoiser with random weights."""
    torch.manual_seed(0)
    text = dict(width=32, layers=1, heads=2)
    network = dict(in_channels=3, channels=(16, 32), blocks=1, text=text)
    recipe = recipes.replace(recipes.RECIPES["critters"], network=network)
    denoiser = recipes.build(recipe).eval()
    for weight in denoiser.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return denoiser


def every_widget():
    """{name: a function without arguments that makes this widget}"""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 28, 28, generator=generator) * 2 - 1
    schedule, reads = schedules.linear(100), reader()
    ideal = IdealDenoiser(x, schedule)
    loop = list(sample(ideal, torch.randn(1, 1, 28, 28, generator=generator), schedule, 20))

    def halves(x_t, t):
        """A denoiser whose result depends on every step; the ideal one ends at the same picture whatever the steps."""
        return from_x0(0.5 * x_t, x_t, t, schedule)

    walk = DigitGenerator(latent=8, width=8).eval()
    return {"schedule_explorer": lambda: schedule_explorer(x[0], lengths=(100, 20)),
            "denoise_slider": lambda: denoise_slider(x[0], ideal, schedule),
            "loop_player": lambda: loop_player(loop),
            "walk_slider": lambda: walk_slider(walk, step=90),
            "sampler_bench": lambda: sampler_bench(halves, schedule, 2, (1, 28, 28), steps=2),
            "brush": lambda: brush(halves, schedule, (1, 28, 28), steps=12),
            "prompt_lab": lambda: prompt_lab(reads, recipes.tokenizer(), steps=2)}
