"""The common type of all image data sets, and the conversion between bytes and floats."""

from typing import NamedTuple

import torch
from torch import Tensor


class LabeledImages(NamedTuple):
    """Pictures and their labels.

    x: (N, C, H, W) uint8 0..255;  y: (N,) int64 labels, or (N, L) tokens;  source: where they come from
    """

    x: Tensor
    y: Tensor
    source: str


def to_float(x: Tensor) -> Tensor:
    """Convert bytes to floats centred on zero, as the noise is.

    x / 127.5 - 1

    x: uint8 0..255, any shape  ->  float32 in [-1, 1]
    Raises ValueError when x is not uint8.
    """
    if x.dtype != torch.uint8:
        raise ValueError(f"to_float wants a uint8 tensor (0..255), not {x.dtype}: is it scaled already?")
    return x.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Convert floats back to bytes; values outside [-1, 1] become black or white.

    x: float in [-1, 1], any shape  ->  uint8 0..255
    Raises ValueError when x is not a float tensor, or holds NaN.
    """
    if not x.is_floating_point():
        raise ValueError(f"to_uint8 wants a float tensor in [-1, 1], not {x.dtype}")
    if torch.isnan(x).any():
        raise ValueError("to_uint8 got a picture with NaN in it: look for the step that produced it")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
