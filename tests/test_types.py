"""The type checker is content, sees what a user would get wrong, and every public function has type hints."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffusion_lessons"
# but for the exercises' reference answers and their inputs, which are written as a learner writes them
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not re.fullmatch(r"(lesson\d\d|inputs)\.py", path.name))


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mypy", "--no-color-output", "--cache-dir", str(ROOT / "build" / "mypy")]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)


def without_hints(source: str) -> list[str]:
    """The public functions of a module, and public methods of its public classes, that lack a hint."""
    bad = []

    def look(body, inside):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                look(node.body, f"{inside}{node.name}.")
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") and node.name != "__init__":
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
            given = [a for a in given[bool(inside) and not static:] if a is not None]
            if any(a.annotation is None for a in given) or node.returns is None and node.name != "__init__":
                bad.append(f"{inside}{node.name}")

    look(ast.parse(source).body, "")
    return bad


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_function_has_type_hints(path):
    assert without_hints(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source, bad", [
    ("def f(x): ...", ["f"]),
    ("def f(x: int): ...", ["f"]),
    ("def f(x: int, *more) -> int: ...", ["f"]),
    ("class A:\n    def f(self, x) -> int: ...", ["A.f"]),
    ("class A:\n    def __init__(self, x): ...", ["A.__init__"]),
    ("def _f(x): ...\nclass _A:\n    def f(self, x): ...", []),
    ("class A:\n    def __init__(self, x: int): ...\n    @property\n    def g(self) -> int: ...", []),
])  # fmt: skip
def test_a_missing_hint_is_found(source, bad):
    assert without_hints(source) == bad


@pytest.mark.slow
def test_the_type_checker_is_content():
    said = mypy()
    assert said.returncode == 0, said.stdout


USED_WRONGLY = {
    "a number for a tensor": "add_noise(x, t, 0.5, cosine())",
    "a tensor for a number": "cosine(T=torch.tensor(10))",
    "a schedule's name for the schedule": 'add_noise(x, t, x, "cosine")',
    "None for a denoiser": "sample(None, x, cosine())",
    "the clean picture of a tensor": "torch.randn(1).x0",
}


@pytest.mark.slow
def test_the_type_checker_finds_what_users_get_wrong(tmp_path):
    head = "\n".join([
        "import torch",
        "from diffusion_lessons.forward import add_noise",
        "from diffusion_lessons.samplers import sample",
        "from diffusion_lessons.schedules import cosine",
        "x, t = torch.randn(2, 1, 8, 8), torch.ones(2, dtype=torch.int64)\n"])
    file = tmp_path / "use.py"
    right = ["add_noise(x, t, x, cosine())", "cosine(T=10)"]
    file.write_text(head + "\n".join([*right, *USED_WRONGLY.values()]) + "\n")
    said = mypy("--config-file", str(ROOT / "pyproject.toml"), str(file)).stdout
    lines = {int(line) for line in re.findall(r"use\.py:(\d+): error:", said)}
    first_wrong = head.count("\n") + len(right) + 1
    assert lines == set(range(first_wrong, first_wrong + len(USED_WRONGLY))), said
