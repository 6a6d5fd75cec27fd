"""How two processes exchange numbers when one does not trust the other.

A frame is two lengths, a header in JSON, and the raw bytes of the tensors that the header speaks of. Nothing is ever
unpickled, and whoever reads believes nothing: a frame that is not as it should be is a ValueError. Values have limits
of depth, number and size; none of them is left to the interpreter's recursion limit or to the machine's memory.
This file stands alone, as the child reads it too, where the package is out of reach.
"""

import collections
import dataclasses
import io
import itertools
import json
import math
import struct
import types

import numpy as np
import torch

HEAD = struct.Struct("<II")
HEADER, BYTES = 200_000, 4 << 20    # no answer to an exercise comes near these
CELLS = 64 << 20                    # a notebook may be long
DEPTH = 16                          # lists within lists; also the most dimensions of a tensor
VALUES = 20_000                     # in one message, each number of a list for itself
NESTING = 3 * DEPTH + 3             # brackets that such values take in JSON, at most
DTYPES = {str(d): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                              torch.int16, torch.int8, torch.uint8, torch.bool)}


class StandIn(types.SimpleNamespace):
    """In the child, for an object that stays with the parent: one with the same attributes, and its number there."""


class Encoder:
    """Makes JSON out of one message, tensors apart.

    blob: the bytes of its tensors;  keep: a list for what does not travel but stays here, or None
    Raises ValueError beyond `most` characters, BYTES, DEPTH or VALUES.
    """

    def __init__(self, keep, most):
        self.blob, self.keep, self.left = bytearray(), keep, most
        self.values = VALUES if most <= HEADER else most

    def encode(self, value, depth=0):
        """The value as JSON; its tensors go to the blob."""
        self.values -= 1
        if depth > DEPTH:
            raise ValueError(f"that is too deep to be handed over: at most {DEPTH} lists within each other")
        if self.values < 0:
            raise ValueError("that is too large to be handed over: too many values")
        if isinstance(value, StandIn) or isinstance(value, types.FunctionType) and hasattr(value, "_number"):
            return {"is": "kept", "number": value._number, "items": []}
        if isinstance(value, str):
            self.left -= len(value)    # looked at first: JSON would be a second copy
            if self.left < 0:
                raise ValueError("that is too large to be handed over: too much text")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, torch.Generator):
            return {"is": "generator", "items": self.each([value.get_state()], depth)}
        if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
        if isinstance(value, torch.Tensor) and str(value.dtype) in DTYPES:
            return self.tensor(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"is": "named", "name": type(value).__name__, "fields": list(value._fields),
                    "items": self.each(value, depth)}
        if isinstance(value, (list, tuple, range)):
            return {"is": "tuple" if isinstance(value, tuple) else "list", "items": self.each(value, depth)}
        if isinstance(value, dict):
            return {"is": "dict", "items": [self.each(pair, depth) for pair in value.items()]}
        if self.keep is not None and (dataclasses.is_dataclass(value) or callable(value)):
            self.keep.append(value)
            number, seen = len(self.keep) - 1, attributes(value)
            return {"is": "kept", "number": number, "name": type(value).__name__, "callable": callable(value),
                    "fields": list(seen), "items": self.each(seen.values(), depth)}
        return {"is": "..."} if value is ... else {"is": "other", "name": type(value).__name__}

    def each(self, values, depth):
        return [self.encode(value, depth + 1) for value in values]

    def tensor(self, value):
        """A tensor's form. Its size is looked at first: it may be spread out from one number."""
        if value.numel() * value.element_size() + len(self.blob) > BYTES:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is too large to be handed over")
        if value.dim() > DEPTH:
            raise ValueError(f"a tensor of {value.dim()} dimensions is too deep to be handed over: at most {DEPTH}")
        plain = value.detach().as_subclass(torch.Tensor).cpu().contiguous()
        if plain.numel():
            self.blob += plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"is": "tensor", "dtype": str(plain.dtype), "shape": list(plain.shape), "grad": value.requires_grad}


def attributes(value):
    """Fields and properties of a dataclass; other things have none that travel."""
    if not dataclasses.is_dataclass(value):
        return {}
    names = [field.name for field in dataclasses.fields(value)]
    names += [name for name, thing in vars(type(value)).items() if isinstance(thing, property)]
    return {name: getattr(value, name) for name in names}


def tensors(value):
    """All tensors in a value, in the same order at both ends: those of an object are its attributes that travel."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, StandIn):
        parts = vars(value).values()
    else:
        parts = value if isinstance(value, (list, tuple)) else attributes(value).values()
    return [tensor for part in parts for tensor in tensors(part)]


def decode(form, blob, kept):
    """The value again. kept(form, items) gives what stayed with the parent: there it is the thing itself.

    Only the child makes objects with attributes. In the parent they would be a danger: numpy trusts some names.
    """
    if not isinstance(form, dict):
        return form
    kind = form["is"]
    if kind == "tensor":
        dtype, shape = DTYPES[form["dtype"]], [int(n) for n in form["shape"]]
        if len(shape) > DEPTH:
            raise ValueError("too many dimensions")
        size = math.prod(shape) * dtype.itemsize
        data = blob.read(size) if 0 <= size <= BYTES else b""    # too few bytes do not fit the shape, below
        value = torch.frombuffer(bytearray(data), dtype=dtype) if size else torch.empty(0, dtype=dtype)
        return value.reshape(shape).requires_grad_(bool(form["grad"]) and dtype.is_floating_point)
    if kind == "...":
        return ...
    if kind == "other":
        return type(str(form["name"])[:80], (), {})()
    items = [decode(item, blob, kept) for item in form["items"]] if kind != "dict" else [
        [decode(v, blob, kept) for v in pair] for pair in form["items"]]
    if kind == "generator":
        return torch.Generator().set_state(*items)
    if kind == "named":
        return collections.namedtuple(form["name"], form["fields"])(*items)
    if kind == "kept":
        return kept(form, items)
    return {"list": list, "tuple": tuple, "dict": dict}[kind](items)


def write(file, message, keep=None, most=HEADER):
    """Send one message, whole or not at all. Raises ValueError when it is too large or too deep."""
    encoder = Encoder(keep, most)
    header = json.dumps(encoder.encode(message)).encode()
    if len(header) > most:
        raise ValueError("that is too large to be handed over")
    file.write(HEAD.pack(len(header), len(encoder.blob)) + header + encoder.blob)
    file.flush()


def nesting(header):
    """How many brackets of a JSON text are open at once, at most. Strings do not count."""
    outside = b"".join(header.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = (1 if c in b"[{" else -1 for c in outside if c in b"[]{}")
    return max(itertools.accumulate(steps), default=0)


def read(file, kept, most=HEADER):
    """The next message. Raises EOFError when the other end is gone, ValueError when it is nonsense."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    header, blob = HEAD.unpack(head)
    if header > most or blob > BYTES:
        raise ValueError("a frame that is too large")
    data = file.read(header + blob)
    if len(data) < header + blob:
        raise EOFError
    if nesting(data[:header]) > NESTING:
        raise ValueError("a frame of values that are too deep")
    blob = io.BytesIO(data[header:])
    try:
        message = decode(json.loads(data[:header]), blob, kept)
    except Exception as error:    # whatever is wrong with it
        raise ValueError(f"a frame that cannot be read: {error!r}") from error
    if blob.read(1):
        raise ValueError("a frame with bytes left over")
    return message
