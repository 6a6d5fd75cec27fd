"""How good are the synthetic digits?  Train a small network on them alone, and let it read real MNIST.

    python benchmarks/synthetic_digits_check.py                 the real test set (needs MNIST; about half a minute)
    python benchmarks/synthetic_digits_check.py --split train   read real training digits: for work on the glyphs
    python benchmarks/synthetic_digits_check.py --picture drawn_and_real.png

Prints the share read right, for each class, and which digits are mistaken for which.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from diffusion_lessons.datasets import load_digits, synthetic_digits, to_float


def small_reader():
    """x: (B, 1, 28, 28) in [-1, 1] -> logits (B, 10), about 1.2 MFLOP a picture."""

    def block(c_in, c_out, stride):
        conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]

    body = block(1, 16, 2) + block(16, 32, 2) + block(32, 64, 2) + [nn.Flatten(), nn.Dropout(0.3)]
    return nn.Sequential(*body, nn.Linear(64 * 4 * 4, 10))


def learn(pictures, epochs=5, batch=64, lr=3e-3, seed=0):
    """Train the small reader on LabeledImages; the learning rate falls to zero in a straight line."""
    torch.manual_seed(seed)
    net, x = small_reader(), to_float(pictures.x)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.01)
    steps = epochs * (len(x) // batch)
    slower = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for here in torch.randperm(len(x)).split(batch)[: len(x) // batch]:
            loss = F.cross_entropy(net(x[here]), pictures.y[here])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            slower.step()
    return net.eval()


@torch.no_grad()
def read(net, pictures):
    """The label that the network gives to each picture: (N,)"""
    return torch.cat([net(to_float(x)).argmax(dim=1) for x in pictures.x.split(1000)])


def report(pictures, said):
    right = said == pictures.y
    for digit in range(10):
        here = pictures.y == digit
        wrong = torch.bincount(said[here & ~right], minlength=10)
        often = [k for k in wrong.argsort(descending=True).tolist()[:3] if wrong[k]]
        most = ", ".join(f"{k} ({int(wrong[k])})" for k in often)
        print(f"  {digit}: {right[here].float().mean():6.1%}   taken for {most or 'nothing else'}")
    print(f"  all: {right.float().mean():.2%} of {len(right):,}")


def page(drawn, real, path, across=16):
    """One row of synthetic digits above one row of real ones, for each class."""
    rows = [torch.cat(list(p.x[p.y == k][:across, 0]), dim=1) for k in range(10) for p in (drawn, real)]
    size = (across * 56, 20 * 56)
    Image.fromarray(torch.cat(rows).numpy()).resize(size, Image.Resampling.NEAREST).save(path)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--split", choices=("train", "test"), default="test", help="which real digits are read")
    ask.add_argument("--count", type=int, default=12_000, help="synthetic digits to learn from")
    ask.add_argument("--epochs", type=int, default=5)
    ask.add_argument("--seeds", type=int, default=1, help="repeat with this many seeds")
    ask.add_argument("--picture", type=Path, help="save a page of synthetic digits above real ones (PNG)")
    args = ask.parse_args()
    real = load_digits(args.split, source="mnist")
    for seed in range(args.seeds):
        start = time.perf_counter()
        drawn = synthetic_digits(args.count, seed)
        drew = time.perf_counter() - start
        net = learn(drawn, args.epochs, seed=seed)
        held_out = synthetic_digits(2_000, 1_000 + seed)
        own = (read(net, held_out) == held_out.y).float().mean()
        took = time.perf_counter() - start
        print(f"seed {seed}: {args.count:,} digits drawn in {drew:.1f} s, learned in {took:.0f} s")
        print(f"  new synthetic digits: {own:.1%} read right; real ones ({args.split}):")
        report(real, read(net, real))
    if args.picture:
        page(drawn, real, args.picture)


if __name__ == "__main__":
    main()
