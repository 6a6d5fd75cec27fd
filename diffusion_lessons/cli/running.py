"""How a training runs on the command line: its checkpoint, how many steps there is time for, the progress bar."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from diffusion_lessons.datasets import LabeledImages
    from diffusion_lessons.training import BaseTrainer
    from diffusion_lessons.training.recipes import AnyRecipe


def checkpoint_of(options: argparse.Namespace, name: str, recipe: AnyRecipe, unless_said: str = "10min") -> Path:
    """Where a run is kept: where the command line says, or in checkpoints/, named after the settings.

    unless_said: what stands for the length where the command line does not say it
    """
    length = ("full" if options.full else f"{options.steps}steps" if options.steps else
              f"{options.minutes:g}min" if options.minutes else unless_said)
    return options.checkpoint or Path("checkpoints") / f"{name}-{length}-{recipe.seed}.pt"


def progress_of(checkpoint: Path) -> tuple[int, int | None]:
    """(steps done, steps in all) of a checkpoint, (0, None) if there is none. Raises ValueError if it is damaged."""
    from diffusion_lessons.training.base import newest_checkpoint

    if not checkpoint.exists():
        return 0, None
    state, found = newest_checkpoint(checkpoint)
    steps = state["hparams"].get("steps")
    if type(steps) is not int or not 0 <= state["step"] <= steps:
        raise ValueError(f"{found} is damaged: it is at step {state['step']} of {steps}; move it away to start afresh")
    return state["step"], steps


def affordable_steps(recipe: AnyRecipe, model: Any, data: LabeledImages, minutes: float) -> int:
    """How many steps this machine takes in so many minutes; prints it."""
    from diffusion_lessons.training import recipes

    speed = recipes.steps_a_second(recipe, model, data)
    steps = max(1, int(60 * minutes * speed))
    print(f"{speed:.1f} steps a second here: {minutes:g} minutes are about {steps:,} steps")
    return steps


def train_network(recipe: AnyRecipe, model: Any, data: LabeledImages, checkpoint: Path, done: int) -> tuple[Any, str]:
    """Train by a recipe, resumed from the checkpoint if `done` steps are in it.

    -> (the averaged network with its weights as they are stored, in float16; words on its loss)
    """
    from diffusion_lessons.training import recipes

    trainer = recipes.trainer(recipe, model, data)
    if done:
        print(f"resuming from {checkpoint}: step {done:,} of {recipe.steps:,}")
    loss = watch_training(trainer, checkpoint, done)
    return trainer.ema.half().float(), loss


def watch_training(trainer: BaseTrainer, checkpoint: Path, done: int) -> str:
    """Train with a progress bar.  -> words on the mean loss of the last 100 steps"""
    import torch
    from tqdm import tqdm

    from diffusion_lessons import distributed, training

    recent: list[torch.Tensor] = []
    with tqdm(total=trainer.steps, initial=done, desc="training", unit="step", disable=distributed.rank() > 0) as bar:

        def callback(step: Any) -> None:
            recent.append(step.loss_tensor)
            del recent[:-100]
            bar.update(step.step - bar.n)
            if step.step % (10 * trainer.read_every) == 0:
                bar.set_postfix(loss=f"{torch.stack(recent).mean().item():.4f}", refresh=False)

        try:
            training.run(trainer, checkpoint, every=200, callback=callback)
        except KeyboardInterrupt as stop:
            kept = f"{str(stop) or 'stopped'}. The same command resumes from {checkpoint}"
            raise KeyboardInterrupt(kept) from stop
    return f", loss {torch.stack(recent).mean().item():.4f}" if recent else ""
