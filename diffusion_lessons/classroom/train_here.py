"""Training inside a notebook: a progress bar, an estimate of the minutes, and a stop button that loses nothing."""

import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from diffusion_lessons import training

FIRST = 5     # steps after which the rest can be estimated


def train_here(trainer: training.BaseTrainer, name: str, folder: str | Path = "checkpoints") -> Any:
    """Train to the end, or until the stop button (or Ctrl-C), and return the averaged model, on the CPU.

    Every 500 steps and when it is stopped, the state is written to folder/name-steps.pt. A second call resumes from
    there, or returns the result at once if the run had ended. Move that file away to start afresh.
    """
    path = Path(folder) / f"{name}-{trainer.steps}.pt"
    began, resumed, first = time.perf_counter(), path.exists(), None
    with tqdm(total=trainer.steps, desc=name, leave=False) as bar:
        def callback(step: Any) -> None:
            nonlocal first
            bar.update(step.step - bar.n)
            first = first or step.step
            if step.step == first + FIRST:
                trainer.read_losses()    # a GPU has then finished these steps
                minutes = (time.perf_counter() - began) / (FIRST + 1) * (trainer.steps - step.step) / 60
                bar.write(f"{name}: {'resumed' if resumed else 'started'}, and will take about {minutes:.1f} minutes. "
                          "The stop button (or Ctrl-C) loses nothing.")

        try:
            training.run(trainer, path, callback=callback)
        except KeyboardInterrupt:
            print(f"{name}: stopped after {trainer.step} of {trainer.steps} steps. What follows uses what it has "
                  "learned so far; run this cell again to resume.")
    return trainer.ema.cpu()
