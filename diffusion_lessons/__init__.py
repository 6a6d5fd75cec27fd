"""Diffusion Lessons: how AI image generators work, each claim seen, measured and written by yourself.

    from diffusion_lessons import generate
    generate("a green frog on stilts in the snow", guidance=4, seed=0)        # four images
"""

import os

__version__ = "0.1.0"

# While they wait for each other, OpenMP's threads burn a core each, for so long that beside other busy programs torch
# becomes many times slower. So they are told to wait actively for some microseconds only, then to sleep
# (benchmarks/benchmark.py --busy compares). This counts only if it stands before torch is loaded: import this package
# first. What you have set yourself wins.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")     # Linux: GNU's runtime
    os.environ.setdefault("KMP_BLOCKTIME", "0")          # macOS, Windows and conda: LLVM's and Intel's


def generate(prompt, *, model=None, steps=50, guidance=None, seed=0, count=4):
    """Make pictures of what you ask for: "a green frog on stilts in the snow", or a digit, "7".

    model: shipped weights by name ("critters", "digits", "cifar"), or a .safetensors file; chosen by the prompt if
    left out.  steps: of the loop, 1..1000;  guidance: how much to insist on the prompt, 0 ignores it, 1 is plain (the
    model's own choice if left out);  seed: the same seed gives the same pictures;  count: how many
    -> a list of PIL images; a notebook shows it as a grid
    Raises ValueError when the model does not know a word, naming the nearest ones that it knows.
    """
    from diffusion_lessons.pipelines import (
        text_to_image,  # here, so that `import diffusion_lessons` does not wait for torch
    )

    x = text_to_image.generate(prompt, model=model, steps=steps, w=guidance, seed=seed, count=count)
    return text_to_image.Gallery.of(x, asked=str(prompt))
