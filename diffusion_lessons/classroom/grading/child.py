"""Runs what learners wrote, in a process of its own. It stands alone: the package is out of its reach.

The sandbox hands over the text of this file, and that of `wire`.
"""

import ast
import builtins
import contextlib
import inspect
import linecache
import os
import sys
import traceback
import types

import torch
from wire import CELLS, StandIn, read, write

PACKAGE = "diffusion_lessons"


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
