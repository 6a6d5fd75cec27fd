"""How fast is this machine, and how good is what it trains? Ratios within one run; nothing here is asserted by a test.

    python benchmarks/benchmark.py                     our networks beside other people's: writes docs/benchmarks.md
    python benchmarks/benchmark.py --minutes 60        the same, and how soon each of them draws legible digits: hours
    python benchmarks/benchmark.py --quick             does all that run? Its figures, in build/bench, mean nothing
    python benchmarks/benchmark.py --parts             where the time of a training step goes: 2 minutes
    python benchmarks/benchmark.py --trial 3           train from scratch for 3 minutes, measure 1,000 samples, show 100
    python benchmarks/benchmark.py --trial 10 --out page.png
    python benchmarks/benchmark.py --critters          from a sentence to a picture; scenes a second: half a minute
    python benchmarks/benchmark.py --busy              alone and beside two busy processes, by how threads wait: minutes

`make bench` calls it in an environment that has the other packages (contenders.py), too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import contenders
import report
import torch
from timing import matrix_product, operations, seconds
from torchvision.utils import save_image

from diffusion_lessons import generate, runtime, training
from diffusion_lessons.datasets import critters
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.forward import add_noise
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.training.figures import digits_figures
from diffusion_lessons.training.recipes import RECIPES, build, replace, training_set

HERE = Path(__file__).resolve().parent


def training_step(recipe, data, **change):
    """Pictures a second and GFLOP/s of whole training steps: batch, forward, backward, AdamW, EMA."""
    denoiser = build(recipe)
    if change.get("channels_last"):
        denoiser = denoiser.to(memory_format=torch.channels_last)
    trainer = training.Trainer(denoiser, data.x, data.y, steps=10**6, batch=recipe.batch, lr=recipe.lr)

    def work():
        with torch.autocast("cpu", torch.bfloat16, enabled=change.get("bf16", False)):
            trainer.train_step()

    took = seconds(work)
    return recipe.batch / took, operations(trainer.train_step) / took / 1e9, trainer


def parts_of_a_step(trainer):
    """Where the time of a training step goes, as shares of their sum."""
    x0, t, eps, y = trainer.sample_batch(trainer.step_generator(0))
    net, schedule = trainer.denoiser, trainer.denoiser.schedule
    forward = seconds(lambda: net.loss(x0, t, eps, y))
    both = seconds(lambda: net.loss(x0, t, eps, y).mean().backward())

    def prepare():
        return add_noise(*trainer.sample_batch(trainer.step_generator(0))[:3], schedule)

    times = {"batch and noise": seconds(prepare),
             "forward": forward, "backward": both - forward, "AdamW": seconds(trainer.optimizer.step),
             "EMA": seconds(lambda: trainer.update_ema(net))}
    return {name: took / sum(times.values()) for name, took in times.items()}


def parts(recipe, data):
    """Where the time of the digits' training goes, and what two usual changes bring."""
    best = matrix_product()
    print(f"float32 matrix product: {best:.0f} GFLOP/s on {runtime.device()}, {torch.get_num_threads()} threads")
    rate, gflops, trainer = training_step(recipe, data)
    print(f"training: {rate:.0f} pictures/s, {gflops:.0f} GFLOP/s = {gflops / best:.0%} of the matrix product")
    for name, share in parts_of_a_step(trainer).items():
        print(f"    {share:5.1%}  {name}")
    if runtime.device().type == "cpu":
        for change in ("channels_last", "bf16"):
            print(f"the same with {change}: x {training_step(recipe, data, **{change: True})[0] / rate:.2f}")
    y = torch.arange(16) % 10
    took = seconds(lambda: text_to_image.sample_images(trainer.ema, y, data.x.shape[1:], w=2.0), 3)
    print(f"16 samples, 50 steps, guidance: {took:.2f} s")


def trial(recipe, data, minutes, out):
    """Train from nothing for so many minutes, then evaluate."""
    rate = training_step(recipe, data)[0]
    steps = int(rate * minutes * 60 / recipe.batch * 0.97)      # the number must be known to plan the learning rate
    trainer = training.Trainer(build(recipe), data.x, data.y, steps=steps, batch=recipe.batch, lr=recipe.lr)
    began = time.perf_counter()
    average = training.run(trainer)
    took = time.perf_counter() - began
    print(f"{steps} steps in {took:.0f} s, {steps * recipe.batch / took:.0f} pictures/s", flush=True)
    print(digits_figures(average, recipe.w, 1000))
    if out:
        x = text_to_image.sample_images(average, torch.arange(100) // 10, data.x.shape[1:], w=recipe.w, seed=1,
                                        sampler=metrics.PROTOCOL)
        save_image((x + 1) / 2, out, nrow=10)
        print("100 samples:", out)


def sentences():
    """How long a learner waits for a picture of a prompt, and how fast scenes are rendered."""
    start = "from diffusion_lessons import generate, weights; "
    for what, code in {"import and load": start + "weights.load_model('critters')",
                       "import, load, one picture": start + "generate('a green frog', count=1)"}.items():
        took = seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True), 3)
        print(f"{what}, in a fresh Python: {took:.2f} s")
    for count in (1, 16):
        took = seconds(lambda count=count: generate("a green frog on stilts in the snow", count=count, guidance=4), 3)
        print(f"{count} pictures, 50 steps, guidance: {took:.2f} s")
    scenes = critters.sample_scenes(4000)
    print(f"{4000 / seconds(lambda: critters.render(scenes), 3):,.0f} scenes a second at 32x32")


# How OpenMP's threads wait for each other. 300,000 turns are the own default of GNU's.
WAITING = {"as the package sets it": {},
           **{f"{turns:,} turns": {"GOMP_SPINCOUNT": str(turns)} for turns in (0, 1000, 50_000, 300_000)},
           "one thread": {"OMP_NUM_THREADS": "1"}}


def beside_busy_processes(count=2, limit=120):
    """Sampling and training alone, then beside processes that want a core each: a browser, a video call.

    limit: seconds that one measurement may take
    """
    for busy in (0, count):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            for how, variables in WAITING.items():
                environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | variables
                command = [sys.executable, "-c", "import diffusion_lessons, benchmark; benchmark.rates()"]
                try:
                    said = subprocess.run(command, env=environ, cwd=HERE, capture_output=True, text=True,
                                          timeout=limit, check=True).stdout.strip()
                except subprocess.TimeoutExpired:
                    said = f"more than {limit} s"
                print(f"beside {busy} busy processes, {how}: {said}", flush=True)
        finally:
            for other in others:
                other.kill()


def rates():
    """Two figures of this process: a guided batch of digits, and steps of training."""
    recipe = RECIPES["digits"]
    x, y = torch.zeros(64, 1, 28, 28), torch.arange(64) % 10
    trainer = training.Trainer(build(recipe), x, y, steps=10**6, batch=64)
    sampler = SamplerSettings(steps=15)
    sampled = seconds(lambda: text_to_image.sample_images(trainer.ema, y[:16], (1, 28, 28), w=2.0, sampler=sampler), 3)
    trained = 64 / seconds(trainer.train_step, 5)
    print(f"{sampled:.1f} s for 16 guided digits in 15 steps, {trained:.0f} pictures/s trained")


def contender(*arguments, quick=False):
    """What `contenders.py` says to these arguments, measured in a process of its own; None, with its last line, if it
    fails, as without the package.
    """
    command = [sys.executable, str(HERE / "contenders.py"), *map(str, arguments), *["--quick"] * quick]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        print(f"{' '.join(map(str, arguments))}: {(ran.stderr.strip().splitlines() or ['failed'])[-1]}", flush=True)
        return None
    return json.loads(ran.stdout.strip().splitlines()[-1])


def import_seconds(module, quick):
    """How long a fresh Python imports a module after torch has been imported."""
    code = f"import torch, time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    took = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
            for _ in range(1 if quick else 6)]
    return statistics.median(took[-5:])    # without the first, which may read files from a cold disk


def compare(out, quick, minutes):
    """Measure everything and write the report. minutes: how long a contender may train to 90% and 95%, or None"""
    found = {"machine": report.machine(), "command": " ".join(["make bench", *report.arguments(quick, minutes)]),
             "quick": quick, "contenders": [], "growth": [], "accuracy": []}
    for name, kind in contenders.CONTENDERS.items():
        print(f"measuring {name}", flush=True)
        if measured := contender(name, quick=quick):
            found["contenders"].append(measured | {"import": import_seconds(kind.imports, quick)})
    print("measuring how the cost grows", flush=True)
    for what, values in (report.FEW if quick else report.GROWTH).items():
        found["growth"] += [{"what": what, **point} for value in values
                            if (point := contender("growth", f"--{what}", value, quick=quick))]
    for name, kind in contenders.CONTENDERS.items():
        if minutes and kind.labelled:
            print(f"training {name} from nothing", flush=True)
            if measured := contender(name, "--minutes", minutes, quick=quick):
                found["accuracy"].append(measured)
    for path in report.write(out, found):
        print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="everything in miniature, into build/: does it run?")
    parser.add_argument("--minutes", type=float, metavar="MOST", help="also how soon the digits of each "
                        "network are right in 90%% and 95%% of all cases, in so many minutes each at most")
    parser.add_argument("--parts", action="store_true", help="measure the parts of a step of training, nothing else")
    parser.add_argument("--trial", type=float, metavar="MINUTES")
    parser.add_argument("--out", help="the report's folder (default docs/), or where to save a trial's samples")
    parser.add_argument("--w", type=float, default=2.0, help="guidance scale of the trial's samples (default 2)")
    parser.add_argument("--critters", action="store_true", help="measure sentences and scenes, nothing else")
    parser.add_argument("--busy", action="store_true", help="measure beside busy processes, nothing else")
    args = parser.parse_args()
    if args.critters:
        return sentences()
    if args.busy:
        return beside_busy_processes()
    if not (args.parts or args.trial):
        default = HERE.parent / ("build/bench" if args.quick else "docs")
        return compare(Path(args.out or default), args.quick, args.minutes)
    recipe = replace(RECIPES["digits"], w=args.w)
    data = training_set(recipe, "mnist")
    return trial(recipe, data, args.trial, args.out) if args.trial else parts(recipe, data)


if __name__ == "__main__":
    main()
