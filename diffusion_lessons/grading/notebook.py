"""The attempts in a learner's notebook: parsed as IPython parses it, without running any of it.

This file must not load torch: `reading` runs it in a process of its own.
"""

import __future__

import ast
import collections
import dis
import importlib.util
import json
import os
import re
import stat
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from diffusion_lessons.exercises.stubs import is_stub

LARGEST_FILE = 100 << 20    # bytes; outputs with animations are large
LARGEST_MODULE = 1 << 20
MOST_CELLS = 2_000
LONGEST_CELL = 100_000      # characters
MOST_CODE = 2_000_000       # characters in all code cells together
MOST_STATEMENTS = 5_000     # at the top level of all cells; each takes about a millisecond
MOST_ATTEMPTS = 20          # at one exercise

CAPSTONE = "capstone"       # what stands for an exercise's number where a sampler is entered with `compete`
CELL_MAGIC = "get_ipython().run_cell_magic"    # what IPython turns a first line such as %%time into
RUN_THE_CELL = ("time", "capture", "prun", "timeit")    # the cell magics that run their cell as Python here
RUN_THE_LINE = ("time", "prun", "timeit")
CHECK = re.compile(r"""\bcheck\(\s*(?:id\s*=\s*)?["'](\d+\.\d+)["']""")
# Annotations are not evaluated: they may name parts of the package. And a cell may await.
FLAGS = __future__.annotations.compiler_flag | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class Attempt:
    """What was passed to one `check`, and the code that it depends on."""

    cells: list[tuple[str, str, list[int]]]    # (name, text, numbers of the top-level statements to run)
    expression: tuple[str, int, str]           # (name of the cell, line, text)
    idle: bool                                 # `...`, None, or a function whose body is still empty


@dataclass(frozen=True)
class Notebook:
    """What there is to grade in a notebook."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)    # {exercise: [...]}, in the order of the cells
    unused: dict[str, str] = field(default_factory=dict)     # {exercise: why a check in the text does not count}
    broken: dict[str, str] = field(default_factory=dict)     # {name of a cell: why it is not Python}
    modules: dict[str, str] = field(default_factory=dict)    # {name: text}: the learner's own, which it imports


@dataclass(frozen=True)
class Statement:
    """A top-level statement, with the names it assigns and the global names it reads, now or when it is called."""

    cell: int
    number: int
    node: ast.stmt
    assigns: set[str]
    reads: set[str]


def read(path: str | Path) -> Notebook:
    """Read the Notebook in a file. Raises ValueError with the reason when there is none."""
    path, found = Path(path), Notebook()
    texts: list[str] = []
    statements: list[Statement] = []
    imports: set[str] = set()
    # {exercise: [(statements, how many of them come before the check, expression)]}, of which the last ones count
    given: dict[str, collections.deque] = collections.defaultdict(lambda: collections.deque(maxlen=MOST_ATTEMPTS))
    for kind, source in sources(path):
        if kind != "code":
            pass_over(found, source, f"is in a {kind} cell, which is never run: make it a code cell.")
            continue
        k, name, before = len(texts), f"cell {len(texts) + 1}", len(statements)
        texts.append("")
        try:
            texts[k], magic = python_of(source, found.modules)
            nodes, codes = compiled(texts[k], name)
            lines = texts[k].encode().splitlines(keepends=True)
        except Exception as error:    # raised by IPython, the parser or the compiler
            found.broken[name] = reason(error)
            pass_over(found, source, f"is in {name}, which is not Python: {reason(error)}.")
            continue
        if before + len(nodes) > MOST_STATEMENTS:
            raise ValueError(f"it has more than {MOST_STATEMENTS:,} statements outside functions")
        if not nodes and magic:
            pass_over(found, source, f"is in a cell that begins with %%{magic}: it is not run as Python.")
        for number, (node, code) in enumerate(zip(nodes, codes)):
            statements.append(Statement(k, number, node, assigned(node, code), names_read(code)))
            imports |= imported(node)
            for id, text in [*checks(node, lines), *entries(node, lines)]:
                given[id].append((statements, len(statements), (name, node.lineno, text)))
        if magic == "timeit":    # its assignments do not outlive it
            statements = statements[:before]
    for id, tries in given.items():
        for seen, count, expression in tries:
            try:
                one = attempt(texts, seen[:count], expression)
            except Exception as error:    # the compiler's limits
                found.unused[id] = f"is in {expression[0]}, which cannot be read: {reason(error)}."
            else:
                found.attempts.setdefault(id, []).append(one)
    add_modules(found.modules, path.parent, imports)
    return found


def sources(path: Path) -> list[tuple[str, str]]:
    """[(kind of cell, its text)] of a notebook file in any of JSON's encodings. Raises ValueError."""
    data = content(path, LARGEST_FILE)
    if not data.strip():
        raise ValueError("the file is empty")
    try:
        found = json.loads(data)
        if "worksheets" in found:
            raise ValueError("this is a notebook in the format of 2014: open it in JupyterLab and save it")
        cells = [(str(cell["cell_type"]), "".join(cell["source"])) for cell in found["cells"]]
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not a notebook, or it is damaged (line {error.lineno}: {error.msg})") from error
    except (UnicodeError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"this is not a notebook, or it is damaged ({type(error).__name__})") from error
    if len(cells) > MOST_CELLS:
        raise ValueError(f"it has {len(cells):,} cells; at most {MOST_CELLS:,} are read")
    size = sum(len(text) for kind, text in cells if kind == "code")
    if size > MOST_CODE:
        raise ValueError(f"it has {size:,} characters of code; at most {MOST_CODE:,} are read")
    return cells


def content(path: Path, most: int) -> bytes:
    """The bytes of a regular file: a link could lead anywhere, and a pipe might never end. Raises ValueError."""
    refusal = ValueError("this is a link, a device or an unreadable folder: put the file itself there")
    if path.is_symlink() or not path.is_file():
        raise refusal
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)    # should it change in this moment
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | careful)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise refusal
        data = file.read(most + 1) if found.st_size <= most else b""
        size = max(found.st_size, len(data))
    if size > most:
        raise ValueError(f"the file has {size / 2**20:,.0f} MiB; at most {most / 2**20:.0f} are read")
    return data


def as_python(source: str) -> str:
    """The Python that IPython makes of a cell: `x?`, %magics and !commands become calls."""
    return TransformerManager().transform_cell(source)


def python_of(source: str, modules: dict[str, str]) -> tuple[str, str | None]:
    """(text, cell magic or None): the Python of a cell that runs in the notebook, so an empty text for %%bash.

    A .py file that %%writefile writes is added to `modules`.
    """
    if len(source) > LONGEST_CELL:
        raise ValueError(f"it has {len(source):,} characters; at most {LONGEST_CELL:,} are read")
    text, magic = as_python(source), None
    while text.lstrip().startswith(CELL_MAGIC):
        magic, line, body = ast.literal_eval(text.strip().removeprefix(CELL_MAGIC))
        if magic == "writefile" and re.fullmatch(r"\w+\.py", line.strip()):
            modules[line.strip().removesuffix(".py")] = body
        if magic not in RUN_THE_CELL:
            return "", magic
        if magic == "time" and line.strip() and not line.startswith("-"):
            raise SyntaxError("nothing may follow %%time in its line")
        text = "\n" + as_python(body)    # so that its lines keep their numbers
    return text, magic


def compiled(text: str, name: str) -> tuple[list[ast.stmt], list[types.CodeType]]:
    """The top-level statements of a text, and the code of each. Raises what the compiler raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")    # a learner's invalid escape is not the lecturer's concern
        tree = ast.parse(text)
        compile(tree, name, "exec", FLAGS, dont_inherit=True)    # as a whole, as the kernel does
        return tree.body, [compile(ast.Module([node], []), name, "exec", FLAGS, dont_inherit=True)
                           for node in tree.body]


def attempt(texts: Sequence[str], statements: Sequence[Statement], expression: tuple[str, int, str]) -> Attempt:
    """The Attempt for an expression, with those of the earlier statements that it needs."""
    name, _, text = expression
    assigning = collections.defaultdict(list)    # {name: numbers of the statements that assign it}
    for s, statement in enumerate(statements):
        for word in statement.assigns:
            assigning[word].append(s)
    chosen: set[int] = set()
    wanted = ["*", *names_read(compile(f"({text})", name, "eval", FLAGS, dont_inherit=True))]
    while wanted:
        for s in assigning.pop(wanted.pop(), ()):
            if s not in chosen:
                chosen.add(s)
                wanted += statements[s].reads
    cells: dict[int, list[int]] = {}
    for s in sorted(chosen):
        cells.setdefault(statements[s].cell, []).append(statements[s].number)
    return Attempt([(f"cell {k + 1}", texts[k], numbers) for k, numbers in cells.items()], expression,
                   is_idle(text, statements))


def assigned(node: ast.stmt, code: types.CodeType) -> set[str]:
    """The names that a top-level statement assigns: x in `x = 1`, `x[0] = 1` and `x.a = 1`; "*" for any."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" or module_run(node):
        found.add("*")
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        for part in ast.walk(node):
            if isinstance(part, (ast.Attribute, ast.Subscript)) and isinstance(part.ctx, ast.Store):
                target: ast.expr = part
                while isinstance(target, (ast.Attribute, ast.Subscript)):
                    target = target.value
                if isinstance(target, ast.Name):
                    found.add(target.id)
    return found


def names_read(code: types.CodeType) -> set[str]:
    """The global names that code reads, also in the functions and classes inside it."""
    found = {step.argval for step in dis.get_instructions(code)
             if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")}
    return found.union(*(names_read(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def line_magics(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name, line) of each %magic in a statement."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and getattr(part.func, "attr", "") == "run_line_magic":
            values = [str(a.value) for a in part.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if len(values) == 2:
                yield values[0], values[1]


def module_run(node: ast.AST) -> str | None:
    """The module in a statement `%run module.py`, or None."""
    for name, line in line_magics(node):
        if name == "run" and (file := re.fullmatch(r"\s*(\w+)\.py\s*", line)):
            return file[1]
    return None


def imported(node: ast.AST) -> set[str]:
    """The top-level names of the modules that a statement, or a whole tree, imports."""
    found = {file for file in [module_run(node)] if file is not None}
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in part.names}
        if isinstance(part, ast.ImportFrom) and part.module and not part.level:
            found.add(part.module.partition(".")[0])
    return found


def add_modules(modules: dict[str, str], folder: Path, imports: Iterable[str]) -> None:
    """Add to {name: text} those of the imported modules that lie beside the notebook, and those they import in turn."""
    names, seen = set(imports), set[str]()
    while names - seen:
        name = min(names - seen)
        seen.add(name)
        try:
            if name not in modules:
                modules[name] = importlib.util.decode_source(content(folder / f"{name}.py", LARGEST_MODULE))
            names |= imported(ast.parse(modules[name]))
        except (ValueError, OSError, SyntaxError, RecursionError, MemoryError):    # the import will report it
            continue


def checks(statement: ast.AST, lines: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """(exercise, text of the attempt) for each check("2.1", attempt) in a statement of the text with these lines."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and "check" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
            given = dict(zip(("id", "attempt"), node.args)) | {word.arg: word.value for word in node.keywords}
            id = getattr(given.get("id"), "value", None)
            if isinstance(id, str) and "attempt" in given:
                yield id, source_of(given["attempt"], lines)
    for name, line in line_magics(statement):
        if name in RUN_THE_LINE:    # `%time check("2.1", f)`
            line = re.sub(r"^(\s*-\w+(\s+\d+)?(?=\s))*\s*", "", line)
            try:
                inner = ast.parse(line)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            yield from checks(inner, line.encode().splitlines(keepends=True))


def entries(statement: ast.AST, lines: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """("capstone", text of the sampler) for each compete(sampler) in a statement of the text with these lines."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and "compete" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
            given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "sampler")]
            for sampler in given:
                yield CAPSTONE, source_of(sampler, lines)


def source_of(node: ast.expr, lines: Sequence[bytes]) -> str:
    """As ast.get_source_segment, which splits the whole text into lines each time."""
    *before, last = lines[node.lineno - 1:node.end_lineno]
    first, *rest = [*before, last[:node.end_col_offset]]
    return b"".join([first[node.col_offset:], *rest]).decode()


def pass_over(found: Notebook, source: str, why: str) -> None:
    """Note the checks in a cell that is not run as Python."""
    found.unused.update(dict.fromkeys(CHECK.findall(source), why))


def reason(error: Exception) -> str:
    """Why a cell is not Python, in a few words."""
    number = getattr(error, "lineno", None)
    line = f" in line {number}" if number else ""
    return (getattr(error, "msg", None) or str(error) or type(error).__name__)[:200] + line


def is_idle(text: str, statements: Sequence[Statement]) -> bool:
    """Whether an attempt, given as text, is still empty. statements: those before it"""
    if text in ("...", "None"):
        return True
    last = next((s.node for s in reversed(statements) if text in s.assigns), None)
    if not isinstance(last, ast.FunctionDef):
        return False
    # compiled, not run; the check in a notebook inspects the same code
    module = compile(ast.Module([last], []), "cell", "exec", FLAGS, dont_inherit=True)
    codes = [c for c in module.co_consts if isinstance(c, types.CodeType) and c.co_name == last.name]
    return bool(codes) and is_stub(types.SimpleNamespace(__code__=codes[-1]))
