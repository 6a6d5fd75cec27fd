"""Train the parts of the small Stable Diffusion on critters of 64x64 pixels. A stopped run goes on where it was.

    python tools/train_stable_diffusion.py vae       first
    python tools/train_stable_diffusion.py clip      beside it
    python tools/train_stable_diffusion.py unet      when both are done
    python tools/train_stable_diffusion.py decoder   beside it: the VAE's decoder trained on, its encoder as it is
    python tools/train_stable_diffusion.py export    puts the parts together into FOLDER/stable_diffusion_critters,
                                                     measures them and writes the figures into its card.json

Checkpoints go to build/checkpoints (--out) every 200 steps; each prints the loss and what fresh scenes say.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from diffusion_lessons import runtime, weights
from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.evaluation.metrics import attribute_accuracy
from diffusion_lessons.evaluation.prompt_following import combinations, prompts_for, sample_rows
from diffusion_lessons.models.stable_diffusion.clip import CLIP, retrieval_accuracy
from diffusion_lessons.models.stable_diffusion.scheduler import Scheduler
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE
from diffusion_lessons.pipelines.latent import LatentPipeline
from diffusion_lessons.pipelines.photo import psnr
from diffusion_lessons.pipelines.published import (
    export_pipeline,
    load_clip,
    load_stable_diffusion,
    save_picture_encoder,
)
from diffusion_lessons.training.base import load_checkpoint, read_checkpoint, run
from diffusion_lessons.training.latent import (
    SCHEDULER_CONFIG,
    SIZE,
    UNET_CONFIG,
    VAE_CONFIG,
    LatentBatches,
    LossTrainer,
    captioned_critters,
    clip_step,
    critter_captions,
    critter_pictures,
    critter_tokenizer,
    encode_critters,
    start_from_zero,
    text_config,
    unet_step,
    vae_step,
)

RECIPES = {
    "vae": dict(steps=2_400, batch=8, lr=2e-3, seed=71),
    "decoder": dict(steps=4_000, batch=8, lr=1e-3, seed=75),
    "clip": dict(steps=1_200, batch=128, lr=1e-3, seed=72, weight_decay=0.01),
    "unet": dict(steps=16_000, batch=32, lr=1e-3, lr_schedule="wsd", seed=73, ema_decay=0.9995),
}
SCENES, SCENES_SEED, DROP = 100_000, 74, 0.1    # what the U-Net learns from, and the share of captions hidden
FRESH = 9_999    # the seed of the scenes on which progress is measured
SCALES, CHOOSING = (2.0, 3.0, 4.0, 5.0, 7.5), 200    # the guidance scales to choose from, and how many prompts decide
METHOD, STEPS = "dpm++", 20


def path_of(part, out):
    """Where the checkpoint of a part lies."""
    return out / f"stable_diffusion_{part}.pt"


def trainer_of(part, out, device, **recipe):
    """The trainer of a part, at its beginning."""
    torch.manual_seed(recipe["seed"])
    if part == "vae":
        return LossTrainer(VAE(**VAE_CONFIG).to(device), vae_step, critter_pictures, **recipe)
    if part == "decoder":    # the latents stay as the U-Net knows them
        vae = trained("vae", out, device)
        for learning in (vae.decoder, vae.post_quant_conv):
            learning.requires_grad_(True)
        return LossTrainer(vae, vae_step, critter_pictures, **recipe)
    tokenizer = critter_tokenizer()
    if part == "clip":
        clip = CLIP(text_config(tokenizer)).to(device)
        return LossTrainer(clip, clip_step, captioned_critters(tokenizer), **recipe)
    unet, scheduler = start_from_zero(UNet(**UNET_CONFIG)).to(device), Scheduler.from_config(SCHEDULER_CONFIG)
    latents, _ = latents_of(out, device)
    batches = LatentBatches(latents, critter_captions(SCENES, SCENES_SEED), tokenizer, DROP)
    return LossTrainer(unet, unet_step(scheduler, trained("clip", out, device).text_encoder), batches, **recipe)


def trained(part, out, device):
    """The averaged network of a part that has been trained to its end."""
    trainer = trainer_of(part, out, device, **RECIPES[part])
    load_checkpoint(path_of(part, out), trainer)
    if trainer.step < trainer.steps:
        print(f"Note: the {part} has only {trainer.step} of {trainer.steps} steps behind it.", flush=True)
    return trainer.ema


def latents_of(out, device):
    """The latents of the training scenes and their scale, made once and kept beside the checkpoints."""
    path = out / "stable_diffusion_latents.pt"
    if not path.exists():
        print(f"encoding {SCENES} scenes", flush=True)
        made = encode_critters(trained("vae", out, device), SCENES, SCENES_SEED)
        with runtime.atomic_write(path) as scratch:
            torch.save(made, scratch)
    return torch.load(path, weights_only=True)


def fresh_scenes(attributes, seed):
    """Scenes of 64x64 pixels with these attributes, everything else random.  (N, 4) -> (N, 3, 64, 64)"""
    return to_float(critters.render(critters.with_variation(attributes, torch.Generator().manual_seed(seed)), SIZE))


@torch.no_grad()
def reconstruction(vae, out, device, count=64):
    """How well fresh scenes come back through the latents' means, in dB: the mean of their PSNR."""
    x, = critter_pictures(FRESH, count)
    x_hat = torch.cat([vae.decode(vae.encode(part).mean).clamp(-1, 1).cpu() for part in x.to(device).split(16)])
    return sum(map(psnr, x_hat, x)) / count


def retrieval(clip, out, device, count=64, sets=1):
    """Of 64 fresh scenes with different attributes: how often the right full caption is first among 64."""
    right = 0.0
    for seed in range(FRESH, FRESH + sets):
        attributes = sample_rows(combinations(), count, seed)
        tokens = critter_tokenizer()(prompts_for(attributes, seed)).to(device)
        right += retrieval_accuracy(clip, fresh_scenes(attributes, seed).to(device), tokens) / sets
    return right


@torch.no_grad()
def fresh_loss(unet, out, device, count=256):
    """The loss on scenes that were not trained on, always with the same noise."""
    scheduler = Scheduler.from_config(SCHEDULER_CONFIG)
    clip, vae = trained("clip", out, device), trained("vae", out, device)
    latents = latents_of(out, device)[1] * vae.encode(critter_pictures(FRESH, count)[0].to(device)).mean
    tokens = critter_tokenizer()(critter_captions(count, FRESH)).to(device)
    return unet_step(scheduler, clip.text_encoder)(unet, latents, tokens, torch.Generator(device).manual_seed(0)).item()


MEASURES = {"vae": ("PSNR dB", reconstruction), "decoder": ("PSNR dB", reconstruction),
            "clip": ("right of 64", retrieval), "unet": ("fresh loss", fresh_loss)}


def accuracy(x, attributes, name="critters_classifier"):
    """How often a classifier of lesson 05 finds the attributes in pictures of 64x64, brought to its 32x32."""
    return attribute_accuracy(weights.load_model(name), F.avg_pool2d(x.cpu(), SIZE // 32), attributes)


def follows_prompts(pipeline, rows, count, w, seed, batch=50):
    """How often pictures have the attributes in their prompts.  -> (figures, attributes, pictures)"""
    attributes = sample_rows(rows, count, seed)
    prompts = prompts_for(attributes, seed)
    x = torch.cat([pipeline(prompts[i:i + batch], guidance_scale=w, steps=STEPS, method=METHOD, seed=seed + i).cpu()
                   for i in range(0, count, batch)])
    figures = {"count": count, **accuracy(x, attributes)}
    figures["second"] = {name: share for name, share in accuracy(x, attributes, "critters_second").items()
                         if "lower" not in name}
    return figures, attributes, x


def measured(folder, steps, count=1000):
    """All figures of an exported pipeline. The guidance scale is chosen on other prompts than the 1,000."""
    pipeline = load_stable_diffusion(folder)
    device, attributes = pipeline.device, sample_rows(combinations(), count, FRESH)
    x = fresh_scenes(attributes, FRESH)
    x_hat = torch.cat([pipeline.decode(pipeline.encode(part.to(device))).cpu() for part in x.split(50)])
    figures = {"vae": {"psnr": sum(map(psnr, x_hat, x)) / count, "originals": accuracy(x, attributes)["all"],
                       "reconstructions": accuracy(x_hat, attributes)["all"]},
               "clip": {"right_of_64": retrieval(load_clip(folder, device), None, device, sets=16)}}
    tried = {w: follows_prompts(pipeline, combinations(), CHOOSING, w, seed=FRESH + 1)[0]["all"] for w in SCALES}
    print("all four right at w:", tried, flush=True)
    w = max(tried, key=tried.get)
    seen, _, _ = follows_prompts(pipeline, combinations(), count, w, seed=0)
    held_out, rows, x = follows_prompts(pipeline, combinations(held_out=True), count, w, seed=0)
    stilts = (rows[:, 0] == critters.SUBJECTS.index("frog")) & (rows[:, 2] == critters.PROPS.index("stilts"))
    frogs = {"count": int(stilts.sum()), **accuracy(x[stilts], rows[stilts])}
    return {"steps": steps, "w": w, "chosen_from": tried, "sampler": {"method": METHOD, "steps": STEPS}, **figures,
            "seen": seen, "held_out": held_out, "frogs_on_stilts": frogs}


def export(out, device, note):
    """The pipeline of the trained parts in the published layout, with its figures in card.json.

    note: for the card, what was made otherwise than the recipes say
    """
    tokenizer, (_, scale) = critter_tokenizer(), latents_of(out, device)
    vae, clip = VAE(**VAE_CONFIG, scaling_factor=scale), trained("clip", out, device)
    vae.load_state_dict(trained("decoder", out, device).state_dict())
    unet, steps = trained("unet", out, device), read_checkpoint(path_of("unet", out))["step"]
    pipeline = LatentPipeline(tokenizer, clip.text_encoder, unet, vae, Scheduler.from_config(SCHEDULER_CONFIG))
    folder = export_pipeline(pipeline, out / "stable_diffusion_critters")
    save_picture_encoder(clip, folder)
    card = {"data": f"critters of 64x64 pixels; {SCENES:,} captioned scenes for the U-Net, seed {SCENES_SEED}",
            "recipes": RECIPES, "dropped_captions": DROP, "command": "python tools/train_stable_diffusion.py",
            **({"note": note} if note else {}),
            "figures": measured(folder, steps)}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["figures"], indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*RECIPES, "export"))
    parser.add_argument("--out", type=Path, default=Path("build/checkpoints"))
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--steps", type=int, help="the length of the run, for a trial")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", help="for the card of an export: what was made otherwise than the recipes say")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = runtime.device()
    if args.part == "export":
        return export(args.out, device, args.note)
    recipe = {**RECIPES[args.part], **({"steps": args.steps} if args.steps else {})}
    trainer = trainer_of(args.part, args.out, device, **recipe)
    name, measure = MEASURES[args.part]
    losses, began = [], time.time()

    def report(step):
        losses.append(step.loss_tensor)
        if step.step % args.every == 0 or step.step == trainer.steps:
            found, loss = measure(trainer.ema, args.out, device), torch.stack(losses).mean().item()
            print(f"step {step.step} of {trainer.steps}  loss {loss:.5f}  {name} {found:.4f}  "
                  f"{(time.time() - began) / 60:.1f} minutes here", flush=True)
            losses.clear()

    run(trainer, path_of(args.part, args.out), args.every, report)


if __name__ == "__main__":
    main()
