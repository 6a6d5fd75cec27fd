"""Checks of pictures, labels and cards, made once where they enter. Each error says what it found and what to do.

A wrong range or shape seldom stops a training run: it gives white pictures after an hour, or a message about tensors
from deep inside the network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TINY = 1e-4  # a float picture may exceed [-1, 1] by this much: rounding


def check_pictures(x: Any, net: nn.Module | None = None, check_range: bool = True) -> Tensor:
    """Training pictures in the form a network takes.  -> x, floats as float32

    x: (N, C, H, W) uint8 0..255, or float in [-1, 1]; points and other data (N, ...) need only be finite
    net: its `config` (see UNet), if it has one, says how many channels it takes
    check_range: False accepts float pictures in any range: the course's ablations train on them on purpose
    Raises ValueError.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"pictures must be a torch tensor, not {_kind(x)}: call {_as_tensor(x)}")
    if x.numel() == 0:
        raise ValueError("there are no pictures to train on")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"pictures must be uint8 or float in [-1, 1], not {x.dtype}")
    check_shape(x.shape, net)
    low, high = (value.item() for value in x.aminmax())    # NaN if there is one
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(f"{int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} pictures contain NaN or "
                         "infinity: remove those, x[x.isfinite().flatten(1).all(1)]")
    if x.ndim == 4 and check_range:
        wrong = _wrong_range(low, high, x.dtype)
        if wrong:
            raise ValueError(f"pictures must be uint8 0..255 or float in [-1, 1]; these are {x.dtype} from {low:.4g} "
                             f"to {high:.4g}: {wrong}. If this is intended, pass check_range=False")
    return x.float() if x.is_floating_point() else x


def _wrong_range(low: float, high: float, dtype: torch.dtype) -> str | None:
    """What pictures from low to high seem to be, and what to do; None if the range is right."""
    if dtype == torch.uint8:
        return "0 and 1 in bytes? Multiply by 255" if high == 1 else None
    if 0 <= low < high <= 1:
        return "pictures in [0, 1]? Call 2 * x - 1"
    if low >= -1 - TINY and high <= 1 + TINY:
        return None
    if low >= 0 and high <= 255:
        return "bytes as floats? Call x / 127.5 - 1"
    if low < 0 < high and high - low < 12:
        return "normalised, as for ImageNet? Undo it with x * std + mean, then call 2 * x - 1"
    return "bring them into [-1, 1]"


def check_shape(shape: torch.Size, net: nn.Module | None) -> None:
    """Raise ValueError when a network of the course cannot take pictures of this shape, (N, C, H, W)."""
    config = getattr(net, "config", None)
    wanted = config.get("in_channels") if isinstance(config, dict) else None
    if wanted is None or (len(shape) == 4 and shape[1] == wanted):
        return
    advice = ""
    if len(shape) == 3 and wanted == 1:
        advice = ": add the channel, x[:, None]"
    elif len(shape) == 4 and shape[-1] == wanted:
        advice = ": the channels come last; call x.permute(0, 3, 1, 2)"
    elif len(shape) == 4 and wanted == 1 and shape[1] == 3:
        advice = ": colour; call x.float().mean(1, keepdim=True) for grey, or build a network with in_channels=3"
    elif len(shape) == 4 and wanted == 3 and shape[1] == 1:
        advice = ": grey; call x.expand(-1, 3, -1, -1), or build a network with in_channels=1"
    raise ValueError(f"the network takes pictures (N, {wanted}, H, W) with {wanted} channel{'s' * (wanted > 1)}, "
                     f"not {tuple(shape)}{advice}")


def check_labels(y: Any, count: int | None = None, net: nn.Module | None = None) -> Tensor:
    """Labels or tokens, one row for each picture, that a network knows.  -> y as int64

    y: (N,) integers in 0..classes-1, or (N, L) tokens of sentences;  count: N, if that is known
    net: its own `check_condition` decides which values it takes (see UNet); one without it takes all
    Raises ValueError.
    """
    if not isinstance(y, Tensor):
        raise ValueError(f"labels must be a torch tensor of integers, not {_kind(y)}: call {_as_tensor(y)}")
    if y.dtype not in (torch.int64, torch.int32, torch.int16):
        raise ValueError(f"labels must be integers (int64), not {y.dtype}: call y.long()")
    if y.ndim == 0:
        raise ValueError("labels must be (N,), not a single one: call y[None]")
    if count is not None and y.shape[:1] != (count,):
        raise ValueError(f"{count} pictures but {len(y)} labels")
    check = getattr(net, "check_condition", None)
    if check is not None:
        check(y)
    return y.long()


def is_finite(x: Tensor) -> bool:
    """Is x free of NaN and infinity? Its sum tells in a tenth of the time, unless it overflows."""
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def need(card: Mapping[str, Any], name: str | Path, *keys: str) -> list[Any]:
    """The values of a card under these keys.  -> a list.  Raises ValueError naming the missing ones."""
    missing = [key for key in keys if card.get(key) is None]
    if missing:
        raise ValueError(f"the card of {str(name)!r} has no {' and no '.join(map(repr, missing))}; it holds "
                         f"{', '.join(card)}. Save the weights again with what is missing, for example "
                         "weights.denoiser_card(denoiser, picture=[1, 28, 28], w=1.0)")
    return [card[key] for key in keys]


def _kind(x: Any) -> str:
    """ "a list", "a numpy array of <U3" """
    dtype = getattr(x, "dtype", None)
    return f"a numpy array of {dtype}" if dtype is not None else f"a {type(x).__name__}"


def _as_tensor(x: Any) -> str:
    """How to make a tensor of x."""
    first = x
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, str) or getattr(getattr(x, "dtype", None), "kind", "") in "USO" and hasattr(x, "dtype"):
        return "torch.tensor([names.index(word) for word in y]) with names, the list of all classes"
    return "torch.from_numpy(...)" if hasattr(x, "dtype") else "torch.tensor(...)"
