"""Training a denoiser, as an iterator; what watches it (a bar, a plot, a checkpoint) stands outside."""

import copy
import math
from dataclasses import dataclass

import torch

from diffusion_lessons.checks import check_labels, check_pictures
from diffusion_lessons.datasets import to_float
from diffusion_lessons.forward import add_noise
from diffusion_lessons.training.base import Training


@dataclass(frozen=True)
class TrainStep:
    """One step of training: its number (from 1) and its loss."""

    step: int
    loss: float


class Trainer(Training):
    """Trains a Denoiser by the recipe of Ho et al. 2020, algorithm 1. Iterate over it to let it work.

        for step in Trainer(denoiser, pictures, steps=1000):
            print(step.step, step.loss)

    A step: random pictures, a random t in 1..T for each, noise, one guess, one gradient step of AdamW; labels or
    captions are hidden, one by one, with probability `drop_label`, which teaches "nothing asked" (Ho & Salimans 2022,
    algorithm 1).
    `trainer.average` is a denoiser with the exponential moving average of the weights: the one to sample from.

    x: (N, C, H, W) uint8, or float in [-1, 1];  y: (N,) labels, (N, L) tokens or None
    check_range: False trains on float pictures of any range, which few networks survive
    steps: the length of the whole run;  times: (lowest, highest) t drawn, 1..T if not given
    Learning rate: a short warm-up, then a cosine down to 0;
    constant=True leaves out the way down, so that one run can be judged at several budgets.
    Raises ValueError when pictures or labels are not what the network takes (see `checks`), and FloatingPointError when
    the loss is no longer a number; the weights are then those of the step before.
    """

    def __init__(self, denoiser, x, y=None, *, steps, batch=64, lr=2e-3, ema=0.999, drop_label=0.1, weighting="v",
                 times=None, constant=False, seed=0, check_range=True):
        x = check_pictures(x, denoiser.net, check_range)
        y = None if y is None else check_labels(y, len(x), denoiser.net)
        self.denoiser, self.average = denoiser, copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.device = next(denoiser.parameters()).device
        self.x, self.y = x.to(self.device), None if y is None else y.to(self.device)
        self.steps, self.batch, self.lr, self.ema, self.drop_label = steps, batch, lr, ema, drop_label
        self.weighting, self.constant, self.seed = weighting, constant, seed
        self.times = tuple(times or (1, denoiser.schedule.T))
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)

    def one_step(self):
        """Take one step and say how it went."""
        self.denoiser.train()
        x0, t, eps, y = self.draw(self.step)
        x_t = add_noise(x0, t, eps, self.denoiser.schedule)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=runs_bf16(self.device)):
            loss = self.denoiser.loss(x0, x_t, t, eps, y, self.weighting).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        if not torch.isfinite(loss + length):
            raise FloatingPointError(f"the loss of step {self.step + 1} is {loss.item()}, "
                                     f"its gradient {length.item()}: try a lower learning rate than lr={self.lr:g}. "
                                     f"The weights are still those of step {self.step}.")
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(self.step)
        self.optimizer.step()
        self.step += 1
        self.update_average(self.average, self.denoiser)
        return TrainStep(self.step, loss.item())

    def draw(self, k):
        """The random part of step k: pictures, times, noise, labels."""
        generator = self.dice(k)
        chosen = torch.randint(len(self.x), (self.batch,), generator=generator, device=self.device)
        x0 = self.x[chosen] if self.x.dtype.is_floating_point else to_float(self.x[chosen])
        low, high = self.times
        t = torch.randint(low, high + 1, (self.batch,), generator=generator, device=self.device)
        eps = torch.randn(x0.shape, generator=generator, device=self.device)
        if self.y is None:
            return x0, t, eps, None
        hidden = torch.rand(self.batch, generator=generator, device=self.device) < self.drop_label
        hidden = hidden.reshape(-1, *[1] * (self.y.ndim - 1))
        return x0, t, eps, torch.where(hidden, self.denoiser.net.nothing(), self.y[chosen])

    def learning_rate(self, k):
        """Up linearly over the first steps, then down to 0 along half a cosine."""
        warm = min(1.0, (k + 1) / min(200, max(1, self.steps // 10)))
        return self.lr * warm * (1.0 if self.constant else 0.5 * (1 + math.cos(math.pi * k / self.steps)))

    def settings(self):
        """What makes this run this run and no other."""
        names = ("steps", "batch", "lr", "ema", "drop_label", "weighting", "times", "constant", "seed")
        return {"pictures": len(self.x), "target": self.denoiser.target, "schedule": repr(self.denoiser.schedule),
                **{name: getattr(self, name) for name in names}}

    def parts(self):
        """What a checkpoint holds."""
        return {"weights": self.denoiser, "average": self.average, "optimizer": self.optimizer}


def runs_bf16(device):
    """Whether this device computes bfloat16 itself: GPUs from 2020 on do, the T4 of a free Colab does not."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
