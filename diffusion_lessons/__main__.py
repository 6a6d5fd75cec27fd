"""python -m diffusion_lessons doctor | generate | train | evaluate | captions | grade

Exit codes: 0 all went well, 1 it failed (one line says why), 2 wrong usage, 130 stopped by Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from diffusion_lessons import __version__

PROG = "python -m diffusion_lessons"
ABOUT = """\
Diffusion Lessons on the command line.

  doctor     is this machine ready? versions, device, data sets, weights, and what to do about what is missing
  generate   make pictures with trained weights
  train      train a network from nothing, or go on where it was stopped
  evaluate   measure how good pictures are
  captions   how far the captions of the training scenes can be trusted
  grade      judge the exercises in a folder of notebooks, for lecturers
"""
EXAMPLES = {
    "doctor": """examples:
  {prog} doctor
""",
    "generate": """examples:
  a sentence about critters
    {prog} generate "a green frog on stilts in the snow" --count 4 --seed 0 --out frog.png
  a sheet of 64 sevens
    {prog} generate "7" --count 64 --seed 0 --out sevens.png
  plain arrays: x (N, H, W) or (N, H, W, 3) uint8, and y, the labels (N,) or tokens (N, L)
    {prog} generate "7" --count 1000 --out sevens.npz
  another model, stronger guidance, more steps
    {prog} generate frog --model cifar --w 2 --steps 100
  weights that you have trained
    {prog} generate 3 --model outputs/digits.safetensors

The same seed gives the same pictures, whatever the count: the first 16 of 64
are the 16 of 16.
""",
    "train": """examples:
  as far as ten minutes go on this machine
    {prog} train --data digits --minutes 10
  so many steps, whatever the time
    {prog} train --data digits --steps 10000
  sentences to pictures of critters, as far as two hours go
    {prog} train --data critters --minutes 120
  colour photos, and where the weights go
    {prog} train --data cifar --minutes 120 --out outputs/photos.safetensors

Stop it with Ctrl-C when you like; the same command goes on from the checkpoint.
Without MNIST and without a network it learns from drawn digits, and says so.
""",
    "evaluate": """examples:
  figures to compare runs by
    {prog} evaluate digits --count 1000
  the full protocol, at another guidance scale
    {prog} evaluate digits --count 10000 --w 3
  do critters follow their sentences? printed as JSON
    {prog} evaluate critters --count 1000
  any pictures: x (N, 28, 28) uint8 and y (N,) labels
    {prog} evaluate --npz mine.npz

accuracy  the share that a classifier reads as what was asked for
Frechet   distance between the features of these pictures and of real ones:
          0 is best, and fewer pictures give more
recall    the share of the real variety that is covered: ten perfect
          prototypes score badly here
Critters: the share of pictures with all four attributes as asked, and each
alone, for combinations that training showed (seen) and never showed (held_out);
--count prompts of each, and 16 pictures of up to 50 prompts for the diversity.
""",
    "captions": """examples:
  how often captions say each attribute, and how often it is true
    {prog} captions
  what is in the pictures of the training set that have such a caption
    {prog} captions "a muppet cooking in the kitchen"
""",
    "grade": """examples:
  all notebooks in a folder and below; the table is homework/grades.csv
    {prog} grade homework
  the table somewhere else
    {prog} grade homework --out lesson02.csv

A learner is named after the folder that the notebook lies in, such as ann or
section1/ann; a notebook in the given folder itself is named after its file.
docs/instructors.md says how it works, and what it cannot see.
""",
}


def number(kind, low, high=None):
    """An argparse type: a number from low to high, or a clear word."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (value >= low and (high is None or value <= high)):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return parse


def file_name(*endings):
    """An argparse type: a path with one of these endings."""

    def parse(text):
        if Path(text).suffix.lower() not in endings:
            raise argparse.ArgumentTypeError(f"must end in {' or '.join(endings)}, not {text!r}")
        return Path(text)

    return parse


def build_parser():
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=PROG, description=ABOUT, formatter_class=plain,
                                     epilog=f"Help on one of them: {PROG} generate --help")
    parser.add_argument("--version", action="version", version=f"diffusion-lessons {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, about):
        epilog = EXAMPLES[name].format(prog=PROG)
        return commands.add_parser(name, description=about, epilog=epilog, formatter_class=plain)

    def sampling(p, count, sampler, steps):
        p.add_argument("--count", type=number(int, 1), default=count, help=f"pictures (default {count})")
        p.add_argument("--seed", type=number(int, 0), default=0, help="same seed, same pictures (default 0)")
        p.add_argument("--w", "--guidance", type=number(float, 0, 100), metavar="SCALE",
                       help="guidance: 0 ignores what was asked, 1 is plain, more insists (default: the model's)")
        p.add_argument("--steps", type=number(int, 1), help=f"steps of the loop (default {steps})")
        p.add_argument("--sampler", choices=("ddim", "ddpm"), help=f"default {sampler}")
        p.add_argument("--eta", type=number(float, 0, 1),
                       help="for ddim: how much of the noise put back is fresh, 0 to 1 (default 0)")

    command("doctor", "Is this machine ready? Looks and tells; changes nothing and downloads nothing.")

    p = command("generate", "Make pictures of what you ask for, with trained weights.")
    p.add_argument("prompt", help='what to draw: a sentence about critters, or a label, for instance "7"')
    p.add_argument("--model", metavar="NAME",
                   help="shipped weights by name, or a .safetensors file (default: digits for a digit, else critters)")
    sampling(p, 16, "ddim", 50)
    p.add_argument("--out", type=file_name(".png", ".npz"), default=Path("pictures.png"),
                   help="a sheet of pictures (.png) or plain arrays (.npz); default pictures.png")

    p = command("train", "Train a network from nothing, or go on from its checkpoint.")
    p.add_argument("--data", choices=("digits", "cifar", "critters"), default="digits", help="default digits")
    p.add_argument("--source", choices=("auto", "mnist", "drawn"), default="auto",
                   help="which digits: real ones if they can be had (auto), only real, or drawn in code")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=number(float, 0.01), help="about how long (default 10)")
    length.add_argument("--steps", type=number(int, 1), help="or exactly how many steps")
    p.add_argument("--seed", type=number(int, 0), default=0, help="default 0")
    p.add_argument("--batch", type=number(int, 1), help="pictures a step (default: the recipe's)")
    p.add_argument("--lr", type=number(float, 0), help="learning rate (default: the recipe's)")
    p.add_argument("--checkpoint", type=Path, metavar="PATH",
                   help="where the run is kept (default: in checkpoints/, named after the settings)")
    p.add_argument("--out", type=file_name(".safetensors"), metavar="PATH",
                   help="where the weights go (default outputs/DATA.safetensors)")

    p = command("evaluate", "Measure how good pictures are, by the one protocol of the course for each data set.")
    p.add_argument("model", nargs="?", default="digits",
                   help="digits, critters, or a .safetensors file of one of them (default digits)")
    sampling(p, 1000, "ddpm for digits, ddim for critters", "25 for digits, 50 for critters")
    p.add_argument("--npz", type=file_name(".npz"), metavar="FILE", help="measure these pictures, make none")

    p = command("captions", "Count how far the captions of critters, which the network learns from, can be trusted.")
    p.add_argument("caption", nargs="?", help="also: what do the pictures show that have a caption which says this?")
    p.add_argument("--count", type=number(int, 1), default=200_000,
                   help="so many of the training set's captions (default: all 200,000)")

    p = command("grade", "Judge the exercises in a folder of notebooks, and write a table (CSV). "
                         "Learners' functions run in processes of their own.")
    p.add_argument("folder", type=Path, help="where the notebooks are, in it or below")
    p.add_argument("--out", type=file_name(".csv"), metavar="PATH", help="the table (default FOLDER/grades.csv)")
    return parser


def main(arguments=None):
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    from diffusion_lessons.cli import commands  # here, so that --help does not wait for torch

    try:
        return getattr(commands, options.command)(options)
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{options.command} failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
