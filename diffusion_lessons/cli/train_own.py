"""diffusion-lessons train --data: a network of the learner's own pictures, from nothing or from trained weights."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lessons.cli.options import batch_size, check_out
from diffusion_lessons.cli.running import affordable_steps, checkpoint_of, progress_of, train_network

if TYPE_CHECKING:
    from diffusion_lessons.datasets.folder import OwnPictures
    from diffusion_lessons.training.own_pictures import Start

SAMPLES, SAMPLE_STEPS = 16, 25    # of the sheet of samples and their nearest training pictures


def run(options: argparse.Namespace) -> int:
    """Read the pictures, propose a length, train, save the weights, and show samples beside the nearest pictures."""
    import torch

    from diffusion_lessons import distributed, weights
    from diffusion_lessons.training import own_pictures, recipes

    if options.recipe or options.figures:
        raise ValueError("--data trains on your own pictures, so leave out the name of a recipe, and --figures")
    name = options.data.expanduser().resolve().stem
    out = options.out or Path("outputs") / f"{name}.safetensors"
    check_out(out)
    with distributed.first_goes_first():
        pictures = read(options)
    start = own_pictures.begin(pictures, options.init_from, options.flip, options.seed or 0)
    given = {name: getattr(options, name) for name in ("batch", "lr", "w") if getattr(options, name) is not None}
    start = start._replace(recipe=replace(start.recipe, **given))
    recipe = start.recipe
    print(own_pictures.describe(pictures, options.fit))
    checkpoint = checkpoint_of(options, f"{name}-{start.digest}", recipe, "proposed")
    done, planned = progress_of(checkpoint)
    if not options.full:
        recipe = replace(recipe, steps=options.steps or planned or chosen_steps(options, start))
    trained, loss = train_network(recipe, start.model, start.data, checkpoint, done)
    about: dict[str, Any] = {"command": command_of(options, recipe), "fit": options.fit}
    if options.init_from:
        about |= {"init_from": Path(options.init_from).name, "figures": compare(options.init_from, trained, start)}
    card = recipes.card(recipe, trained, start.data, **about)
    with distributed.first_goes_first():    # the others read what it has saved
        if distributed.rank() == 0:
            weights.save(out, trained.state_dict(), card, torch.float16)
    print(f"trained for {recipe.steps:,} steps{loss}; the weights are in {out}, their card beside them")
    show_samples(out, start)
    prompt = shlex.quote(own_pictures.example(start))
    print(f"try them: diffusion-lessons generate {prompt} --model {shlex.quote(str(out))}")
    return 0


def read(options: argparse.Namespace) -> OwnPictures:
    """The pictures that the command line names, in the size and the colours of --init-from if there is one."""
    from diffusion_lessons import weights
    from diffusion_lessons.checks import need
    from diffusion_lessons.datasets.folder import load_pictures
    from diffusion_lessons.training.own_pictures import largest_size

    size, channels = options.size, None
    if options.init_from:
        channels, size, width = need(weights.card(options.init_from), options.init_from, "picture")[0]
        if width != size or options.size not in (None, size):
            raise ValueError(f"{options.init_from} draws pictures of {width}x{size}: leave --size out")
    return load_pictures(options.data, size, options.fit, options.condition, channels=channels,
                         largest=largest_size(), progress=True)


def chosen_steps(options: argparse.Namespace, start: Start) -> int:
    """The steps that fit the minutes asked for, or else those proposed for this machine; prints them."""
    from diffusion_lessons.training import own_pictures

    if options.minutes:
        return affordable_steps(start.recipe, start.model, start.data, options.minutes)
    steps, sentence = own_pictures.propose(start)
    print(f"{sentence} (change it with --size, --steps or --minutes)")
    return steps


def command_of(options: argparse.Namespace, recipe: Any) -> str:
    """The command that makes the same weights again."""
    size = f" --size {options.size}" if options.size else ""
    begun = f" --init-from {Path(options.init_from).name}" if options.init_from else ""
    return (f"diffusion-lessons train --data {options.data.name}{size} --fit {options.fit} --condition "
            f"{options.condition}{begun}{' --flip' if recipe.flip else ''} --steps {recipe.steps} --seed {recipe.seed} "
            f"--batch {recipe.batch} --lr {recipe.lr:g} --w {recipe.w:g}")


def show_samples(out: Path, start: Start) -> None:
    """Write PATH-nearest.png: samples, each with its nearest training picture; print how near they are."""
    from diffusion_lessons import distributed, runtime, weights
    from diffusion_lessons.evaluation import own_pictures
    from diffusion_lessons.samplers import SamplerSettings

    path, card = out.with_name(f"{out.stem}-nearest.png"), weights.card(out)
    x = own_pictures.samples_like(weights.load_model(out, runtime.device()), card, start.texts, SAMPLES, w=card["w"],
                                  sampler=SamplerSettings(steps=SAMPLE_STEPS), batch=batch_size(), progress=True)
    if distributed.rank() > 0:
        return
    with runtime.atomic_write(path) as scratch:
        own_pictures.nearest_sheet(x, start.data.x).save(scratch)
    print(f"{path}: {SAMPLES} samples, each with its nearest training picture to its right")
    if len(start.data.x) > 1:
        print(own_pictures.verdict(own_pictures.nearest_ratio(x, start.data.x)))


def compare(base: str, trained: Any, start: Start) -> dict[str, Any]:
    """What a fine-tuned network has learned, and what it has forgotten of what it knew; printed, and for its card."""
    from diffusion_lessons import weights
    from diffusion_lessons.evaluation import own_pictures

    found = own_pictures.fine_tuning_figures(base, trained, start)
    before, after = found["loss"]
    print(f"learned: the loss on your pictures was {before:.3f} and is {after:.3f}")
    if "old_prompts" in found:
        before, after = found["old_prompts"]
        print(f"forgotten: of {found['count']} old prompts, {weights.path_of(base).stem} drew {before:.0%} as asked; "
              f"this network draws {after:.0%}")
    return found
