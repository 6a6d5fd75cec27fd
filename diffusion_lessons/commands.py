"""What `python -m diffusion_lessons` does once it knows what was asked. Each returns its exit code."""

import copy
import math
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from diffusion_lessons import generation, metrics, recipes, runtime, training, weights
from diffusion_lessons.datasets import to_float, to_uint8
from diffusion_lessons.doctor import examine


def doctor(options):
    """Print what is there; 1 when something is broken or the course's own weights are missing."""
    return examine()


def generate(options):
    """Make pictures of a prompt and write them as a sheet or as arrays."""
    pictures = to_uint8(generation.generate(
        options.prompt, model=options.model, count=options.count, seed=options.seed, w=options.w,
        steps=options.steps, method=options.sampler, eta=options.eta, batch=batch_size(), progress=True,
    ))  # fmt: skip
    if options.out.suffix.lower() == ".npz":
        label = generation.labels(options.model, options.prompt)
        save_arrays(options.out, pictures, np.full(len(pictures), label))
    else:
        save_sheet(options.out, pictures)
    print(f"{len(pictures)} pictures of {options.prompt!r} written to {options.out}")
    return 0


def batch_size():
    """Pictures at once: few on a CPU, so that the bar moves; many on a GPU."""
    return 20 if runtime.device().type == "cpu" else 500


def save_arrays(path, x, y):
    """x: (N, C, H, W) uint8, y: (N,)  ->  an npz with x (N, H, W) or (N, H, W, C), and y"""
    x = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
    with runtime.atomic_write(path) as scratch:
        np.savez_compressed(scratch, x=x.numpy(), y=y)


def save_sheet(path, x, gap=2, zoom=2):
    """Write pictures in rows on one sheet, enlarged.  x: (N, C, H, W) uint8"""
    n, c, h, w = x.shape
    across = math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    sheet = np.full((down * (h + gap) + gap, across * (w + gap) + gap, c), 255, np.uint8)
    for i, picture in enumerate(x.permute(0, 2, 3, 1).numpy()):
        top, left = gap + i // across * (h + gap), gap + i % across * (w + gap)
        sheet[top:top + h, left:left + w] = picture
    sheet = Image.fromarray(sheet[:, :, 0] if c == 1 else sheet)
    with runtime.atomic_write(path) as scratch:
        sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(scratch)


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
        settings = dict(steps=steps, batch=recipe["batch"], lr=recipe["lr"], seed=options.seed)
        return training.Trainer(net, data.x, data.y, **settings)

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
    print(f"try them: python -m diffusion_lessons generate {recipe['labels'][7]} --model {out}")
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
    """Print accuracy, Frechet distance and recall of a model's pictures, or of given ones."""
    judge, (real, real_card) = weights.load_classifier(), weights.load("digits_real")
    if options.npz:
        x, y = read_pictures(options.npz)
        what = str(options.npz)
    else:
        card = weights.load(options.model)[1]
        if card.get("labels") != recipes.DIGITS:
            raise ValueError(f"the judge reads digits only, and {options.model} draws something else")
        w = card["w"] if options.w is None else options.w
        y = torch.arange(options.count) % 10
        denoiser = weights.load_denoiser(options.model, runtime.device())
        x = generation.draw(
            denoiser, y, card["picture"], w=w, steps=options.steps, seed=options.seed, batch=batch_size(),
            method=options.sampler, eta=options.eta, progress=True,
        )  # fmt: skip
        what = f"{options.model}, w = {w:g}, {options.sampler}, {options.steps} steps, seed {options.seed}"
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
    if y.shape != (len(x),) or y.dtype.kind not in "iu" or y.min(initial=0) < 0 or y.max(initial=0) > 9:
        raise ValueError(f"{path}: y must hold one label 0..9 for each of the {len(x)} pictures")
    return to_float(torch.from_numpy(x)[:, None]), torch.from_numpy(y.astype(np.int64))
