"""The recipes by which the course's networks are trained: which data, which network, how long."""

from pathlib import Path

import torch

from diffusion_lessons import __version__, runtime, schedules, weights
from diffusion_lessons.datasets import captions, cifar, critters, digits
from diffusion_lessons.datasets.labeled_images import Pictures
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.gan import DigitDiscriminator, DigitGenerator, PointDiscriminator, PointGenerator
from diffusion_lessons.models.text import Tokenizer
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.training.diffusion import Trainer
from diffusion_lessons.training.gan import GanTrainer

DIGITS = [str(d) for d in range(10)]
PHOTOS = [name.lower() for name in cifar.CLASSES]

# w: the guidance scale to sample with;  flip: also learn from the mirrored pictures, which are as good
# labels: what can be asked for by name;  None: sentences can, and the network has a text encoder
# drop_label: the share of labels or captions that training hides
RECIPES = {
    "digits": dict(
        labels=DIGITS, network=dict(in_channels=1, channels=(48, 96), blocks=1), w=1.3,
        steps=10_000, batch=64, lr=2e-3, flip=False,
    ),
    "cifar": dict(
        labels=PHOTOS, network=dict(in_channels=3, channels=(48, 96, 160), blocks=1), w=1.5,
        steps=28_000, batch=64, lr=1.5e-3, flip=True,
    ),
    "critters": dict(
        labels=None, w=4.0, steps=18_600, batch=64, lr=1.2e-3, flip=False, drop_label=0.15,
        network=dict(in_channels=3, channels=(64, 144), blocks=2, attention=False,
                     text=dict(width=128, layers=2, heads=4)),
    ),
}  # fmt: skip
SCENES, SCENES_SEED = 200_000, 1    # the critters of the training set
# The large networks, for a GPU.
FULL = {
    "cifar": dict(
        labels=PHOTOS, network=dict(in_channels=3, channels=(128, 256, 384), blocks=2), w=1.5,
        steps=60_000, batch=256, lr=6e-4, flip=True,
    ),
}  # fmt: skip

# GANs, healthy and ill: the size of the noise and what D is shown (models.gan), the game (gan.GanTrainer)
# The generator of a single step stumbles now and then, even in a healthy game, and when it does hangs on rounding. So
# judge `trainer.average`, and by the mean over many of the last steps.
HEALTHY_POINTS = dict(latent=16, statistics=False, steps=3000, batch=256, lr_g=2e-3, lr_d=2e-3, beta1=0.5, r1=1.0)
COLLAPSED_POINTS = {**HEALTHY_POINTS, "r1": 0.0}
POINT_GANS = {
    "healthy": HEALTHY_POINTS,
    "collapsed": COLLAPSED_POINTS,
    "learning rates / 4": {**COLLAPSED_POINTS, "lr_g": 5e-4, "lr_d": 5e-4},
    "D slower (/ 10)": {**COLLAPSED_POINTS, "lr_d": 2e-4},
    "momentum 0.9": {**COLLAPSED_POINTS, "beta1": 0.9},
    "noise of 2 numbers": {**COLLAPSED_POINTS, "latent": 2},
    "statistics": {**COLLAPSED_POINTS, "statistics": True},
}
HEALTHY_DIGITS = dict(latent=64, statistics=True, steps=3000, batch=64, lr_g=5e-3, lr_d=1e-3, beta1=0.5, r1=0.3)
DIGIT_GANS = {
    "healthy": HEALTHY_DIGITS,
    # all that protects it taken away: the penalty, the statistics, the normalisation, most of the noise; found by
    # trial, and stopped where it had collapsed
    "collapsed": {**HEALTHY_DIGITS, "steps": 450, "lr_g": 1e-3, "r1": 0.0, "statistics": False, "norm": False,
                  "latent": 4, "ema": 0.9},
    "no_noise": {**HEALTHY_DIGITS, "steps": 500, "statistics": False, "noise": 0.0, "ema": 0.9},
}


def training_set(name, flip=False, source="auto"):
    """The training pictures of a recipe, mirrored ones included where the recipe says so.

    source: for digits, "auto", "mnist" or "drawn" (see load_digits)
    """
    if name == "critters":
        return captioned_critters()
    data = digits.load_digits("train", source) if name == "digits" else cifar.load_cifar("train")
    if flip:
        data = data._replace(x=torch.cat([data.x, data.x.flip(-1)]), y=data.y.repeat(2))
    return data


def captioned_critters():
    """Critters with the tokens of their captions as y (N, L)."""
    count, seed = SCENES, SCENES_SEED
    scenes = critters.draw_scenes(count, seed)
    tokens = tokenizer()([caption.text for caption in captions.draw_captions(scenes, seed)])
    return Pictures(critters.paint(scenes), tokens, f"critters: {count:,} captioned scenes drawn in code, seed {seed}")


def tokenizer():
    """The tokeniser of critters' captions."""
    return Tokenizer(captions.WORDS, captions.LONGEST)


def build(recipe, seed=0):
    """An untrained denoiser by the recipe, the same for the same seed."""
    torch.manual_seed(seed)
    network = dict(recipe["network"])
    if recipe["labels"] is None:
        network["text"] = dict(vocabulary=len(captions.WORDS), length=tokenizer().length, **network["text"])
    else:
        network["classes"] = len(recipe["labels"])
    net = UNet(**network)
    return Denoiser(net, schedules.cosine(1000), "v").to(runtime.device())


def trainer(recipe, denoiser, data, seed=0):
    """The Trainer of a denoiser by the recipe."""
    settings = {name: recipe[name] for name in ("steps", "batch", "lr", "drop_label") if name in recipe}
    return Trainer(denoiser, data.x, data.y, seed=seed, **settings)


def gan(recipe, x, seed=0):
    """The trainer of a GAN by the recipe, for points (N, 2) or digits (N, 1, 28, 28): the same for the same seed."""
    if x.ndim != 2 and x.shape[1:] != (1, 28, 28):
        raise ValueError(f"these GANs learn points (N, 2) or digits (N, 1, 28, 28), not {tuple(x.shape)}")
    torch.manual_seed(seed)
    recipe = dict(recipe)
    latent, statistics, norm = recipe.pop("latent"), recipe.pop("statistics"), recipe.pop("norm", True)
    if x.ndim == 2:
        players = PointGenerator(latent), PointDiscriminator(statistics=statistics)
    else:
        players = DigitGenerator(latent, norm=norm), DigitDiscriminator(statistics=statistics)
    return GanTrainer(*(player.to(runtime.device()) for player in players), x, seed=seed, **recipe)


def card(denoiser, recipe, data, seed, **about):
    """The card to save a trained denoiser with (see `weights.save`)."""
    if recipe["labels"] is None:
        about |= {"words": list(captions.WORDS), "drop_label": recipe["drop_label"]}
    return weights.denoiser_card(
        denoiser, data=Path(data.source).name, steps=recipe["steps"], batch=recipe["batch"], lr=recipe["lr"], seed=seed,
        w=recipe["w"], picture=list(data.x.shape[1:]), labels=recipe["labels"], code_version=__version__,
        device=str(next(denoiser.parameters()).device), **about,
    )  # fmt: skip
