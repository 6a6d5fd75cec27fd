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

import torch

PROTOCOL = {"method": "ddpm", "steps": 25}      # how the samples are drawn that are judged


def accuracy(judge, x, y):
    """The share of pictures that the judge reads as their label.  x: (N, C, H, W) in [-1, 1], y: (N,) -> 0..1"""
    return (predict(judge, x).argmax(1) == y).float().mean().item()


def lower_limit(share, n, z=1.645):
    """The lower 95% confidence limit of a share seen in n trials                        (Wilson 1927)

    share: 0..1, n: 1 or more  ->  0..1
    """
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n)


@torch.no_grad()
def predict(judge, x, batch=500):
    """The judge's logits, in batches.  (N, C, H, W) -> (N, classes)"""
    return torch.cat([judge(part) for part in x.split(batch)])


@torch.no_grad()
def features(judge, x, batch=500):
    """The judge's features, in batches.  (N, C, H, W) -> (N, F)"""
    return torch.cat([judge.features(part) for part in x.split(batch)])


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
    (Kynkaanniemi et al. 2019, eq. 1 and 2.)  real: (N, F), fake: (M, F), M > k  ->  0..1
    """
    if len(fake) <= k:
        raise ValueError(f"recall needs more than k = {k} samples, got {len(fake)}")
    reach = torch.cat([torch.cdist(part, fake).kthvalue(k + 1, dim=1).values for part in fake.split(500)])   # (M,)
    covered = [(torch.cdist(part, fake) <= reach).any(1) for part in real.split(500)]
    return torch.cat(covered).float().mean().item()


def report(judge, x, y, real):
    """Accuracy, Frechet distance and recall of one set of samples, as a dict.

    x: (N, 1, 28, 28) in [-1, 1], y: (N,) the labels asked for, real: (M, F) features of the real set
    """
    fake, right = features(judge, x), accuracy(judge, x, y)
    return {"count": len(x), "accuracy": right, "accuracy_lower95": lower_limit(right, len(x)),
            "frechet": frechet_distance(fake, real), "recall": recall(real, fake)}


def sharpness(x):
    """How strongly neighbouring pixels differ: the mean length of the gradient.  (B, C, H, W) -> (B,)"""
    dx, dy = x[..., :-1, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, :-1]
    return (dx**2 + dy**2).sqrt().flatten(1).mean(1)


def _square_root(c):
    """The symmetric square root of a covariance matrix."""
    values, vectors = torch.linalg.eigh(c)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
