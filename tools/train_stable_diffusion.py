"""Train the parts of the small Stable Diffusion on critters of 64x64 pixels. A stopped run goes on where it was.

    python tools/train_stable_diffusion.py vae        first; about 7 hours on one core
    python tools/train_stable_diffusion.py clip       beside it; about 4 hours on one core

Checkpoints go to build/checkpoints every 200 steps; each prints a line with the loss and what fresh scenes say.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from diffusion_lessons import runtime
from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.evaluation.prompt_following import combinations, prompts_for, sample_rows
from diffusion_lessons.models.stable_diffusion.clip import CLIP, retrieval_accuracy
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.training.base import run
from diffusion_lessons.training.latent import (
    SIZE,
    TEXT_CONFIG,
    VAE_CONFIG,
    LossTrainer,
    captioned_critters,
    clip_step,
    critter_pictures,
    critter_tokenizer,
    vae_step,
)

RECIPES = {
    "vae": dict(steps=20_000, batch=8, lr=1e-3, seed=71),
    "clip": dict(steps=6_000, batch=128, lr=1e-3, seed=72, weight_decay=0.01),
}
FRESH = 9_999    # the seed of the scenes on which progress is measured


def trainer_of(part, device, **recipe):
    """The trainer of a part, at its beginning."""
    torch.manual_seed(recipe["seed"])
    if part == "vae":
        return LossTrainer(VAE(**VAE_CONFIG).to(device), vae_step, critter_pictures, **recipe)
    tokenizer = critter_tokenizer()
    ids = {f"{name}_token_id": tokenizer.vocab[token] for name, token in
           {"bos": "<|startoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>"}.items()}
    clip = CLIP(text=dict(TEXT_CONFIG, vocab_size=len(tokenizer.vocab), **ids))
    return LossTrainer(clip.to(device), clip_step, captioned_critters(tokenizer), **recipe)


@torch.no_grad()
def psnr(vae, device, count=64):
    """How well fresh scenes come back through the latents' means, in dB; a picture has a range of 2."""
    x, = critter_pictures(FRESH, count)
    x_hat = torch.cat([vae.decode(vae.encode(part).mean).clamp(-1, 1).cpu() for part in x.to(device).split(16)])
    return (10 * torch.log10(4 / F.mse_loss(x_hat, x, reduction="none").mean((1, 2, 3)))).mean().item()


def retrieval(clip, device, count=64):
    """Of 64 fresh scenes with different attributes: how often the right full caption is first among 64."""
    attributes = sample_rows(combinations(), count, FRESH)
    scenes = critters.with_variation(attributes, torch.Generator().manual_seed(FRESH))
    tokens = critter_tokenizer()(prompts_for(attributes, FRESH))
    return retrieval_accuracy(clip, to_float(critters.render(scenes, SIZE)).to(device), tokens.to(device))


MEASURES = {"vae": ("PSNR dB", psnr), "clip": ("right of 64", retrieval)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=RECIPES)
    parser.add_argument("--out", type=Path, default=Path("build/checkpoints"))
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--steps", type=int, help="the length of the run, for a trial")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = runtime.device()
    recipe = {**RECIPES[args.part], **({"steps": args.steps} if args.steps else {})}
    trainer = trainer_of(args.part, device, **recipe)
    name, measure = MEASURES[args.part]
    losses, began = [], time.time()

    def report(step):
        losses.append(step.loss)
        if step.step % args.every == 0 or step.step == trainer.steps:
            found = measure(trainer.ema, device)
            print(f"step {step.step} of {trainer.steps}  loss {sum(losses) / len(losses):.5f}  {name} {found:.4f}  "
                  f"{(time.time() - began) / 60:.1f} minutes here", flush=True)
            losses.clear()

    run(trainer, args.out / f"stable_diffusion_{args.part}.pt", args.every, report)


if __name__ == "__main__":
    main()
