"""The judge of digits: a small classifier that no generator ever trains against."""

import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    """Four convolutions and a linear layer.  x: (B, 1, 28, 28) in [-1, 1] -> logits (B, classes)

    `features` gives the (B, width) numbers before the last layer: what the Frechet distance and recall compare.
    """

    def __init__(self, in_channels=1, classes=10, width=64):
        super().__init__()
        self.config = dict(in_channels=in_channels, classes=classes, width=width)

        def block(c_in, c_out):
            return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())

        self.body = nn.Sequential(block(in_channels, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2),
                                  block(64, 128), block(128, width))
        self.head = nn.Linear(width, classes)

    def features(self, x):
        """(B, C, H, W) in [-1, 1] -> (B, width)"""
        return F.adaptive_avg_pool2d(self.body(x), 1).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))
