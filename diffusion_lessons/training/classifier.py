"""Training the classifiers that measure generated pictures: an iterator, resumable as all of `training` is."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.models.classifiers import AttributeClassifier, Classifier
from diffusion_lessons.training.base import BaseTrainer, make_lr_scheduler
from diffusion_lessons.training.diffusion import TrainStep

BatchFunction = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class ClassifierTrainer(BaseTrainer):
    """Trains a classifier by cross-entropy with smoothed labels. Each turn of a loop over it is one step.

    sample_batch: (k, generator of step k) -> pictures (B, C, H, W) in [-1, 1] and labels (B,), or attributes (B, 4)
    lr_schedule: see `base.make_lr_scheduler`;  `trainer.ema` has the weights of the last step: there is no averaging
    Raises FloatingPointError when the loss or its gradient is not finite.
    """

    def __init__(self, classifier: Classifier | AttributeClassifier, sample_batch: BatchFunction, *, steps: int,
                 lr: float = 3e-3, label_smoothing: float = 0.05, lr_schedule: str = "cosine", seed: int = 0) -> None:
        super().__init__(classifier, steps=steps, seed=seed, ema_decay=0.0)
        self.classifier, self.sample_batch = classifier, sample_batch
        self.lr, self.label_smoothing, self.lr_schedule = lr, label_smoothing, lr_schedule
        self.optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.01)
        self.lr_scheduler = make_lr_scheduler(self.optimizer, steps, lr_schedule)

    def train_step(self) -> TrainStep:
        """Take one step and report on it."""
        self.classifier.train()
        x, y = (part.to(self.device) for part in self.sample_batch(self.step, self.data_generator(self.step)))
        loss = self.loss(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [w.grad for w in self.classifier.parameters() if w.grad is not None]
        self.guard(loss, torch.stack([g.norm() for g in gradients]).norm(), gradients)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.step += 1
        self.update_ema(self.classifier)
        return TrainStep(self.step, loss.detach())

    def data_generator(self, k: int) -> torch.Generator:
        """As `step_generator`, but on the CPU, where these pictures are made."""
        return torch.Generator().manual_seed(self.step_generator(k).initial_seed())

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of a batch; for attributes the sum over them."""
        logits = self.classifier(x)
        if isinstance(self.classifier, Classifier):
            return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        return sum((F.cross_entropy(part, y[:, k], label_smoothing=self.label_smoothing)
                    for k, part in enumerate(self.classifier.split(logits))), torch.zeros((), device=x.device))

    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that a checkpoint must match."""
        return {name: getattr(self, name) for name in ("steps", "lr", "label_smoothing", "lr_schedule", "seed")}

    def state_parts(self) -> dict[str, Any]:
        """What a checkpoint saves."""
        return {"weights": self.classifier, "ema": self.ema, "optimizer": self.optimizer,
                "lr_scheduler": self.lr_scheduler}


def shifted_digits(x: Tensor, y: Tensor, batch: int = 128) -> BatchFunction:
    """Batches of random digits, moved by up to two pixels, as the classifier must not depend on where they stand."""
    def sample_batch(k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (batch,), generator=generator)
        dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
        return torch.roll(to_float(x[chosen]), (dy, dx), (2, 3)), y[chosen]

    return sample_batch


def fresh_critters(seed: int, batch: int = 128, every: int = 64) -> BatchFunction:
    """Batches of critters of all pairs of attributes, held-out ones too; new scenes every so many steps, so that none
    is memorised. Half of them are slightly noisy, as generated pictures are.
    """
    kept: dict[str, Any] = {}

    def sample_batch(k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = k - k % every
        if kept.get("first") != first:
            scenes = critters.sample_all_pairs(batch * every, seed * 1_000_003 + first)
            kept.update(first=first, x=critters.render(scenes), y=scenes.attributes())
        rows = slice(k % every * batch, (k % every + 1) * batch)
        x = to_float(kept["x"][rows])
        strength = 0.15 * torch.rand(len(x), 1, 1, 1, generator=generator)
        strength = strength * (torch.rand(strength.shape, generator=generator) < 0.5)
        return x + strength * torch.randn(x.shape, generator=generator), kept["y"][rows]

    return sample_batch
