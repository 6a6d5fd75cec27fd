"""diffusion-lessons generate: pictures of a prompt, as a sheet or as arrays."""

from __future__ import annotations

import argparse
import contextlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lessons.cli.options import add_sampling, batch_size, check_out, file_name, sampler

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

ON_A_SHEET, PIXELS = 400, 50_000_000    # pictures of a sheet, and pixels: Pillow warns of sheets above 89 million

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
  each sample with the nearest of the pictures that it learned from
    {prog} generate cat --model outputs/photos.safetensors --nearest photos

The same seed gives the same pictures, whatever the count: the first 16 of 64
are the 16 of 16. More than 400 pictures become several sheets, frog-001.png and
so on; what is drawn is written at once, so any number takes the same memory.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("prompt", help='what to generate: a sentence about critters, or a label, for instance "7"')
    parser.add_argument("--model", metavar="NAME", help="shipped weights by name, or a .safetensors file "
                                                        "(default: digits for a digit, else critters)")
    add_sampling(parser, 16, 1_000_000, "ddim", "50")
    parser.add_argument("--out", type=file_name(".png", ".npz"), default=Path("pictures.png"),
                        help="sheets of up to 400 pictures (.png), or plain arrays (.npz); default pictures.png")
    parser.add_argument("--nearest", type=Path, metavar="PATH",
                        help="a folder of pictures, or an .npz: show each sample beside the nearest of them (.png)")


def run(options: argparse.Namespace) -> int:
    """Generate the pictures and write them as they are drawn."""
    from diffusion_lessons import distributed
    from diffusion_lessons.datasets import to_uint8
    from diffusion_lessons.pipelines import text_to_image
    from diffusion_lessons.samplers import SamplerSettings

    check_out(options.out)
    if options.nearest and (options.count > ON_A_SHEET or options.out.suffix.lower() != ".png"):
        raise ValueError(f"--nearest shows up to {ON_A_SHEET} pictures on one sheet, a .png")
    model = options.model or text_to_image.default_model(options.prompt)
    drawn = text_to_image.generate_batches(
        options.prompt, model=model, count=options.count, seed=options.seed, w=options.w,
        sampler=sampler(options, SamplerSettings()), batch=batch_size(), progress=True)
    with contextlib.closing(drawn):    # which takes the bar away, whatever happens
        batches = map(to_uint8, drawn)
        if distributed.rank() > 0:    # the first process writes
            for _ in drawn:
                pass
            return 0
        if options.nearest:
            save_beside_nearest(options, model, list(batches))
            paths = [options.out]
        elif options.out.suffix.lower() == ".npz":
            y = text_to_image.encode_prompt(model, options.prompt).numpy()
            save_arrays(options.out, batches, options.count, y)
            paths = [options.out]
        else:
            paths = save_sheets(options.out, batches, options.count)
    where = f"{paths[0]}" if len(paths) == 1 else f"{len(paths)} sheets, {paths[0]} to {paths[-1].name}"
    print(f"{options.count} pictures of {options.prompt!r} written to {where}")
    return 0


def save_beside_nearest(options: argparse.Namespace, model: str | Path, batches: list[Tensor]) -> None:
    """Write one sheet on which each sample stands beside the nearest picture of --nearest; print how near they are."""
    import torch

    from diffusion_lessons import runtime, weights
    from diffusion_lessons.datasets.folder import load_pictures
    from diffusion_lessons.evaluation import own_pictures

    card = weights.card(model)
    channels, size, _ = card["picture"]
    data = load_pictures(options.nearest, size, card.get("fit", "crop"), "none", channels=channels, progress=True).x
    with runtime.atomic_write(options.out) as scratch:
        own_pictures.nearest_sheet(torch.cat(batches), data).save(scratch)
    if len(data) > 1:
        print(own_pictures.verdict(own_pictures.nearest_ratio(torch.cat(batches), data)))


def save_sheets(path: Path, batches: Iterable[Tensor], count: int) -> list[Path]:
    """Write PATH, or PATH-001, PATH-002, ... where there are more pictures than fit one sheet.  -> the paths

    batches: (N, C, H, W) uint8 each, `count` pictures in all. A sheet is written as soon as its pictures are there.
    """
    import torch

    from diffusion_lessons import images, runtime

    batches = iter(batches)
    waiting = next(batches)
    height, width = waiting.shape[-2:]
    most = max(1, min(ON_A_SHEET, PIXELS // ((height + 2) * (width + 2) * 16)))    # each pixel is enlarged four times
    number = -(-count // most)
    paths = [path] if number == 1 else [path.with_stem(f"{path.stem}-{k:03}") for k in range(1, number + 1)]
    for k, sheet in enumerate(paths):
        wanted = min(most, count - k * most)
        while len(waiting) < wanted:
            waiting = torch.cat([waiting, next(batches)])
        with runtime.atomic_write(sheet) as scratch:
            images.Gallery.of(waiting[:wanted]).grid().save(scratch)
        waiting = waiting[wanted:]
    return paths


def save_arrays(path: Path, batches: Iterable[Tensor], count: int, y: np.ndarray) -> None:
    """Write an npz with x (N, H, W) or (N, H, W, C) uint8, and y (N,) or (N, L), batch by batch.

    batches: (B, C, H, W) uint8 each, `count` pictures in all;  y: () or (L,), the label or the tokens of all of them
    """
    import numpy as np

    from diffusion_lessons import runtime

    def pixels() -> Iterator[np.ndarray]:
        for x in batches:
            yield (x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)).contiguous().numpy()

    def labels() -> Iterator[np.ndarray]:
        for first in range(0, count, 1000):
            yield np.broadcast_to(y, (min(1000, count - first), *y.shape))

    with runtime.atomic_write(path) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as file:
        for name, parts in (("x", pixels()), ("y", labels())):
            with file.open(f"{name}.npy", "w", force_zip64=True) as array:
                for k, part in enumerate(parts):
                    if k == 0:
                        np.lib.format.write_array_header_1_0(array, {
                            "descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False,
                            "shape": (count, *part.shape[1:])})
                    array.write(part.tobytes())
