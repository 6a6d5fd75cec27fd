"""How good are the pictures? One protocol for every figure of the course.

- Samples: asked for by label, the ten digits equally often; 10,000 for shipped weights, 1,000 in timed trials (there
  the lower 95% limit of the accuracy is quoted). All figures come from the *same* samples at the same scale w,
  drawn by `PROTOCOL`: DDPM in 25 steps.
- Judge: `digits_judge`, a classifier trained on the first 50,000 training pictures of MNIST. It never took part in
  training a generator. Features: its 64 numbers before the last layer.
- Real set: the 10,000 pictures of MNIST's test set, which the judge has not seen. Their features are shipped
  (`digits_real.safetensors`), so the figures can be computed without a network.
- For comparison, the last 10,000 training pictures, unseen by the judge too, are measured in the samples' place.

Accuracy says whether the pictures are what was asked for; it is highest for ten perfect prototypes. The Frechet
distance compares mean and covariance; recall asks how much of the real variety is covered, and falls when it is lost.
"""

import math
from typing import NamedTuple

import torch

from diffusion_lessons.datasets.critters import ATTRIBUTES

PROTOCOL = {"method": "ddpm", "steps": 25}      # how the samples are drawn that are judged


def accuracy(judge, x, y):
    """The share of pictures that the judge reads as their label.  x: (N, C, H, W) in [-1, 1], y: (N,) -> 0..1"""
    return (predict(judge, x).argmax(1) == y).float().mean().item()


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The confidence interval of a share seen in n trials, both ends; z = 1.96 makes it 95%.    (Wilson 1927)

    (share + z^2/2n  -+  z sqrt(share (1 - share)/n + z^2/4n^2)) / (1 + z^2/n)

    share: 0..1, n: 1 or more  ->  (low, high) in 0..1.  Raises ValueError for anything else.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"an interval needs a share in 0..1 of at least one trial, got {share} of {n}")
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def lower_limit(share, n, z=1.645):
    """The lower 95% confidence limit of a share seen in n trials: the interval's low end, on one side.

    share: 0..1, n: 1 or more  ->  0..1
    """
    return wilson_interval(share, n, z)[0]


@torch.no_grad()
def predict(judge, x, batch=500):
    """The judge's logits, in batches.  (N, C, H, W) -> (N, classes)"""
    return torch.cat([judge(part) for part in x.split(batch)])


@torch.no_grad()
def features(judge, x, batch=500):
    """The judge's features, in batches.  (N, C, H, W) -> (N, F)"""
    return torch.cat([judge.features(part) for part in x.split(batch)])


@torch.no_grad()
def attributes_right(critic, x, wanted, batch=500):
    """How often the critic reads the attributes that were wanted: each alone, and all four of a picture.

    x: (N, 3, H, W) in [-1, 1];  wanted: (N, 4) indices into critters.ATTRIBUTES
    -> {"all": share, "subject": share, ..., and each with "_lower95", its lower 95% confidence limit}
    """
    read = torch.cat([critic.read(part) for part in x.split(batch)])
    right = read == wanted
    found = {"all": right.all(1), **dict(zip(ATTRIBUTES, right.unbind(1)))}
    figures = {}
    for name, hits in found.items():
        share = hits.double().mean().item()
        figures |= {name: share, f"{name}_lower95": lower_limit(share, len(x))}
    return figures


def frechet_distance(a, b):
    """The Frechet distance of two sets of features, each taken for a Gaussian.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)   (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

    a: (N, F), b: (M, F), N and M larger than F  ->  a float, 0 for equal Gaussians. Computed in float64.
    It falls with the number of samples: compare only figures with equal counts.
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


def recall(real, fake, k=3):
    """The share of real pictures that lie within reach of a fake one: how much of the variety is covered.

    A real feature counts when it is no further from some fake one than that one's k-th nearest fake neighbour.
    (Kynkaanniemi et al. 2019.)  real: (N, F), fake: (M, F), M > k  ->  0..1
    """
    if len(fake) <= k:
        raise ValueError(f"recall needs more than k = {k} samples, got {len(fake)}")
    reach = torch.cat([torch.cdist(part, fake).kthvalue(k + 1, dim=1).values for part in fake.split(500)])   # (M,)
    covered = [(torch.cdist(part, fake) <= reach).any(1) for part in real.split(500)]
    return torch.cat(covered).float().mean().item()


def report(judge, x, y, real):
    """The figures of one set of samples, as a dict: accuracy, Frechet distance and recall.

    x: (N, 1, 28, 28) in [-1, 1];  real: (M, F) features of the real set
    y: (N,) the labels asked for; None when nothing was asked for, then how often each class came stands for accuracy
    """
    fake = features(judge, x)
    if y is None:
        asked = {"class_shares": class_shares(judge, x).tolist()}
    else:
        right = accuracy(judge, x, y)
        asked = {"accuracy": right, "accuracy_lower95": lower_limit(right, len(x))}
    return {"count": len(x), **asked, "frechet": frechet_distance(fake, real), "recall": recall(real, fake)}


class Modes(NamedTuple):
    """How a set of points is spread over the modes of the data (see `modes`).

    shares: (M,) the share of the points on each mode;  covered: how many modes have enough of them
    on_modes: the share of the points that lie on some mode
    even: the share that data and points have in common, 1 when all lie on modes and every mode has its M-th part
    """

    shares: torch.Tensor
    covered: int
    on_modes: float
    even: float


def modes(points, centres, sigma):
    """Which modes of the data do these points cover?

    A point lies on a mode when it is within 3 sigma of its centre; a mode is covered when at least 2.5% of all points
    lie on it. `even` = sum_m min(share_m, 1/M): one minus the total variation distance from even shares.

    points: (N, 2), centres: (M, 2), no two nearer than 6 sigma;  sigma: the standard deviation of each mode
    """
    if points.ndim != 2 or points.shape[1:] != centres.shape[1:] or len(points) == 0:
        raise ValueError(f"points must be (N, {centres.shape[1]}), N >= 1, like the centres; got {tuple(points.shape)}")
    on = torch.cdist(points, centres) <= 3 * sigma                     # (N, M)
    shares = on.double().mean(0)
    even = shares.clamp(max=1 / len(centres)).sum().item()
    return Modes(shares, int((shares >= 0.025).sum()), on.any(1).double().mean().item(), even)


def variety(x):
    """How different are the pictures from each other? The mean distance of two of them, per pixel.

    2 / (N (N - 1))  sum_{i<j} |x_i - x_j| / sqrt(D)

    x: (N, ...) float, N >= 2, D numbers each  ->  0 when all are the same
    """
    if len(x) < 2:
        raise ValueError("variety needs at least two pictures")
    x = x.flatten(1)
    return (torch.pdist(x).mean() / x.shape[1] ** 0.5).item()


def class_shares(judge, x):
    """Which share of the pictures the judge reads as each class.  (N, C, H, W) -> (classes,), sum 1"""
    logits = predict(judge, x)
    return logits.argmax(1).bincount(minlength=logits.shape[1]) / len(x)


def nearest(x, data, batch=10_000):
    """The picture of `data` that is nearest to each of x, by the distance of their pixels.

    x: (N, ...), data: (M, ...) floats of one shape  ->  indices (N,), distances per pixel as in `variety` (N,)
    """
    x = x.flatten(1)
    far = torch.cat([torch.cdist(x, part.flatten(1)) for part in data.split(batch)], dim=1)     # (N, M)
    distance, index = far.min(1)
    return index, distance / x.shape[1] ** 0.5


def sharpness(x):
    """How strongly neighbouring pixels differ: the mean length of the gradient.  (B, C, H, W) -> (B,)"""
    dx, dy = x[..., :-1, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, :-1]
    return (dx**2 + dy**2).sqrt().flatten(1).mean(1)


def _square_root(c):
    """The symmetric square root of a covariance matrix."""
    values, vectors = torch.linalg.eigh(c)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
