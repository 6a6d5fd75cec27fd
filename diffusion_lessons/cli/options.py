"""What several commands share: types of options, and how pictures are sampled."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lessons.parameters import real_number, shown, whole_number

if TYPE_CHECKING:
    from diffusion_lessons.samplers import SamplerSettings


def whole(name: str, low: float | None = None, high: float | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number in the range of that name (see `parameters`), or from low to high."""
    return lambda text: _parse(int, whole_number, name, text, low, high)


def real(name: str, low: float | None = None, high: float | None = None) -> Callable[[str], float]:
    """An argparse type: a finite number in the range of that name, or from low to high."""
    return lambda text: _parse(float, real_number, name, text, low, high)


def _parse(kind: Callable[[str], Any], check: Callable[..., Any], name: str, text: str, low: Any, high: Any) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a {'whole ' * (kind is int)}number") from None
    try:
        return check(name, value, low, high)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_name(*endings: str) -> Callable[[str], Path]:
    """An argparse type: a path with one of these endings."""

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() not in endings:
            raise argparse.ArgumentTypeError(f"must end in {' or '.join(endings)}, not {text!r}")
        return Path(text)

    return parse


def check_out(path: Path) -> None:
    """Raise OSError or ValueError now, rather than after the work, when a file cannot be written there."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file: name another one with --out")
    folder = path.absolute().parent
    while not folder.exists():    # it will be made
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, so nothing can be written into it: name another place with --out")
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")


def add_sampling(parser: argparse.ArgumentParser, count: int, most: int, method: str, steps: str) -> None:
    """The options of sampling. count, method, steps: the defaults, as the help says them;  most: of pictures"""
    parser.add_argument("--count", type=whole("count", 1, most), default=count, help=f"pictures (default {count})")
    parser.add_argument("--seed", type=whole("seed"), default=0, help="same seed, same pictures (default 0)")
    parser.add_argument("--w", "--guidance", type=real("guidance"), metavar="SCALE",
                        help="guidance scale: 0 ignores the prompt, 1 is plain conditioning, more insists on it "
                             "(default: the model's)")
    parser.add_argument("--steps", type=whole("steps"), help=f"sampling steps (default {steps})")
    parser.add_argument("--sampler", choices=("ddim", "ddpm", "euler", "dpm++"), help=f"default {method}")
    parser.add_argument("--eta", type=real("eta"),
                        help="for ddim: how much fresh noise each step adds, 0 to 1 (default 0)")


def add_reading(parser: argparse._ActionsContainer) -> None:
    """The options that say how a folder of pictures, or an npz, is read."""
    parser.add_argument("--size", type=whole("size", 8, 256), metavar="PIXELS",
                        help="side of the squares that it learns, a multiple of 4 (default: proposed, 32 on a CPU)")
    parser.add_argument("--fit", choices=("crop", "pad"), default="crop",
                        help="keep the middle of each picture (crop, the default), or all of it on white (pad)")
    parser.add_argument("--condition", choices=("auto", "captions", "labels", "none"), default="auto",
                        help="what it learns with a picture (default: captions if there are any, else class folders)")


def sampler(options: argparse.Namespace, default: SamplerSettings) -> SamplerSettings:
    """The sampler: the default, but for what the command line sets."""
    from dataclasses import replace

    given = {"method": options.sampler, "steps": options.steps, "eta": options.eta}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def batch_size() -> int:
    """How many pictures to sample at once: few on a CPU, many on a GPU."""
    from diffusion_lessons import runtime

    return 20 if runtime.device().type == "cpu" else 500
