"""Runs what learners wrote, in a process of its own. It imports nothing from the package, which is out of its reach.

The sandbox passes the text of this file and of `wire` on the command line.
"""

import __future__

import ast
import builtins
import contextlib
import ctypes
import dis
import errno
import importlib.abc
import importlib.util
import inspect
import linecache
import os
import struct
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from typing import IO, Any

import torch
from wire import CELLS, StandIn, read, tensors, write  # type: ignore[import-not-found]  # see `sandbox`

PACKAGE = "diffusion_lessons"
# As in `notebook`: annotations may name parts of the package, so they are not evaluated.
FLAGS = __future__.annotations.compiler_flag | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class NoPackage:
    """An import hook: the package cannot be imported, even where its files can be seen."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class OwnModules(importlib.abc.Loader):
    """An import hook for the modules that came with the notebook, {name: text}. run(name, text, namespace)"""

    def __init__(self, run: Callable) -> None:
        self.texts: dict[str, str] = {}
        self.run = run

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name in self.texts else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        self.run(f"{module.__name__}.py", self.texts[module.__name__], vars(module))


class Shell:
    """In place of IPython's shell: %magics and !commands do nothing here, except `%run module.py`."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None

    def run_line_magic(self, name: str, line: str, *rest: Any) -> None:
        if name == "run":
            exec(f"from {line.strip().removesuffix('.py')} import *", self.space)

    def getoutput(self, command: str, *rest: Any) -> None:
        raise OSError(f"!{command[:80]} is not run when notebooks are graded")


class Worker:
    """Loads and calls functions on request, over the wire."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self.source, self.sink = source, sink
        self.function: Any = None
        self.missing: dict[str, str] = {}
        self.modules = OwnModules(self.run_all)
        sys.meta_path.insert(1, self.modules)    # behind NoPackage

    def work(self) -> None:
        """Answer messages until the parent closes the pipe."""
        write(self.sink, {"ready": True})
        while True:
            message = read(self.source, self.stand_in, most=CELLS)
            try:
                write(self.sink, self.answer(message))
            except BaseException as error:    # SystemExit too: no learner's code ends this loop
                write(self.sink, serialize_exception(error, self.missing))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if "load_optimizers" in message:
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            return {"ready": True}
        return self.load(**message["load"]) if "load" in message else self.call(message["call"])

    def stand_in(self, form: dict[str, Any], items: list) -> Any:
        """A proxy of an object in the parent: one with the same attributes, or a function that calls back there."""
        if not form["callable"]:
            return type(form["name"], (StandIn,), {})(**dict(zip(form["fields"], items)), _number=form["number"])

        def function(*args: Any, **kwargs: Any) -> Any:
            write(self.sink, {"ask": form["number"], "args": list(args), "kwargs": kwargs})
            reply = read(self.source, self.stand_in)
            if "raised" in reply:
                raise getattr(builtins, reply["raised"], RuntimeError)(reply["message"])
            return reply["result"]

        vars(function)["_number"] = form["number"]
        return function

    def load(self, cells: list, attempt: list, exposed: dict[str, Any], modules: dict[str, str]) -> dict[str, Any]:
        """Run the chosen statements of each cell, then describe the attempt."""
        expose(exposed)
        for name in self.modules.texts:
            sys.modules.pop(name, None)
        self.modules.texts = {name: text for name, text in modules.items() if name not in sys.modules}
        space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        self.missing = {}
        shell = Shell(space)
        space.update(display=lambda *args, **kwargs: None, get_ipython=lambda: shell)
        for name, text, chosen in cells:
            self.run_all(name, text, space, chosen)
        name, line, text = attempt
        self.function = eval(compile("\n" * (line - 1) + f"({text})", name, "eval", FLAGS, True), space)
        return {"callable": callable(self.function), "type": type(self.function).__name__,
                "parameters": parameters(self.function)}

    def run_all(self, name: str, text: str, space: dict[str, Any], chosen: Iterable[int] | None = None) -> None:
        """Run the statements of a text, all or the chosen ones. One that fails is skipped, and so are its names."""
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        body = ast.parse(text, name).body
        for k in range(len(body)) if chosen is None else chosen:
            for statement in one_by_one(body[k]):
                self.run(statement, name, space)

    def run(self, statement: ast.stmt, name: str, space: dict[str, Any]) -> None:
        """Run one statement. Code that needs a failed one fails later, with a NameError that says why."""
        code = compile(ast.Module([statement], []), name, "exec", FLAGS, True)
        try:
            exec(code, space)
        except BaseException as error:
            reason = serialize_exception(error, self.missing)["message"]
            for word in [step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"] or ["*"]:
                self.missing[word] = reason
                space.pop(word, None)    # an older object of that name is not what was meant

    def call(self, arguments: list) -> dict[str, Any]:
        """The function's result, and the tensors of its input that it changed, by number."""
        inputs = tensors(arguments)
        before = [a.clone() for a in inputs]
        result = self.function(*arguments)
        changed = [[k, a] for k, (a, b) in enumerate(zip(inputs, before)) if not torch.equal(a, b)]
        return {"result": result, "changed": changed}


def expose(functions: dict[str, Any]) -> None:
    """Make just these functions importable: {"package.module.name": function}, in modules that hold nothing else."""
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


def one_by_one(statement: ast.stmt) -> list[ast.stmt]:
    """`from m import a, b` as two statements, so that a is imported even if b is missing; any other as it is."""
    if not isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [statement]
    return [ast.copy_location(type(statement)(**{**vars(statement), "names": [alias]}), statement)
            for alias in statement.names]


def parameters(function: Any) -> list | None:
    """[(name, kind, default as text or None)], or None where there is no signature."""
    try:
        found = inspect.signature(function).parameters.values()
        return [[p.name, int(p.kind), None if p.default is p.empty else repr(p.default)[:100]] for p in found]
    except (TypeError, ValueError):
        return None


def serialize_exception(error: BaseException, missing: dict[str, str]) -> dict[str, Any]:
    """An exception as a message: its class, its built-in base class, its text, and the learner's own line."""
    base = next(c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
    try:
        message = str(error)[:2000]
    except Exception:
        message = ""
    why = missing.get(str(error.name), missing.get("*")) if isinstance(error, NameError) else None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in linecache.cache
              and f.filename.startswith("cell ")]
    return {"raised": type(error).__name__[:80], "base": base, "message": f"{message} ({why})" if why else message,
            "line": [frames[-1].lineno, (frames[-1].line or "").strip()[:300]] if frames else None}


# System calls that make a process, or memory that belongs to none: {machine: (architecture, seccomp, clone, refused)}
CALLS = {"x86_64": (0xC000003E, 317, 56, (57, 58, 29)),    # fork, vfork, shmget
         "aarch64": (0xC00000B7, 277, 220, (194,))}         # shmget
CLONE3, X32, THREAD = 435, 0x40000000, 0x10000
ALLOW, REFUSE, END = 0x7FFF0000, 0x00050000, 0x80000000     # what becomes of a call; REFUSE: with an error number
LOAD, EQUAL, AT_LEAST, HAS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def allow_threads_only() -> bool:
    """From here on this process can start threads and no processes, whoever it belongs to. Returns whether it worked.

    It is a seccomp filter, a short program that the kernel runs at each system call (man 2 seccomp): Linux only.
    A limit on the number of processes would not bind root, and would count all processes of anybody else.
    """
    machine = CALLS.get(os.uname().machine) if sys.platform == "linux" else None
    if machine is None or struct.calcsize("P") != 8:
        return False
    architecture, seccomp, clone, refused = machine
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, END), (LOAD, 0, 0, 0)]
    for test, number, error in [(AT_LEAST, X32, errno.EPERM), *((EQUAL, n, errno.EPERM) for n in refused),
                                (EQUAL, CLONE3, errno.ENOSYS)]:      # then the C library calls clone
        lines += [(test, 0, 1, number), (RETURN, 0, 0, REFUSE | error)]
    lines += [(EQUAL, 1, 0, clone), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 16),      # 16: its flags
              (HAS, 0, 1, THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero)    # PR_SET_NO_NEW_PRIVS: not by way of sudo either
    # SECCOMP_SET_MODE_FILTER, with TSYNC: for all threads
    return libc.syscall(ctypes.c_long(seccomp), ctypes.c_ulong(1), ctypes.c_ulong(1), program) == 0


def main() -> None:
    """Keep the two pipes for messages, discard whatever is printed, and serve."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    torch.set_num_threads(1)
    sys.meta_path.insert(0, NoPackage())
    allow_threads_only()
    with contextlib.suppress(EOFError, BrokenPipeError):
        Worker(source, sink).work()


if __name__ == "__main__":
    main()
