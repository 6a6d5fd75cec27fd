"""Classifiers that measure a generator's pictures; no generator is ever trained against them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lessons.checks import check_shape
from diffusion_lessons.datasets.critters import ATTRIBUTES


def block(c_in: int, c_out: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU.  (B, c_in, H, W) -> (B, c_out, H, W)"""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


class Classifier(nn.Module):
    """Four convolutions and a linear layer.  x: (B, 1, 28, 28) in [-1, 1] -> logits (B, classes)

    The Frechet distance and recall compare its `features`, the input of the last layer.
    """

    def __init__(self, in_channels: int = 1, classes: int = 10, width: int = 64):
        super().__init__()
        self.config = dict(in_channels=in_channels, classes=classes, width=width)

        self.body = nn.Sequential(block(in_channels, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2),
                                  block(64, 128), block(128, width))
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, width)"""
        check_shape(x.shape, self)
        return F.adaptive_avg_pool2d(self.body(x), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class AttributeClassifier(nn.Module):
    """Classify the four attributes of a critter at once.  x: (B, 3, 32, 32) in [-1, 1] -> logits (B, 25)

    The logits of subject, colour, prop and place lie side by side: `split` separates them, `predict` gives the most
    likely value of each.  channels: the width of each level of two convolutions; each level has half the resolution of
    the one before it.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128), width: int = 64):
        super().__init__()
        self.config = dict(channels=list(channels), width=width)
        layers: list[nn.Module] = []
        c = 3
        for level, c_level in enumerate(channels):
            layers += [nn.MaxPool2d(2)] if level else []
            layers += [block(c, c_level), block(c_level, c_level)]
            c = c_level
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(c * 16, width)
        self.sizes = [len(values) for values in ATTRIBUTES.values()]
        self.head = nn.Linear(width, sum(self.sizes))

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, width)"""
        return F.relu(self.fc(F.adaptive_avg_pool2d(self.body(x), 4).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def split(self, logits: Tensor) -> tuple[Tensor, ...]:
        """The logits of each attribute.  (B, 25) -> (B, 6), (B, 9), (B, 5), (B, 5)"""
        return logits.split(self.sizes, dim=1)

    def predict(self, x: Tensor) -> Tensor:
        """The most likely value of each attribute.  (B, 3, H, W) in [-1, 1] -> (B, 4) indices into ATTRIBUTES"""
        return torch.stack([part.argmax(1) for part in self.split(self(x))], dim=1)
