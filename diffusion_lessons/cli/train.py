"""diffusion-lessons train: a network from scratch by one of the course's recipes, resumable, with its card."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lessons.cli import train_own
from diffusion_lessons.cli.options import add_reading, check_out, file_name, real, whole
from diffusion_lessons.cli.running import affordable_steps, checkpoint_of, progress_of, train_network

if TYPE_CHECKING:
    from diffusion_lessons.training.recipes import AnyRecipe

SUMMARY = "train a network, on your own pictures too, or resume where you stopped it"
DESCRIPTION = """Train a network by one of the course's recipes or on your own pictures, or resume from its checkpoint.

  digits, cifar, critters                 denoisers: about 45 minutes, 2 hours and
                                          2 hours on two cores in full length
  cifar_large                             the same for a GPU
  digits_classifier, critters_classifier, critters_second
                                          the classifiers that `evaluate` measures with
  --data FOLDER                           a denoiser of your own pictures (PNG, JPEG, WebP, GIF, ...). The names
                                          of class folders become labels; captions.csv, captions.txt or a .txt
                                          beside each picture become text. An .npz with x and y will do, too
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
  your own pictures: size, steps and minutes are proposed for this machine
    {prog} train --data photos
  more of them, as far as two hours get
    {prog} train --data photos --size 64 --minutes 120 --out outputs/photos.safetensors
  a few dozen drawings, taught to a network that can draw already
    {prog} train --data drawings --init-from critters

  on two GPUs, or on several machines (needs: pip install accelerate)
    accelerate launch --num_processes 2 -m diffusion_lessons train cifar_large

Stop it with Ctrl-C at any time; the same command resumes from the checkpoint.
Without MNIST and without a network it trains on synthetic digits, and says so.
"""
NAMES = ("digits", "cifar", "cifar_large", "critters", "digits_classifier", "critters_classifier", "critters_second")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("recipe", nargs="?", choices=NAMES, metavar="RECIPE", help="default digits")
    parser.add_argument("--source", choices=("auto", "mnist", "synthetic"), default="auto",
                        help="which digits: real ones if they can be had (auto), only real, or synthetic")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=real("minutes", 0.01, 100_000), help="about how long (default 10; of your "
                                                                                  "own pictures: as proposed)")
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
                        help="where the weights go (default outputs/RECIPE.safetensors, or the data's name)")
    own = parser.add_argument_group("your own pictures")
    own.add_argument("--data", type=Path, metavar="PATH", help="a folder of pictures, an .npz file, or WebDataset "
                                                               "shards: 'photos-{000..099}.tar', or a folder of them")
    own.add_argument("--init-from", metavar="NAME", help="go on from trained weights: critters, digits, cifar or a "
                                                         ".safetensors file (default: from nothing)")
    add_reading(own)
    own.add_argument("--flip", action="store_true", help="also train on the mirrored pictures")


def run(options: argparse.Namespace) -> int:
    """Train, measure, and save the weights with their card."""
    import torch

    from diffusion_lessons import distributed, weights
    from diffusion_lessons.training import figures, recipes

    if options.data is not None:
        return train_own.run(options)
    options.recipe = options.recipe or "digits"
    if options.init_from or options.size or options.flip:
        raise ValueError("--init-from, --size and --flip are for your own pictures: name them with --data FOLDER")
    recipe = chosen_recipe(options)
    if distributed.world() > 1 and not isinstance(recipe, recipes.Recipe):
        raise ValueError(f"{options.recipe} is a classifier, which trains in one process")
    checkpoint = checkpoint_of(options, options.recipe, recipe)
    out = options.out or Path("outputs") / f"{options.recipe}.safetensors"
    check_out(out)
    done, planned = progress_of(checkpoint)

    with distributed.first_goes_first():
        data = recipes.training_set(recipe, options.source)
    model = recipes.build(recipe)
    if not options.full:    # a run by the clock keeps the length that it was given at its start
        steps = options.steps or planned or affordable_steps(recipe, model, data, options.minutes or 10)
        recipe = replace(recipe, steps=steps)
    trained, loss = train_network(recipe, model, data, checkpoint, done)
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
