"""What guidance gives and what it takes: pictures of critters at w from 0 to 16.    (claims F1, F3, F4)

    python tools/guidance_curve.py              some 45 minutes on two cores (estimated)

Writes pretrained/curves/guidance.json: the command, the weights' SHA-256, and for every w
- who is in 1,000 pictures of "a muppet cooking in the kitchen": a muppet, another animal, nobody
- of prompts that name all four attributes: how often all four are right, how different the pictures of one prompt are
  (as a share of real scenes), and how many of their values lie at the very ends, where colours are saturated
Lesson 06 draws some of it again and compares.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, generation, metrics, prompted, runtime, weights
from diffusion_lessons.datasets.critters import SUBJECTS
from diffusion_lessons.runtime import atomic_write

SCALES, PROMPT, SEED = (0, 1, 2, 3, 4, 6, 8, 12, 16), "a muppet cooking in the kitchen", 0


def who(critic, x):
    """The shares of muppets, other animals and nobody in pictures of critters.  (N, 3, 32, 32) -> a dict"""
    subject = torch.cat([critic.read(part) for part in x.split(500)])[:, 0]
    muppet, nobody = (subject == SUBJECTS.index(name) for name in ("muppet", "nobody"))
    shares = {"muppet": muppet, "another": ~muppet & ~nobody, "nobody": nobody}
    return {name: seen.double().mean().item() for name, seen in shares.items()}


def saturated(x):
    """The share of values that lie within 1% of black or white.  (N, C, H, W) in [-1, 1] -> 0..1"""
    return (x.abs() > 0.98).double().mean().item()


@torch.no_grad()
def one_point(denoiser, tokenizer, critic, w, count):
    """All figures at one scale."""
    tokens = tokenizer(PROMPT).expand(count, -1)
    x = generation.draw(denoiser, tokens, (3, 32, 32), w=w, seed=SEED, **prompted.PROTOCOL)
    point = {**who(critic, x), "first_muppet": who(critic, x[:100])["muppet"]}
    point["muppet_lower95"] = metrics.lower_limit(point["muppet"], count)
    rows = prompted.some_of(prompted.combinations(), count // 2, SEED)
    x = prompted.drawn(denoiser, tokenizer, rows, w, SEED)
    point["all_right"] = metrics.attributes_right(critic, x, rows)["all"]
    point["first_all_right"] = metrics.attributes_right(critic, x[:100], rows[:100])["all"]
    point["saturated"] = saturated(x)
    point["diversity"] = prompted.diversity(denoiser, tokenizer, prompted.combinations(), count // 50, 16, w, SEED)
    return point


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="pictures of the muppet per scale, at least 200")
    parser.add_argument("--out", type=Path, default=weights.FOLDER / "curves" / "guidance.json")
    args = parser.parse_args()
    if args.count < 200:
        parser.error("--count must be 200 or more")
    denoiser, card = weights.load_denoiser("critters", runtime.device()), weights.load("critters")[1]
    critic, tokenizer = weights.load_critic(), generation.tokenizer(card)
    rows = prompted.some_of(prompted.combinations(), args.count // 2, SEED)
    curve = {"command": f"python tools/guidance_curve.py --count {args.count}", "weights": "critters",
             "sha256": card["sha256"], "code_version": __version__, "count": args.count, "prompt": PROMPT,
             "seed": SEED, **prompted.PROTOCOL, "real_saturated": saturated(prompted.real_scenes(rows, SEED)),
             "w": SCALES, "points": []}
    for w in (bar := tqdm(SCALES)):
        point = one_point(denoiser, tokenizer, critic, w, args.count)
        curve["points"].append(point)
        bar.write(f"w = {w}: " + ", ".join(f"{name} {value:.3f}" for name, value in point.items()))
    with atomic_write(args.out) as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
