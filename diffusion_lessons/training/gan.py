"""Training a generator against a discriminator: an iterator, with the seeds and checkpoints of `training`."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusion_lessons.checks import check_pictures
from diffusion_lessons.datasets import to_float
from diffusion_lessons.training.base import Training


@dataclass(frozen=True)
class GanStep:
    """One move of each player: both losses, and which share of the real and of the fake ones D judged rightly."""

    step: int
    loss_d: float
    loss_g: float
    real_right: float
    fake_right: float


def discriminator_loss(real, fake):
    """How wrong D is: it should say "real" (above 0) to real examples and "fake" (below 0) to made ones.

    -mean log D(x) - mean log(1 - D(G(z))),   D = sigmoid(logit)              (Goodfellow et al. 2014, eq. 1)

    real, fake: (B,) logits  ->  a number above 0; 2 log 2 = 1.386 for a D that has no idea
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake):
    """How far G is from being taken for real: the "non-saturating" form, which pulls hardest where G fails.

    -mean log D(G(z))                                            (Goodfellow et al. 2014, section 3, last paragraph)

    fake: (B,) logits  ->  a number above 0; log 2 = 0.693 against a D that has no idea
    """
    return F.softplus(-fake).mean()


class GanTrainer(Training):
    """Trains a generator and a discriminator in turns. Iterate over it to let it work.

    for step in GanTrainer(generator, discriminator, pictures, steps=1000):
        print(step.loss_d, step.loss_g)

    A step: D sees as many real examples as fake ones and moves; then G makes new ones, asks D, and moves.
    The knobs between health and collapse: `lr_g` against `lr_d`, Adam's momentum `beta1`, the noise (`noise` is its
    standard deviation, 0 takes it away; the generator's `latent` its size), the discriminator's `statistics`, and
    `r1`, how strongly D is kept from becoming steep around real examples:

    r1 / 2  mean |grad_x D(x)|^2                                          (Mescheder et al. 2018, eq. 9)

    where with `statistics` D(x) is the sum over the batch, as its answers then hang together. The losses that a step
    reports are without the penalty. `trainer.average` is a generator with the running average of the weights: the one
    to keep, as the generator of a single step stumbles now and then, even in a game that goes well.

    x: (N, C, H, W) uint8 or float in [-1, 1] (check_range=False: in any range), or points (N, 2)
    steps: the length of the whole run;  batch: 1 or more
    Raises ValueError when the pictures are not what the players take (see `checks`), and FloatingPointError when a loss
    or its gradient is no longer a number; the weights are then those before.
    """

    def __init__(self, generator, discriminator, x, *, steps, batch=64, lr_g=1e-3, lr_d=1e-3, beta1=0.5, noise=1.0,
                 r1=0.0, ema=0.99, seed=0, check_range=True):
        x = check_pictures(x, check_range=check_range)
        if batch < 1:
            raise ValueError(f"a batch needs at least one example, not {batch}")
        self.generator, self.discriminator = generator, discriminator
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.device = next(generator.parameters()).device
        with torch.no_grad():
            made = self.average(torch.zeros(1, generator.latent, device=self.device))
        if made.shape[1:] != x.shape[1:]:
            raise ValueError(f"the generator makes {tuple(made.shape[1:])}, and the pictures are {tuple(x.shape[1:])}: "
                             "they must have one shape, (C, H, W)")
        self.x = x.to(self.device)
        self.steps, self.batch, self.lr_g, self.lr_d, self.beta1 = steps, batch, lr_g, lr_d, beta1
        self.noise, self.r1, self.ema, self.seed = noise, r1, ema, seed
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr=lr_g, betas=(beta1, 0.99))
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=lr_d, betas=(beta1, 0.99))

    def one_step(self):
        """One move of D, then one of G."""
        real, z_d, z_g = self.draw(self.step)
        loss_d, on_real, on_fake = self.move_discriminator(real, z_d)
        loss_g = self.move_generator(z_g)
        self.step += 1
        self.update_average(self.average, self.generator)
        right = (on_real > 0).float().mean().item(), (on_fake < 0).float().mean().item()
        return GanStep(self.step, loss_d.item(), loss_g.item(), *right)

    def move_discriminator(self, real, z):
        """D learns to tell real from fake; G stands still."""
        with torch.no_grad():
            fake = self.generator(z)
        real = real.detach().requires_grad_(self.r1 > 0)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        loss = discriminator_loss(on_real, on_fake)
        steep = 0.0
        if self.r1 > 0:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            steep = self.r1 / 2 * slope.square().flatten(1).sum(1).mean()
        self.move(self.discriminator, self.optimizer_d, loss + steep)
        return loss.detach(), on_real.detach(), on_fake.detach()

    def move_generator(self, z):
        """G learns to be taken for real; the gradient comes through D, but D stands still."""
        loss = generator_loss(self.discriminator(self.generator(z)))
        self.move(self.generator, self.optimizer_g, loss)
        return loss.detach()

    def move(self, network, optimizer, loss):
        """One step of this network down the slope of its loss; no other network gets a gradient."""
        weights = list(network.parameters())
        slopes = torch.autograd.grad(loss, weights)
        length = torch.nn.utils.parameters_to_vector(slopes).norm()
        if not torch.isfinite(loss + length):
            raise FloatingPointError(f"a loss of step {self.step + 1} is {loss.item()}, its gradient {length.item()}: "
                                     f"try lower learning rates than lr_g={self.lr_g:g}, lr_d={self.lr_d:g}. "
                                     "Nothing was learned from this loss.")
        for weight, slope in zip(weights, slopes):
            weight.grad = slope
        optimizer.step()

    def draw(self, k):
        """The random part of step k: real examples, and the noise of either move."""
        g = self.dice(k)
        real = self.x[torch.randint(len(self.x), (self.batch,), generator=g, device=self.device)]
        real = real if real.dtype.is_floating_point else to_float(real)
        z = self.noise * torch.randn(2, self.batch, self.generator.latent, generator=g, device=self.device)
        return real, z[0], z[1]

    def settings(self):
        """What makes this run this run and no other."""
        names = ("steps", "batch", "lr_g", "lr_d", "beta1", "noise", "r1", "ema", "seed")
        return {"examples": len(self.x), **{name: getattr(self, name) for name in names}}

    def parts(self):
        """What a checkpoint holds."""
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average,
                "optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d}
