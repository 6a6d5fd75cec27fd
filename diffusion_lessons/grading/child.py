"""Runs what learners wrote, in a process of its own. It stands alone: the package is out of its reach.

The sandbox hands over the text of this file, and that of `wire`.
"""

import __future__

import ast
import builtins
import contextlib
import dis
import importlib.util
import inspect
import linecache
import os
import sys
import traceback
import types

import torch
from wire import CELLS, StandIn, read, tensors, write

PACKAGE = "diffusion_lessons"
# As `notebook` compiles: annotations may name what belongs to the package, so they stay unread.
FLAGS = __future__.annotations.compiler_flag | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class NoPackage:
    """An import hook: the package is not there, even where its files can be seen."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class OwnModules:
    """An import hook for the modules that came with the notebook, {name: text}. run(name, text, namespace)"""

    def __init__(self, run):
        self.texts, self.run = {}, run

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in self.texts else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.run(f"{module.__name__}.py", self.texts[module.__name__], vars(module))


class Shell:
    """In place of IPython's: here %magics and !commands do nothing, but for `%run module.py`."""

    def __init__(self, space):
        self.space = space

    def __getattr__(self, name):
        return lambda *args, **kwargs: None

    def run_line_magic(self, name, line, *rest):
        if name == "run":
            exec(f"from {line.strip().removesuffix('.py')} import *", self.space)

    def getoutput(self, command, *rest):
        raise OSError(f"!{command[:80]} is not run when notebooks are graded")


class Child:
    """Loads functions and calls them, as it is told over the wire."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.function, self.missing = None, {}
        self.modules = OwnModules(self.run_all)
        sys.meta_path.insert(1, self.modules)    # behind NoPackage

    def work(self):
        """Answer message after message, until the parent hangs up."""
        write(self.sink, {"ready": True})
        while True:
            message = read(self.source, self.stand_in, most=CELLS)
            try:
                write(self.sink, self.answer(message))
            except BaseException as error:    # SystemExit too: no learner's code ends this loop
                write(self.sink, told(error, self.missing))

    def answer(self, message):
        if "load_optimizers" in message:
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            return {"ready": True}
        return self.load(**message["load"]) if "load" in message else self.call(message["call"])

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

    def load(self, cells, attempt, lent, modules):
        """Run the chosen statements of each cell, then say what kind of thing the attempt is."""
        lend(lent)
        for name in self.modules.texts:
            sys.modules.pop(name, None)
        self.modules.texts = {name: text for name, text in modules.items() if name not in sys.modules}
        space, self.missing = {"__name__": "__main__", "__builtins__": builtins}, {}
        shell = Shell(space)
        space.update(display=lambda *args, **kwargs: None, get_ipython=lambda: shell)
        for name, text, chosen in cells:
            self.run_all(name, text, space, chosen)
        name, line, text = attempt
        self.function = eval(compile("\n" * (line - 1) + f"({text})", name, "eval", FLAGS, True), space)
        return {"callable": callable(self.function), "type": type(self.function).__name__,
                "parameters": parameters(self.function)}

    def run_all(self, name, text, space, chosen=None):
        """The statements of a text, all or the chosen ones. One that fails is passed over, with what it assigns."""
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        body = ast.parse(text, name).body
        for k in range(len(body)) if chosen is None else chosen:
            for statement in one_by_one(body[k]):
                self.run(statement, name, space)

    def run(self, statement, name, space):
        """One statement. What needs a failed one fails later, with a NameError that says why."""
        code = compile(ast.Module([statement], []), name, "exec", FLAGS, True)
        try:
            exec(code, space)
        except BaseException as error:
            words = told(error, self.missing)["message"]
            for word in [step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"] or ["*"]:
                self.missing[word] = words
                space.pop(word, None)    # an older thing of that name is not what was meant

    def call(self, arguments):
        """What the function gives back, and those tensors of its input that it wrote into, by number."""
        inputs = tensors(arguments)
        before = [a.clone() for a in inputs]
        result = self.function(*arguments)
        changed = [[k, a] for k, (a, b) in enumerate(zip(inputs, before)) if not torch.equal(a, b)]
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
    why = missing.get(error.name, missing.get("*")) if isinstance(error, NameError) else None
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
