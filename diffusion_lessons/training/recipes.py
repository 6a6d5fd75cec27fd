"""The recipes by which the course's networks are trained: which data, which network, how long."""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffusion_lessons import __version__, distributed, runtime, schedules, weights
from diffusion_lessons.datasets import captions, cifar, critters, digits
from diffusion_lessons.datasets.labeled_images import LabeledImages
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.models.gan import DigitDiscriminator, DigitGenerator, PointDiscriminator, PointGenerator
from diffusion_lessons.models.text import Tokenizer
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.training.classifier import ClassifierTrainer, fresh_critters, shifted_digits
from diffusion_lessons.training.diffusion import Trainer
from diffusion_lessons.training.gan import GanTrainer

DIGITS = tuple(str(d) for d in range(10))
PHOTOS = tuple(name.lower() for name in cifar.CLASSES)
SCENES, SCENES_SEED = 200_000, 1    # the critters of the training set
CLASSIFIER_DIGITS = 50_000    # the rest of MNIST's training set stands for "as good as real" (see `figures`)


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained. `dataclasses.replace(recipe, steps=3000)` changes one thing.

    data: "digits", "cifar", "critters", or "own" for pictures of the learner's;  network: the arguments of the UNet
    labels: the names of the classes;  vocab: of a network with a text encoder, conditioned on captions, the words, and
    longest, how many of them a caption may have; with neither, the network is unconditional
    w: the guidance scale to sample with;  cond_drop_prob: the share of labels or captions dropped in training
    flip: also train on the mirrored pictures, which are as good
    """

    data: str
    network: Mapping[str, Any] = field(hash=False)
    labels: tuple[str, ...] | None
    w: float
    steps: int
    lr: float
    batch: int = 64
    cond_drop_prob: float = 0.1
    flip: bool = False
    seed: int = 0
    vocab: tuple[str, ...] | None = None
    longest: int = captions.LONGEST


RECIPES = {
    "digits": Recipe("digits", dict(in_channels=1, channels=(48, 96), blocks=1), DIGITS, w=1.3, steps=10_000, lr=2e-3),
    "cifar": Recipe("cifar", dict(in_channels=3, channels=(48, 96, 160), blocks=1), PHOTOS, w=1.5, steps=28_000,
                    lr=1.5e-3, flip=True),
    # the large network, for a GPU
    "cifar_large": Recipe("cifar", dict(in_channels=3, channels=(128, 256, 384), blocks=2), PHOTOS, w=1.5,
                          steps=60_000, lr=6e-4, batch=256, flip=True),
    "critters": Recipe("critters", dict(in_channels=3, channels=(64, 144), blocks=2, attention=False,
                                        text=dict(width=128, layers=2, heads=4)), None, w=4.0, steps=18_600,
                       lr=1.2e-3, cond_drop_prob=0.15, vocab=captions.VOCAB),
}


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained.

    data: "digits", read by a Classifier, or "critters", read by an AttributeClassifier;  network: its arguments
    lr_schedule: see `base.make_lr_scheduler`
    """

    data: str
    network: Mapping[str, Any] = field(hash=False)
    label_smoothing: float
    lr_schedule: str
    seed: int
    steps: int = 4000
    batch: int = 128
    lr: float = 3e-3


# The second classifier of critters checks the first: it has another shape and another seed.
CLASSIFIERS = {
    "digits_classifier": ClassifierRecipe("digits", {}, 0.05, "one_cycle", seed=0),
    "critters_classifier": ClassifierRecipe("critters", dict(channels=(32, 64, 96), width=64), 0.02, "cosine",
                                            seed=100),
    "critters_second": ClassifierRecipe("critters", dict(channels=(24, 48, 96, 128), width=96), 0.02, "cosine",
                                        seed=200),
}
AnyRecipe: TypeAlias = Recipe | ClassifierRecipe


@dataclass(frozen=True)
class GanRecipe:
    """How a GAN is trained: the length of its noise, the discriminator's and generator's options (see `models.gan`),
    and the settings of `GanTrainer`.
    """

    latent: int
    minibatch_std: bool
    steps: int
    batch: int
    lr_g: float
    lr_d: float
    beta1: float
    r1: float
    noise: float = 1.0
    norm: bool = True
    ema_decay: float = 0.99


# Even in a healthy run the generator of a single step stumbles now and then, and when it does depends on rounding. So
# measure `trainer.ema`, and take the mean over many of the last steps.
HEALTHY_POINTS = GanRecipe(latent=16, minibatch_std=False, steps=3000, batch=256, lr_g=2e-3, lr_d=2e-3, beta1=0.5,
                           r1=1.0)
COLLAPSED_POINTS = replace(HEALTHY_POINTS, r1=0.0)
POINT_GANS = {
    "healthy": HEALTHY_POINTS,
    "collapsed": COLLAPSED_POINTS,
    "learning rates / 4": replace(COLLAPSED_POINTS, lr_g=5e-4, lr_d=5e-4),
    "D slower (/ 10)": replace(COLLAPSED_POINTS, lr_d=2e-4),
    "momentum 0.9": replace(COLLAPSED_POINTS, beta1=0.9),
    "noise of 2 numbers": replace(COLLAPSED_POINTS, latent=2),
    "minibatch_std": replace(COLLAPSED_POINTS, minibatch_std=True),
}
HEALTHY_DIGITS = GanRecipe(latent=64, minibatch_std=True, steps=3000, batch=64, lr_g=5e-3, lr_d=1e-3, beta1=0.5, r1=0.3)
DIGIT_GANS = {
    "healthy": HEALTHY_DIGITS,
    # without all that protects it: the penalty, minibatch_std, the normalisation, most of the noise; found by trial,
    # and stopped where it had collapsed
    "collapsed": replace(HEALTHY_DIGITS, steps=450, lr_g=1e-3, r1=0.0, minibatch_std=False, norm=False, latent=4,
                         ema_decay=0.9),
    "no_noise": replace(HEALTHY_DIGITS, steps=500, minibatch_std=False, noise=0.0, ema_decay=0.9),
}


def training_set(recipe: AnyRecipe, source: str = "auto") -> LabeledImages:
    """The training pictures of a recipe, mirrored ones included where the recipe says so.

    Classifiers of critters see new ones at every step, so for them there are none to load.
    source: for digits, "auto", "mnist" or "synthetic" (see load_digits); the classifier learns from MNIST alone
    """
    if isinstance(recipe, ClassifierRecipe):
        return _for_classifier(recipe)
    if recipe.data == "critters":
        return captioned_critters()
    data = digits.load_digits("train", source) if recipe.data == "digits" else cifar.load_cifar("train")
    return with_mirrored(data, recipe.flip)


def with_mirrored(data: LabeledImages, flip: bool = True) -> LabeledImages:
    """The pictures, and after them, if flip, their mirror images with the same labels."""
    if not flip:
        return data
    return data._replace(x=torch.cat([data.x, data.x.flip(-1)]), y=torch.cat([data.y, data.y]))


def _for_classifier(recipe: ClassifierRecipe) -> LabeledImages:
    if recipe.data == "critters":
        none = torch.empty(0, 3, 32, 32, dtype=torch.uint8), torch.empty(0, 4, dtype=torch.int64)
        return LabeledImages(*none, "critters of all pairs, drawn in code")
    x, y, _ = digits.load_digits("train", "mnist")
    count = min(CLASSIFIER_DIGITS, len(x))
    return LabeledImages(x[:count], y[:count], f"MNIST, first {count:,} training pictures")


def captioned_critters() -> LabeledImages:
    """Critters with the tokens of their captions as y (N, L)."""
    count, seed = SCENES, SCENES_SEED
    scenes = critters.sample_scenes(count, seed)
    tokens = tokenizer()([caption.text for caption in captions.sample_captions(scenes, seed)])
    return LabeledImages(critters.render(scenes), tokens,
                         f"critters: {count:,} captioned scenes drawn in code, seed {seed}")


def tokenizer(recipe: Recipe = RECIPES["critters"]) -> Tokenizer:
    """The tokenizer of a recipe's captions, the critters' if none is named."""
    return Tokenizer(recipe.vocab or (), recipe.longest)


def build(recipe: AnyRecipe) -> Any:
    """The untrained denoiser or classifier of a recipe, the same for the same seed."""
    torch.manual_seed(recipe.seed)
    network = dict(recipe.network)
    if isinstance(recipe, ClassifierRecipe):
        kind = Classifier if recipe.data == "digits" else AttributeClassifier
        return kind(**network).to(runtime.device())
    if recipe.vocab:
        reads = tokenizer(recipe)
        network["text"] = dict(vocab_size=reads.vocab_size, length=reads.length, **network["text"])
    elif recipe.labels:
        network["classes"] = len(recipe.labels)
    return Denoiser(UNet(**network), schedules.cosine(1000), "v").to(runtime.device())


def trainer(recipe: AnyRecipe, model: Any, data: LabeledImages) -> Trainer | ClassifierTrainer:
    """The trainer of a denoiser or classifier by the recipe."""
    if isinstance(recipe, Recipe):
        y = data.y if recipe.vocab or recipe.labels else None
        return Trainer(model, data.x, y, steps=recipe.steps, batch=recipe.batch, lr=recipe.lr,
                       cond_drop_prob=recipe.cond_drop_prob, seed=recipe.seed, model=distributed.wrapped(model))
    batches = (shifted_digits(data.x, data.y, recipe.batch) if recipe.data == "digits" else
               fresh_critters(recipe.seed, recipe.batch))
    return ClassifierTrainer(model, batches, steps=recipe.steps, lr=recipe.lr, label_smoothing=recipe.label_smoothing,
                             lr_schedule=recipe.lr_schedule, seed=recipe.seed)


def steps_a_second(recipe: AnyRecipe, model: Any, data: LabeledImages, least: float = 3.0) -> float:
    """How many steps of this training the machine takes in a second, measured on a copy of the network."""
    trial = trainer(replace(recipe, steps=1_000_000), copy.deepcopy(model), data)
    steps = iter(trial)
    for _ in range(3):  # the first steps are slower than the rest
        next(steps)
    began, count = time.perf_counter(), 0
    while distributed.any_of(count < 5 or (time.perf_counter() - began < least and count < 200)):
        next(steps)
        count += 1
    trial.read_losses()    # a GPU has then finished these steps
    return distributed.from_first(count / (time.perf_counter() - began))


def gan(recipe: GanRecipe, x: Tensor, seed: int = 0) -> GanTrainer:
    """The trainer of a GAN by the recipe, for points (N, 2) or digits (N, 1, 28, 28): the same for the same seed."""
    if x.ndim != 2 and x.shape[1:] != (1, 28, 28):
        raise ValueError(f"these GANs learn points (N, 2) or digits (N, 1, 28, 28), not {tuple(x.shape)}")
    torch.manual_seed(seed)
    game = asdict(recipe)
    latent, minibatch_std, norm = (game.pop(name) for name in ("latent", "minibatch_std", "norm"))
    players: tuple[torch.nn.Module, torch.nn.Module]
    if x.ndim == 2:
        players = PointGenerator(latent), PointDiscriminator(minibatch_std=minibatch_std)
    else:
        players = DigitGenerator(latent, norm=norm), DigitDiscriminator(minibatch_std=minibatch_std)
    generator, discriminator = (player.to(runtime.device()) for player in players)
    return GanTrainer(generator, discriminator, x, seed=seed, **game)


def card(recipe: AnyRecipe, model: Any, data: LabeledImages, **about: Any) -> dict[str, Any]:
    """The card to save a trained network with (see `weights.save`)."""
    about = {"data": Path(data.source).name, "steps": recipe.steps, "batch": recipe.batch, "lr": recipe.lr,
             "seed": recipe.seed, "code_version": __version__, "device": str(next(model.parameters()).device), **about}
    if isinstance(recipe, ClassifierRecipe):
        kind = "classifier" if recipe.data == "digits" else "attribute_classifier"
        return {"kind": kind, "network": model.config, **about}
    if recipe.vocab:
        about |= {"vocab": list(recipe.vocab), "cond_drop_prob": recipe.cond_drop_prob}
    return weights.denoiser_card(model, w=recipe.w, picture=list(data.x.shape[1:]),
                                 labels=recipe.labels and list(recipe.labels), **about)
