"""Runs what learners wrote, in a process of its own. It stands alone: the package is out of reach there.

A frame on the wire is two lengths, a header in JSON, and the raw bytes of the tensors that the header speaks of.
Nothing is ever unpickled, and whoever reads believes nothing: a frame that is not as it should be is a ValueError.
"""

import ast
import builtins
import collections
import contextlib
import dataclasses
import inspect
import io
import json
import linecache
import math
import os
import struct
import sys
import traceback
import types

import numpy as np
import torch

HEAD = struct.Struct("<II")
HEADER, BYTES = 200_000, 4 << 20    # no answer to an exercise comes near these
CELLS = 64 << 20                    # a notebook may be long
DTYPES = {str(d): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                              torch.int16, torch.int8, torch.uint8, torch.bool)}
PACKAGE = "diffusion_lessons"


# ---------------------------------------------------------------- the wire, for both ends


class StandIn(types.SimpleNamespace):
    """In the child, for an object that stays with the parent: one with the same attributes, and its number there."""


def encode(value, blob, keep=None):
    """The value as JSON. The bytes of its tensors are added to `blob`; to `keep`, if given, what does not travel."""
    if isinstance(value, StandIn) or isinstance(value, types.FunctionType) and hasattr(value, "_number"):
        return {"is": "kept", "number": value._number, "items": []}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    if isinstance(value, torch.Tensor) and str(value.dtype) in DTYPES:
        if value.numel() * value.element_size() > BYTES:    # looked at first: it may be spread out from one number
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is too large to be handed over")
        plain = value.detach().as_subclass(torch.Tensor).cpu().contiguous()
        blob += plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return {"is": "tensor", "dtype": str(plain.dtype), "shape": list(plain.shape), "grad": value.requires_grad}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"is": "named", "name": type(value).__name__, "fields": list(value._fields),
                "items": [encode(v, blob, keep) for v in value]}
    if isinstance(value, (list, tuple, range)):
        return {"is": "tuple" if isinstance(value, tuple) else "list",
                "items": [encode(v, blob, keep) for v in value]}
    if isinstance(value, dict):
        return {"is": "dict", "items": [[encode(k, blob, keep), encode(v, blob, keep)]
                                        for k, v in value.items()]}
    if keep is not None and (dataclasses.is_dataclass(value) or callable(value)):
        keep.append(value)
        seen = attributes(value)
        return {"is": "kept", "number": len(keep) - 1, "name": type(value).__name__, "callable": callable(value),
                "fields": list(seen), "items": [encode(v, blob, keep) for v in seen.values()]}
    return {"is": "..."} if value is ... else {"is": "other", "name": type(value).__name__}


def attributes(value):
    """Fields and properties of a dataclass; other things have none that travel."""
    if not dataclasses.is_dataclass(value):
        return {}
    names = [field.name for field in dataclasses.fields(value)]
    names += [name for name, thing in vars(type(value)).items() if isinstance(thing, property)]
    return {name: getattr(value, name) for name in names}


def decode(form, blob, kept):
    """The value again. kept(form, items) gives what stayed with the parent: there it is the thing itself.

    Only the child makes objects with attributes. In the parent they would be a danger: numpy trusts some names.
    """
    if not isinstance(form, dict):
        return form
    kind = form["is"]
    if kind == "tensor":
        dtype, shape = DTYPES[form["dtype"]], [int(n) for n in form["shape"]]
        size = math.prod(shape) * dtype.itemsize
        data = blob.read(size) if 0 <= size <= BYTES else b""
        if len(data) != size:
            raise ValueError("a tensor without its numbers")
        value = torch.frombuffer(bytearray(data), dtype=dtype) if size else torch.empty(0, dtype=dtype)
        return value.reshape(shape).requires_grad_(bool(form["grad"]) and dtype.is_floating_point)
    if kind == "...":
        return ...
    if kind == "other":
        return type(str(form["name"])[:80], (), {})()
    items = [decode(item, blob, kept) for item in form["items"]] if kind != "dict" else [
        [decode(v, blob, kept) for v in pair] for pair in form["items"]]
    if kind == "named":
        return collections.namedtuple(form["name"], form["fields"])(*items)
    if kind == "kept":
        return kept(form, items)
    return {"list": list, "tuple": tuple, "dict": dict}[kind](items)


def write(file, message, keep=None, most=HEADER):
    """Send one message, whole or not at all. Raises ValueError when it is too large."""
    blob = bytearray()
    header = json.dumps(encode(message, blob, keep)).encode()
    if len(header) > most or len(blob) > BYTES:
        raise ValueError("that is too large to be handed over")
    file.write(HEAD.pack(len(header), len(blob)) + header + blob)
    file.flush()


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
    blob = io.BytesIO(data[header:])
    try:
        message = decode(json.loads(data[:header]), blob, kept)
    except Exception as error:    # whatever is wrong with it
        raise ValueError(f"a frame that cannot be read: {error!r}") from error
    if blob.read(1):
        raise ValueError("a frame with bytes left over")
    return message


# ---------------------------------------------------------------- the child's own end


class NoPackage:
    """An import hook: the package is not there, even where its files can be seen."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Child:
    """Loads functions and calls them, as it is told over the wire."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.function = None

    def work(self):
        """Answer message after message, until the parent hangs up."""
        write(self.sink, {"ready": True})
        while True:
            message = read(self.source, self.stand_in, most=CELLS)
            try:
                reply = self.load(**message["load"]) if "load" in message else self.call(message["call"])
                write(self.sink, reply)
            except BaseException as error:    # SystemExit too: no learner's code ends this loop
                write(self.sink, told(error, getattr(self, "missing", {})))

    def stand_in(self, form, items):
        """For what lives with the parent: an object of the same attributes, or a function that asks there."""
        if not form["callable"]:
            return type(form["name"], (StandIn,), {})(**dict(zip(form["fields"], items)), _number=form["number"])

        def function(*args, **kwargs):
            write(self.sink, {"ask": form["number"], "args": list(args), "kwargs": kwargs})
            reply = read(self.source, self.stand_in)
            if "raised" in reply:
                raise getattr(builtins, reply["raised"], RuntimeError)(reply["message"])
            return reply["result"]

        function._number = form["number"]
        return function

    def load(self, cells, attempt, lent):
        """Run the chosen statements of each cell, then say what kind of thing the attempt is."""
        lend(lent)
        space, self.missing = {"__name__": "__main__", "__builtins__": builtins}, {}
        for name, text, chosen in cells:
            linecache.cache[name] = len(text), None, text.splitlines(True), name
            body = ast.parse(text).body
            for k in chosen:
                for statement in one_by_one(body[k]):
                    self.run(statement, name, space)
        name, line, text = attempt
        self.function = eval(compile("\n" * (line - 1) + f"({text})", name, "eval"), space)
        return {"callable": callable(self.function), "type": type(self.function).__name__,
                "parameters": parameters(self.function)}

    def run(self, statement, name, space):
        """One statement. One that fails is passed over: what needs it fails later, with a NameError."""
        try:
            exec(compile(ast.Module([statement], []), name, "exec"), space)
        except BaseException as error:
            for alias in getattr(statement, "names", []):
                word = (alias.asname or alias.name).partition(".")[0]
                self.missing[word] = str(error)
                space.pop(word, None)    # another thing of that name is not what was meant

    def call(self, arguments):
        """What the function gives back, and those tensors that it wrote into."""
        before = [a.clone() if isinstance(a, torch.Tensor) else None for a in arguments]
        result = self.function(*arguments)
        changed = [[k, a] for k, (a, b) in enumerate(zip(arguments, before)) if b is not None and not torch.equal(a, b)]
        return {"result": result, "changed": changed}


def lend(functions):
    """Modules that hold just these functions, {"package.module.name": function}, so that importing them works."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    for path, function in functions.items():
        *modules, last = path.split(".")
        for k in range(len(modules)):
            name = ".".join(modules[:k + 1])
            module = sys.modules.setdefault(name, types.ModuleType(name))
            if k:
                setattr(sys.modules[".".join(modules[:k])], modules[k], module)
        setattr(module, last, function)


def one_by_one(statement):
    """`from m import a, b` as two statements, so that a missing b does not cost a; any other as it is."""
    if not isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [statement]
    return [ast.copy_location(type(statement)(**{**vars(statement), "names": [alias]}), statement)
            for alias in statement.names]


def parameters(function):
    """[(name, kind, default as text or None)], or None for what does not tell."""
    try:
        found = inspect.signature(function).parameters.values()
        return [[p.name, int(p.kind), None if p.default is p.empty else repr(p.default)[:100]] for p in found]
    except (TypeError, ValueError):
        return None


def told(error, missing):
    """An exception in words: its class, the built-in class it is one of, its message, and the learner's own line."""
    base = next(c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
    try:
        message = str(error)[:2000]
    except Exception:
        message = ""
    why = missing.get(getattr(error, "name", None)) if isinstance(error, NameError) else None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in linecache.cache
              and f.filename.startswith("cell ")]
    return {"raised": type(error).__name__[:80], "base": base, "message": f"{message} ({why})" if why else message,
            "line": [frames[-1].lineno, (frames[-1].line or "").strip()[:300]] if frames else None}


def limit(memory):
    """No more memory than that, no large files and no core dumps: where the system knows such limits."""
    try:
        import resource
    except ImportError:    # Windows
        return
    for what, most in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 16 << 20), ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, what), (most, most))
        except (AttributeError, ValueError, OSError):    # macOS has no limit to its address space
            continue


def main():
    """Keep the two pipes, and give whatever is printed to nobody."""
    source, sink = (os.fdopen(os.dup(fd), mode) for fd, mode in ((0, "rb"), (1, "wb")))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    torch.set_num_threads(1)
    sys.meta_path.insert(0, NoPackage())
    limit(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError):
        Child(source, sink).work()


if __name__ == "__main__":
    main()
