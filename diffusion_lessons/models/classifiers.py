"""The judges: small classifiers that no generator ever trains against. One reads digits, one reads critters."""

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_lessons.checks import check_shape
from diffusion_lessons.datasets.critters import ATTRIBUTES


def block(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


class Classifier(nn.Module):
    """Four convolutions and a linear layer.  x: (B, 1, 28, 28) in [-1, 1] -> logits (B, classes)

    `features` gives the (B, width) numbers before the last layer: what the Frechet distance and recall compare.
    """

    def __init__(self, in_channels=1, classes=10, width=64):
        super().__init__()
        self.config = dict(in_channels=in_channels, classes=classes, width=width)

        self.body = nn.Sequential(block(in_channels, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2),
                                  block(64, 128), block(128, width))
        self.head = nn.Linear(width, classes)

    def features(self, x):
        """(B, C, H, W) in [-1, 1] -> (B, width)"""
        check_shape(x.shape, self)
        return F.adaptive_avg_pool2d(self.body(x), 1).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


class Critic(nn.Module):
    """Reads the four attributes of a critter from its picture.  x: (B, 3, 32, 32) in [-1, 1] -> logits (B, 25)

    The logits are those of subject, colour, prop and place, side by side; `split` takes them apart and `read` gives the
    likeliest of each. Two convolutions a level, half the size from level to level; channels: the width of each.
    """

    def __init__(self, channels=(32, 64, 128), width=64):
        super().__init__()
        self.config = dict(channels=list(channels), width=width)
        layers, c = [], 3
        for level, c_level in enumerate(channels):
            layers += [nn.MaxPool2d(2)] if level else []
            layers += [block(c, c_level), block(c_level, c_level)]
            c = c_level
        self.body = nn.Sequential(*layers)
        self.places = nn.Linear(c * 16, width)
        self.sizes = [len(words) for words in ATTRIBUTES.values()]
        self.head = nn.Linear(width, sum(self.sizes))

    def forward(self, x):
        return self.head(F.relu(self.places(F.adaptive_avg_pool2d(self.body(x), 4).flatten(1))))

    def split(self, logits):
        """The logits of each attribute.  (B, 25) -> [(B, 6), (B, 9), (B, 5), (B, 5)]"""
        return logits.split(self.sizes, dim=1)

    def read(self, x):
        """What the critic sees.  (B, 3, H, W) in [-1, 1] -> (B, 4) indices into ATTRIBUTES"""
        return torch.stack([part.argmax(1) for part in self.split(self(x))], dim=1)
