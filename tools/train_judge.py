"""Train the judge of digits on MNIST's first 50,000 training pictures, and ship the features of the real test set.

    python tools/train_judge.py            about 6 minutes on two cores

Writes pretrained/digits_judge and pretrained/digits_real (features of the 10,000 test pictures, and of the last 10,000
training pictures, which the judge has not seen either and which stand for "as good as real").
"""

import argparse

import torch
import torch.nn.functional as F
from tqdm import tqdm

from diffusion_lessons import __version__, weights
from diffusion_lessons.datasets import to_float
from diffusion_lessons.datasets.digits import load_digits
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.classifiers import Classifier

TRAINED_ON = 50_000


def shifted(x, generator):
    """Each picture moved by up to two pixels: the variation that the judge must not mind."""
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def train(x, y, steps=4000, batch=128, lr=3e-3, seed=0):
    """Adam with a learning rate that falls to 0; every step's draws depend on (seed, step) alone."""
    torch.manual_seed(seed)
    judge = Classifier()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    for step in tqdm(range(steps), mininterval=10):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(x), (batch,), generator=generator)
        loss = F.cross_entropy(judge(shifted(to_float(x[chosen]), generator)), y[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    steps = parser.parse_args().steps
    train_set, test_set = load_digits("train", source="mnist"), load_digits("test", source="mnist")
    judge = train(train_set.x[:TRAINED_ON], train_set.y[:TRAINED_ON], steps)
    right = metrics.accuracy(judge, to_float(test_set.x), test_set.y)
    print(f"test accuracy {right:.4f}")
    command = f"python tools/train_judge.py --steps {steps}"
    weights.save(weights.FOLDER / "digits_judge", judge.state_dict(),
                 {"kind": "classifier", "network": judge.config, "data": "MNIST, first 50,000 training pictures",
                  "steps": steps, "seed": 0, "figures": {"test_accuracy": right}, "code_version": __version__,
                  "command": command})
    real = metrics.features(judge, to_float(test_set.x))
    held_back = to_float(train_set.x[TRAINED_ON:])
    figures = metrics.report(judge, held_back, train_set.y[TRAINED_ON:], real)
    print("real training pictures in the samples' place:", figures)
    weights.save(weights.FOLDER / "digits_real", {"test": real, "train": metrics.features(judge, held_back)},
                 {"kind": "features", "data": "MNIST: the test set, and training pictures 50,000..59,999",
                  "steps": steps, "seed": 0, "figures": figures, "code_version": __version__, "command": command},
                 dtype=torch.float16)


if __name__ == "__main__":
    main()
