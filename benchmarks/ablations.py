"""The course's what-ifs: small networks that differ in one thing, several seeds each, judged by one protocol.

    python benchmarks/ablations.py targets      what the network puts out x which error counts    (claim T3)
    python benchmarks/ablations.py times        trained at t = T alone, or at all t               (D3)
    python benchmarks/ablations.py told_t       the network is not told t                         (T2)
    python benchmarks/ablations.py scale        pictures in [0, 1] or 0..255                      (C2)
    python benchmarks/ablations.py one_step     predicts only the step from t to t - 1            (T5)
    python benchmarks/ablations.py all          about an hour on one core

Each writes pretrained/curves/NAME.json: command, settings, and the figures of every run. The networks that a lesson
runs again (seed 0, longest budget) are kept as pretrained/ablation_*.safetensors.
"""

import argparse
import json
import time

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, schedules, training, weights
from diffusion_lessons.datasets import digits, to_float
from diffusion_lessons.denoiser import Denoiser, StepDenoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write

BUDGETS, SEEDS = {"targets": (100, 200, 400), "one_step": (1200,)}, (0, 1, 2)      # 400 steps for the others
COUNT, SAMPLING_STEPS = 500, 20
NETWORK = dict(in_channels=1, channels=(24, 48), blocks=1, classes=10)
USUAL = dict(target="v", weighting="v", schedule="cosine", T=1000, times=None, told_t=True, low=-1.0, high=1.0,
             one_step=False)
SHIP = {"v / v", "eps / eps", "only t = T", "not told t", "0..1", "0..255", "all the noise", "the step alone"}

EXPERIMENTS = {
    "targets": {f"{target} / {weighting}": dict(target=target, weighting=weighting)
                for target in ("eps", "x0", "v") for weighting in ("eps", "v")},
    "times": {"only t = T": dict(times=(1000, 1000))},
    "told_t": {"not told t": dict(told_t=False)},
    "scale": {"0..1": dict(low=0.0, high=1.0), "0..255": dict(low=0.0, high=255.0)},
    # linear: cosine's last step wipes out 99.9 % of the picture, and no guess at that one step can be good enough
    "one_step": {"all the noise": dict(schedule="linear", T=50, weighting="eps"),
                 "the step alone": dict(schedule="linear", T=50, one_step=True)},
}


def build(setting, seed):
    """An untrained denoiser with one thing changed."""
    torch.manual_seed(seed)
    net = UNet(T=setting["T"], told_t=setting["told_t"], **NETWORK)
    schedule = schedules.make_schedule(setting["schedule"], setting["T"])
    return StepDenoiser(net, schedule) if setting["one_step"] else Denoiser(net, schedule, setting["target"])


def judged(denoiser, setting, seed=0, count=COUNT):
    """The figures of samples; and for comparison those of the one-shot guess from pure noise."""
    judge, real = weights.load_classifier(), weights.load("digits_real")[0]["test"]
    y = torch.arange(count) % 10
    low, high = setting["low"], setting["high"]

    def measure(**how):
        x = text_to_image.draw(denoiser, y, (1, 28, 28), seed=seed, clip=(low, high), limit=False, **how)
        return metrics.report(judge, ((x - low) / (high - low) * 2 - 1).clamp(-1, 1), y, real)

    return {"loop": measure(steps=SAMPLING_STEPS), "one_shot": measure(steps=1)}


def one_run(setting, data, seed, budgets):
    """Train once with a constant learning rate and judge the averaged weights at every budget."""
    x = to_float(data.x) if setting["low"] == -1 else data.x.float() / 255 * setting["high"]
    trainer = training.Trainer(build(setting, seed), x, data.y, steps=budgets[-1], lr=2e-3, ema=0.99, constant=True,
                               weighting=setting["weighting"], times=setting["times"], seed=seed,
                               check_range=setting["low"] == -1)    # C2 trains on other ranges on purpose
    points = []
    for step in tqdm(trainer, total=budgets[-1], mininterval=30, leave=False):
        if step.step in budgets:
            points.append({"steps": step.step, **judged(trainer.average, setting)})
    return trainer.average, points


def experiment(name):
    """All runs of one experiment -> its curve file."""
    budgets = BUDGETS.get(name, (400,))
    data, began, runs = digits.load_digits("train", source="mnist"), time.time(), []
    command = f"python benchmarks/ablations.py {name}"
    for label, change in EXPERIMENTS[name].items():
        setting = {**USUAL, **change}
        for seed in SEEDS:
            denoiser, points = one_run(setting, data, seed, budgets)
            runs.append({"label": label, "seed": seed, "points": points})
            last = points[-1]["loop"]
            print(f"{name}: {label}, seed {seed}: accuracy {last['accuracy']:.3f}, Frechet {last['frechet']:.1f}, "
                  f"recall {last['recall']:.3f}", flush=True)
            if label in SHIP and seed == 0:
                weights.save(weights.FOLDER / f"ablation_{slug(label)}", denoiser.state_dict(), weights.denoiser_card(
                    denoiser, data="MNIST", steps=budgets[-1], seed=seed, figures=last, setting=setting,
                    picture=[1, 28, 28], labels=[str(d) for d in range(10)], w=1.0, code_version=__version__,
                    command=command), torch.float16)
    curve = {"command": command, "minutes": round((time.time() - began) / 60, 1), "data": "MNIST",
             "network": NETWORK, "count": COUNT, "sampling_steps": SAMPLING_STEPS, "w": 1.0, "batch": 64, "lr": 2e-3,
             "runs": runs}
    with atomic_write(weights.FOLDER / "curves" / f"{name}.json") as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


def slug(label):
    """A label as a file name: "eps / eps" -> "eps_eps"."""
    return "".join(c if c.isalnum() else "_" for c in label).replace("___", "_").replace("__", "_").strip("_")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*EXPERIMENTS, "all"])
    name = parser.parse_args().name
    for each in EXPERIMENTS if name == "all" else [name]:
        experiment(each)


if __name__ == "__main__":
    main()
