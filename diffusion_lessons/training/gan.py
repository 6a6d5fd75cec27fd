"""Training a generator against a discriminator: an iterator, with the seeds and checkpoints of `training`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lessons.checks import check_pictures
from diffusion_lessons.datasets import to_float
from diffusion_lessons.training.base import BaseTrainer


@dataclass(frozen=True, eq=False)
class GanStep:
    """One step of both players: their losses, and D's accuracy on real and on fake examples.

    figures: (4,) these four, on the device until one of them is read, for which a GPU must finish the step
    """

    step: int
    figures: Tensor

    @property
    def loss_d(self) -> float:
        """The discriminator's loss."""
        return self.figures[0].item()

    @property
    def loss_g(self) -> float:
        """The generator's loss."""
        return self.figures[1].item()

    @property
    def real_accuracy(self) -> float:
        """The share of the real examples that D takes for real."""
        return self.figures[2].item()

    @property
    def fake_accuracy(self) -> float:
        """The share of the fakes that D takes for fakes."""
        return self.figures[3].item()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """How wrong D is: it should say "real" (above 0) to real examples and "fake" (below 0) to generated ones.

    -mean log D(x) - mean log(1 - D(G(z))),   D = sigmoid(logit)              (Goodfellow et al. 2014, eq. 1)

    real, fake: (B,) logits  ->  () above 0; 2 log 2 = 1.386 for a D that only guesses
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """How far G is from fooling D: the "non-saturating" loss, whose gradient is largest where G fails.

    -mean log D(G(z))                                            (Goodfellow et al. 2014, section 3, last paragraph)

    fake: (B,) logits  ->  () above 0; log 2 = 0.693 against a D that only guesses
    """
    return F.softplus(-fake).mean()


class GanTrainer(BaseTrainer):
    """Trains a generator and a discriminator in turns. Each turn of a loop over it is one step of both.

    for step in GanTrainer(generator, discriminator, pictures, steps=1000):
        print(step.loss_d, step.loss_g)

    A step: D sees as many real examples as fakes and is updated; then G makes new fakes, gets D's verdict, and is
    updated. What decides between health and collapse: `lr_g` against `lr_d`, Adam's momentum `beta1`, the noise
    (`noise` is its standard deviation, 0 takes it away; the generator's `latent` its size), the discriminator's
    `minibatch_std`, and `r1`, which keeps D from becoming steep around real examples:

    r1 / 2  mean |grad_x D(x)|^2                                          (Mescheder et al. 2018, eq. 9)

    where with `minibatch_std` D(x) is the sum over the batch, as its answers then depend on each other. The losses
    that a step reports are without the penalty. `trainer.ema` is a generator with the exponential moving average of
    the weights: the one to keep, as the generator of a single step stumbles now and then, even in a healthy run.

    x: (N, C, H, W) uint8 or float in [-1, 1] (check_range=False: in any range), or points (N, 2)
    steps: the length of the whole run;  batch: 1 or more
    Raises ValueError if the pictures are not what the players take (see `checks`), and FloatingPointError when a loss
    or its gradient is not finite; on the CPU the weights are then those before.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, x: Tensor, *, steps: int, batch: int = 64,
                 lr_g: float = 1e-3, lr_d: float = 1e-3, beta1: float = 0.5, noise: float = 1.0, r1: float = 0.0,
                 ema_decay: float = 0.99, seed: int = 0, check_range: bool = True) -> None:
        x = check_pictures(x, check_range=check_range)
        if batch < 1:
            raise ValueError(f"a batch needs at least one example, not {batch}")
        super().__init__(generator, steps=steps, seed=seed, ema_decay=ema_decay)
        self.generator, self.discriminator = generator, discriminator
        self.latent = int(generator.latent)    # type: ignore[arg-type]    # nn.Module's attributes have no types
        with torch.no_grad():
            made = self.ema(torch.zeros(1, self.latent, device=self.device))
        if made.shape[1:] != x.shape[1:]:
            raise ValueError(f"the generator makes {tuple(made.shape[1:])}, and the pictures are {tuple(x.shape[1:])}: "
                             "they must have one shape, (C, H, W)")
        self.x = x.to(self.device)
        self.batch, self.lr_g, self.lr_d, self.beta1, self.noise, self.r1 = batch, lr_g, lr_d, beta1, noise, r1
        adam: dict[str, Any] = dict(betas=(beta1, 0.99), fused=True)    # fused: a sixth less time on small networks
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr=lr_g, **adam)
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=lr_d, **adam)

    def train_step(self) -> GanStep:
        """Update D once, then G once."""
        real, z_d, z_g = self.sample_batch(self.step_generator(self.step))
        loss_d, on_real, on_fake = self.discriminator_step(real, z_d)
        loss_g = self.generator_step(z_g)
        self.step += 1
        self.update_ema(self.generator)
        accuracy = (on_real > 0).float().mean(), (on_fake < 0).float().mean()
        return GanStep(self.step, torch.stack([loss_d, loss_g, *accuracy]))

    def discriminator_step(self, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D learns to tell real from fake; G stays as it is.  -> its loss, its logits of real examples and of fakes"""
        with torch.no_grad():
            fake = self.generator(z)
        real = real.detach().requires_grad_(self.r1 > 0)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        loss = discriminator_loss(on_real, on_fake)
        penalty: Tensor | float = 0.0
        if self.r1 > 0:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            penalty = self.r1 / 2 * slope.square().flatten(1).sum(1).mean()
        self.update(self.discriminator, self.optimizer_d, loss + penalty)
        return loss.detach(), on_real.detach(), on_fake.detach()

    def generator_step(self, z: Tensor) -> Tensor:
        """G learns to fool D; the gradient comes through D, but D stays as it is.  -> its loss"""
        loss = generator_loss(self.discriminator(self.generator(z)))
        self.update(self.generator, self.optimizer_g, loss)
        return loss.detach()

    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step of this network down the gradient of its loss; no other network gets a gradient."""
        weights = list(network.parameters())
        gradients = torch.autograd.grad(loss, weights)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        self.guard(loss, norm, gradients)
        for weight, gradient in zip(weights, gradients):
            weight.grad = gradient
        optimizer.step()

    def sample_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The random part of a step: real examples, and the noise for D's update and for G's."""
        chosen = torch.randint(len(self.x), (self.batch,), generator=generator, device=self.device)
        real = self.x[chosen] if self.x.dtype.is_floating_point else to_float(self.x[chosen])
        z = self.noise * torch.randn(2, self.batch, self.latent, generator=generator, device=self.device)
        return real, z[0], z[1]

    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that a checkpoint must match."""
        names = ("steps", "batch", "lr_g", "lr_d", "beta1", "noise", "r1", "ema_decay", "seed")
        return {"examples": len(self.x), **{name: getattr(self, name) for name in names}}

    def state_parts(self) -> dict[str, Any]:
        """What a checkpoint saves."""
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema,
                "optimizer_g": self.optimizer_g, "optimizer_d": self.optimizer_d}
