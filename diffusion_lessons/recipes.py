"""The recipes by which the course's networks are trained: which data, which network, how long."""

from pathlib import Path

import torch

from diffusion_lessons import __version__, runtime, schedules, weights
from diffusion_lessons.datasets import cifar, digits
from diffusion_lessons.models.denoiser import Denoiser
from diffusion_lessons.models.unet import UNet

DIGITS = [str(d) for d in range(10)]
PHOTOS = [name.lower() for name in cifar.CLASSES]

# w: the guidance scale to sample with;  flip: also learn from the mirrored pictures, which are as good
RECIPES = {
    "digits": dict(
        labels=DIGITS, network=dict(in_channels=1, channels=(48, 96), blocks=1), w=1.3,
        steps=10_000, batch=64, lr=2e-3, flip=False,
    ),
    "cifar": dict(
        labels=PHOTOS, network=dict(in_channels=3, channels=(48, 96, 160), blocks=1), w=1.5,
        steps=12_000, batch=64, lr=1.5e-3, flip=True,
    ),
}  # fmt: skip
# The large networks, for a GPU.
FULL = {
    "cifar": dict(
        labels=PHOTOS, network=dict(in_channels=3, channels=(128, 256, 384), blocks=2), w=1.5,
        steps=60_000, batch=256, lr=6e-4, flip=True,
    ),
}  # fmt: skip


def training_set(name, flip=False, source="auto"):
    """The training pictures of a recipe, mirrored ones included where the recipe says so.

    source: for digits, "auto", "mnist" or "drawn" (see load_digits)
    """
    data = digits.load_digits("train", source) if name == "digits" else cifar.load_cifar("train")
    if flip:
        data = data._replace(x=torch.cat([data.x, data.x.flip(-1)]), y=data.y.repeat(2))
    return data


def build(recipe, seed=0):
    """An untrained denoiser by the recipe, the same for the same seed."""
    torch.manual_seed(seed)
    net = UNet(classes=len(recipe["labels"]), **recipe["network"])
    return Denoiser(net, schedules.cosine(1000), "v").to(runtime.device())


def card(denoiser, recipe, data, seed, **about):
    """The card to save a trained denoiser with (see `weights.save`)."""
    return weights.denoiser_card(
        denoiser, data=Path(data.source).name, steps=recipe["steps"], batch=recipe["batch"], lr=recipe["lr"], seed=seed,
        w=recipe["w"], picture=list(data.x.shape[1:]), labels=recipe["labels"], code_version=__version__,
        device=str(next(denoiser.parameters()).device), **about,
    )  # fmt: skip
