"""Training a denoiser, as an iterator; whatever watches it (a bar, a plot, a checkpoint) stays outside."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffusion_lessons.checks import check_labels, check_pictures
from diffusion_lessons.datasets import to_float
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.distributed import mean
from diffusion_lessons.training.base import BaseTrainer, make_lr_scheduler


@dataclass(frozen=True, eq=False)
class TrainStep:
    """One step of training: its number (from 1) and its loss, a tensor that stays on the device until it is read."""

    step: int
    loss_tensor: Tensor

    @property
    def loss(self) -> float:
        """The loss as a number. A GPU must finish the step for it, so do not ask at every step there."""
        return self.loss_tensor.item()


class Trainer(BaseTrainer):
    """Trains a Denoiser by algorithm 1 of Ho et al. 2020. Each turn of a loop over it is one step.

        for step in Trainer(denoiser, pictures, steps=1000):
            print(step.step, step.loss)

    A step: random pictures, a random t in 1..T for each, noise, one prediction, one gradient step of AdamW; labels or
    captions are replaced by the null condition, one by one, with probability `cond_drop_prob`, so that the network
    also learns to work without them (Ho & Salimans 2022, algorithm 1).
    `trainer.ema` is a denoiser with the exponential moving average of the weights: the one to sample from.

    x: (N, C, H, W) uint8, or float in [-1, 1];  y: (N,) labels, (N, L) tokens or None
    check_range: False trains on float pictures of any range, with which few networks learn anything
    steps: the length of the whole run;  t_range: (lowest, highest) t drawn, 1..T if not given
    lr_schedule: "cosine" falls to 0 at the end, "constant" stays, so that one run can be measured at several lengths
    batch: pictures a step, of all processes together where several train (see `distributed`)
    model: the denoiser as it is called, if that is wrapped (DistributedDataParallel, torch.compile, accelerate)
    Raises ValueError if pictures or labels are not what the network takes (see `checks`), or the processes cannot share
    the batch evenly, and FloatingPointError when the loss or its gradient is not finite; on the CPU the weights are
    then those of the step before.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None, *, steps: int, batch: int = 64,
                 lr: float = 2e-3, ema_decay: float = 0.999, cond_drop_prob: float = 0.1, weighting: str = "v",
                 t_range: tuple[int, int] | None = None, lr_schedule: str = "cosine", seed: int = 0,
                 check_range: bool = True, model: nn.Module | None = None) -> None:
        x = check_pictures(x, denoiser.net, check_range)
        y = None if y is None else check_labels(y, len(x), denoiser.net)
        super().__init__(denoiser, steps=steps, seed=seed, ema_decay=ema_decay)
        self.denoiser, self.model = denoiser, denoiser if model is None else model
        self.x, self.y = x.to(self.device), None if y is None else y.to(self.device)
        if batch % self.world:
            raise ValueError(f"{self.world} processes cannot share a batch of {batch} evenly: choose a multiple of "
                             f"{self.world}")
        self.batch, self.lr, self.cond_drop_prob, self.weighting = batch, lr, cond_drop_prob, weighting
        self.t_range = tuple(t_range or (1, denoiser.schedule.T))
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.lr_schedule, self.lr_scheduler = lr_schedule, make_lr_scheduler(self.optimizer, steps, lr_schedule)

    def train_step(self) -> TrainStep:
        """Take one step and report on it."""
        self.model.train()
        generator = self.step_generator(self.step)
        x0, t, eps, y = self.sample_batch(generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=runs_bf16(self.device)):
            loss = self.denoiser.loss(x0, t, eps, y, weighting=self.weighting, generator=generator,
                                      model=self.model).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = mean(loss.detach())
        weights = list(self.denoiser.parameters())
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        self.guard(loss, norm, (w.grad for w in weights if w.grad is not None))
        self.optimizer.step()
        self.lr_scheduler.step()
        self.step += 1
        self.update_ema(self.denoiser)
        return TrainStep(self.step, loss)

    def sample_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The random part of a step, the share of this process: pictures, times, noise, labels."""
        draw: Any = dict(generator=generator, device=self.device)
        chosen = self.share(torch.randint(len(self.x), (self.batch,), **draw))
        x0 = self.x[chosen] if self.x.dtype.is_floating_point else to_float(self.x[chosen])
        low, high = self.t_range
        t = self.share(torch.randint(low, high + 1, (self.batch,), **draw))
        eps = self.share(torch.randn((self.batch, *x0.shape[1:]), **draw))
        if self.y is None:
            return x0, t, eps, None
        dropped = self.share(torch.rand(self.batch, **draw) < self.cond_drop_prob)
        dropped = dropped.reshape(-1, *[1] * (self.y.ndim - 1))
        return x0, t, eps, torch.where(dropped, cast(Tensor, self.denoiser.net.null_y), self.y[chosen])

    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that a checkpoint must match."""
        names = ("steps", "batch", "lr", "ema_decay", "cond_drop_prob", "weighting", "t_range", "lr_schedule", "seed")
        return {"pictures": len(self.x), "prediction_type": self.denoiser.prediction_type,
                "schedule": repr(self.denoiser.schedule), **{name: getattr(self, name) for name in names}}

    def state_parts(self) -> dict[str, Any]:
        """What a checkpoint saves; the weights are the denoiser's own, wrapped or not."""
        return {"weights": self.denoiser, "ema": self.ema, "optimizer": self.optimizer,
                "lr_scheduler": self.lr_scheduler}


def runs_bf16(device: torch.device) -> bool:
    """Whether this device computes in bfloat16 natively: GPUs from 2020 on do, the T4 of a free Colab does not."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
