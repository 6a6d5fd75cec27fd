"""What pictures, labels and cards must be, checked once where they enter. Each says what it found and what is wanted.

A wrong range or shape seldom stops a training: it gives white pictures after an hour, or a message about tensors from
deep inside the network.
"""

import torch

TINY = 1e-4  # a float picture may leave [-1, 1] by so much: rounding


def check_pictures(x, net=None, check_range: bool = True) -> torch.Tensor:
    """Pictures to learn from, as a network wants them.  -> x, floats as float32

    x: (N, C, H, W) uint8 0..255, or float in [-1, 1]; points and other data (N, ...) only need finite numbers
    net: with a `config` (see UNet) it says how many channels there are to be
    check_range: False lets float pictures in any other range in: the course's ablations train on them on purpose
    Raises ValueError.
    """
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"pictures must be a torch tensor, not {_kind(x)}: call {_as_tensor(x)}")
    if x.numel() == 0:
        raise ValueError("there are no pictures to learn from")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"pictures must be uint8 or float in [-1, 1], not {x.dtype}")
    check_shape(x.shape, net)
    low, high = (value.item() for value in x.aminmax())    # NaN if there is one
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(f"{int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} pictures hold NaN or infinity: "
                         "leave those out, x[x.isfinite().flatten(1).all(1)]")
    if x.ndim == 4 and check_range:
        wrong = _wrong_range(low, high, x.dtype)
        if wrong:
            raise ValueError(f"pictures must be uint8 0..255 or float in [-1, 1]; these are {x.dtype} from {low:.4g} "
                             f"to {high:.4g}: {wrong}. If it is meant, say check_range=False")
    return x.float() if x.is_floating_point() else x


def _wrong_range(low, high, dtype):
    """What pictures from low to high seem to be, and what to do; None if they are as wanted."""
    if dtype == torch.uint8:
        return "0 and 1 in bytes? Multiply by 255" if high == 1 else None
    if 0 <= low < high <= 1:
        return "pictures in [0, 1]? Call 2 * x - 1"
    if low >= -1 - TINY and high <= 1 + TINY:
        return None
    if low >= 0 and high <= 255:
        return "bytes as floats? Call x / 127.5 - 1"
    if low < 0 < high and high - low < 12:
        return "divided by a standard deviation, as for ImageNet? Undo it, x * std + mean, and then call 2 * x - 1"
    return "bring them into [-1, 1]"


def check_shape(shape, net):
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


def check_labels(y, count: int | None = None, net=None) -> torch.Tensor:
    """Labels or tokens, one row for each picture, that a network knows.  -> y as int64

    y: (N,) integers in 0..classes-1, or (N, L) tokens of sentences;  count: N, if that is known
    net: with `classes`, or with `text` (a TextEncoder); None for one of your own, where only the type is checked
    Raises ValueError.
    """
    if not isinstance(y, torch.Tensor):
        raise ValueError(f"labels must be a torch tensor of whole numbers, not {_kind(y)}: call {_as_tensor(y)}")
    if y.dtype not in (torch.int64, torch.int32, torch.int16):
        raise ValueError(f"labels must be whole numbers (int64), not {y.dtype}: call y.long()")
    if y.ndim == 0:
        raise ValueError("labels must be (N,), not a single one: call y[None]")
    if count is not None and y.shape[:1] != (count,):
        raise ValueError(f"{count} pictures but {len(y)} labels")
    if net is None:
        return y.long()
    text, classes = getattr(net, "text", None), getattr(net, "classes", None)
    if y.ndim == 2 and text is None and y.shape[1] == 1:
        raise ValueError(f"labels must be (N,), not {tuple(y.shape)}: call y[:, 0]")
    if y.ndim == 2 and text is None:
        raise ValueError(f"y is {tuple(y.shape)}: these are tokens of sentences, which the network cannot read: give "
                         "it text=... (or if each row is 0 but for one 1, call y.argmax(1) for labels)")
    if y.ndim == 2:
        known = len(text.token.weight)
        if y.shape[1] != text.length or y.numel() and not 0 <= int(y.min()) <= int(y.max()) < known:
            raise ValueError(f"tokens must be (N, {text.length}) and below {known} for this network; these are "
                             f"{tuple(y.shape)}, up to {int(y.max())}: of another tokeniser?")
    elif y.ndim != 1:
        raise ValueError(f"labels must be (N,), or tokens (N, L), not {tuple(y.shape)}")
    elif text is not None:
        raise ValueError(f"this network is asked by sentences: give tokens (N, {text.length}), not labels (N,)")
    elif y.numel() and not (classes and 0 <= int(y.min()) <= int(y.max()) < classes):
        raise ValueError(f"labels must lie in 0..classes-1 of the network, which has classes={classes}; these lie in "
                         f"{int(y.min())}..{int(y.max())}")
    return y.long()


def need(card: dict, name, *keys: str) -> list:
    """What a card says under these keys.  -> a list.  Raises ValueError naming the missing ones."""
    missing = [key for key in keys if card.get(key) is None]
    if missing:
        raise ValueError(f"the card of {str(name)!r} has no {' and no '.join(map(repr, missing))}; it holds "
                         f"{', '.join(card)}. Save the weights again with what is missing, for instance "
                         "weights.denoiser_card(denoiser, picture=[1, 28, 28], w=1.0)")
    return [card[key] for key in keys]


def _kind(x):
    """ "a list", "a numpy array of <U3" """
    dtype = getattr(x, "dtype", None)
    return f"a numpy array of {dtype}" if dtype is not None else f"a {type(x).__name__}"


def _as_tensor(x):
    """How to make a tensor of it."""
    first = x
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, str) or getattr(getattr(x, "dtype", None), "kind", "") in "USO" and hasattr(x, "dtype"):
        return "torch.tensor([names.index(word) for word in y]) with names, the list of all classes"
    return "torch.from_numpy(...)" if hasattr(x, "dtype") else "torch.tensor(...)"
