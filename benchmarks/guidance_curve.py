"""What guidance gives and what it takes: pictures of critters at w from 0 to 16.    (claims F1, F3, F4)

    python benchmarks/guidance_curve.py              some 45 minutes on two cores (estimated)

Writes pretrained/curves/guidance.json: the command, the weights' SHA-256, and for every w
- who is in 1,000 pictures of "a muppet cooking in the kitchen": a muppet, another animal, nobody
- of prompts that name all four attributes: how often all four are right, how different the pictures of one prompt are
  (as a share of real scenes), and how many of their values lie at the very ends, where colours are saturated
and beside it the truth, what a perfect model would draw at w = 1:
- who is in the scenes whose caption says just that, counted until 10,000 of them are found
- how often a caption that names all four is right in all four, the mean over the prompts' combinations
Lesson 06 draws some of it again and compares.
"""

import argparse
import collections
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_lessons import __version__, runtime, weights
from diffusion_lessons.datasets import captions, critters
from diffusion_lessons.datasets.critters import ATTRIBUTES, SUBJECTS
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.training import recipes

SCALES, PROMPT, SEED = (0, 1, 2, 3, 4, 6, 8, 12, 16), "a muppet cooking in the kitchen", 0
FIRST = 16    # so many pictures of each scale are counted on their own as well, for the lesson to draw again


def who(classifier, x):
    """The shares of muppets, other animals and nobody in pictures of critters.  (N, 3, 32, 32) -> a dict"""
    subject = torch.cat([classifier.predict(part) for part in x.split(500)])[:, 0]
    muppet, nobody = (subject == SUBJECTS.index(name) for name in ("muppet", "nobody"))
    shares = {"muppet": muppet, "another": ~muppet & ~nobody, "nobody": nobody}
    return {name: seen.double().mean().item() for name, seen in shares.items()}


def saturated(x):
    """The share of values that lie within 1% of black or white.  (N, C, H, W) in [-1, 1] -> 0..1"""
    return (x.abs() > 0.98).double().mean().item()


def truth_of_prompt(wanted=10_000, scenes=1_000_000):
    """Who is there when a caption says just what the prompt says, in at least `wanted` captions."""
    counted = collections.Counter()
    for seed in itertools.count():
        found, shares = prompt_following.subject_shares(captions.parse_caption(PROMPT), scenes, seed)
        counted.update({name: round(share * found) for name, share in shares.items()})
        if (total := counted.total()) >= wanted:
            shares = {name: counted[name] / total for name in ("muppet", "nobody")}
            return {"captions": total, **shares, "another": 1 - sum(shares.values())}


def truth_of_all_four():
    """How often a caption of the training set that names all four is right; each combination counts the same."""
    scenes = critters.sample_scenes(recipes.SCENES, recipes.SCENES_SEED)
    said, right = collections.Counter(), collections.Counter()
    for caption, row in zip(captions.sample_captions(scenes, recipes.SCENES_SEED), scenes.attributes().tolist()):
        if len(caption.mentions) == len(ATTRIBUTES):
            key = tuple(ATTRIBUTES[name].index(word) for name, word in caption.mentions.items())
            said[key] += 1
            right[key] += key == tuple(row)
    combinations = list(map(tuple, prompt_following.combinations().tolist()))
    share = sum(right[row] / said[row] for row in combinations) / len(combinations)
    return {"captions": said.total(), "all_right": share}


@torch.no_grad()
def one_point(denoiser, tokenizer, classifier, w, count):
    """All figures at one scale."""
    tokens = tokenizer(PROMPT).expand(count, -1)
    x = text_to_image.sample_images(denoiser, tokens, (3, 32, 32), w=w, seed=SEED, sampler=prompt_following.PROTOCOL)
    point = {**who(classifier, x), "first_muppet": who(classifier, x[:FIRST])["muppet"]}
    point["muppet_lower95"] = metrics.wilson_lower_bound(point["muppet"], count)
    rows = prompt_following.sample_rows(prompt_following.combinations(), count // 2, SEED)
    x = prompt_following.generate_images(denoiser, tokenizer, rows, w, SEED)
    point["all_right"] = metrics.attribute_accuracy(classifier, x, rows)["all"]
    point["first_all_right"] = metrics.attribute_accuracy(classifier, x[:FIRST], rows[:FIRST])["all"]
    point["saturated"] = saturated(x)
    prompts = prompt_following.combinations()
    point["diversity"] = prompt_following.diversity(denoiser, tokenizer, prompts, count // 50, 16, w, SEED)
    return point


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="pictures of the muppet per scale, at least 200")
    parser.add_argument("--out", type=Path, default=weights.FOLDER / "curves" / "guidance.json")
    args = parser.parse_args()
    if args.count < 200:
        parser.error("--count must be 200 or more")
    denoiser, card = weights.load_model("critters", runtime.device()), weights.load("critters")[1]
    classifier, tokenizer = weights.load_model("critters_classifier"), text_to_image.tokenizer(card)
    rows = prompt_following.sample_rows(prompt_following.combinations(), args.count // 2, SEED)
    curve = {"command": f"python benchmarks/guidance_curve.py --count {args.count}", "weights": "critters",
             "sha256": card["sha256"], "code_version": __version__, "count": args.count, "prompt": PROMPT,
             "seed": SEED, **asdict(prompt_following.PROTOCOL),
             "real_saturated": saturated(prompt_following.reference_images(rows, SEED)),
             "truth": truth_of_prompt(), "truth_all_four": truth_of_all_four(), "first": FIRST,
             "w": SCALES, "points": []}
    for w in (bar := tqdm(SCALES)):
        point = one_point(denoiser, tokenizer, classifier, w, args.count)
        curve["points"].append(point)
        bar.write(f"w = {w}: " + ", ".join(f"{name} {value:.3f}" for name, value in point.items()))
    with atomic_write(args.out) as scratch:
        scratch.write_text(json.dumps(curve, indent=1) + "\n")


if __name__ == "__main__":
    main()
