"""diffusion-lessons generate: pictures of a prompt, as a sheet or as arrays."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lessons.cli.options import add_sampling, batch_size, file_name, sampler

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SUMMARY = "generate pictures with trained weights"
DESCRIPTION = "Generate pictures from a prompt, with trained weights."
EXAMPLES = """examples:
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
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("prompt", help='what to generate: a sentence about critters, or a label, for instance "7"')
    parser.add_argument("--model", metavar="NAME", help="shipped weights by name, or a .safetensors file "
                                                        "(default: digits for a digit, else critters)")
    add_sampling(parser, 16, "ddim", "50")
    parser.add_argument("--out", type=file_name(".png", ".npz"), default=Path("pictures.png"),
                        help="a sheet of pictures (.png) or plain arrays (.npz); default pictures.png")


def run(options: argparse.Namespace) -> int:
    """Generate the pictures and write them."""
    import numpy as np

    from diffusion_lessons import images, runtime
    from diffusion_lessons.datasets import to_uint8
    from diffusion_lessons.pipelines import text_to_image
    from diffusion_lessons.samplers import SamplerSettings

    model = options.model or text_to_image.default_model(options.prompt)
    pictures = to_uint8(text_to_image.generate(
        options.prompt, model=model, count=options.count, seed=options.seed, w=options.w,
        sampler=sampler(options, SamplerSettings()), batch=batch_size(), progress=True))
    if options.out.suffix.lower() == ".npz":
        y = text_to_image.encode_prompt(model, options.prompt).numpy()
        save_arrays(options.out, pictures, np.broadcast_to(y, (len(pictures), *y.shape)))
    else:
        with runtime.atomic_write(options.out) as scratch:
            images.Gallery.of(pictures).grid().save(scratch)
    print(f"{len(pictures)} pictures of {options.prompt!r} written to {options.out}")
    return 0


def save_arrays(path: Path, x: Tensor, y: np.ndarray) -> None:
    """Write an npz with x (N, H, W) or (N, H, W, C), and y.  x: (N, C, H, W) uint8, y: (N,) or (N, L)"""
    import numpy as np

    from diffusion_lessons import runtime

    x = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
    with runtime.atomic_write(path) as scratch:
        np.savez_compressed(scratch, x=x.numpy(), y=y)
