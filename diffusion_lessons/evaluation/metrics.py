"""How good are the pictures? One protocol for all figures of the course.

- Samples: conditioned on labels, the ten digits equally often; 10,000 for shipped weights, 1,000 in timed trials (for
  which the lower 95% confidence bound of the accuracy is quoted). All figures come from the *same* samples at the same
  guidance scale w, sampled by `PROTOCOL`: DDPM in 25 steps.
- Classifier: `digits_classifier`, trained on the first 50,000 training pictures of MNIST. No generator was trained
  against it. Features: the 64 inputs of its last layer.
- Real set: the 10,000 pictures of MNIST's test set, which the classifier has never seen. Their features are shipped
  (`digits_real.safetensors`), so that the figures can be computed offline.
- For comparison, the last 10,000 training pictures, also new to the classifier, are measured in place of the samples.

Accuracy says whether the pictures match their labels; ten perfect prototypes would maximise it. The Frechet distance
compares mean and covariance; recall is the share of the real variety that is covered, and falls when variety is lost.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lessons.datasets.critters import ATTRIBUTES
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.samplers import SamplerSettings

PROTOCOL = SamplerSettings("ddpm", steps=25)


def accuracy(classifier: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of pictures that are classified as their label.  x: (N, C, H, W) in [-1, 1], y: (N,) -> 0..1"""
    return (predict(classifier, x).argmax(1) == y).float().mean().item()


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The confidence interval of a share observed in n trials, both ends; z = 1.96 makes it 95%.    (Wilson 1927)

    (share + z^2/2n  -+  z sqrt(share (1 - share)/n + z^2/4n^2)) / (1 + z^2/n)

    share: 0..1, n: 1 or more  ->  (low, high) in 0..1.  Raises ValueError for anything else.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"an interval needs a share in 0..1 of at least one trial, got {share} of {n}")
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def wilson_lower_bound(share: float, n: int, z: float = 1.645) -> float:
    """The one-sided lower 95% confidence bound of a share observed in n trials.

    share: 0..1, n: 1 or more  ->  0..1;  raises as `wilson_interval`
    """
    return wilson_interval(share, n, z)[0]


@torch.no_grad()
def predict(classifier: nn.Module, x: Tensor, batch: int = 500) -> Tensor:
    """A classifier's logits, in batches.  (N, C, H, W) -> (N, classes)"""
    return torch.cat([classifier(part) for part in x.split(batch)])


@torch.no_grad()
def features(classifier: Classifier | AttributeClassifier, x: Tensor, batch: int = 500) -> Tensor:
    """A classifier's features, in batches.  (N, C, H, W) -> (N, F)"""
    return torch.cat([classifier.features(part) for part in x.split(batch)])


@torch.no_grad()
def attribute_accuracy(classifier: AttributeClassifier, x: Tensor, attributes: Tensor,
                       batch: int = 500) -> dict[str, float]:
    """How often pictures are classified as having the right attributes: each one alone, and all four together.

    x: (N, 3, H, W) in [-1, 1];  attributes: (N, 4) indices into critters.ATTRIBUTES
    -> {"all": share, "subject": share, ..., and for each "..._lower95", its lower 95% confidence bound}
    """
    correct = torch.cat([classifier.predict(part) for part in x.split(batch)]) == attributes      # (N, 4)
    figures: dict[str, float] = {}
    for name, hits in {"all": correct.all(1), **dict(zip(ATTRIBUTES, correct.unbind(1)))}.items():
        share = hits.double().mean().item()
        figures |= {name: share, f"{name}_lower95": wilson_lower_bound(share, len(x))}
    return figures


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between two sets of features, each approximated by a Gaussian.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)   (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

    a: (N, F), b: (M, F), N and M larger than F  ->  a float, 0 for equal Gaussians. Computed in float64.
    It decreases with the number of samples: compare only figures with equal counts.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be (N, F) and (M, F), got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) <= a.shape[1]:
        raise ValueError(f"{min(len(a), len(b))} samples are too few for {a.shape[1]} features: take more than that")
    a, b = a.double(), b.double()
    root = _square_root(a.T.cov())
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp(min=0).sqrt().sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return (gap + a.T.cov().trace() + b.T.cov().trace() - 2 * cross).clamp(min=0).item()


def recall(real: Tensor, fake: Tensor, k: int = 3) -> float:
    """The share of real pictures that lie close to some fake one: how much of the real variety is covered.

    A real feature is covered when it is no further from some fake feature than that one's k-th nearest fake neighbour.
    (Kynkaanniemi et al. 2019.)  real: (N, F), fake: (M, F), M > k  ->  0..1
    """
    if len(fake) <= k:
        raise ValueError(f"recall needs more than k = {k} samples, got {len(fake)}")
    radius = torch.cat([torch.cdist(part, fake).kthvalue(k + 1, dim=1).values for part in fake.split(500)])   # (M,)
    covered = [(torch.cdist(part, fake) <= radius).any(1) for part in real.split(500)]
    return torch.cat(covered).float().mean().item()


def report(classifier: Classifier, x: Tensor, y: Tensor | None, real: Tensor) -> dict:
    """The figures of one set of samples: accuracy, Frechet distance and recall.

    x: (N, 1, 28, 28) in [-1, 1];  real: (M, F) features of the real set
    y: (N,) the labels of the samples; None for unconditional samples, where the share of each class replaces accuracy
    """
    fake = features(classifier, x)
    with torch.no_grad():
        answers = classifier.head(fake)    # the classifier's logits, without a second pass
    if y is None:
        figures: dict = {"class_shares": (answers.argmax(1).bincount(minlength=answers.shape[1]) / len(x)).tolist()}
    else:
        share = (answers.argmax(1) == y).float().mean().item()
        figures = {"accuracy": share, "accuracy_lower95": wilson_lower_bound(share, len(x))}
    return {"count": len(x), **figures, "frechet": frechet_distance(fake, real), "recall": recall(real, fake)}


class Modes(NamedTuple):
    """How a set of points is distributed over the modes of the data (see `modes`).

    shares: (M,) the share of the points on each mode;  covered: the number of modes with enough points
    precision: the share of the points that lie on some mode
    mode_balance: the overlap of the points with the data, 1 when all lie on modes and each mode has an equal share
    """

    shares: Tensor
    covered: int
    precision: float
    mode_balance: float


def modes(points: Tensor, centres: Tensor, sigma: float) -> Modes:
    """Which modes of the data do these points cover?

    A point lies on a mode when it is within 3 sigma of its centre; a mode is covered when at least 2.5% of all points
    lie on it. mode_balance = sum_m min(share_m, 1/M): one minus the total variation distance from equal shares.

    points: (N, 2), centres: (M, 2), at least 6 sigma apart;  sigma: the standard deviation of each mode
    """
    if points.ndim != 2 or points.shape[1:] != centres.shape[1:] or len(points) == 0:
        raise ValueError(f"points must be (N, {centres.shape[1]}), N >= 1, like the centres; got {tuple(points.shape)}")
    on_mode = torch.cdist(points, centres) <= 3 * sigma                # (N, M)
    shares = on_mode.double().mean(0)
    balance = shares.clamp(max=1 / len(centres)).sum().item()
    return Modes(shares, int((shares >= 0.025).sum()), on_mode.any(1).double().mean().item(), balance)


def mean_pairwise_distance(x: Tensor) -> float:
    """How different are the pictures from each other? The mean distance between two of them, per pixel.

    2 / (N (N - 1))  sum_{i<j} |x_i - x_j| / sqrt(D)

    x: (N, ...) float, N >= 2, with D values each  ->  0 when all are the same
    """
    if len(x) < 2:
        raise ValueError("the mean pairwise distance needs at least two pictures")
    x = x.flatten(1)
    return (torch.pdist(x).mean() / x.shape[1] ** 0.5).item()


def class_shares(classifier: nn.Module, x: Tensor) -> Tensor:
    """The share of the pictures that fall into each class.  (N, C, H, W) -> (classes,), sum 1"""
    logits = predict(classifier, x)
    return logits.argmax(1).bincount(minlength=logits.shape[1]) / len(x)


def nearest_neighbours(x: Tensor, data: Tensor, batch: int = 10_000) -> tuple[Tensor, Tensor]:
    """For each of x the nearest picture of `data`, by the distance between pixels.

    x: (N, ...), data: (M, ...) floats  ->  indices (N,), distances per pixel as in `mean_pairwise_distance` (N,)
    """
    x = x.flatten(1)
    distances = torch.cat([torch.cdist(x, part.flatten(1)) for part in data.split(batch)], dim=1)     # (N, M)
    distance, index = distances.min(1)
    return index, distance / x.shape[1] ** 0.5


def sharpness(x: Tensor) -> Tensor:
    """How strongly neighbouring pixels differ: the mean length of the gradient.  (B, C, H, W) -> (B,)"""
    dx, dy = x[..., :-1, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, :-1]
    return (dx**2 + dy**2).sqrt().flatten(1).mean(1)


def _square_root(c: Tensor) -> Tensor:
    """The symmetric square root of a covariance matrix."""
    values, vectors = torch.linalg.eigh(c)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
