"""Pictures in one call: the loop of `samplers`, run in batches, with a trained denoiser."""

import torch
from tqdm import tqdm

from diffusion_lessons import runtime, samplers, weights
from diffusion_lessons.guidance import Guided


def draw(denoiser, y, shape, *, w=1.0, steps=50, seed=0, batch=200, clip=True, limit=True, progress=False, **how):
    """Sample one picture for every label in y.

    denoiser: a models.Denoiser;  y: (N,) labels, or an integer N for a network without labels
    shape: (C, H, W) of a picture;  w: guidance scale;  how: method, eta (see samplers.Loop)
    clip: keep x0_hat in [-1, 1] at every step;  limit: keep the result there
    ->  (N, C, H, W) float in [-1, 1] on the CPU. Picture i depends on (seed, i) and its label, not on the batch.
    """
    count = y if isinstance(y, int) else len(y)
    device, parts = next(denoiser.parameters()).device, []
    for first in tqdm(range(0, count, batch), desc="sampling", disable=not progress, leave=False):
        n = min(batch, count - first)
        noise = samplers.PictureNoise(seed, n, first)
        asked = denoiser if isinstance(y, int) else Guided(denoiser, y[first:first + n].to(device), w)
        loop = samplers.sample(asked, noise(shape).to(device), denoiser.schedule, steps, noise=noise, clip=clip, **how)
        parts.append(samplers.finish(loop).cpu())
    x = torch.cat(parts)
    return x.clamp(-1, 1) if limit else x


def labels(model, prompt):
    """The label that a prompt means to a shipped model, for instance "7" to "digits".

    Raises ValueError that lists what the model knows.
    """
    names = weights.load(model)[1].get("labels")
    if not names:
        raise ValueError(f"{model} draws nothing that one could ask for; try digits or cifar")
    if str(prompt).strip().lower() not in names:
        raise ValueError(f"{model} does not know {str(prompt)!r}; it knows {', '.join(names)}")
    return names.index(str(prompt).strip().lower())


def generate(prompt="7", *, model="digits", count=16, seed=0, w=None, steps=50, progress=False, **how):
    """Make pictures of what you ask for.  -> (count, C, H, W) float in [-1, 1]

    prompt: a label the model knows ("7", "frog");  w: guidance scale, the model's own choice if left out
    Raises ValueError when the model or the prompt is unknown.
    """
    card, y = weights.load(model)[1], labels(model, prompt)
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    denoiser = weights.load_denoiser(model, runtime.device())
    return draw(denoiser, torch.full((count,), y), card["picture"], w=card["w"] if w is None else w, steps=steps,
                seed=seed, progress=progress, **how)
