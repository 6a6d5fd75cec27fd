"""Training inside a notebook: one bar, the minutes it will take, and a stop button that loses nothing."""

import time
from pathlib import Path

from tqdm.auto import tqdm

from diffusion_lessons import training

FIRST = 5     # steps after which the rest can be estimated


def train_here(trainer, name, folder="checkpoints"):
    """Train to the end, or until the stop button (or Ctrl-C), and give back what has been learned, on the CPU.

    Every 500 steps and when it is stopped the state is written to folder/name-steps.pt; calling it again goes on from
    there, and after the end gives back the result at once. Move that file away to begin anew.

    trainer: a training.Trainer, or an gan.GanTrainer
    """
    path = Path(folder) / f"{name}-{trainer.steps}.pt"
    began, known, first = time.perf_counter(), path.exists(), None
    with tqdm(total=trainer.steps, desc=name, leave=False) as bar:
        def watch(step):
            nonlocal first
            bar.update(step.step - bar.n)
            first = first or step.step
            if step.step == first + FIRST:
                minutes = (time.perf_counter() - began) / (FIRST + 1) * (trainer.steps - step.step) / 60
                bar.write(f"{name}: {'goes on' if known else 'begins'}, and will take about {minutes:.1f} minutes. "
                          "The stop button (or Ctrl-C) loses nothing.")

        try:
            training.run(trainer, path, watch=watch)
        except KeyboardInterrupt:
            print(f"{name}: stopped after {trainer.step} of {trainer.steps} steps. What follows uses what it has "
                  "learned so far; run this cell again to go on.")
    return trainer.average.cpu()
