"""The figures on the cards of shipped weights: how good a trained network is, one measure for each kind."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lessons import __version__, weights
from diffusion_lessons.datasets import critters, load_cifar, load_digits, to_float
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.training import recipes

TEST_SCENES, TEST_SEED = 20_000, 300    # the critters that their classifiers are tested on


def measure(recipe: recipes.AnyRecipe, model: Any, count: int | None = None) -> dict[str, Any]:
    """The figures of a network trained by this recipe, for its card.

    count: samples to measure a denoiser on, none if left out (of critters, a tenth as many prompts)
    """
    if isinstance(recipe, recipes.ClassifierRecipe):
        return digits_classifier_figures(model) if recipe.data == "digits" else critters_classifier_figures(model)
    if count is None:
        return {}
    if recipe.data == "digits":
        return digits_figures(model, recipe.w, count)
    if recipe.data == "critters":
        classifiers = weights.load_model("critters_classifier"), weights.load_model("critters_second")
        return prompt_following.report(model, recipes.tokenizer(), classifiers, recipe.w, count // 10, progress=True)
    if recipe.data == "own":
        raise ValueError("there are no figures for your own pictures: call evaluate --data FOLDER")
    photos = load_cifar("test")
    return {"held_out_loss": held_out_loss(model, photos.x, photos.y)}


def digits_figures(denoiser: Denoiser, w: float, count: int, seed: int = 0) -> dict[str, Any]:
    """The figures of so many digits at guidance scale w, by the protocol of `metrics`."""
    real = weights.load("digits_real")[0]["test"]
    y = torch.arange(count) % 10
    x = text_to_image.sample_images(denoiser, y, (1, 28, 28), w=w, sampler=metrics.PROTOCOL, seed=seed, progress=True)
    return {**metrics.report(weights.load_model("digits_classifier"), x, y, real), "w": w, **asdict(metrics.PROTOCOL)}


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, x: Tensor, y: Tensor | None, count: int = 2000) -> float:
    """The training loss on pictures never seen: the mean squared error of v, at random t; the same t in every call.

    x: (N, C, H, W) uint8; each is taken as often as it takes to have `count`;  y: (N,) labels, (N, L) tokens or None
    """
    device = next(denoiser.parameters()).device
    g, total = torch.Generator().manual_seed(0), 0.0
    for rows in (torch.arange(count) % len(x)).split(200):
        x0, t = to_float(x[rows]), torch.randint(1, denoiser.schedule.T + 1, (len(rows),), generator=g)
        eps, condition = torch.randn(x0.shape, generator=g), None if y is None else y[rows].to(device)
        total += denoiser.loss(x0.to(device), t.to(device), eps.to(device), condition).sum().item()
    return total / count


def digits_classifier_figures(classifier: Classifier) -> dict[str, Any]:
    """Its accuracy on MNIST's test set."""
    test = load_digits("test", source="mnist")
    return {"test_accuracy": metrics.accuracy(classifier.cpu(), to_float(test.x), test.y)}


def critters_classifier_figures(classifier: AttributeClassifier) -> dict[str, Any]:
    """How often it is right on freshly drawn critters."""
    scenes = critters.sample_all_pairs(TEST_SCENES, TEST_SEED)
    x = to_float(critters.render(scenes))
    return {"fresh_scenes": TEST_SCENES, **metrics.attribute_accuracy(classifier.cpu(), x, scenes.attributes())}


def save_real_features(path: Path, classifier: Classifier, command: str) -> None:
    """Save the digits classifier's features of real pictures: MNIST's test set, to compare samples with, and the
    training pictures that the classifier has not seen, which stand for "as good as real".
    """
    classifier = classifier.cpu()
    test, train = load_digits("test", source="mnist"), load_digits("train", source="mnist")
    unseen = slice(recipes.CLASSIFIER_DIGITS, None)
    if not len(train.x[unseen]):
        raise ValueError(f"MNIST has 60,000 training pictures, this one {len(train.x):,}: too few to keep some unseen")
    real, held_back = metrics.features(classifier, to_float(test.x)), to_float(train.x[unseen])
    weights.save(path, {"test": real, "train": metrics.features(classifier, held_back)},
                 {"kind": "features", "data": "digits_classifier's features of MNIST: the test set, and training "
                                              "pictures 50,000..59,999",
                  "figures": metrics.report(classifier, held_back, train.y[unseen], real), "code_version": __version__,
                  "command": command}, dtype=torch.float16)
