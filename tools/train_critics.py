"""Train the two critics of critters on freshly drawn scenes of all pairs, held-out ones too, and say how good they are.

    python tools/train_critics.py            about three quarters of an hour on one core

The first is the measure of the course; the second, of another shape and another seed, checks the first. Writes
pretrained/critters_critic and pretrained/critters_second.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_lessons import __version__, runtime, weights
from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.classifiers import Critic

CRITICS = {
    "critters_critic": dict(network=dict(channels=(32, 64, 96), width=64), seed=100),
    "critters_second": dict(network=dict(channels=(24, 48, 96, 128), width=96), seed=200),
}
TEST_SEED, TEST_COUNT = 300, 20_000


def train(network, seed, steps, batch=128, lr=3e-3, fresh=64):
    """AdamW, a learning rate that falls to 0; new scenes are drawn every `fresh` steps, so none is learned by heart."""
    torch.manual_seed(seed)
    critic = Critic(**network).to(runtime.device())
    optimizer = torch.optim.AdamW(critic.parameters(), lr=lr, weight_decay=0.01)
    for step in tqdm(range(steps), mininterval=20):
        if step % fresh == 0:
            scenes = critters.draw_all_pairs(batch * fresh, seed * 1_000_003 + step)
            pictures, wanted = critters.paint(scenes), scenes.attributes()
        rows = slice(step % fresh * batch, (step % fresh + 1) * batch)
        x = disturbed(to_float(pictures[rows]), torch.Generator().manual_seed(seed * 1_000_003 + step))
        parts = critic.split(critic(x.to(runtime.device())))
        y = wanted[rows].to(runtime.device())
        loss = sum(F.cross_entropy(part, y[:, k], label_smoothing=0.02) for k, part in enumerate(parts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = lr * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return critic.cpu().eval()


def disturbed(x, generator):
    """Half of the pictures a little noisy: a critic must not be thrown by what a sampler leaves behind."""
    strength = 0.15 * torch.rand(len(x), 1, 1, 1, generator=generator)
    strength = strength * (torch.rand(strength.shape, generator=generator) < 0.5)
    return x + strength * torch.randn(x.shape, generator=generator)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=weights.FOLDER, help="a folder (default: the package's own)")
    args = parser.parse_args()
    steps = args.steps
    command = f"python tools/train_critics.py --steps {steps}"
    scenes = critters.draw_all_pairs(TEST_COUNT, TEST_SEED)
    x, wanted = to_float(critters.paint(scenes)), scenes.attributes()
    about = {"data": "critters of all pairs, drawn in code", "steps": steps, "code_version": __version__,
             "command": command}
    for name, recipe in CRITICS.items():
        critic = train(recipe["network"], recipe["seed"], steps)
        figures = metrics.attributes_right(critic.half().float(), x, wanted)    # as it is stored
        print(name, figures)
        weights.save(args.out / name, critic.state_dict(),
                     {"kind": "critic", "network": critic.config, **about, "seed": recipe["seed"],
                      "figures": {"fresh_scenes": TEST_COUNT, **figures}}, torch.float16)


if __name__ == "__main__":
    main()
