"""Generative adversarial networks: a generator makes samples, a discriminator judges them (Goodfellow et al. 2014).

Two pairs, small enough for a laptop: points in the plane, and 28x28 digits after DCGAN (Radford et al. 2016).
"""

import torch
from torch import Tensor, nn

from diffusion_lessons.models.mlp import FourierFeatures


class PointGenerator(nn.Module):
    """An MLP that turns noise into points in the plane.  z: (B, latent) -> (B, 2)"""

    def __init__(self, latent: int = 16, width: int = 128):
        super().__init__()
        self.config = dict(latent=latent, width=width)
        self.latent = latent
        self.layers = nn.Sequential(nn.Linear(latent, width), nn.LeakyReLU(0.2), nn.Linear(width, width),
                                    nn.LeakyReLU(0.2), nn.Linear(width, 2))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class DigitGenerator(nn.Module):
    """Project noise to a 7x7 feature map and upsample it twice.  z: (B, latent) -> (B, 1, 28, 28) in [-1, 1]

    norm=False leaves out the normalisation. (DCGAN uses batch norm, to prevent "the generator from collapsing all
    samples to a single point", section 3. Group norm prevents it too, and keeps pictures independent of each other.)
    """

    def __init__(self, latent: int = 64, width: int = 32, norm: bool = True):
        super().__init__()
        self.config = dict(latent=latent, width=width, norm=norm)
        self.latent, self.map_shape = latent, (4 * width, 7, 7)

        def upsample(c_in: int, c_out: int) -> nn.Module:
            return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)

        self.fc = nn.Linear(latent, 4 * width * 7 * 7)
        norms = [nn.GroupNorm(8, c) if norm else nn.Identity() for c in (4 * width, 2 * width)]
        self.layers = nn.Sequential(norms[0], nn.ReLU(), upsample(4 * width, 2 * width),
                                    norms[1], nn.ReLU(), upsample(2 * width, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        h = self.fc(z).unflatten(1, self.map_shape)     # (B, 4 width, 7, 7)
        return self.layers(h)                           # (B, 1, 28, 28)


class Discriminator(nn.Module):
    """Real or fake? One logit for each example: above 0 means real.  x: (B, ...) -> (B,)

    minibatch_std: append the standard deviation of each feature over the batch, so that a batch of near-identical
    samples is easy to spot  (minibatch discrimination: Salimans et al. 2016, section 3.2; this simpler form follows
    Karras et al. 2018, section 3, who then average the standard deviations into a single value).
    """

    def __init__(self, body: nn.Module, features: int, hidden: int, minibatch_std: bool):
        super().__init__()
        self.body, self.minibatch_std = body, minibatch_std
        self.head = nn.Sequential(nn.Linear(features * (1 + minibatch_std), hidden), nn.LeakyReLU(0.2),
                                  nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)                                                # (B, F)
        if self.minibatch_std:
            std = (h.var(0, keepdim=True, correction=0) + 1e-8).sqrt()  # (1, F); 1e-8 keeps the gradient finite at 0
            h = torch.cat([h, std.expand_as(h)], dim=1)                 # (B, 2 F)
        return self.head(h).squeeze(1)


class PointDiscriminator(Discriminator):
    """A discriminator of points, on Fourier features.  x: (B, 2) -> (B,) logits"""

    def __init__(self, width: int = 128, minibatch_std: bool = True):
        body = nn.Sequential(FourierFeatures(), nn.Linear(FourierFeatures.features, width), nn.LeakyReLU(0.2),
                             nn.Linear(width, width), nn.LeakyReLU(0.2))
        super().__init__(body, width, width, minibatch_std)
        self.config = dict(width=width, minibatch_std=minibatch_std)


class DigitDiscriminator(Discriminator):
    """A discriminator of digits, the mirror image of the generator.  x: (B, 1, 28, 28) -> (B,) logits"""

    def __init__(self, width: int = 32, minibatch_std: bool = True):
        def downsample(c_in: int, c_out: int) -> nn.Module:
            return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)

        body = nn.Sequential(downsample(1, 2 * width), nn.LeakyReLU(0.2), downsample(2 * width, 4 * width),
                             nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * width * 7 * 7, 128), nn.LeakyReLU(0.2))
        super().__init__(body, 128, 64, minibatch_std)
        self.config = dict(width=width, minibatch_std=minibatch_std)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """The angle between vectors, in radians.  (..., n), (..., n) -> (..., 1)"""
    return torch.acos(torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1))[..., None]


def slerp(a: Tensor, b: Tensor, u: float | Tensor) -> Tensor:
    """Spherical linear interpolation between noise vectors, from a (u = 0) to b (u = 1).

    (sin((1 - u) angle) a + sin(u angle) b) / sin(angle)                   (Shoemake 1985; White 2016, section 2.1)

    Nearly all noise vectors have a length near sqrt(latent). Halfway along the straight line between two of them the
    vector is too short: the generator never saw one like it.  a, b: (..., latent);  u in [0, 1]  ->  (..., latent)
    Raises ValueError when a and b are parallel, because then the great circle between them is not unique.
    """
    angle = angle_between(a, b)
    if bool((angle.sin().abs() < 1e-6).any()):
        raise ValueError("a and b are parallel, so the great circle between them is not unique: sample other noise")
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def latent_sphere(latent: int, longitude: Tensor, latitude: Tensor, seed: int = 0) -> Tensor:
    """Noise vectors on a sphere in a random three-dimensional subspace of the latent space.

    longitude, latitude: (B,) degrees;  latent: 3 or more  ->  (B, latent), each of length sqrt(latent)
    Raises ValueError when latent is below 3.
    """
    if latent < 3:
        raise ValueError(f"a sphere needs a latent space of at least 3 dimensions, not {latent}")
    axes, _ = torch.linalg.qr(torch.randn(latent, 3, generator=torch.Generator().manual_seed(seed)))    # (latent, 3)
    longitude, latitude = torch.deg2rad(longitude), torch.deg2rad(latitude)
    point = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1)
    return latent**0.5 * point @ axes.T     # (B, 3) @ (3, latent)
