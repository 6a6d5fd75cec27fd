"""How far does a training scale? Two processes measured here, 8 and 1,000 GPUs worked out. Fills in docs/scaling.md.

    python benchmarks/scaling.py                works out the GPUs' figures: seconds
    python benchmarks/scaling.py --measure      also measures one process against two, on a quiet machine: a minute
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import report
import torch
from timing import operations
from torch import nn

from diffusion_lessons import distributed, schedules, training, weights
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.stable_diffusion import unet as stable_diffusion
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.training.recipes import RECIPES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
BATCH = 64                 # pictures of a process in the measurement

# The assumptions, all of an NVIDIA A100 in machines of eight; the page states them.
PEAK, USED = 312e12, 0.35        # FLOP/s in bfloat16, and the share of them that a training reaches
INSIDE, BETWEEN = 300e9, 200e9   # bytes/s: of a GPU's NVLink one way; of a machine's eight links of 200 Gbit/s
REACHED, LATENCY = 0.8, 20e-6    # the share of these that is reached; seconds of a hop
BYTES = 4                        # of a gradient, float32
PRICE = 2.13                     # dollars for an hour of an A100, as in lesson 00
SD_CONFIG = dict(in_channels=4, out_channels=4, sample_size=64, block_out_channels=[320, 640, 1280, 1280],
                 layers_per_block=2, cross_attention_dim=768, attention_head_dim=8, norm_num_groups=32,
                 down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
                 up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3)


class Training(NamedTuple):
    """parameters; operations of a picture's step, forward and backward;  batch: pictures a step in all"""

    name: str
    parameters: int
    operations: float
    batch: int


def trainings():
    """The large network for photos, and Stable Diffusion's U-Net with the batch on its model card."""
    with torch.device("meta"):
        photos = UNet(**RECIPES["cifar_large"].network, classes=10)
        sd = stable_diffusion.UNet(**SD_CONFIG)
        t, label = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        calls = {photos: lambda: photos(torch.zeros(1, 3, 32, 32), t, label),
                 sd: lambda: sd(torch.zeros(1, 4, 64, 64), t, torch.zeros(1, 77, 768))}
        counts = {net: 3 * operations(call) for net, call in calls.items()}    # backward costs twice forward
    return [Training(name, sum(p.numel() for p in net.parameters()), counts[net], batch)
            for name, net, batch in (("cifar_large", photos, RECIPES["cifar_large"].batch),
                                     ("Stable Diffusion v1", sd, 2048))]


def all_reduce(count, gpus):
    """Seconds to add up `count` gradients over all GPUs, so that each has the sum.

    2 (n - 1) / n bytes / bandwidth + 2 ceil(log2 n) latency          (a ring for the bytes, a tree for the latency)
    """
    if gpus == 1:
        return 0.0
    bandwidth = REACHED * (INSIDE if gpus <= 8 else BETWEEN)
    return 2 * (gpus - 1) / gpus * count * BYTES / bandwidth + 2 * math.ceil(math.log2(gpus)) * LATENCY


def efficiency(work, gpus, batch):
    """(seconds of computing, seconds of communication, share of the GPUs' time that is computing) of one step.

    batch: pictures of one GPU. DistributedDataParallel sends gradients while it computes others, in the backward pass,
    which is two thirds of a step: only what does not fit there costs time.
    """
    computing = batch * work.operations / (PEAK * USED)
    talking = all_reduce(work.parameters, gpus)
    waiting = max(0.0, talking - 2 / 3 * computing)
    return computing, talking, computing / (computing + waiting)


def worked_out():
    """The tables of the page: what a network costs, then 8 and 1,000 GPUs with the batch per GPU kept, or in all."""
    works = trainings()
    sizes = report.table(["network", "parameters", "operations a picture", "batch"],
                         [[w.name, f"{w.parameters / 1e6:,.0f} M", f"{w.operations / 1e9:,.0f} GFLOP", f"{w.batch:,}"]
                          for w in works])
    rows = []
    for work in works:
        for gpus in (8, 1000):
            for what, batch in (("as many a GPU as 8 have", work.batch / 8), ("the same batch", work.batch / gpus)):
                if gpus == 8 and what == "the same batch":
                    continue
                computing, talking, share = efficiency(work, gpus, batch)
                rows.append([work.name, f"{gpus:,}", f"{gpus * batch:,.0f} ({what})" if gpus > 8 else f"{work.batch:,}",
                             f"{batch:,.3g}", f"{1e3 * computing:.2f} ms", f"{1e3 * talking:.2f} ms", f"{share:.0%}"])
    header = ["network", "GPUs", "batch", "pictures a GPU", "computing", "communication", "efficiency"]
    return f"{sizes}\n\n{report.table(header, rows)}"


def costs():
    """Lesson 00's table with two more columns: how long 8 and 1,000 GPUs would need, and what they would cost."""
    photos, sd = trainings()
    minutes = weights.card("critters")["figures"]["minutes_of_last_run"]
    rows = []
    for name, hours, like in (("Stable Diffusion v1", 150_000, sd), ("PixArt-α", 675 * 24, sd),
                              ("our critters", minutes / 60, photos)):
        row = [name, f"{hours:,.2f}" if hours < 1 else f"{hours:,.0f}"]
        for gpus in (1, 8, 1000):
            share = efficiency(like, gpus, like.batch / gpus)[2]
            dollars = hours * PRICE / share
            row.append(f"{duration(hours / gpus / share)}, {dollars:,.{0 if dollars > 100 else 2}f} dollars")
        rows.append(row)
    return report.table(["", "GPU hours", "on one GPU", "on 8", "on 1,000"], rows)


def duration(hours):
    """Hours in words that one can picture."""
    for unit, size in (("years", 24 * 365), ("days", 24), ("hours", 1), ("minutes", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:.1f} {unit}"
    return f"{3600 * hours:.1f} s"


# Measured here

def one_of(rank, world, meeting, steps):
    """One process: seconds of a step with BATCH pictures for each process, and of adding up the gradients alone."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    recipe = RECIPES["digits"]
    denoiser = Denoiser(UNet(**recipe.network, classes=10), schedules.cosine(1000))
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1000, 1, 28, 28), generator=g, dtype=torch.uint8)
    model = nn.parallel.DistributedDataParallel(denoiser) if world > 1 else denoiser
    trainer = training.Trainer(denoiser, x, torch.arange(1000) % 10, steps=10**6, batch=BATCH * world, model=model)
    gradients = torch.zeros(sum(p.numel() for p in denoiser.parameters()))
    found = {}
    for name, work in (("step", trainer.train_step), ("all_reduce", lambda: distributed.mean(gradients))):
        for _ in range(2):
            work()
        began = time.perf_counter()
        for _ in range(steps):
            work()
        found[name] = (time.perf_counter() - began) / steps
    torch.distributed.destroy_process_group()
    return found


def measured(steps=20):
    """One process against two, each with one thread and the same number of pictures, as a table."""
    found = {}
    for world in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--of", str(world), "--steps", str(steps)]
            command += ["--meeting", f"{folder}/meeting"]
            processes = [subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True)
                         for rank in range(world)]
            said = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            raise OSError("a process of the measurement failed (see above)")
        found[world] = json.loads(said[0].splitlines()[-1])
    rate = {world: world * BATCH / found[world]["step"] for world in found}
    rows = [[world, f"{rate[world]:.1f}", f"{rate[world] / (world * rate[1]):.0%}",
             f"{1e3 * found[world]['step']:.0f} ms", f"{1e3 * found[world]['all_reduce']:.1f} ms"] for world in found]
    m = report.machine()
    return (f"{m['processor']}, {m['cores']} cores; torch {m['torch']}; {date.today().isoformat()}\n\n"
            + report.table(["processes", "images/s", "efficiency", "a step", "of it, adding up gradients alone"], rows))


def fill_in(text, name, words):
    """The page with what stands between <!-- name --> and <!-- end --> replaced.  Raises ValueError without those."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no place <!-- {name} --> ... <!-- end -->")
    return pattern.sub(lambda found: f"{found[1]}{words}\n{found[2]}", text, count=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="also measure one process against two")
    parser.add_argument("--steps", type=int, default=20, help="of the measurement (default 20)")
    for name, kind in (("rank", int), ("of", int), ("meeting", str)):    # one process of the measurement
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        print(json.dumps(one_of(args.rank, args.of, args.meeting, args.steps)))
        return
    text = fill_in(PAGE.read_text("utf-8"), "worked out", worked_out())
    text = fill_in(text, "costs", costs())
    if args.measure:
        text = fill_in(text, "measured", measured(args.steps))
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
