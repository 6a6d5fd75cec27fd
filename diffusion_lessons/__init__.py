"""Diffusion Lessons: how AI image generators work, each claim seen, measured and written by yourself.

    from diffusion_lessons import generate
    generate("a green frog on stilts in the snow", guidance=4, seed=0)        # four images
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_lessons import images

__version__ = "0.1.0"

# While they wait for each other, OpenMP's threads burn a core each, for so long that beside other busy programs torch
# becomes many times slower. So they are told to wait actively for some microseconds only, then to sleep
# (benchmarks/benchmark.py --busy compares). This counts only if it stands before torch is loaded: import this package
# first. What you have set yourself wins.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")     # Linux: GNU's runtime
    os.environ.setdefault("KMP_BLOCKTIME", "0")          # macOS, Windows and conda: LLVM's and Intel's


def generate(prompt: object, *, model: "str | Path | None" = None, steps: int = 50,
             guidance: float | None = None, seed: int = 0, count: int = 4) -> "images.Gallery":
    """Generate pictures from a prompt: "a green frog on stilts in the snow", or a digit, "7".

    model: shipped weights by name ("critters", "digits", "cifar"), or a .safetensors file; chosen by the prompt if
    left out.  steps: of the sampling loop, 1..1000;  guidance: the guidance scale: 0 ignores the prompt, 1 is plain
    conditioning, more insists on it (the model's default if left out);  seed: the same seed gives the same pictures
    count: how many  -> a list of PIL images; a notebook shows it as a grid
    Raises ValueError when the model does not know a word, with the nearest words that it knows.
    """
    # imported here, so that `import diffusion_lessons` does not wait for torch
    from diffusion_lessons import images
    from diffusion_lessons.pipelines import text_to_image
    from diffusion_lessons.samplers import SamplerSettings

    x = text_to_image.generate(prompt, model=model, sampler=SamplerSettings(steps=steps), w=guidance, seed=seed,
                               count=count)
    return images.Gallery.of(x, prompt=str(prompt))
