"""Training a denoiser, as an iterator; what watches it (a bar, a plot, a checkpoint) stands outside.

Every random draw of step k comes from a generator seeded by (seed, k) alone. So the same seed gives the same network,
and a run continued from a checkpoint is, on the CPU, bit for bit the run that was never stopped.
"""

import contextlib
import copy
import math
import pickle
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion_lessons.checks import check_labels, check_pictures
from diffusion_lessons.datasets import to_float
from diffusion_lessons.forward import add_noise
from diffusion_lessons.runtime import atomic_write


@dataclass(frozen=True)
class TrainStep:
    """One step of training: its number (from 1) and its loss."""

    step: int
    loss: float


class Training:
    """What every training is: an iterator over numbered steps, with a state to go on from.

    A subclass has `one_step()`, which counts `self.step` up; `settings()`, what makes this run this run and no other;
    and `parts()`, {name: what holds its state}. It keeps `steps`, `seed`, `device`, and `ema` of its running average.
    """

    step = 0

    def __iter__(self):
        while self.step < self.steps:
            yield self.one_step()

    def dice(self, k):
        """The generator of all random draws of step k: the same for the same seed, whatever came before."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + k)

    @torch.no_grad()
    def update_average(self, average, network):
        """average <- d average + (1 - d) weights; d grows with the steps, so that the start is forgotten early."""
        d = min(self.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - d)

    def state_dict(self):
        """All that a continued run needs."""
        parts = {name: part.state_dict() for name, part in self.parts().items()}
        return {"step": self.step, "settings": self.settings(), **parts}

    def load_state_dict(self, state):
        """Go on from there. Raises ValueError when it was another run."""
        for name, here in self.settings().items():
            if state["settings"][name] != here:
                raise ValueError(f"the checkpoint is of a run with {name}={state['settings'][name]}, not {here}: "
                                 "continue with the same settings, or name another checkpoint file")
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]


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


def save_checkpoint(path, trainer):
    """Write the state of a run to one file; a kill at any moment leaves the old file or the new, never half a one."""
    with atomic_write(path) as scratch:
        torch.save(trainer.state_dict(), scratch)


def load_checkpoint(path, trainer):
    """Continue from a file of `save_checkpoint`. Raises ValueError, and leaves the file alone, when it is none."""
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        trainer.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} does not fit this network or is damaged; move it away to start afresh") from error


def run(trainer, checkpoint=None, every=500, watch=None):
    """Train to the end, with a checkpoint every so many steps; go on from the checkpoint if there is one.

    Ctrl-C ends it after the step in hand, saves the checkpoint and raises KeyboardInterrupt: nothing learned is lost.
    watch: called with each step.  Returns `trainer.average`, the averaged denoiser or generator.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        load_checkpoint(checkpoint, trainer)
    with stop_between_steps() as asked_to_stop:
        for step in trainer:
            if watch is not None:
                watch(step)
            stop = asked_to_stop()    # asked once: a Ctrl-C that comes later waits for the next step
            if checkpoint is not None and (step.step % every == 0 or stop):
                save_checkpoint(checkpoint, trainer)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step.step}")
    if checkpoint is not None:
        save_checkpoint(checkpoint, trainer)
    return trainer.average


@contextlib.contextmanager
def stop_between_steps():
    """Inside, Ctrl-C only raises a flag, so that no step is torn in half. A second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_):
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
