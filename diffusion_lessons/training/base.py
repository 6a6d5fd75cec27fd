"""What all trainings share: an iterator over steps, a state to resume from, checkpoints, a clean stop.

Every random draw of step k comes from a generator seeded by (seed, k) alone. So the same seed gives the same network,
and a run continued from a checkpoint is, on the CPU, bit for bit the run that was never stopped. Where several
processes train together, each draws the random numbers of the whole batch and takes its share of the pictures: so they
train the network that one process would train, up to rounding, and a checkpoint continues with any number of them.
"""

import abc
import contextlib
import copy
import hashlib
import io
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffusion_lessons.checks import is_finite
from diffusion_lessons.distributed import any_of, rank, world
from diffusion_lessons.runtime import atomic_write, exclusive

READ_EVERY = 50    # steps on a GPU between two looks at the losses, as each look waits for the GPU
LR_SCHEDULES = ("cosine", "constant", "wsd", "one_cycle")


class BaseTrainer(abc.ABC):
    """Base class of the trainers: a resumable iterator over optimisation steps.

    A subclass has `train_step()`, which takes one step and counts `self.step` up; `hparams()`, the hyperparameters
    that a checkpoint must match; and `state_parts()`, {name: module, optimizer or scheduler to save}.

    model: what is trained; `self.ema` is a copy of it with the exponential moving average of its weights
    """

    def __init__(self, model: nn.Module, *, steps: int, seed: int = 0, ema_decay: float = 0.999) -> None:
        self.step, self.steps, self.seed, self.ema_decay = 0, steps, seed, ema_decay
        self.device, self.rank, self.world = next(model.parameters()).device, rank(), world()
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
        """The generator of all random draws of step k, seeded by (seed, k): the same for all processes."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + k)

    def share(self, x: Tensor) -> Tensor:
        """The rows of a whole batch that this process works on.  (B, ...) -> (B / processes, ...)"""
        return x[self.rank::self.world]

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
        """Continue from there. Raises ValueError, and changes nothing, if it is the state of another run or damaged."""
        self.check_state(state)
        for name, part in self.state_parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise ValueError unless this is a state of this run: its hyperparameters, step, shapes and finite numbers."""
        for name, here in self.hparams().items():
            if state["hparams"][name] != here:
                raise ValueError(f"the checkpoint is of a run with {name}={state['hparams'][name]}, not {here}: "
                                 "continue with the same settings, or name another checkpoint file")
        if type(state["step"]) is not int or not 0 <= state["step"] <= self.steps:
            raise ValueError(f"the checkpoint is damaged: its step is {state['step']}, of {self.steps}")
        for name, part in self.state_parts().items():
            if isinstance(part, nn.Module) and shapes(part.state_dict()) != shapes(state[name]):
                raise ValueError(f"the checkpoint does not fit this network: its {name} have other names or shapes")
        if not all_finite(state):
            raise ValueError("the checkpoint is damaged: it holds NaN or infinity")


def shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor of a network's state."""
    return {name: x.shape for name, x in tensors.items()}


def all_finite(state: Any) -> bool:
    """Is every tensor in these nested dicts and lists free of NaN and infinity?"""
    if isinstance(state, Tensor):
        return is_finite(state)
    if isinstance(state, dict):
        return all(map(all_finite, state.values()))
    return all(map(all_finite, state)) if isinstance(state, list | tuple) else True


def lr_factor(k: int, steps: int, schedule: str = "cosine") -> float:
    """The learning rate of step k (from 0) as a share of the highest.

    It rises linearly over the first tenth of the steps, 200 at most. Then "cosine" falls to 0 along half a cosine,
    (1 + cos(pi k / steps)) / 2 (Loshchilov & Hutter 2017, eq. 5); "constant" stays; and "wsd" (warmup-stable-decay,
    Hu et al. 2024) stays, and falls linearly to 0 in the last fifth, so that a run can be made longer until then.
    """
    warmup = min(1.0, (k + 1) / min(200, max(1, steps // 10)))
    rest = {"constant": 1.0, "wsd": min(1.0, 5 * (1 - k / steps))}
    return warmup * rest.get(schedule, 0.5 * (1 + math.cos(math.pi * k / steps)))


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
    """Write the state of a run to one file, with its digest; the checkpoint before it stays as NAME.previous.pt.

    A kill at any moment leaves the old file or the new, never half a one. Raises FloatingPointError, and writes
    nothing, when the state holds NaN or infinity.
    """
    path, state, buffer = Path(path), trainer.state_dict(), io.BytesIO()
    if not all_finite(state):
        raise FloatingPointError(f"the state of step {trainer.step} holds NaN or infinity, so it is not saved: try a "
                                 f"lower learning rate than {trainer.rates()}")
    torch.save(state, buffer)
    with atomic_write(path) as scratch:
        scratch.write_bytes(with_digest(buffer.getvalue()))
        keep_previous(path)


def keep_previous(path: Path) -> None:
    """Copy a checkpoint to NAME.previous.pt before it is replaced, unless it is damaged: then the older copy stays."""
    if not path.exists():
        previous_of(path).unlink(missing_ok=True)    # of another run, which was moved away
        return
    try:
        read_checkpoint(path)
    except ValueError:
        return
    with atomic_write(previous_of(path)) as scratch:
        shutil.copyfile(path, scratch)


def previous_of(path: str | Path) -> Path:
    """Where the checkpoint before this one lies: run.pt -> run.previous.pt"""
    return Path(path).with_name(f"{Path(path).stem}.previous{Path(path).suffix}")


# A file of torch.save is a zip. Such a file ends in a record of 22 bytes, whose last two count the bytes of a comment
# that follows. The comment is the SHA-256 of all that stands before it; torch checks nothing of what it reads.
def with_digest(content: bytes) -> bytes:
    """A file of torch.save with its own SHA-256 as the comment of the zip; `torch.load` reads it as before."""
    content = content[:-2] + (64).to_bytes(2, "little")
    return content + hashlib.sha256(content).hexdigest().encode()


def is_intact(content: bytes) -> bool:
    """Does the content of a checkpoint agree with its digest? One without a digest, from before there were any, does.

    No single changed bit makes a file without a digest of one that has it.
    """
    if content[-22:-18] == b"PK\5\6" and content[-2:] == b"\0\0":
        return True
    return hashlib.sha256(content[:-64]).hexdigest().encode() == content[-64:]


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a file of `save_checkpoint`. Raises ValueError if it is none or damaged, and leaves it alone."""
    damaged = f"{path} is damaged or not a checkpoint; move it away to start afresh"
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file: name another checkpoint")
    content = Path(path).read_bytes()
    if not is_intact(content):
        raise ValueError(damaged)
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        fine = type(state["step"]) is int and isinstance(state["hparams"], dict)
    except Exception as error:    # a file of something else can raise anything
        raise ValueError(damaged) from error
    if not fine:
        raise ValueError(damaged)
    return state


def newest_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], Path]:
    """The newest intact state: of `path`, or, if that is damaged, of the one before.  -> (state, where it was read)"""
    try:
        return read_checkpoint(path, device), Path(path)
    except ValueError as damage:
        try:
            return read_checkpoint(previous_of(path), device), previous_of(path)
        except (ValueError, OSError):
            raise damage from None


def load_checkpoint(path: str | Path, trainer: BaseTrainer) -> None:
    """Continue from a file of `save_checkpoint`, or from the one before if it is damaged, which a line then says.

    Raises ValueError if neither is a checkpoint of this run, and leaves the files alone.
    """
    state, found = newest_checkpoint(path, trainer.device)
    try:
        trainer.load_state_dict(state)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{path} does not fit this network or is damaged; move it away to start afresh") from error
    if found != Path(path):
        print(f"{path} is damaged: going on from the checkpoint before it, step {trainer.step} in {found.name}")


def run(trainer: BaseTrainer, checkpoint: str | Path | None = None, every: int = 500,
        callback: Callable[[Any], object] | None = None) -> Any:
    """Train to the end, with a checkpoint every so many steps; continue from the checkpoint if there is one.

    Ctrl-C ends it after the current step, saves the checkpoint and raises KeyboardInterrupt: nothing learned is lost.
    callback: called with each step.  Of several processes that train together, the first writes the checkpoints.
    Returns `trainer.ema`, the model with averaged weights.
    Raises BlockingIOError when another training writes the same checkpoint, and as `load_checkpoint` does.
    """
    target = None if trainer.rank > 0 else checkpoint
    with contextlib.nullcontext() if target is None else exclusive(target), stop_between_steps() as stop_requested:
        if checkpoint is not None and Path(checkpoint).exists():
            load_checkpoint(checkpoint, trainer)
        for step in trainer:
            if callback is not None:
                callback(step)
            # asked once: a Ctrl-C that comes later waits for the next step; several processes stop at the same one
            stop = any_of(stop_requested()) if trainer.world == 1 or step.step % trainer.read_every == 0 else False
            if target is not None and (step.step % every == 0 or stop):
                save_checkpoint(target, trainer)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step.step}")
        if target is not None:
            save_checkpoint(target, trainer)
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
    if world() > 1:    # at Ctrl-C `accelerate launch` sends this to its processes
        signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGINT, before)
        if world() > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
