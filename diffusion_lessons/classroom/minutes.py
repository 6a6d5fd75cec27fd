"""How long a lesson takes on this machine: the seconds it took elsewhere, and how fast this one is beside that."""

import json
import math
import time
from pathlib import Path

import torch

from diffusion_lessons import runtime
from diffusion_lessons.training import recipes

FILE = Path(__file__).with_name("minutes.json")     # written by `make times`


def how_long(lesson: str) -> str:
    """A sentence for the learner: about how long Run All takes here, judged from half a second of work.

    lesson: its number, such as "04".  Raises KeyError when no time is on file.
    """
    known = json.loads(FILE.read_text())
    return sentence(known["seconds"][lesson] * known["speed"] / speed(), torch.get_num_threads())


def sentence(seconds: float, threads: int) -> str:
    """How long that is, in words; rounded up, so that it is seldom too short."""
    cores = "one core" if threads == 1 else f"{threads} cores"
    if seconds < 50:
        about = f"{10 * math.ceil(seconds / 10)} seconds"
    else:
        minutes = math.ceil(2 * seconds / 60) / 2
        about = "a minute" if minutes == 1 else f"{minutes:g} minutes"
    return (f"Run All takes about {about} on this machine ({cores}, as busy as it is now), "
            "with the weights that are included.")


@torch.no_grad()
def speed(least: float = 0.5) -> float:
    """Passes per second of 16 digits through the network of the lessons, over at least so many seconds."""
    with torch.random.fork_rng():    # the lesson's own random numbers stay as they are
        denoiser = recipes.build(recipes.RECIPES["digits"]).eval()
    device = runtime.device()
    x, t = torch.zeros(16, 1, 28, 28, device=device), torch.full((16,), 500, device=device)

    def work():
        return denoiser(x, t).x0.sum().item()    # .item() waits for a GPU

    work()
    began, passes = time.perf_counter(), 0
    while time.perf_counter() - began < least:
        work()
        passes += 1
    return passes / (time.perf_counter() - began)
