"""A short training run that a test can kill: python killable_run.py CHECKPOINT OUT PAUSE

It prints the number of each step, waits PAUSE seconds after it, and writes the weights to OUT when it gets to its end.
With --together FOLDER RANK it is one of two processes that train one network, and writes what it has to FOLDER.
"""

import contextlib
import signal
import sys
import time

import torch
from torch.nn.parallel import DistributedDataParallel

from diffusion_lessons import training
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.pipelines.text_to_image import sample_images
from diffusion_lessons.samplers import SamplerSettings
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
    """Continue a run in two processes, sample from what it gives, and stop another run from the second process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net, losses = denoiser(), []
    run = training.Trainer(net, *pictures(), steps=6, batch=16, model=DistributedDataParallel(net))
    training.run(run, f"{folder}/run.pt", every=4, callback=lambda step: losses.append(step.loss))
    samples = sample_images(run.ema, torch.arange(10) % 2, (1, 8, 8), sampler=SamplerSettings(steps=3), batch=3, seed=1)
    net = denoiser()
    stopped = training.Trainer(net, *pictures(), steps=6, batch=16, model=DistributedDataParallel(net))
    with contextlib.suppress(KeyboardInterrupt):
        training.run(stopped, f"{folder}/stopped.pt", every=100,
                     callback=lambda step: rank == 1 and step.step == 2 and signal.raise_signal(signal.SIGINT))
    torch.save({"losses": losses, "state": run.state_dict(), "samples": samples, "stopped": stopped.step},
               f"{folder}/rank{rank}.pt")
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
