"""Does diffusion train more stably than a GAN? The healthy GAN against diffusion, on equal terms.    (claim L4)

    python benchmarks/stability.py ring       points on a ring of eight modes: about 8 minutes on one core
    python benchmarks/stability.py digits     MNIST: about 20 minutes on one core; longer runs with --seconds

Equal compute: every run has as many steps as fit into the same seconds of one core, counted before the runs by a trial.
Equal tuning: for each method the same four learning rates are tried, with seeds that are not used again (two on the
ring, one on digits), and the best becomes "x 1". Then that rate, a third and three times of it, five seeds each;
nothing else is changed. The rates are constant (diffusion's after a short warm-up); the GAN's is that of G, and D's
keeps its ratio to it. Each keeps what belongs to its recipe: the GAN its penalty, diffusion its clipped gradients.
Quality: on the ring the share that data and samples have in common (`metrics.modes(...).mode_balance`); on digits the
Frechet distance of 1,000 unconditional samples.

Writes pretrained/curves/stability_DATA.json. Of digits, the two networks with seed 0 and rate x 1 are kept as
pretrained/stability_gan and stability_diffusion, so that lesson 04 can sample from them and measure again.
"""

import argparse
import json
import time

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, runtime, schedules, training, weights
from diffusion_lessons.datasets import load_digits, ring, toy
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.mlp import ToyMLP
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.samplers import PerSampleNoise, run, sample
from diffusion_lessons.training import recipes

SECONDS = {"ring": 8, "digits": 20}
TUNING_SEEDS, SEEDS, FACTORS = {"ring": (100, 101), "digits": (100,)}, range(5), (1 / 3, 1, 3)
RATES = (5e-4, 1e-3, 2e-3, 5e-3)
FIRST = 200       # so many samples lesson 04 draws again
DIGITS_NET = dict(in_channels=1, channels=(24, 48), blocks=1)


def gan_trainer(name, x, lr, steps, seed):
    recipe = {"ring": recipes.POINT_GANS, "digits": recipes.DIGIT_GANS}[name]["healthy"]
    balance = recipe.lr_d / recipe.lr_g
    return recipes.gan(recipes.replace(recipe, steps=steps, lr_g=lr, lr_d=balance * lr), x, seed)


def diffusion_trainer(name, x, lr, steps, seed):
    torch.manual_seed(seed)
    net = ToyMLP() if name == "ring" else UNet(**DIGITS_NET)
    denoiser = Denoiser(net, schedules.cosine(1000), "v")
    return training.Trainer(denoiser, x, steps=steps, batch=256 if name == "ring" else 64, lr=lr, ema_decay=0.99,
                            lr_schedule="constant", seed=seed)


TRAINERS = {"gan": gan_trainer, "diffusion": diffusion_trainer}


@torch.no_grad()
def samples(method, name, average, count):
    """Unconditional samples of a trained generator or denoiser, the same for the same count."""
    if method == "gan":
        return average(torch.randn(count, average.latent, generator=torch.Generator().manual_seed(0)))
    if name == "digits":
        return text_to_image.sample_images(average, count, (1, 28, 28), sampler=metrics.PROTOCOL)
    return run(sample(average, PerSampleNoise(0, count)((2,)), average.schedule, steps=50))


def quality(method, name, average):
    """The figures of one trained network, as a dict."""
    if name == "ring":
        found = metrics.modes(samples(method, name, average, 2000), toy.ring_centres(), toy.RING_SIGMA)
        return {"covered": found.covered, "precision": found.precision, "mode_balance": found.mode_balance}
    classifier, real = weights.load_model("digits_classifier"), weights.load("digits_real")[0]["test"]
    x = samples(method, name, average, 1000)
    first = metrics.report(classifier, x[:FIRST], None, real)["frechet"]
    return {**metrics.report(classifier, x, None, real), "first_frechet": first}


def steps_in(method, name, x, seconds):
    """How many steps of a method fit into so many seconds of one core, rounded to two digits."""
    trainer = TRAINERS[method](name, x, 1e-4, 10**6, 0)
    for _ in range(5):
        trainer.train_step()
    count, began = 0, time.process_time()
    while time.process_time() - began < min(5, seconds / 2):
        trainer.train_step()
        count += 1
    return int(float(f"{count / (time.process_time() - began) * seconds:.1e}"))


def one_run(method, name, x, lr, steps, seed):
    """Train once and evaluate.  -> the averaged network, its figures; None and why, when training broke off"""
    trainer, began = TRAINERS[method](name, x, lr, steps, seed), time.process_time()
    try:
        average = training.run(trainer)
    except FloatingPointError as error:
        return None, {"broke_off": str(error)}
    return average, {"seconds": round(time.process_time() - began, 1), **quality(method, name, average)}


def goodness(name, figures):
    """One number, the larger the better."""
    if "broke_off" in figures:
        return float("-inf")
    return figures["mode_balance"] if name == "ring" else -figures["frechet"]


def keep(method, network, card):
    """Ship the network of digits with seed 0 and rate x 1."""
    if method == "gan":
        about = {"kind": "generator", "network": network.config}
    else:
        about = weights.denoiser_card(network)
    weights.save(weights.FOLDER / f"stability_{method}", network.state_dict(), {**about, **card}, torch.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SECONDS)
    parser.add_argument("--seconds", type=float, help="of one core, for each run (ring 8, digits 20)")
    name, seconds = (args := parser.parse_args()).name, args.seconds or SECONDS[args.name]
    torch.set_num_threads(1)
    runtime.device = lambda: torch.device("cpu")        # the seconds are those of a core
    x, began = ring(20_000) if name == "ring" else load_digits("train", "mnist").x, time.time()
    curve = {"command": f"python benchmarks/stability.py {name} --seconds {seconds:g}", "code_version": __version__,
             "data": name, "seconds_of_one_core": seconds, "tuning_seeds": TUNING_SEEDS[name], "factors": FACTORS,
             "steps": {}, "lr": {}, "tuning": [], "runs": []}
    for method in TRAINERS:
        steps = curve["steps"][method] = steps_in(method, name, x, seconds)
        tried = {}
        for lr in tqdm(RATES, desc=f"tuning {method}"):
            found = [one_run(method, name, x, lr, steps, seed)[1] for seed in TUNING_SEEDS[name]]
            tried[lr] = sum(goodness(name, figures) for figures in found)
            curve["tuning"].append({"method": method, "lr": lr, "figures": found})
        best = curve["lr"][method] = max(tried, key=tried.get)
        for factor in FACTORS:
            for seed in SEEDS:
                network, figures = one_run(method, name, x, factor * best, steps, seed)
                run = {"method": method, "factor": round(factor, 3), "lr": factor * best, "seed": seed, **figures}
                print({k: v for k, v in run.items() if k != "class_shares"}, flush=True)
                curve["runs"].append(run)
                if name == "digits" and seed == 0 and factor == 1 and network is not None:
                    keep(method, network, {"data": "MNIST", "steps": steps, "lr": best, "seed": seed,
                                           "figures": figures, "picture": [1, 28, 28], "code_version": __version__,
                                           "command": curve["command"]})
    curve["minutes"] = round((time.time() - began) / 60, 1)
    with atomic_write(weights.FOLDER / "curves" / f"stability_{name}.json") as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
