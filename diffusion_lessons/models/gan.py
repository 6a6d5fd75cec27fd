"""Generative adversarial networks: a generator that makes, a discriminator that judges  (Goodfellow et al. 2014).

Two pairs, small enough for a laptop: points in the plane, and 28x28 digits after DCGAN (Radford et al. 2016).
"""

import torch
from torch import nn

from diffusion_lessons.models.mlp import Waves


class PointGenerator(nn.Module):
    """Noise to a point in the plane.  z: (B, latent) -> (B, 2)"""

    def __init__(self, latent=16, width=128):
        super().__init__()
        self.config = dict(latent=latent, width=width)
        self.latent = latent
        self.layers = nn.Sequential(nn.Linear(latent, width), nn.LeakyReLU(0.2), nn.Linear(width, width),
                                    nn.LeakyReLU(0.2), nn.Linear(width, 2))

    def forward(self, z):
        return self.layers(z)


class DigitGenerator(nn.Module):
    """Noise to a picture: a small map with many channels, twice made larger.  z: (B, latent) -> (B, 1, 28, 28)

    Every number of the output lies in [-1, 1], as the pictures do. norm=False leaves out the normalisation. (The paper
    has batch norm, against just this: a generator that collapses all samples to a single point, section 3. Group norm
    does it too, and leaves every picture to its own noise.)
    """

    def __init__(self, latent=64, width=32, norm=True):
        super().__init__()
        self.config = dict(latent=latent, width=width, norm=norm)
        self.latent, self.start = latent, (4 * width, 7, 7)

        def larger(c_in, c_out):
            return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)

        self.first = nn.Linear(latent, 4 * width * 7 * 7)
        norms = [nn.GroupNorm(8, c) if norm else nn.Identity() for c in (4 * width, 2 * width)]
        self.layers = nn.Sequential(norms[0], nn.ReLU(), larger(4 * width, 2 * width),
                                    norms[1], nn.ReLU(), larger(2 * width, 1), nn.Tanh())

    def forward(self, z):
        h = self.first(z).unflatten(1, self.start)      # (B, 4 width, 7, 7)
        return self.layers(h)                           # (B, 1, 28, 28)


class Discriminator(nn.Module):
    """Real or fake? One number for each example: above 0 says real.  -> (B,) logits

    statistics: show it how much each of its features varies over the batch, so that a batch of look-alikes gives
    itself away  (minibatch discrimination: Salimans et al. 2016, section 3.2; simplified, after Karras et al. 2018,
    section 3, who go on to average all the spreads into one).
    """

    def __init__(self, body, features, hidden, statistics):
        super().__init__()
        self.body, self.statistics = body, statistics
        self.head = nn.Sequential(nn.Linear(features * (1 + statistics), hidden), nn.LeakyReLU(0.2),
                                  nn.Linear(hidden, 1))

    def forward(self, x):
        h = self.body(x)                                                # (B, F)
        if self.statistics:
            spread = (h.var(0, keepdim=True, correction=0) + 1e-8).sqrt()       # (1, F); 1e-8: no slope of infinity
            h = torch.cat([h, spread.expand_as(h)], dim=1)              # (B, 2 F)
        return self.head(h).squeeze(1)


class PointDiscriminator(Discriminator):
    """Judges points.  x: (B, 2) -> (B,) logits"""

    def __init__(self, width=128, statistics=True):
        body = nn.Sequential(Waves(), nn.Linear(Waves.features, width), nn.LeakyReLU(0.2), nn.Linear(width, width),
                             nn.LeakyReLU(0.2))
        super().__init__(body, width, width, statistics)
        self.config = dict(width=width, statistics=statistics)


class DigitDiscriminator(Discriminator):
    """Judges pictures: the generator's way, backwards.  x: (B, 1, 28, 28) -> (B,) logits"""

    def __init__(self, width=32, statistics=True):
        def smaller(c_in, c_out):
            return nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)

        body = nn.Sequential(smaller(1, 2 * width), nn.LeakyReLU(0.2), smaller(2 * width, 4 * width),
                             nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * width * 7 * 7, 128), nn.LeakyReLU(0.2))
        super().__init__(body, 128, 64, statistics)
        self.config = dict(width=width, statistics=statistics)


def angle_between(a, b):
    """The angle between two vectors, in radians.  (..., n), (..., n) -> (..., 1)"""
    return torch.acos(torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1))[..., None]


def great_circle(a, b, u):
    """The way from noise a (u = 0) to noise b (u = 1) along the sphere, where a generator is at home.

    (sin((1 - u) angle) a + sin(u angle) b) / sin(angle)                   (Shoemake 1985; White 2016, section 2.1)

    Nearly all noise vectors have one length, sqrt(latent); on the straight line between two of them, the middle one
    is too short.  a, b: (..., latent);  u in [0, 1]  ->  (..., latent)
    Raises ValueError when a and b are parallel: no circle, or no single one, leads from a to b.
    """
    angle = angle_between(a, b)
    if bool((angle.sin().abs() < 1e-6).any()):
        raise ValueError("a and b are parallel, so no single circle leads from one to the other: draw them anew")
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def globe(latent, turn, tilt, seed=0):
    """Noise vectors on a globe: of all directions of the noise three are kept, and two angles say where on it you are.

    turn: (B,) degrees around, tilt: (B,) degrees up or down from the equator;  latent: 3 or more
    ->  (B, latent), each sqrt(latent) long
    """
    if latent < 3:
        raise ValueError(f"a globe needs noise of at least 3 numbers, not {latent}")
    axes, _ = torch.linalg.qr(torch.randn(latent, 3, generator=torch.Generator().manual_seed(seed)))    # (latent, 3)
    turn, tilt = torch.deg2rad(turn), torch.deg2rad(tilt)
    place = torch.stack([tilt.cos() * turn.cos(), tilt.cos() * turn.sin(), tilt.sin()], dim=1)          # (B, 3)
    return latent**0.5 * place @ axes.T
