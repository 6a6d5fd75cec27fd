"""diffusion-lessons train: a network from scratch by one of the course's recipes, resumable, with its card."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lessons.cli.options import check_out, file_name, real, whole

if TYPE_CHECKING:
    from torch import nn

    from diffusion_lessons.training import BaseTrainer
    from diffusion_lessons.training.recipes import AnyRecipe

SUMMARY = "train a network from scratch, or resume where you stopped it"
DESCRIPTION = """Train a network by one of the course's recipes, or resume from its checkpoint.

  digits, cifar, critters                 denoisers: about 45 minutes, 2 hours and
                                          2 hours on two cores in full length
  cifar_large                             the same for a GPU
  digits_classifier, critters_classifier, critters_second
                                          the classifiers that `evaluate` measures with
"""
EXAMPLES = """examples:
  as far as ten minutes get on this machine
    {prog} train digits --minutes 10
  a number of steps, whatever the time
    {prog} train digits --steps 10000
  critters from sentences, as far as two hours get
    {prog} train critters --minutes 120
  colour photos, and where the weights go
    {prog} train cifar --minutes 120 --out outputs/photos.safetensors
  the recipe in full, measured on 10,000 samples, as the shipped weights were made
    {prog} train digits --full --source mnist --figures 10000

  on two GPUs, or on several machines (needs: pip install accelerate)
    accelerate launch --num_processes 2 -m diffusion_lessons train cifar_large

Stop it with Ctrl-C at any time; the same command resumes from the checkpoint.
Without MNIST and without a network it trains on synthetic digits, and says so.
"""
NAMES = ("digits", "cifar", "cifar_large", "critters", "digits_classifier", "critters_classifier", "critters_second")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("recipe", nargs="?", choices=NAMES, default="digits", metavar="RECIPE", help="default digits")
    parser.add_argument("--source", choices=("auto", "mnist", "synthetic"), default="auto",
                        help="which digits: real ones if they can be had (auto), only real, or synthetic")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=real("minutes", 0.01, 100_000), help="about how long (default 10)")
    length.add_argument("--steps", type=whole("steps", 1, 10**9), help="or exactly how many steps")
    length.add_argument("--full", action="store_true", help="or as many steps as the recipe says")
    parser.add_argument("--seed", type=whole("seed"), help="default: the recipe's, 0 for denoisers")
    parser.add_argument("--batch", type=whole("batch"), help="batch size (default: the recipe's)")
    parser.add_argument("--lr", type=real("lr", 0, 1e30), help="learning rate (default: the recipe's)")
    parser.add_argument("--w", type=real("guidance"), metavar="SCALE",
                        help="guidance scale for the card and the figures (default: the recipe's)")
    parser.add_argument("--figures", type=whole("figures", 65, 50_000), metavar="COUNT",
                        help="then measure a denoiser on so many samples, for its card (default: not at all)")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH",
                        help="where the run is kept (default: in checkpoints/, named after the settings)")
    parser.add_argument("--out", type=file_name(".safetensors"), metavar="PATH",
                        help="where the weights go (default outputs/RECIPE.safetensors)")


def run(options: argparse.Namespace) -> int:
    """Train, measure, and save the weights with their card."""
    import torch

    from diffusion_lessons import distributed, weights
    from diffusion_lessons.training import figures, recipes

    recipe = chosen_recipe(options)
    if distributed.world() > 1 and not isinstance(recipe, recipes.Recipe):
        raise ValueError(f"{options.recipe} is a classifier, which trains in one process")
    length = "full" if options.full else f"{options.steps}steps" if options.steps else f"{options.minutes or 10:g}min"
    checkpoint = options.checkpoint or Path("checkpoints") / f"{options.recipe}-{length}-{recipe.seed}.pt"
    out = options.out or Path("outputs") / f"{options.recipe}.safetensors"
    check_out(out)
    done, planned = progress_of(checkpoint)

    with distributed.first_goes_first():
        data = recipes.training_set(recipe, options.source)
    model = recipes.build(recipe)

    def make_trainer(model: nn.Module, steps: int) -> BaseTrainer:
        return recipes.trainer(replace(recipe, steps=steps), model, data)

    if not options.full:    # a run by the clock keeps the length that it was given at its start
        steps = options.steps or planned or affordable_steps(make_trainer, model, options.minutes or 10)
        recipe = replace(recipe, steps=steps)
    trainer = make_trainer(model, recipe.steps)
    if done:
        print(f"resuming from {checkpoint}: step {done:,} of {recipe.steps:,}")
    loss = watch_training(trainer, checkpoint, done)
    trained = trainer.ema.half().float()    # the figures are those of the weights as stored
    measured = figures.measure(recipe, trained, options.figures)
    if distributed.rank() > 0:
        return 0
    command = command_of(options, recipe)
    card = recipes.card(recipe, trained, data, command=command, **({"figures": measured} if measured else {}))
    weights.save(out, trained.state_dict(), card, torch.float16)
    if options.recipe == "digits_classifier":
        figures.save_real_features(out.with_name("digits_real"), trained, command)
    print(f"trained for {recipe.steps:,} steps{loss}; the weights are in {out}, their card beside them")
    if measured:
        print(f"figures: {measured}")
    if isinstance(recipe, recipes.Recipe):
        example = recipe.labels[7] if recipe.labels else '"a green frog in the snow"'
        print(f"try them: diffusion-lessons generate {example} --model {out}")
    return 0


def chosen_recipe(options: argparse.Namespace) -> AnyRecipe:
    """The recipe, with what the command line sets. Raises ValueError for what it has no place for."""
    from diffusion_lessons.training import recipes

    recipe: Any = {**recipes.RECIPES, **recipes.CLASSIFIERS}[options.recipe]
    given = {name: getattr(options, name) for name in ("seed", "batch", "lr", "w")}
    given = {name: value for name, value in given.items() if value is not None}
    if "w" in given and not isinstance(recipe, recipes.Recipe):
        raise ValueError(f"{options.recipe} is a classifier, so --w has no meaning for it: leave it out")
    return replace(recipe, **given)


def command_of(options: argparse.Namespace, recipe: AnyRecipe) -> str:
    """The command that makes the same weights again."""
    source = f" --source {options.source}" if recipe.data == "digits" else ""
    w = f" --w {recipe.w:g}" if hasattr(recipe, "w") else ""
    figures = f" --figures {options.figures}" if options.figures else ""
    return (f"diffusion-lessons train {options.recipe}{source} --steps {recipe.steps} --seed {recipe.seed} "
            f"--batch {recipe.batch} --lr {recipe.lr:g}{w}{figures}")


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


def affordable_steps(make_trainer: Callable[[nn.Module, int], BaseTrainer], model: nn.Module, minutes: float) -> int:
    """How many steps this machine takes in so many minutes, measured on a copy of the network."""
    from diffusion_lessons.distributed import any_of, from_first

    trainer = make_trainer(copy.deepcopy(model), 1_000_000)
    trial = iter(trainer)
    for _ in range(3):  # the first steps are slower than the rest
        next(trial)
    began, count = time.perf_counter(), 0
    while any_of(count < 5 or (time.perf_counter() - began < 3 and count < 200)):
        next(trial)
        count += 1
    trainer.read_losses()    # a GPU has then finished these steps
    seconds = (time.perf_counter() - began) / count
    steps = from_first(max(1, int(60 * minutes / seconds)))
    print(f"{1 / seconds:.1f} steps a second here: {minutes:g} minutes are about {steps:,} steps")
    return steps


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
