"""Text to picture as in Stable Diffusion: the loop runs on latents, and a VAE turns the last of them into pixels.

    tokens -> text encoder -> noise -> loop with guidance -> VAE decoder        (Rombach et al. 2022, figure 3)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_lessons.forward import TO_PREDICTION, Prediction, add_noise
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.tokenizer import Tokenizer
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.parameters import real_number, whole_number
from diffusion_lessons.samplers import DenoiserFunction, PerSampleNoise, SamplingLoop, Step, run

TILE, OVERLAP = 512, 128    # pixels: larger pictures go through the VAE in tiles, which share so many


class LatentDenoiser:
    """The U-Net, its schedule and what it predicts: a denoiser, (x_t, t, text) -> Prediction.

    x_t: (B, C, h, w) latents, float32 whatever the network computes in;  t: (B,) in 1..T, where the network counts
    0..T-1;  text: (B, L, D) hidden states of the text encoder
    """

    def __init__(self, unet: UNet, scheduler: Scheduler) -> None:
        self.unet, self.scheduler, self.schedule = unet, scheduler, scheduler.schedule
        self.dtype = next(unet.parameters()).dtype

    def __call__(self, x_t: Tensor, t: Tensor, text: Tensor) -> Prediction:
        output = self.unet(x_t.to(self.dtype), t - 1, text.to(self.dtype)).to(x_t.dtype)
        return TO_PREDICTION[self.scheduler.prediction_type](output, x_t, t, self.schedule)


def guided(denoiser: LatentDenoiser, cond: Tensor, uncond: Tensor, guidance_scale: float) -> DenoiserFunction:
    """A denoiser (x_t, t) -> Prediction that is steered towards `cond` and away from `uncond`, both (B, L, D).

    eps = eps_u + w (eps_c - eps_u)                                         (Ho & Salimans 2022, with w = 1 + their w)

    Both halves go through the network as one batch, the unconditional one first. At a scale w of 1 and below Stable
    Diffusion asks once, with the text, and does not guide at all.
    """
    if guidance_scale <= 1:
        return lambda x_t, t: denoiser(x_t, t, cond)
    both = torch.cat([uncond, cond])                                                             # (2 B, L, D)

    def guided_denoiser(x_t: Tensor, t: Tensor) -> Prediction:
        halves = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), both)
        return Prediction(*(u + guidance_scale * (c - u) for u, c in (half.chunk(2) for half in halves)))

    return guided_denoiser


@dataclass
class LatentPipeline:
    """The five parts of Stable Diffusion, and the ways to use them.

        pipeline = load_stable_diffusion("critters")
        for step in pipeline.sample("a green frog on stilts", guidance_scale=5):
            show(pipeline.decode(step.x0_hat))

    Pictures are (B, 3, H, W) in [-1, 1], latents (B, C, H/f, W/f) of unit variance, as the U-Net sees them.
    """

    tokenizer: Tokenizer
    text_encoder: TextEncoder
    unet: UNet
    vae: VAE
    scheduler: Scheduler

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def encode_text(self, texts: str | list[str]) -> Tensor:
        """A string or B strings -> (B, L, D), what the U-Net gets to see."""
        return self.text_encoder(self.tokenizer(texts).to(self.device)).hidden_states

    def denoiser(self, prompts: str | list[str], guidance_scale: float = 7.5, negative: str = "") -> DenoiserFunction:
        """A denoiser for these prompts. Give it to a loop half way, `loop.denoiser = ...`, to change the subject.

        prompts: B strings;  guidance_scale: 0..100;  negative: what to steer away from, one string for all
        Raises ValueError.
        """
        guidance_scale = real_number("guidance_scale", guidance_scale)
        cond, uncond = self.encode_text(prompts), self.encode_text(negative)
        return guided(LatentDenoiser(self.unet, self.scheduler), cond, uncond.expand(len(cond), -1, -1), guidance_scale)

    def sample(self, prompts: str | list[str], *, steps: int = 50, guidance_scale: float = 7.5, negative: str = "",
               seed: int = 0, size: int | tuple[int, int] | None = None, method: str | None = None,
               latents: Tensor | None = None) -> SamplingLoop:
        """From noise to latents, as an iterator over `Step`s: take any x_t or x0_hat and `decode` it.

        prompts: a string or a list;  seed: one picture of it for each prompt, see PerSampleNoise
        size: pixels to a side, or (height, width); the size it was trained at if left out
        method: ddim, euler or dpm++; the scheduler's own if left out;  latents: the noise to begin with, (B, C, h, w)
        SD-Turbo is made for 1 to 4 steps and guidance_scale=1: its guidance has been trained into it.
        Raises ValueError when the size is not divisible by what the VAE and the U-Net halve, and for other odd values.
        """
        prompts, method = [prompts] if isinstance(prompts, str) else list(prompts), method or self.scheduler.method
        times = self.scheduler.timesteps(whole_number("steps", steps), method)
        if latents is None:
            latents = PerSampleNoise(seed, len(prompts))((self.unet.in_channels, *self.latent_size(size)))
        x_T = self.scheduler.noise_scale(times, method) * latents.to(self.device)
        denoiser = self.denoiser(prompts, guidance_scale, negative)
        return SamplingLoop(denoiser, x_T, self.scheduler.schedule, times, method=method)

    def __call__(self, prompts: str | list[str], **how: Any) -> Tensor:
        """Pictures of the prompts; how: see `sample`.  -> (B, 3, H, W) in [-1, 1]"""
        return self.decode(run(self.sample(prompts, **how)))

    def img2img(self, pictures: Tensor, prompts: str | list[str], strength: float, *, steps: int = 50, seed: int = 0,
                guidance_scale: float = 7.5, negative: str = "", method: str | None = None) -> SamplingLoop:
        """Noise pictures and sample from there, as an iterator over `Step`s                 (Meng et al. 2021, SDEdit)

        strength: the share of the steps that is done, 0..1: 1 forgets the pictures, little keeps them
        """
        if not real_number("strength", strength):
            raise ValueError("strength must be more than 0: at 0 nothing would change")
        method, prompts = method or self.scheduler.method, self._one_each(prompts, pictures)
        times = self.scheduler.timesteps(whole_number("steps", steps), method)
        times = times[len(times) - 1 - max(1, int(strength * (len(times) - 1))):]
        noise = PerSampleNoise(seed, len(pictures))
        x_t = self._noised(self.encode(pictures), times[0], noise)
        denoiser = self.denoiser(prompts, guidance_scale, negative)
        return SamplingLoop(denoiser, x_t, self.scheduler.schedule, times, method=method)

    def inpaint(self, pictures: Tensor, mask: Tensor, prompts: str | list[str], *, steps: int = 50, seed: int = 0,
                guidance_scale: float = 7.5, negative: str = "") -> Iterator[Step]:
        """Make up where the mask is 1, keep the rest, as an iterator over `Step`s of DDIM. The last x_s is the result.

        x_s = mask x_s + (1 - mask) (sqrt(ab_s) x0 + sqrt(1 - ab_s) eps)       (Lugmayr et al. 2022, eq. 8, on latents)

        mask: (B or 1, 1, H, W). A latent is made up as soon as one of its pixels is. The kept pixels have been through
        the VAE as well: paste the originals back where that matters.
        """
        prompts, noise = self._one_each(prompts, pictures), PerSampleNoise(seed, len(pictures))
        times = self.scheduler.timesteps(whole_number("steps", steps), "ddim")
        x0 = self.encode(pictures)                                                               # (B, C, h, w)
        mask = F.adaptive_max_pool2d(mask.to(x0), x0.shape[-2:])                                 # (B or 1, 1, h, w)
        loop = SamplingLoop(self.denoiser(prompts, guidance_scale, negative), noise(x0.shape[1:]).to(x0),
                            self.scheduler.schedule, times)
        for step in loop:
            loop.x_t = mask * loop.x_t + (1 - mask) * self._noised(x0, step.s, noise)
            yield Step(step.t, step.s, step.x_t, step.eps_hat, step.x0_hat, loop.x_t)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) latents -> (B, 3, f h, f w) pictures, cut to [-1, 1]; a few at a time, large ones in tiles."""
        f, z = self.vae.factor, latents.to(next(self.vae.parameters()).dtype) / self.vae.scaling_factor
        h, w = z.shape[-2:]

        def some(part: Tensor) -> Tensor:
            if f * max(h, w) <= TILE:
                return self.vae.decode(part)
            return in_tiles(lambda i, j, n, m: self.vae.decode(part[..., i:i + n, j:j + m]), h, w, f, f)

        return torch.cat([some(part) for part in z.split(max(1, TILE**2 // (f * f * h * w)))]).float().clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) pictures -> (B, C, H/f, W/f) latents: the means, scaled to unit variance."""
        f, x = self.vae.factor, pictures.to(self.device, next(self.vae.parameters()).dtype)
        h, w = (side // f for side in x.shape[-2:])

        def some(part: Tensor) -> Tensor:
            if max(part.shape[-2:]) <= TILE:
                return self.vae.encode(part).mean
            return in_tiles(lambda i, j, n, m: self.vae.encode(part[..., f * i:f * (i + n), f * j:f * (j + m)]).mean,
                            h, w, f, 1)

        z = torch.cat([some(part) for part in x.split(max(1, TILE**2 // (f * f * h * w)))])
        return self.vae.scaling_factor * z.float()

    def latent_size(self, size: int | tuple[int, int] | None = None) -> tuple[int, int]:
        """Height and width of the latents for a size in pixels.  -> (h, w)"""
        f, whole = self.vae.factor, self.vae.factor * self.unet.fold
        size = f * self.unet.config["sample_size"] if size is None else size
        height, width = (whole_number("size", side)
                         for side in (size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)))
        if height % whole or width % whole:
            raise ValueError(f"height and width must be multiples of {whole} pixels, got {height} x {width}")
        return height // f, width // f

    def _noised(self, x0: Tensor, t: int, noise: PerSampleNoise) -> Tensor:
        """x0 at time t, with fresh noise."""
        return add_noise(x0, torch.full((len(x0),), t, device=x0.device), noise(x0.shape[1:]).to(x0),
                         self.scheduler.schedule)

    def _one_each(self, prompts: str | list[str], pictures: Tensor) -> list[str]:
        """As many prompts as pictures; a single one is for all."""
        prompts = [prompts] * len(pictures) if isinstance(prompts, str) else list(prompts)
        if len(prompts) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures but {len(prompts)} prompts: give one to each, or one for all")
        return prompts


def in_tiles(make: Callable[[int, int, int, int], Tensor], h: int, w: int, f: int, out: int) -> Tensor:
    """Put a large result together from overlapping tiles, blended where they overlap.

    make: called with (i, j, n, m), the latents of a tile: i..i+n high, j..j+m wide  ->  (B, C, out n, out m)
    h, w: latents in all;  f: pixels to a latent;  out: how large the result is for each latent
    """
    tile, overlap = TILE // f, OVERLAP // f
    total: Any = 0
    weights: Any = 0
    n, m = min(tile, h), min(tile, w)
    weight = ramp(n * out, overlap * out)[:, None] * ramp(m * out, overlap * out)                # (out n, out m)
    for i in starts(h, tile, overlap):
        for j in starts(w, tile, overlap):
            part = make(i, j, n, m)
            around = (out * j, out * (w - j - m), out * i, out * (h - i - n))                    # what is not this tile
            total = total + F.pad(part * weight.to(part), around)
            weights = weights + F.pad(weight.to(part), around)
    return total / weights


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover the length evenly and share at least the overlap."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(k * (length - tile) / (count - 1)) for k in range(count)]


def ramp(length: int, overlap: int) -> Tensor:
    """1 in the middle, falling to almost 0 over the overlap at both ends.  (length,)"""
    place = torch.arange(length) + 0.5
    return (torch.minimum(place, length - place) / overlap).clamp(max=1)
