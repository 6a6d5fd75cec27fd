"""What `python -m diffusion_lessons` does once it knows what was asked. Each returns its exit code."""

import copy
import json
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusion_lessons import runtime, training, weights
from diffusion_lessons.checks import need
from diffusion_lessons.cli.doctor import examine
from diffusion_lessons.datasets import captions as writing
from diffusion_lessons.datasets import critters, to_float, to_uint8
from diffusion_lessons.datasets.files import as_pictures, problem_with_labels
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.training import recipes

DRAW = {"method": "ddim", "steps": 50}    # unless asked otherwise


def doctor(options):
    """Print what is there; 1 when something is broken or the course's own weights are missing."""
    return examine()


def generate(options):
    """Make pictures of a prompt and write them as a sheet or as arrays."""
    model = options.model or text_to_image.model_for(options.prompt)
    pictures = to_uint8(text_to_image.generate(options.prompt, model=model, count=options.count, seed=options.seed,
                                            w=options.w, progress=True, **sampler(options, DRAW)))
    if options.out.suffix.lower() == ".npz":
        y = text_to_image.understand(model, options.prompt).numpy()
        save_arrays(options.out, pictures, np.broadcast_to(y, (len(pictures), *y.shape)))
    else:
        with runtime.atomic_write(options.out) as scratch:
            text_to_image.Gallery.of(pictures).grid().save(scratch)
    print(f"{len(pictures)} pictures of {options.prompt!r} written to {options.out}")
    return 0


def batch_size():
    """Pictures at once: few on a CPU, so that the bar moves; many on a GPU."""
    return 20 if runtime.device().type == "cpu" else 500


def save_arrays(path, x, y):
    """x: (N, C, H, W) uint8, y: (N,) or (N, L)  ->  an npz with x (N, H, W) or (N, H, W, C), and y"""
    x = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
    with runtime.atomic_write(path) as scratch:
        np.savez_compressed(scratch, x=x.numpy(), y=y)


def train(options):
    """Train by the recipe, with a checkpoint that the same command goes on from."""
    recipe = dict(recipes.RECIPES[options.data])
    recipe.update({name: value for name in ("batch", "lr") if (value := getattr(options, name)) is not None})
    length = f"{options.steps}steps" if options.steps else f"{options.minutes or 10:g}min"
    checkpoint = options.checkpoint or Path("checkpoints") / f"{options.data}-{length}-{options.seed}.pt"
    out = options.out or Path("outputs") / f"{options.data}.safetensors"
    done, steps = look_into(checkpoint)

    data = recipes.training_set(options.data, recipe["flip"], options.source)
    denoiser = recipes.build(recipe, options.seed)

    def trainer_of(net, steps):
        return recipes.trainer({**recipe, "steps": steps}, net, data, options.seed)

    if options.steps or not steps:  # a run by the clock keeps the length that it was given at its start
        steps = options.steps or affordable_steps(trainer_of, denoiser, options.minutes or 10)
    recipe["steps"] = steps
    trainer = trainer_of(denoiser, steps)
    if done:
        print(f"going on from {checkpoint}: step {done:,} of {steps:,}")
    loss = watch_training(trainer, checkpoint, done)
    command = (f"python -m diffusion_lessons train --data {options.data} --source {options.source} "
               f"--steps {steps} --seed {options.seed} --batch {recipe['batch']} --lr {recipe['lr']:g}")
    card = recipes.card(trainer.average, recipe, data, options.seed, command=command)
    weights.save(out, trainer.average.state_dict(), card)
    print(f"trained for {steps:,} steps{loss}; the weights are in {out}, their card beside them")
    example = recipe["labels"][7] if recipe["labels"] else '"a green frog in the snow"'
    print(f"try them: python -m diffusion_lessons generate {example} --model {out}")
    return 0


def look_into(checkpoint):
    """(steps done, steps in all) of a checkpoint, (0, None) when there is none."""
    if not checkpoint.exists():
        return 0, None
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return state["step"], state["settings"]["steps"]
    except PermissionError:
        raise
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{checkpoint} is damaged or no checkpoint: move it away to start afresh") from error


def affordable_steps(trainer_of, denoiser, minutes):
    """How many steps this machine takes in so many minutes, measured on a copy of the network."""
    trial = iter(trainer_of(copy.deepcopy(denoiser), steps=1_000_000))
    for _ in range(3):  # the first steps are slower than the rest
        next(trial)
    begin, count = time.perf_counter(), 0
    while count < 5 or (time.perf_counter() - begin < 3 and count < 200):
        next(trial)
        count += 1
    seconds_a_step = (time.perf_counter() - begin) / count
    steps = max(1, int(60 * minutes / seconds_a_step))
    print(f"{1 / seconds_a_step:.1f} steps a second here: {minutes:g} minutes are about {steps:,} steps")
    return steps


def watch_training(trainer, checkpoint, done):
    """Run the training behind a bar.  -> words on the loss of the last 100 steps"""
    recent = []
    with tqdm(total=trainer.steps, initial=done, desc="training", unit="step") as bar:

        def watch(step):
            recent.append(step.loss)
            del recent[:-100]
            bar.update(step.step - bar.n)
            if step.step % 10 == 0:
                bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)

        try:
            training.run(trainer, checkpoint, every=200, watch=watch)
        except KeyboardInterrupt as stop:
            kept = f"{stop or 'stopped'}. The same command goes on from {checkpoint}"
            raise KeyboardInterrupt(kept) from stop
    return f", loss {sum(recent) / len(recent):.4f}" if recent else ""


def evaluate(options):
    """Print how good a model's pictures are, or given ones: of digits in words, of critters as JSON."""
    if not options.npz and weights.card(options.model).get("words"):
        return evaluate_critters(options)
    judge, (real, real_card) = weights.load_classifier(), weights.load("digits_real")
    if options.npz:
        x, y = read_pictures(options.npz)
        what = str(options.npz)
    else:
        card = weights.card(options.model)
        if card.get("labels") != recipes.DIGITS:
            raise ValueError(f"the judges read digits and critters only, and {options.model} draws something else")
        picture, w = need(card, options.model, "picture", "w")
        w = w if options.w is None else options.w
        y = torch.arange(options.count) % 10
        denoiser = weights.load_denoiser(options.model, runtime.device())
        how = sampler(options, metrics.PROTOCOL)
        x = text_to_image.draw(denoiser, y, picture, w=w, seed=options.seed, progress=True, **how)
        what = f"{options.model}, w = {w:g}, {how['method']}, {how['steps']} steps, seed {options.seed}"
    found = metrics.report(judge, x, y, real["test"])
    print(f"{found['count']:,} pictures: {what}")
    lower = found["accuracy_lower95"]
    print(f"accuracy          {found['accuracy']:.2%}   (with 95% confidence at least {lower:.2%})")
    print(f"Frechet distance  {found['frechet']:.3f}")
    print(f"recall            {found['recall']:.2%}")
    as_real = real_card.get("figures", {})
    if as_real:
        print(f"For comparison, {as_real['count']:,} real pictures: accuracy {as_real['accuracy']:.2%}, "
              f"Frechet distance {as_real['frechet']:.3f}, recall {as_real['recall']:.2%}")
    if as_real and as_real["count"] != found["count"]:
        print("Compare distances and recalls only between equal counts.")
    return 0


def evaluate_critters(options):
    """Print the figures of `prompt_following.report` as JSON."""
    card, denoiser = weights.card(options.model), weights.load_denoiser(options.model, runtime.device())
    critics = weights.load_critic("critters_critic"), weights.load_critic("critters_second")
    if options.count < 4:
        raise ValueError("--count must be 4 or more for critters, as recall looks at neighbours")
    w = need(card, options.model, "w")[0] if options.w is None else options.w
    found = prompt_following.report(denoiser, text_to_image.tokenizer(card), critics, w, options.count, options.seed,
                            progress=True, **sampler(options, prompt_following.PROTOCOL))
    print(json.dumps({"model": options.model, **found}, indent=2))
    return 0


def sampler(options, protocol):
    """How to draw: by the protocol, but for what was asked for on the command line."""
    asked = {"method": options.sampler, "steps": options.steps, "eta": options.eta}
    return {**protocol, "batch": batch_size(), **{name: value for name, value in asked.items() if value is not None}}


def captions(options):
    """Print how far the captions of the training set can be trusted, and what one caption says about its picture."""
    recipes.tokenizer()(options.caption or "")    # a word that it does not know fails here
    scenes = critters.draw_scenes(recipes.SCENES, recipes.SCENES_SEED)[:options.count]
    written = writing.draw_captions(scenes, recipes.SCENES_SEED)
    found = writing.report(scenes, written)
    print(f"{found['captions']:,} captions of training scenes, seed {recipes.SCENES_SEED}")
    for name in critters.ATTRIBUTES:
        print(f"  {name:<8} said in {found['says'][name]:6.1%}; where said, true in {found['true'][name]:6.1%}")
    print("\nWho is there, when the caption names somebody: P(subject | name)")
    for said, there in found["subjects"].items():
        print(f"  {said:<8} {in_percent(there)}")
    if options.caption:
        said = writing.understood(options.caption)
        count, there = writing.given(scenes, written, said)
        print(f"\nCaptions that say just {', '.join(said.values()) or 'nothing'}: {count:,}")
        for name, shown in there.items():
            print(f"  {name:<8} {in_percent(shown) if shown else 'no such caption'}")
    return 0


def grade(options):
    """Judge a folder of notebooks, write the table, and print a line for each learner."""
    # here, as the other commands need nothing of the classroom
    from diffusion_lessons import grading

    out = options.out or options.folder / "grades.csv"
    rows = grading.write_csv(grading.grade_folder(options.folder, progress=True), out)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")    # a console need not know every letter of a name
    print(grading.summary(rows))
    if any(row.isolated == "not isolated" for row in rows):
        print("Not isolated: here the learners' code ran with your rights and your network. See docs/instructors.md.")
    print(f"{len(rows)} rows written to {out}")
    return 0


def in_percent(shares):
    return ", ".join(f"{word} {share:.1%}" for word, share in shares.items())


def read_pictures(path):
    """x (N, 28, 28) uint8 and y (N,) labels from an npz.  -> (N, 1, 28, 28) float in [-1, 1], (N,)"""
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except FileNotFoundError:
        raise
    except Exception as error:  # a cut file shows as almost any error
        raise ValueError(f"{path} is no npz with x and y, or is damaged ({error})") from error
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise ValueError(f"{path}: x must be (N, 28, 28) uint8, not {x.shape} {x.dtype}")
    problem = problem_with_labels(y, len(x))
    if problem:
        raise ValueError(f"{path}: {problem}")
    pictures = as_pictures(x, y, str(path))
    return to_float(pictures.x), pictures.y
