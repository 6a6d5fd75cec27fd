"""What a learner's notebook holds, read without running any of it."""

import ast
import json
import types
from dataclasses import dataclass

from diffusion_lessons.classroom.exercises.judging import is_stub


@dataclass(frozen=True)
class Attempt:
    """What was handed to one `check`, and the code that it stands on."""

    cells: list         # (name, text, numbers of the top-level statements to run)
    expression: tuple   # (name of the cell, line, text)
    idle: bool          # `...`, None, or a function whose body is still empty


def read(path):
    """({exercise: Attempt}, [names of the cells that are no Python]).  Raises ValueError when it is no notebook."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"this is no notebook, or a damaged one ({type(error).__name__})") from error
    attempts, cells, bad, written = {}, [], [], {}
    for k, text in enumerate(texts):
        name, text = f"cell {k + 1}", without_magics(text)
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            bad.append(name)
            continue
        chosen = []
        for n, statement in enumerate(body):
            if harmless(statement):
                chosen.append(n)
            if isinstance(statement, ast.FunctionDef):
                written[statement.name] = statement
            for id, node in checks(statement):
                place = name, node.lineno, ast.get_source_segment(text, node)
                attempts[id] = Attempt([*cells, (name, text, list(chosen))], place, is_idle(node, written))
        cells.append((name, text, chosen))
    return attempts, bad


def without_magics(text):
    """The text with IPython's own lines (%magic, !shell) left empty, so that the others keep their numbers."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines())


def harmless(statement):
    """Whether a statement only gives a name to something: the others of a notebook (training, plots) are not run."""
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, (ast.Lambda, ast.Name)) or is_literal(statement.value)
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def is_literal(node):
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def checks(statement):
    """(exercise, node of the attempt) for each check("2.1", attempt) in a statement."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and "check" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
            given = dict(zip(("id", "attempt"), node.args)) | {word.arg: word.value for word in node.keywords}
            if isinstance(given.get("id"), ast.Constant) and "attempt" in given:
                yield given["id"].value, given["attempt"]


def is_idle(node, written):
    """Whether nothing was written yet. `written`: the notebook's functions up to here."""
    if isinstance(node, ast.Constant):
        return node.value in (..., None)
    function = written.get(getattr(node, "id", None))
    if not function:
        return False
    try:    # compiled, not run: its code is what the check in a notebook looks at, too
        module = compile(ast.Module([function], []), "cell", "exec")
    except SyntaxError:
        return False
    codes = [c for c in module.co_consts if isinstance(c, types.CodeType) and c.co_name == function.name]
    return bool(codes) and is_stub(types.SimpleNamespace(__code__=codes[-1]))
