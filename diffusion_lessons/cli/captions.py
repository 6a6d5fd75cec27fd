"""diffusion-lessons captions: how far the captions of the training scenes can be trusted."""

from __future__ import annotations

import argparse

from diffusion_lessons.cli.options import whole

SUMMARY = "how far the captions of the training scenes can be trusted"
DESCRIPTION = "Count how far the captions of critters, which the network learns from, can be trusted."
EXAMPLES = """examples:
  how often captions mention each attribute, and how often they are right
    {prog} captions
  what is in the pictures of the training set that have such a caption
    {prog} captions "a muppet cooking in the kitchen"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("caption", nargs="?", help="also count what the pictures with such a caption show")
    parser.add_argument("--count", type=whole("count", 1, 200_000), default=200_000,
                        help="how many of the training set's captions (default: all 200,000)")


def run(options: argparse.Namespace) -> int:
    """Print the counts."""
    from diffusion_lessons.datasets import captions, critters
    from diffusion_lessons.training import recipes

    recipes.tokenizer()(options.caption or "")    # an unknown word fails here
    scenes = critters.sample_scenes(recipes.SCENES, recipes.SCENES_SEED)[:options.count]
    written = captions.sample_captions(scenes, recipes.SCENES_SEED)
    found = captions.report(scenes, written)
    print(f"{found['captions']:,} captions of training scenes, seed {recipes.SCENES_SEED}")
    for name in critters.ATTRIBUTES:
        print(f"  {name:<8} mentioned in {found['mentioned'][name]:6.1%}, then right in {found['correct'][name]:6.1%}")
    print("\nWhich subject is there, if the caption names one: P(subject | name)")
    for named, subjects in found["subjects"].items():
        print(f"  {named:<8} {in_percent(subjects)}")
    if options.caption:
        meaning = captions.parse_caption(options.caption)
        count, attributes = captions.attributes_given(scenes, written, meaning)
        print(f"\nCaptions that say just {', '.join(meaning.values()) or 'nothing'}: {count:,}")
        for name, shares in attributes.items():
            print(f"  {name:<8} {in_percent(shares) if shares else 'no such caption'}")
    return 0


def in_percent(shares: dict[str, float]) -> str:
    """ "frog 75.0%, owl 25.0%" """
    return ", ".join(f"{word} {share:.1%}" for word, share in shares.items())
