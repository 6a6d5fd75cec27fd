"""No step of training or sampling reads a tensor: on a GPU each reading would make the CPU wait for it."""

import sys
from pathlib import Path

import pytest
import torch

import diffusion_lessons
from diffusion_lessons import training
from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.samplers import PerSampleNoise, sample
from diffusion_lessons.schedules import make_schedule

PACKAGE = str(Path(diffusion_lessons.__file__).parent)
READS = ("cpu", "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__")
TEXT = dict(vocab_size=12, length=8, width=16, layers=1, heads=2)
SAMPLERS = {"ddim": {}, "ddpm": {"method": "ddpm"}, "ddim, eta 0.5, clipped": {"eta": 0.5, "clip": True}}


def trainer(kind, device="cpu"):
    torch.manual_seed(0)
    net = UNet(channels=(8, 16), blocks=1, text=TEXT) if kind == "text" else UNet(channels=(8, 16), blocks=1, classes=3)
    denoiser = (OneStepDenoiser if kind == "one step" else Denoiser)(net, make_schedule("linear", 100)).to(device)
    x, y = torch.rand(20, 1, 8, 8) * 2 - 1, torch.arange(20) % 3
    y = torch.tensor([[1, 3, 4, 2, 0, 0, 0, 0]] * 20) if kind == "text" else y
    return training.Trainer(denoiser, x, y, steps=40, batch=4)


def loop(kind, how, device="cpu"):
    denoiser, noise = trainer(kind, device).denoiser, PerSampleNoise(0, 4)
    y = torch.tensor([[1, 3, 4, 2, 0, 0, 0, 0]] * 4) if kind == "text" else torch.arange(4) % 3
    guided = CFGDenoiser(denoiser, y.to(device), 2.5, rescale=0.5)
    return sample(guided, noise((1, 8, 8)).to(device), denoiser.schedule, 30, noise=noise, **SAMPLERS[how])


@pytest.fixture
def reads(monkeypatch):
    """The readings of tensors by lines of the package itself (not by torch's, which keeps counters on the CPU)."""
    seen = []

    def watched(name):
        original = getattr(torch.Tensor, name)

        def read(tensor, *args, **kwargs):
            frame = sys._getframe(1)
            if frame.f_code.co_filename.startswith(PACKAGE):
                seen.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {name}")
            return original(tensor, *args, **kwargs)

        return read

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    return seen


@pytest.mark.parametrize("kind", ["labels", "text", "one step"])
def test_a_training_step_reads_no_tensor(kind, reads):
    one = trainer(kind)
    one.read_every = 50       # as on a GPU; on the CPU the trainer looks at each loss
    steps = iter(one)
    next(steps)               # the first step makes the schedule's table for the device
    reads.clear()
    for _ in range(3):
        step = next(steps)
    assert reads == []
    assert step.loss > 0      # asked for, the loss is read: the watch is awake
    assert reads != []


@pytest.mark.parametrize("kind", ["labels", "text"])
@pytest.mark.parametrize("how", SAMPLERS)
def test_a_sampling_step_reads_no_tensor(kind, how, reads):
    steps = loop(kind, how)
    next(steps)
    reads.clear()
    for _ in range(3):
        next(steps)
    assert reads == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["labels", "text", "one step"])
def test_a_gpu_is_never_waited_for(kind):
    """20 steps of training and of each sampler, while torch makes every synchronisation an error."""
    steps, loops = iter(trainer(kind, "cuda")), [loop(kind, how, "cuda") for how in SAMPLERS]
    for iterator in (steps, *loops):
        next(iterator)        # the first step makes the tables, and cuDNN and cuBLAS get ready
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iterator in (steps, *loops):
            for _ in range(20):
                step = next(iterator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.x_s.isfinite().all()
