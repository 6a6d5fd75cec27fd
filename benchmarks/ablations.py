"""The course's what-ifs: small networks that differ in one thing, several seeds each, measured by one protocol.

    python benchmarks/ablations.py targets      what the network puts out x which error counts    (claim T3)
    python benchmarks/ablations.py times        trained at t = T alone, or at all t               (D3)
    python benchmarks/ablations.py time_conditioned   the network is not conditioned on t         (T2)
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
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.samplers import SamplerSettings

BUDGETS, SEEDS = {"targets": (100, 200, 400), "one_step": (1200,)}, (0, 1, 2)      # 400 steps for the others
COUNT, SAMPLING_STEPS = 500, 20
NETWORK = dict(in_channels=1, channels=(24, 48), blocks=1, classes=10)
USUAL = dict(prediction_type="v", weighting="v", schedule="cosine", T=1000, t_range=None, time_conditioned=True,
             low=-1.0, high=1.0, one_step=False)
SHIP = {"v / v", "eps / eps", "only t = T", "not time-conditioned", "0..1", "0..255", "all the noise", "the step alone"}

EXPERIMENTS = {
    "targets": {f"{output} / {weighting}": dict(prediction_type=output, weighting=weighting)
                for output in ("eps", "x0", "v") for weighting in ("eps", "v")},
    "times": {"only t = T": dict(t_range=(1000, 1000))},
    "time_conditioned": {"not time-conditioned": dict(time_conditioned=False)},
    "scale": {"0..1": dict(low=0.0, high=1.0), "0..255": dict(low=0.0, high=255.0)},
    # linear: cosine's last step wipes out 99.9 % of the picture, and no guess at that one step can be good enough
    "one_step": {"all the noise": dict(schedule="linear", T=50, weighting="eps"),
                 "the step alone": dict(schedule="linear", T=50, one_step=True)},
}


def build(setting, seed):
    """An untrained denoiser with one thing changed."""
    torch.manual_seed(seed)
    net = UNet(T=setting["T"], time_conditioned=setting["time_conditioned"], **NETWORK)
    schedule = schedules.make_schedule(setting["schedule"], setting["T"])
    if setting["one_step"]:
        return OneStepDenoiser(net, schedule)
    return Denoiser(net, schedule, setting["prediction_type"])


def measured(denoiser, setting, seed=0, count=COUNT):
    """The figures of samples; and for comparison those of the one-shot guess from pure noise."""
    classifier, real = weights.load_model("digits_classifier"), weights.load("digits_real")[0]["test"]
    y = torch.arange(count) % 10
    low, high = setting["low"], setting["high"]

    def measure(steps):
        sampler = SamplerSettings(steps=steps, clip=(low, high))
        x = text_to_image.sample_images(denoiser, y, (1, 28, 28), sampler=sampler, seed=seed, clamp=False)
        return metrics.report(classifier, ((x - low) / (high - low) * 2 - 1).clamp(-1, 1), y, real)

    return {"loop": measure(SAMPLING_STEPS), "one_shot": measure(1)}


def one_run(setting, data, seed, budgets):
    """Train once with a constant learning rate and measure the averaged weights at every budget."""
    x = to_float(data.x) if setting["low"] == -1 else data.x.float() / 255 * setting["high"]
    trainer = training.Trainer(build(setting, seed), x, data.y, steps=budgets[-1], lr=2e-3, ema_decay=0.99,
                               lr_schedule="constant", weighting=setting["weighting"], t_range=setting["t_range"],
                               seed=seed, check_range=setting["low"] == -1)    # C2 trains on other ranges on purpose
    points = []
    for step in tqdm(trainer, total=budgets[-1], mininterval=30, leave=False):
        if step.step in budgets:
            points.append({"steps": step.step, **measured(trainer.ema, setting)})
    return trainer.ema, points


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
