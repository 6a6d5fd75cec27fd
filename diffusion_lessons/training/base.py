"""What all trainings share: an iterator over steps, a state to resume from, checkpoints, a clean stop.

Every random draw of step k comes from a generator seeded by (seed, k) alone. So the same seed gives the same network,
and a run continued from a checkpoint is, on the CPU, bit for bit the run that was never stopped.
"""

import contextlib
import pickle
import signal
import threading
from pathlib import Path

import torch

from diffusion_lessons.runtime import atomic_write


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
