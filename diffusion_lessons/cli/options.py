"""What several commands share: types of options, and how pictures are sampled."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lessons.samplers import SamplerSettings


def number(kind: Callable[[str], Any], low: float, high: float | None = None) -> Callable[[str], Any]:
    """An argparse type: a number from low to high."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (value >= low and (high is None or value <= high)):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return parse


def file_name(*endings: str) -> Callable[[str], Path]:
    """An argparse type: a path with one of these endings."""

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() not in endings:
            raise argparse.ArgumentTypeError(f"must end in {' or '.join(endings)}, not {text!r}")
        return Path(text)

    return parse


def add_sampling(parser: argparse.ArgumentParser, count: int, method: str, steps: str) -> None:
    """The options of sampling. count, method, steps: the defaults, as the help says them."""
    parser.add_argument("--count", type=number(int, 1), default=count, help=f"pictures (default {count})")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="same seed, same pictures (default 0)")
    parser.add_argument("--w", "--guidance", type=number(float, 0, 100), metavar="SCALE",
                        help="guidance scale: 0 ignores the prompt, 1 is plain conditioning, more insists on it "
                             "(default: the model's)")
    parser.add_argument("--steps", type=number(int, 1), help=f"sampling steps (default {steps})")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), help=f"default {method}")
    parser.add_argument("--eta", type=number(float, 0, 1),
                        help="for ddim: how much fresh noise each step adds, 0 to 1 (default 0)")


def sampler(options: argparse.Namespace, default: SamplerSettings) -> SamplerSettings:
    """The sampler: the default, but for what the command line sets."""
    from dataclasses import replace

    given = {"method": options.sampler, "steps": options.steps, "eta": options.eta}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def batch_size() -> int:
    """How many pictures to sample at once: few on a CPU, many on a GPU."""
    from diffusion_lessons import runtime

    return 20 if runtime.device().type == "cpu" else 500
