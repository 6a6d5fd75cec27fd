"""A short training run that a test can kill: python killable_run.py CHECKPOINT OUT PAUSE

It prints the number of each step, waits PAUSE seconds after it, and writes the weights to OUT when it gets to its end.
With --together FOLDER RANK it is one of two processes that train one network, and writes what it has to FOLDER.
"""

import sys
import time

import torch
from torch.nn.parallel import DistributedDataParallel

from diffusion_lessons import training
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.schedules import make_schedule


def pictures(count=40, size=8):
    """Two kinds of noisy 8x8 pictures, light at the top (label 0) or at the bottom (label 1)."""
    g = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 2
    light = torch.linspace(220, 30, size)[None, :, None].expand(count, size, size)
    x = torch.where(y[:, None, None] == 0, light, light.flip(1)) + 15 * torch.randn(count, size, size, generator=g)
    return x.clamp(0, 255).round().to(torch.uint8)[:, None], y


def denoiser(init=0, T=100, prediction_type="v", **settings):
    torch.manual_seed(init)
    net = UNet(**{"channels": (8, 16), "blocks": 1, "classes": 2, "T": T, **settings})
    return Denoiser(net, make_schedule("cosine", T), prediction_type)


def trainer(steps=40, init=0, **settings):
    return training.Trainer(denoiser(init), *pictures(), **{"steps": steps, "batch": 8, **settings})


def train_together(folder, rank):
    """Three steps of a network that all processes share."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net = denoiser()
    run = training.Trainer(net, *pictures(), steps=3, batch=8, model=DistributedDataParallel(net))
    eps = run.sample_batch(run.step_generator(0))[2]
    norm, gradients = torch.nn.utils.clip_grad_norm_, []

    def note_gradients(weights, length):    # of the first step, before they are clipped
        gradients.extend([] if gradients else [w.grad.clone() for w in weights])
        return norm(weights, length)

    torch.nn.utils.clip_grad_norm_ = note_gradients
    training.run(run)
    torch.save({"state": run.state_dict(), "eps": eps, "gradients": gradients}, f"{folder}/rank{run.rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "--together":
        train_together(sys.argv[2], int(sys.argv[3]))
        sys.exit()
    checkpoint, out, pause = sys.argv[1:]
    run = trainer()

    def callback(step):
        print(step.step, flush=True)
        time.sleep(float(pause))

    training.run(run, checkpoint, every=2, callback=callback)
    torch.save(run.state_dict(), out)
