"""Messages of numbers between two processes, one of which does not trust the other.

A frame is two lengths, a header in JSON, and the raw bytes of the tensors that the header describes. Nothing is ever
unpickled, and the reader checks everything: a malformed frame is a ValueError. Values have limits of depth, number
and size, so that neither the interpreter's recursion limit nor the machine's memory is ever reached.
This file imports nothing from the package, because the worker, which cannot see the package, runs it too.
"""

import collections
import dataclasses
import functools
import io
import itertools
import json
import math
import struct
import types
from collections.abc import Callable, Iterable
from typing import IO, Any, Protocol

import numpy as np
import torch

HEAD = struct.Struct("<II")
HEADER, BYTES = 200_000, 4 << 20    # no answer to an exercise comes near these
CELLS = 64 << 20                    # a notebook may be long
DEPTH = 16                          # lists within lists; also the most dimensions of a tensor
VALUES = 20_000                     # in one message; each number of a list is one
NESTING = 3 * DEPTH + 3             # brackets that such values take in JSON at most
DTYPES = {str(d): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                              torch.int16, torch.int8, torch.uint8, torch.bool)}


class StandIn(types.SimpleNamespace):
    """In the worker, a proxy of an object in the parent: the same attributes, and its number there."""


class Encoder:
    """Encodes one message as JSON, and its tensors as bytes.

    blob: the bytes of its tensors;  keep: a list for the objects that stay here and are sent as numbers, or None
    Raises ValueError beyond `most` characters, BYTES, DEPTH or VALUES.
    """

    def __init__(self, keep: list | None, most: int) -> None:
        self.blob, self.keep, self.left = bytearray(), keep, most
        self.values = VALUES if most <= HEADER else most

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The value as JSON; its tensors are appended to the blob."""
        self.values -= 1
        if depth > DEPTH:
            raise ValueError(f"that is too deep to be handed over: at most {DEPTH} nested lists")
        if self.values < 0:
            raise ValueError("that is too large to be handed over: too many values")
        if isinstance(value, StandIn) or isinstance(value, types.FunctionType) and hasattr(value, "_number"):
            return {"is": "kept", "number": value._number, "items": []}
        if isinstance(value, str):
            self.left -= len(value)    # checked first: JSON would be a second copy
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

    def each(self, values: Iterable, depth: int) -> list:
        return [self.encode(value, depth + 1) for value in values]

    def tensor(self, value: torch.Tensor) -> dict[str, Any]:
        """A tensor's JSON. Its size is checked first: it may be expanded from a single number."""
        if value.numel() * value.element_size() + len(self.blob) > BYTES:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is too large to be handed over")
        if value.dim() > DEPTH:
            raise ValueError(f"a tensor of {value.dim()} dimensions is too deep to be handed over: at most {DEPTH}")
        plain = value.detach().as_subclass(torch.Tensor).cpu().contiguous()
        if plain.numel():
            self.blob += plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"is": "tensor", "dtype": str(plain.dtype), "shape": list(plain.shape), "grad": value.requires_grad}


def attributes(value: Any) -> dict[str, Any]:
    """Fields and properties of a dataclass, without private ones; other objects send no attributes."""
    if not dataclasses.is_dataclass(value):
        return {}
    names = [field.name for field in dataclasses.fields(value) if field.name[0] != "_"]
    kinds = (property, functools.cached_property)
    names += [name for name, thing in vars(type(value)).items() if isinstance(thing, kinds)]
    return {name: getattr(value, name) for name in names}


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a value and in the attributes that are sent of it, in the same order at both ends."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts: Iterable
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, StandIn):
        parts = vars(value).values()
    else:
        parts = value if isinstance(value, (list, tuple)) else attributes(value).values()
    return [tensor for part in parts for tensor in tensors(part)]


def decode(form: Any, blob: IO[bytes], kept: Callable) -> Any:
    """The value of its JSON form. kept(form, items) returns what stayed in the parent, there the object itself.

    Only the worker makes objects with attributes. In the parent they would be dangerous: numpy trusts some names.
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
        return torch.Generator().set_state(torch.as_tensor(items[0]))
    if kind == "named":
        return collections.namedtuple(form["name"], form["fields"])(*items)
    if kind == "kept":
        return kept(form, items)
    return {"list": list, "tuple": tuple, "dict": dict}[kind](items)


def write(file: IO[bytes], message: Any, keep: list | None = None, most: int = HEADER) -> None:
    """Send one message, completely or not at all. Raises ValueError when it is too large or too deep."""
    encoder = Encoder(keep, most)
    header = json.dumps(encoder.encode(message)).encode()
    if len(header) > most:
        raise ValueError("that is too large to be handed over")
    file.write(HEAD.pack(len(header), len(encoder.blob)) + header + encoder.blob)
    file.flush()


def nesting(header: bytes) -> int:
    """The largest number of brackets open at once in a JSON text, outside strings."""
    outside = b"".join(header.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = (1 if c in b"[{" else -1 for c in outside if c in b"[]{}")
    return max(itertools.accumulate(steps), default=0)


class Source(Protocol):
    """Where messages are read from."""

    def read(self, size: int, /) -> bytes: ...


def read(file: Source, kept: Callable, most: int = HEADER) -> Any:
    """The next message. Raises EOFError when the other end has closed, ValueError when the frame is malformed."""
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
