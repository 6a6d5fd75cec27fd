"""Every widget of the course, with networks and pictures so small that it is shown at once."""

import torch

from diffusion_lessons import schedules
from diffusion_lessons.classroom import (
    brush,
    denoise_slider,
    latent_lab,
    loop_player,
    prompt_lab,
    sampler_bench,
    schedule_explorer,
    walk_slider,
)
from diffusion_lessons.forward import from_x0
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.models.gan import DigitGenerator
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import Tokenizer
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.pipelines.latent import LatentPipeline
from diffusion_lessons.samplers import sample
from diffusion_lessons.training import recipes
from diffusion_lessons.training.latent import SCHEDULER_CONFIG, UNET_CONFIG, VAE_CONFIG, text_config


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


def latent_pipeline():
    """A Stable Diffusion with random weights, small enough to draw at once."""
    torch.manual_seed(0)
    tokenizer = Tokenizer([], length=24)
    text = TextEncoder(**{**text_config(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                          "num_attention_heads": 1, "max_position_embeddings": 24})
    unet = UNet(**{**UNET_CONFIG, "block_out_channels": [8, 8, 8], "attention_head_dim": 1, "cross_attention_dim": 16})
    vae = VAE(**{**VAE_CONFIG, "block_out_channels": [8, 8, 8], "scaling_factor": 0.5})
    return LatentPipeline(tokenizer, text.eval(), unet.eval(), vae.eval(), Scheduler.from_config(SCHEDULER_CONFIG))


def every_widget():
    """{name: a function without arguments that makes this widget}"""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 28, 28, generator=generator) * 2 - 1
    schedule, reads, latents = schedules.linear(100), reader(), latent_pipeline()
    ideal = IdealDenoiser(x, schedule)
    loop = list(sample(ideal, torch.randn(1, 1, 28, 28, generator=generator), schedule, 20))

    def halves(x_t, t):
        """A denoiser whose result depends on every step; the ideal one ends at the same picture whatever the steps."""
        return from_x0(0.5 * x_t, x_t, t, schedule)

    walk = DigitGenerator(latent=8, width=8).eval()
    return {"schedule_explorer": lambda: schedule_explorer(x[0], lengths=(100, 20)),
            "denoise_slider": lambda: denoise_slider(x[0], ideal, schedule),
            "latent_lab": lambda: latent_lab(latents, "a frog", steps=2),
            "loop_player": lambda: loop_player(loop),
            "walk_slider": lambda: walk_slider(walk, step=90),
            "sampler_bench": lambda: sampler_bench(halves, schedule, 2, (1, 28, 28), steps=2),
            "brush": lambda: brush(halves, schedule, (1, 28, 28), steps=12),
            "prompt_lab": lambda: prompt_lab(reads, recipes.tokenizer(), steps=2)}
