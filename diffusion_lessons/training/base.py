"""What all trainings share: an iterator over steps, a state to resume from, checkpoints, a clean stop.

Every random draw of step k comes from a generator seeded by (seed, k) alone, and by the rank where several processes
train together. So the same seed gives the same network, and a run continued from a checkpoint is, on the CPU, bit for
bit the run that was never stopped.
"""

import abc
import contextlib
import copy
import math
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffusion_lessons.runtime import atomic_write, rank

READ_EVERY = 50    # steps on a GPU between two looks at the losses, as each look waits for the GPU
LR_SCHEDULES = ("cosine", "constant", "one_cycle")


class BaseTrainer(abc.ABC):
    """Base class of the trainers: a resumable iterator over optimisation steps.

    A subclass has `train_step()`, which takes one step and counts `self.step` up; `hparams()`, the hyperparameters
    that a checkpoint must match; and `state_parts()`, {name: module, optimizer or scheduler to save}.

    model: what is trained; `self.ema` is a copy of it with the exponential moving average of its weights
    """

    def __init__(self, model: nn.Module, *, steps: int, seed: int = 0, ema_decay: float = 0.999) -> None:
        self.step, self.steps, self.seed, self.ema_decay = 0, steps, seed, ema_decay
        self.device, self.rank = next(model.parameters()).device, rank()
        self.ema: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.read_every = READ_EVERY if self.device.type == "cuda" else 1
        self._unread: list[tuple[int, Tensor, Tensor]] = []

    def __iter__(self) -> Iterator[Any]:
        while self.step < self.steps:
            yield self.train_step()
        self.read_losses()

    @abc.abstractmethod
    def train_step(self) -> Any:
        """Take one step and report on it."""

    @abc.abstractmethod
    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that a checkpoint must match."""

    @abc.abstractmethod
    def state_parts(self) -> dict[str, Any]:
        """What a checkpoint saves, by name."""

    def step_generator(self, k: int) -> torch.Generator:
        """The generator of all random draws of step k, seeded by (seed, k, rank).

        The factor of the rank is odd, so that ranks keep apart in the 32 bits that a CPU generator looks at.
        """
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + k + self.rank * 0x9E3779B1)

    def update_ema(self, model: nn.Module) -> None:
        """ema <- d ema + (1 - d) weights; d rises to `ema_decay`, so that the start is soon forgotten.

        (`swa_utils.AveragedModel` keeps its count in a tensor, for which a GPU would have to wait at every step; this
        is the function that it calls.)
        """
        d = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(d)(list(self.ema.parameters()), list(model.parameters()), self.step)
        for averaged, current in zip(self.ema.buffers(), model.buffers(), strict=True):
            averaged.copy_(current)

    def guard(self, loss: Tensor, norm: Tensor, gradients: Iterable[Tensor]) -> None:
        """Let no gradient through that is NaN or infinite; call it before the optimizer's step.

        On the CPU it raises FloatingPointError at once. On a GPU, which would have to wait for that, such gradients
        become 0, and the error follows at the next `read_losses`.

        loss, norm: () the loss, and the length of its gradient before clipping
        """
        self._unread.append((self.step, loss.detach(), norm.detach()))
        if len(self._unread) >= self.read_every:
            self.read_losses()
        if self.read_every > 1:
            for gradient in gradients:
                torch.nan_to_num_(gradient, 0.0, 0.0, 0.0)

    def read_losses(self) -> None:
        """Read the losses since the last look, in one transfer. Raises FloatingPointError if one is not finite."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        found = torch.stack([torch.stack([loss, norm]) for _, loss, norm in unread]).tolist()
        for (k, _, _), (loss, norm) in zip(unread, found):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                kept = (f"The weights are still those of step {k}." if self.read_every == 1 else
                        f"That gradient was left out. The run is now at step {self.step}; start from a checkpoint.")
                raise FloatingPointError(f"the loss of step {k + 1} is {loss}, its gradient {norm}: try a lower "
                                         f"learning rate than {self.rates()}. {kept}")

    def rates(self) -> str:
        """The learning rates, for an error message."""
        return ", ".join(f"{name}={value:g}" for name, value in self.hparams().items() if name.startswith("lr")
                         and name != "lr_schedule")

    def state_dict(self) -> dict[str, Any]:
        """All that a continued run needs."""
        self.read_losses()    # a run that has gone wrong is not saved
        parts = {name: part.state_dict() for name, part in self.state_parts().items()}
        return {"step": self.step, "hparams": self.hparams(), **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there. Raises ValueError if it is the state of another run."""
        for name, here in self.hparams().items():
            if state["hparams"][name] != here:
                raise ValueError(f"the checkpoint is of a run with {name}={state['hparams'][name]}, not {here}: "
                                 "continue with the same settings, or name another checkpoint file")
        for name, part in self.state_parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]


def lr_factor(k: int, steps: int, schedule: str = "cosine") -> float:
    """The learning rate of step k (from 0) as a share of the highest.

    It rises linearly over the first tenth of the steps, 200 at most; "cosine" then falls to 0 along half a cosine,
    (1 + cos(pi k / steps)) / 2 (Loshchilov & Hutter 2017, eq. 5), and "constant" stays.
    """
    warmup = min(1.0, (k + 1) / min(200, max(1, steps // 10)))
    return warmup * (1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * k / steps)))


def make_lr_scheduler(optimizer: torch.optim.Optimizer, steps: int, schedule: str = "cosine") -> LRScheduler:
    """Sets the optimizer's learning rate by `lr_factor`, or for "one_cycle" by torch's OneCycleLR (Smith & Topin 2017).

    Raises ValueError that lists the schedules.
    """
    if schedule not in LR_SCHEDULES:
        raise ValueError(f"unknown lr_schedule {schedule!r}; known are {', '.join(LR_SCHEDULES)}")
    if schedule == "one_cycle":
        return OneCycleLR(optimizer, optimizer.defaults["lr"], steps)
    return LambdaLR(optimizer, lambda k: lr_factor(k, steps, schedule))


def save_checkpoint(path: str | Path, trainer: BaseTrainer) -> None:
    """Write the state of a run to one file; a kill at any moment leaves the old file or the new, never half a one."""
    state = trainer.state_dict()
    with atomic_write(path) as scratch:
        torch.save(state, scratch)


def load_checkpoint(path: str | Path, trainer: BaseTrainer) -> None:
    """Continue from a file of `save_checkpoint`. Raises ValueError if it is none, and leaves the file alone."""
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        trainer.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} does not fit this network or is damaged; move it away to start afresh") from error


def run(trainer: BaseTrainer, checkpoint: str | Path | None = None, every: int = 500,
        callback: Callable[[Any], object] | None = None) -> Any:
    """Train to the end, with a checkpoint every so many steps; continue from the checkpoint if there is one.

    Ctrl-C ends it after the current step, saves the checkpoint and raises KeyboardInterrupt: nothing learned is lost.
    callback: called with each step.  Of several processes that train together, the first writes the checkpoints.
    Returns `trainer.ema`, the model with averaged weights.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        load_checkpoint(checkpoint, trainer)
    if trainer.rank > 0:
        checkpoint = None
    with stop_between_steps() as stop_requested:
        for step in trainer:
            if callback is not None:
                callback(step)
            stop = stop_requested()    # asked once: a Ctrl-C that comes later waits for the next step
            if checkpoint is not None and (step.step % every == 0 or stop):
                save_checkpoint(checkpoint, trainer)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step.step}")
    if checkpoint is not None:
        save_checkpoint(checkpoint, trainer)
    return trainer.ema


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C only sets a flag, so that no step is cut short. A second Ctrl-C interrupts at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def request(*_: object) -> None:
        requested.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, request)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGINT, before)
