"""A short training run that a test can kill: python killable_run.py CHECKPOINT OUT PAUSE

It prints the number of each step, waits PAUSE seconds after it, and writes the weights to OUT when it gets to its end.
"""

import sys
import time

import torch

from diffusion_lessons import training
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.schedules import make_schedule


def pictures(count=40, size=8):
    """Two kinds of noisy 8x8 pictures, light at the top (label 0) or at the bottom (label 1)."""
    g = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 2
    light = torch.linspace(220, 30, size)[None, :, None].expand(count, size, size)
    x = torch.where(y[:, None, None] == 0, light, light.flip(1)) + 15 * torch.randn(count, size, size, generator=g)
    return x.clamp(0, 255).round().to(torch.uint8)[:, None], y


def denoiser(init=0, T=100, target="v", **settings):
    torch.manual_seed(init)
    net = UNet(**{"channels": (8, 16), "blocks": 1, "classes": 2, "T": T, **settings})
    return Denoiser(net, make_schedule("cosine", T), target)


def trainer(steps=40, init=0, **settings):
    return training.Trainer(denoiser(init), *pictures(), **{"steps": steps, "batch": 8, **settings})


if __name__ == "__main__":
    checkpoint, out, pause = sys.argv[1:]
    run = trainer()

    def watch(step):
        print(step.step, flush=True)
        time.sleep(float(pause))

    training.run(run, checkpoint, every=2, watch=watch)
    torch.save(run.state_dict(), out)
