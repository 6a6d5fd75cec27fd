"""Grading a class folder: right answers count, usual mistakes are named, and no trick makes a wrong one right."""

import ast
import csv
import inspect
import io
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import diffusion_lessons
from diffusion_lessons import grading
from diffusion_lessons.cli import main
from diffusion_lessons.exercises import EXERCISES, checking
from diffusion_lessons.exercises.checking import check_attempt
from diffusion_lessons.forward import Prediction
from diffusion_lessons.grading import notebook, sandbox, wire
from diffusion_lessons.grading.sandbox import Sandbox, can_isolate
from diffusion_lessons.schedules import from_betas

PACKAGE = Path(diffusion_lessons.__file__).parent
PAGE = PACKAGE.parent / "docs" / "instructors.md"
needs_namespaces = pytest.mark.skipif(not can_isolate(), reason="`unshare` is missing or refused: no isolation here")

# What a learner could hand in.
REFERENCES = {id: f"{inspect.getsource(e.reference)}\n\nf = {e.name}" for id, e in EXERCISES.items()}
IMPORTS = """%matplotlib inline
import math, os, sys
from itertools import pairwise
import torch, torch.nn.functional as F
from diffusion_lessons.forward import add_noise, velocity
BOS, EOS = 1, 2
torch.load("a statement that must not be run")
"""


def notebook_of(cells, other=()):
    """The text of a notebook with these code cells, and before them others (kind, text)."""
    found = [{"cell_type": "markdown", "source": "# A lesson"}]
    found += [{"cell_type": kind, "source": text} for kind, text in other]
    found += [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": found, "nbformat": 4})


def write(path, cells, other=()):
    """A notebook file of these code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook_of(cells, other))


def cells_of(codes):
    """A cell of imports, and one for each {exercise: code that defines f}."""
    return [IMPORTS, *(f'{code}\n\ncheck("{id}", f)' for id, code in codes.items())]


def graded(folder, **options):
    """{exercise: row} of a folder with one notebook."""
    return {row.exercise: row for row in grading.grade_folder(folder, **options)}


# ---------------------------------------------------------------- honest work


def test_an_answer_in_plain_torch_is_right_in_every_exercise(tmp_path):
    assert set(REFERENCES) == set(EXERCISES)
    write(tmp_path / "ann" / "all.ipynb", cells_of(REFERENCES))
    rows = graded(tmp_path)
    assert {id: row.message for id, row in rows.items() if row.state != "right"} == {}
    assert list(rows) == list(EXERCISES)
    assert rows["2.1"].message == EXERCISES["2.1"].praise
    assert grading.summary(list(rows.values())) == f"ann   {len(EXERCISES)} of {len(EXERCISES)}"
    if can_isolate():
        assert {row.isolated for row in rows.values()} == {"yes"}


WRONG = {
    "1.1": ("from diffusion_lessons.training.gan import discriminator_loss as f", "No module named"),
    "1.2": ("class Loss:\n    def __call__(self, fake):\n        return fake.exp().mean()\nf = Loss", "takes no"),
    "1.3": ("def f(points, centres, sigma):\n    return len(sigma)", "in line 2 of its cell: return len(sigma)"),
    "1.4": ("def f(x):\n    return torch.pdist(x.flatten(1)).mean()", EXERCISES["1.4"].mistakes[1][1]),
    "2.1": ("def f(x0, t, eps, schedule):\n    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)\n"
            "    return a * x0 + (1 - a) * eps", EXERCISES["2.1"].mistakes[0][1]),
    "2.2": ("def f(beta):\n    beta += 1\n    return beta", "changes its own input"),
    "2.3": ("def f(x, t, scale=0.5):\n    return x", "yours takes (x, t, scale=0.5)"),
    "2.4": ("def f(alpha_bar):\n    return {'x': 1}", "not a dict"),
    "2.5": ("f = torch.zeros(3)\ndef g(x): return f(x)\nf = 3", "this is a int"),
    "3.1": ("def f(eps, x_t, t, schedule):\n    return schedule.alpha_bar[t].sqrt() * x_t", "(B, 1, 1, 1)"),
    "3.2": (REFERENCES["3.2"].replace(".mean()", ".mean().item()"), ".item()"),
    "3.5": ("def f(loss, t, T, parts):\n    velocity(loss, t, T, parts)", "name 'velocity' is not defined"),
    "4.1": ("def f(x_t, t, s, prediction, schedule):\n    return prediction", "is a Prediction of shape (2, "),
    "4.4": ("def f(x_s, x0, mask, s, eps, schedule):\n    return add_noise(x_s, 10**6, eps, schedule)", "it raised"),
    "4.5": ("def f(redraw, x0, wanted):\n    return 1.0", EXERCISES["4.5"].mistakes[2][1]),
    "1.6": (inspect.getsource(EXERCISES["1.6"].reference).replace("opt_g.step()", "opt_d.step()") + "\nf = fixed_step",
            checking.STILL_BROKEN),
    "2.6": ("def f(x0, t, schedule, g):\n    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)\n"
            "    return a.sqrt() * x0 + (1 - a).sqrt() * torch.rand(x0.shape, generator=g)", checking.STILL_BROKEN),
    "6.1": ("def f(denoiser, x_t, t, y, w):\n    return denoiser(x_t, t, y)", EXERCISES["6.1"].mistakes[7][1]),
}
IDLE = {
    "5.1": "def f(text, number, length):\n    ...",
    "5.2": 'def f(q, k, v):\n    """Later."""',
    "5.3": "f = ...",
    "5.4": "def f(tokens, hidden, nothing):\n    mask = ...\n    return mask * tokens",
}


def test_mistakes_are_told_as_in_the_notebook(tmp_path):
    codes = {id: code for id, (code, _) in WRONG.items()} | IDLE
    again = 'def g(beta):\n    return beta\nif True:\n    exercises.check(attempt=g, id="6.4")'    # the last one counts
    cells = [*cells_of({"6.4": REFERENCES["6.4"], **codes}), "%%bash\nls -l *.txt", "def g(", again]
    write(tmp_path / "bob.ipynb", cells)
    rows = graded(tmp_path)
    for id, (_, words) in WRONG.items():
        assert rows[id].state == "not yet", id
        assert words in rows[id].message, id
    assert {rows[id].state for id in IDLE} == {"not tried"}
    assert rows["5.1"].isolated == ""               # nothing was run for it
    assert rows["1.5"].state == rows["3.3"].state == "missing"
    assert re.search(r'check\("1.5", ...\) was not found. \(Not Python: cell \d+: .* in line 1', rows["1.5"].message)
    assert "yours takes (beta)" in rows["6.4"].message
    assert {row.who for row in rows.values()} == {"bob"}


def test_the_command_writes_a_table_and_passes_over_broken_notebooks(tmp_path, capsys):
    stubs = [f'def f({"x"}):\n    ...\n\ncheck("2.{k}", f)' for k in range(1, 7)]
    write(tmp_path / "ann" / "02_adding_noise.ipynb", stubs[:3])
    write(tmp_path / "ann" / ".ipynb_checkpoints" / "02_adding_noise-checkpoint.ipynb", stubs)
    write(tmp_path / "bob" / "02_adding_noise.ipynb", ["print(1)"])
    write(tmp_path / "cy.ipynb", ["print(1)"])
    (tmp_path / "dora.ipynb").write_text('{"cells": [')
    (tmp_path / "eve.ipynb").write_bytes(b"\xff\xfe\x00")
    assert main(["grade", str(tmp_path)]) == 0
    with open(tmp_path / "grades.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["who", "notebook", "exercise", "state", "message", "isolated"]
    states = {(row["who"], row["exercise"]): row["state"] for row in rows}
    assert states == {**{("ann", f"2.{k}"): "not tried" if k < 4 else "missing" for k in range(1, 7)},
                      **{("bob", f"2.{k}"): "missing" for k in range(1, 7)},
                      ("cy", ""): "missing", ("dora", ""): "not read", ("eve", ""): "not read"}
    said = capsys.readouterr().out
    assert "ann     0 of 6\n" in said
    assert "dora    0 of 0   (1 notebook without exercises)" in said
    assert "15 rows written to" in said


def test_a_folder_with_nothing_to_grade_is_said_plainly(tmp_path, capsys):
    assert main(["grade", str(tmp_path / "nowhere")]) == 1
    assert main(["grade", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "grade failed: there is no folder" in said
    assert "there is no notebook (.ipynb) in" in said


# ---------------------------------------------------------------- notebooks as they come

RIGHT = """def f(x0, t, eps, schedule):
    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps
"""
CHECK = 'check("2.1", f)'


def within_f(line):
    """The right answer, with a line at its beginning."""
    return RIGHT.replace("\n", f"\n    {line}\n", 1)


# The cells behind the imports. Each says in a kernel what it says when graded.
CELLS = {
    "as it is": [RIGHT + CHECK],
    "help before": ["torch.sqrt?\n" + RIGHT + CHECK],
    "help in front": ["?torch.sqrt\n" + RIGHT + CHECK],
    "help behind": [RIGHT + CHECK + "\nf??"],
    "a command's output": ["files = !ls\n" + RIGHT + CHECK],
    "a command over two lines": ["!echo a \\\n  b\n" + RIGHT + CHECK],
    "a magic's value": [RIGHT + "took = %timeit -o -n1 -r1 f\n" + CHECK],
    "magics and commands inside": [within_f("%pwd\n    !ls\n    display(t)\n    print('x')") + CHECK],
    "!= begins a line": [within_f("if (x0.shape\n            != eps.shape):\n        raise ValueError") + CHECK],
    "% begins a line": [within_f("t = (t\n    % len(schedule.alpha_bar))") + CHECK],
    "magics in a string": [within_f('words = """\n%%bash\n!ls\nx?\n"""') + CHECK],
    "timed cell": ["%%time\n" + RIGHT + CHECK],
    "captured and timed cell": ["%%capture out\n%%time\n" + RIGHT, "%%prun -q\n" + CHECK],
    "timed check": [RIGHT, '%time check("2.1", f)'],
    "check timed many times": [RIGHT, '%timeit -n 1 -r 1 check("2.1", f)'],
    "a timed cell for itself": ["%%timeit -n1 -r1\n" + RIGHT.replace("def f", "def own") + CHECK.replace("f)", "own)")],
    "what a timed cell keeps for itself": ["def f(x0, t, eps, schedule):\n    return x0",
                                           "%%timeit -n1 -r1\n" + RIGHT, CHECK],
    "pasted from a prompt": [">>> def f(x0, t, eps, schedule):\n...     return x0\n>>> " + CHECK],
    "indented as a whole": ["    " + RIGHT.replace("\n", "\n    ") + CHECK],
    "awaits": ["async def nothing():\n    return 1\nawait nothing()\n" + RIGHT + CHECK],
    "annotated value": ["ONE: float = 1.0\n" + RIGHT.replace("(1 ", "(ONE ") + CHECK],
    "annotated by the package": ["from diffusion_lessons.schedules import Schedule\n"
                                 + RIGHT.replace("schedule):", "schedule: Schedule) -> torch.Tensor:") + CHECK],
    "annotated by a module of the package": ["from diffusion_lessons import schedules\nS: schedules.Schedule = None\n"
                                             + RIGHT.replace("schedule):", "schedule: schedules.Schedule):") + CHECK],
    "annotated within": [within_f("def g(s: Schedule) -> Schedule:\n        return s\n    schedule = g(schedule)"),
                         "from diffusion_lessons.schedules import Schedule\n" + CHECK],
    "computed value": ["ONE = math.cos(0.0)\n" + RIGHT.replace("(1 ", "(ONE ") + CHECK],
    "value by steps": ["ones = {}\nones[0] = 0.5\nfor k in range(1):\n    ones[k] += 0.5\n"
                       + RIGHT.replace("(1 ", "(ones[0] ") + CHECK],
    "value by choice": ["try:\n    import nowhere\nexcept ImportError:\n    ONE = 1\n"
                        + RIGHT.replace("(1 ", "(ONE ") + CHECK],
    "wrapped": ["import functools\n" + RIGHT + "f = functools.wraps(f)(lambda *case: g(*case))\ng = f.__wrapped__\n"
                + CHECK],
    "written again as a lambda": ["def f(x0, t, eps, schedule):\n    ...", RIGHT.replace("def f", "def g") + "f = g\n"
                                  + CHECK],
    "taken back": [RIGHT, "f = ...\n" + CHECK],
    "own module": ["from own import root\n" + RIGHT.replace("a.sqrt()", "root(a)") + CHECK],
    "own module, whole": ["import own as mine\n" + RIGHT.replace("a.sqrt()", "mine.root(a)") + CHECK],
    "own module, run": ["%run own.py\n" + RIGHT.replace("a.sqrt()", "root(a)") + CHECK],
    "own module with a star": ["from own import *\n" + RIGHT.replace("a.sqrt()", "root(a)") + CHECK],
    "written module": ["%%writefile made.py\nROOT = 0.5", "from made import ROOT\n"
                       + RIGHT.replace("a.sqrt()", "a ** ROOT") + CHECK],
    "wrong": ["def f(x0, t, eps, schedule):\n    return x0\n" + CHECK],
    "wrong at last": [RIGHT + CHECK, "def f(x0, t, eps, schedule):\n    return x0\n" + CHECK],
    "empty": ["def f(x0, t, eps, schedule):\n    ...\n" + CHECK],
    "no Python": [RIGHT + "\n)\n" + CHECK],
    "no Python for the compiler": [RIGHT + "return\n" + CHECK],
    "another language": ["%%bash\n" + RIGHT + CHECK],
    "%%time with a statement": ["%%time x = 1\n" + RIGHT + CHECK],
}
MODULES = {"own.py": "from other import power\ndef root(x):\n    return power(x, 0.5)\n",
           "other.py": "import torch\nfrom diffusion_lessons.forward import add_noise\npower = torch.pow\n"}
# Runs each notebook of the standard input in an IPython shell, and prints the last verdict of each.
KERNEL = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
from diffusion_lessons.exercises import EXERCISES
from diffusion_lessons.exercises.checking import check_attempt
said, found = [], {}
def check(id, attempt):
    said.append(check_attempt(EXERCISES[id], attempt).state)
sys.path.insert(0, os.getcwd())
shell = InteractiveShell()
for name, cells in json.load(sys.stdin).items():
    shell.reset(new_session=False)
    shell.user_ns["check"] = check
    said.clear()
    for cell in cells:
        shell.run_cell(cell)
    found[name] = said[-1] if said else "missing"
with open("verdicts.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """{name of cells: the state that a check says when IPython runs them}"""
    folder = tmp_path_factory.mktemp("kernel")
    for name, text in MODULES.items():
        (folder / name).write_text(text)
    before = ["import math, os\nimport torch"]
    subprocess.run([sys.executable, "-c", KERNEL], cwd=folder, check=True, text=True, stdout=subprocess.DEVNULL,
                   input=json.dumps({name: before + cells for name, cells in CELLS.items()}),
                   env={**os.environ, "IPYTHONDIR": str(folder / "ipython"),
                        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])})
    return json.loads((folder / "verdicts.json").read_text())


@pytest.fixture(scope="module")
def graded_cells(tmp_path_factory):
    """{name of cells: row}"""
    folder = tmp_path_factory.mktemp("cells")
    for name, cells in CELLS.items():
        for module, text in MODULES.items():
            path = folder / name / module
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        write(folder / name / "02_adding_noise.ipynb", ["import math, os\nimport torch", *cells])
    found = {}
    with Sandbox(hidden=[folder]) as sandbox:    # one for all: starting torch takes seconds
        for name in CELLS:
            rows = grading.grade_notebook(folder / name / "02_adding_noise.ipynb", name, name, sandbox)
            found[name] = next(row for row in rows if row.exercise == "2.1")
    return found


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_gets_the_grade_that_the_kernel_gave(name, kernel, graded_cells):
    assert graded_cells[name].state == kernel[name], graded_cells[name].message


def test_the_kernel_is_not_always_of_one_opinion(kernel):
    counts = [list(kernel.values()).count(state) for state in ("not yet", "not tried", "missing")]
    assert all(count >= 2 for count in counts), counts    # what is Python to IPython differs from version to version


REASONS = {
    "no Python": "is in cell 2, which is not Python: unmatched ')' in line 5",
    "no Python for the compiler": "is in cell 2, which is not Python: 'return' outside function in line 4",
    "another language": "is in a cell that begins with %%bash",
    "%%time with a statement": "nothing may follow %%time",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_check_that_does_not_count_is_told_why(name, graded_cells):
    assert REASONS[name] in graded_cells[name].message


# What differs from the kernel says why: (cells, words)
TOLD = {
    "a function of the package": ([within_f("velocity(x0, eps, t, schedule)") + CHECK],
                                  "name 'velocity' is not defined (No module named 'diffusion_lessons')"),
    "a value of the package": (["from diffusion_lessons.schedules import linear\nONE = linear(9).alpha_bar[0]\n"
                                + RIGHT.replace("(1 ", "(ONE ") + CHECK],
                               "name 'ONE' is not defined (name 'linear' is not defined (No module named"),
    "a command's output": (["files = !ls\n" + within_f("files[0]") + CHECK],
                           "name 'files' is not defined (!ls is not run when notebooks are graded)"),
    "a module that was not handed in": (["from elsewhere import *\n" + within_f("root(t)") + CHECK],
                                        "name 'root' is not defined (No module named 'elsewhere')"),
    "a definition that fails": (["def f(x0, t, eps, schedule):\n    return x0",
                                 "@nowhere\n" + RIGHT + CHECK],
                                "name 'f' is not defined (name 'nowhere' is not defined)"),
    "another cell": (["def g(", within_f("g(t)") + CHECK], "(Not Python: cell 2: "),
}


def reads_commands():
    """Whether IPython understands `files = !ls`: 7.34 does not on Python 3.12 and newer, in its kernel either."""
    try:
        return bool(ast.parse(notebook.as_python("files = !ls")))
    except SyntaxError:
        return False


def test_what_the_kernel_has_and_grading_has_not_is_told(tmp_path):
    with Sandbox() as sandbox:
        for name, (cells, words) in TOLD.items():
            if name == "a command's output" and not reads_commands():
                continue
            write(tmp_path / "02.ipynb", [IMPORTS, *cells])
            rows = grading.grade_notebook(tmp_path / "02.ipynb", name, name, sandbox)
            row = next(row for row in rows if row.exercise == "2.1")
            assert row.state == "not yet", name
            assert words in row.message, name


def test_a_fresh_copy_of_a_cell_does_not_cancel_an_answer(tmp_path):
    cells = [IMPORTS]
    bug = ("def f(x0, t, schedule, g):\n    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)\n"
           "    return a.sqrt() * x0 + (1 - a).sqrt() * torch.rand(x0.shape, generator=g)")
    for id, again in {"2.1": "def f(x0, t, eps, schedule):\n    ...", "2.2": "f = ...",
                      "2.3": "def f(x_s, s, t, eps, schedule):\n    a = ...\n    return a * x_s", "2.6": bug}.items():
        cells += [f'{code}\n\ncheck("{id}", f)' for code in (REFERENCES[id], again)]
    write(tmp_path / "ann.ipynb", cells)
    rows = graded(tmp_path)
    assert {id: row.state for id, row in rows.items() if id in ("2.1", "2.2", "2.3", "2.6")} == dict.fromkeys(
        ("2.1", "2.2", "2.3", "2.6"), "right")


def test_any_file_that_holds_a_notebook_is_read_and_any_other_is_named(tmp_path):
    text = notebook_of([RIGHT + CHECK])
    good = {"utf-8": text.encode(), "with a mark": text.encode("utf-8-sig"), "utf-16": text.encode("utf-16"),
            "utf-16 without": text.encode("utf-16-le"), "windows": text.replace("\\n", "\\r\\n").encode()}
    for name, data in good.items():
        (tmp_path / "a.ipynb").write_bytes(data)
        assert [a.idle for a in notebook.read(tmp_path / "a.ipynb").attempts["2.1"]] == [False], name
    old = '{"worksheets": [{"cells": []}], "nbformat": 3}'
    many = json.dumps({"cells": [{"cell_type": "code", "source": ""}] * (notebook.MOST_CELLS + 1)})
    bad = {b"": "empty", b"[]": "not a notebook", b'{"cells": 1}': "not a notebook",
           b"\x00\x05\x16\x07": "not a notebook",
           text[:-9].encode(): "line 1", b"<<<<<<< HEAD\n" + text.encode(): "not a notebook", old.encode(): "2014",
           b'{"cells": [{"cell_type": "code", "source": [1]}]}': "not a notebook", b"[" * 10**5: "not a notebook",
           many.encode(): "2,001 cells"}
    for data, words in bad.items():
        (tmp_path / "a.ipynb").write_bytes(data)
        with pytest.raises(ValueError, match=words):
            notebook.read(tmp_path / "a.ipynb")


def test_links_pipes_and_huge_files_are_not_opened(tmp_path):
    write(tmp_path / "other" / "bob.ipynb", [RIGHT + CHECK])
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ann.ipynb").symlink_to(tmp_path / "other" / "bob.ipynb")
    with open(tmp_path / "class" / "cy.ipynb", "wb") as file:
        file.truncate(notebook.LARGEST_FILE + 1)
    (tmp_path / "other" / "secret.py").write_text("def root(x):\n    return x.sqrt()")
    (tmp_path / "class" / "secret.py").symlink_to(tmp_path / "other" / "secret.py")
    write(tmp_path / "class" / "dora.ipynb", ["import secret\n" + RIGHT.replace("a.sqrt()", "secret.root(a)") + CHECK])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "class" / "bob.ipynb")
    states = {row.who: (row.state, row.message) for row in grading.grade_folder(tmp_path / "class")
              if row.exercise in ("", "2.1")}
    assert states["ann"] == states.pop("bob", states["ann"])
    assert states["ann"][0] == states["cy"][0] == "not read"
    assert "a link, a device" in states["ann"][1]
    assert "MiB" in states["cy"][1]
    assert "No module named 'secret'" in states["dora"][1]


def test_a_cell_without_end_is_passed_over(tmp_path):
    write(tmp_path / "ann.ipynb", [RIGHT + CHECK, "x = " + "1 + " * 10**4 + "1", "y" * (notebook.LONGEST_CELL + 1)])
    found = notebook.read(tmp_path / "ann.ipynb")
    assert "2.1" in found.attempts
    assert "100,001 characters" in found.broken["cell 3"]


def test_a_notebook_has_so_much_time_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "GRADING", -1.0)
    write(tmp_path / "ann.ipynb", [RIGHT + CHECK])
    row = graded(tmp_path)["2.1"]
    assert (row.state, row.isolated) == ("not checked", "")
    assert "took more than" in row.message


def test_who_is_who_in_a_class(tmp_path):
    class_folder = tmp_path / "a.class"
    for place in ("ann/02.ipynb", "section1/ann/02.ipynb", "section1/eve/02.IPYNB", "Zoe\u0308/02.ipynb", "cy.ipynb",
                  "ann/.ipynb_checkpoints/02-checkpoint.ipynb", "ann/._02.ipynb", "__MACOSX/ann/02.ipynb",
                  "__MACOSX/ann/._02.ipynb", ".Trash/02.ipynb"):
        write(class_folder / place, ["print(1)"])
    if sys.platform == "linux":    # a name that is no text, as an old archive leaves behind
        write(Path(os.fsdecode(os.fsencode(class_folder) + b"/zo\xeb.ipynb")), ["print(1)"])
    rows = list(grading.grade_folder(class_folder))
    assert {row.who for row in rows} - {"zo\\udceb"} == {"ann", "section1/ann", "section1/eve", "Zo\u00eb", "cy"}
    assert len(rows) == len({row.notebook for row in rows}) == 5 + (sys.platform == "linux")
    grading.summary(rows).encode()


def test_the_lesson_is_what_the_notebook_holds_and_not_its_name(tmp_path):
    stub = 'def f(x0, t, eps, schedule):\n    ...\n\ncheck("2.1", f)'
    half = stub.replace("2.1", "4.4")
    for name, cells, other in (("3_smith", [stub], ()), ("04_x", [stub], ()), ("3_jones", ["print(1)"], ()),
                               ("04b_x", ["print(1)"], ()), ("04_y", ["print(1)"], ()), ("4_z", [half], ()),
                               ("03_x", ["print(1)"], ()), ("05_x", [], [("markdown", stub), ("raw", "x")])):
        write(tmp_path / f"{name}.ipynb", cells, other)
    rows = list(grading.grade_folder(tmp_path))
    lessons = {name: {row.exercise[:1] for row in rows if row.who == name} for name in
               ("3_smith", "04_x", "3_jones", "03_x", "05_x")}
    assert lessons == {"3_smith": {"2"}, "04_x": {"2"}, "3_jones": {""}, "03_x": {"3"}, "05_x": {"2"}}
    halves = {name: [row.exercise for row in rows if row.who == name] for name in ("04_y", "04b_x", "4_z")}
    assert halves == {"04_y": ["4.1", "4.2", "4.3", "4.6"], "04b_x": ["4.4", "4.5"], "4_z": ["4.4", "4.5"]}
    row = next(row for row in rows if row.who == "05_x")
    assert (row.exercise, row.state) == ("2.1", "missing")
    assert "is in a markdown cell, which is never run: make it a code cell." in row.message


def test_the_table_is_for_excel_and_does_nothing_there(tmp_path):
    rows = [grading.Row(who, "x", "2.1", "right", words) for who, words in (
        ("=HYPERLINK(1)", "a;=1"), ("+1", "a\n=1"), ("-1", "b"), ("@x", "c"), ("\t=1", "d"), ("\r=1", "e"),
        (" =1", "f"), ("\uff1d1", "g"), ("Zo\u00eb", "h - 1 = 2"), ("\udceb", "i"))]
    assert grading.write_csv(iter(rows), tmp_path / "new" / "t.csv") == rows
    data = (tmp_path / "new" / "t.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfwho,")
    with open(tmp_path / "new" / "t.csv", newline="", encoding="utf-8-sig") as file:
        cells = [(row["who"], row["message"]) for row in csv.DictReader(file)]
    assert cells == [("'=HYPERLINK(1)", "a;'=1"), ("'+1", "a =1"), ("'-1", "b"), ("'@x", "c"), ("'=1", "d"),
                     ("'=1", "e"), ("'=1", "f"), ("'\uff1d1", "g"), ("Zo\u00eb", "h - 1 = 2"), ("\\udceb", "i")]


def test_rows_are_written_as_they_come_and_the_file_is_tried_first(tmp_path, capsys):
    def rows():
        yield grading.Row("ann", "x", "2.1", "right", "")
        assert b"ann" in (tmp_path / "t.csv").read_bytes()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grading.write_csv(rows(), tmp_path / "t.csv")
    assert b"ann" in (tmp_path / "t.csv").read_bytes()
    write(tmp_path / "ann.ipynb", [RIGHT + CHECK])
    (tmp_path / "taken.csv").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "rows_of", lambda *args: pytest.fail("graded before the table was tried"))
        assert main(["grade", str(tmp_path), "--out", str(tmp_path / "taken.csv")]) == 1
    assert "grade failed: " in capsys.readouterr().err
    assert main(["grade", str(tmp_path / "taken.csv"), "--out", str(tmp_path / "t.csv")]) == 1
    assert b"ann" in (tmp_path / "t.csv").read_bytes()    # no notebooks, so the table that was there stays


def test_a_console_that_knows_no_umlaut_is_no_reason_to_fail(tmp_path):
    write(tmp_path / "Zo\u00eb" / "02_adding_noise.ipynb", [])
    ran = subprocess.run([sys.executable, "-m", "diffusion_lessons", "grade", str(tmp_path)], capture_output=True,
                         env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0",
                              "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])})
    assert ran.returncode == 0, ran.stderr
    assert b"Zo\\xeb  " in ran.stdout


def test_what_is_written_into_any_part_of_the_input_is_noticed(tmp_path):
    def f(pair, s, table):
        pair[1].add_(1)
        s.alpha_bar.mul_(0.5)
        table["a"][0].zero_()
        return pair[0]

    s = from_betas("x", torch.full((3,), 0.1, dtype=torch.float64))
    arguments = [Prediction(torch.ones(2), torch.ones(2)), s, {"a": [torch.ones(1)]}]
    code = {"cells": [("cell 1", textwrap.dedent(inspect.getsource(f)), [0])], "attempt": ("cell 1", 1, "f"),
            "exposed": {}, "modules": {}}
    with Sandbox() as sandbox:
        sandbox.load(code, 60)
        grading.Remote(sandbox, None)(*arguments)
    assert arguments[0].eps.tolist() == [1, 1]
    assert arguments[0].x0.tolist() == [2, 2]
    assert s.alpha_bar[0] == 0.5
    assert arguments[2]["a"][0] == 0


# ---------------------------------------------------------------- attacks, each on an exercise of its own

LIES = """
class Liar(torch.Tensor):
    def __eq__(self, other): return torch.ones((), dtype=torch.bool)
    def detach(self): return self
    def __sub__(self, other): return torch.zeros(())
    def __float__(self): return 0.0
def f(real, fake):
    return torch.zeros(()).as_subclass(Liar)"""
PATCHES = """
torch.allclose = torch.equal = lambda *a, **k: True
import numpy
class Patch:
    numpy.allclose = torch.allclose = torch.equal = lambda *a, **k: True
    torch.Tensor.__eq__ = lambda *a, **k: True
def check(id, attempt):
    print("right")
def f(noising, t):
    return Patch and 100.0"""
IMPORTED = """
import importlib
def f(beta):
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "NoPackage"]
    sys.path.append(PROJECT)
    return importlib.import_module("diffusion_lessons.schedules").from_betas("x", beta).alpha_bar"""
BY_PATH = """
def f(x_s, s, t, eps, schedule):
    space = {}
    exec(open(PATH).read(), space)
    return space["forward_step"](x_s, t, eps, schedule)"""
IN_MEMORY = """
import gc, types
def f(T):
    name = "diffusion_lessons.schedules"
    if name in sys.modules:
        return sys.modules[name].cosine(T).alpha_bar
    for thing in gc.get_objects():
        if isinstance(thing, types.ModuleType) and thing.__name__ == name:
            raise RuntimeError("found")
    raise LookupError("nowhere")"""
KEPT = REFERENCES["3.2"] + "\n\nclass Keep:\n    import builtins\n    builtins.kept = add_noise\nf = (Keep, f)[1]"
OUTLIVES = """
import subprocess
def f(redraw, x0, wanted):
    subprocess.Popen(["sleep", f"31415.{PARENT}"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", f"31415.{PARENT}"])
    return 0.0"""
UNDO = """
def f(x_t, t, s, prediction, schedule, z):
    for place in HIDDEN:
        os.system(f"umount {place}; mount -o remount,bind,rw {place}")
    os.system("unshare --user --map-root-user --mount umount /usr")
    for place in HIDDEN:
        try:
            with open(os.path.join(place, "broken_in"), "w") as file:
                file.write("x")
        except OSError:
            pass
    return x_t"""
PROCESSES = """
def f(x_t, t, s, prediction, schedule):
    for path in [f"/proc/{PARENT}/mem", f"/proc/{PARENT}/environ", "/proc/1/environ", "/proc/1/root/etc/passwd"]:
        try:
            open(path, "rb")
        except OSError:
            continue
        raise RuntimeError("could open " + path)
    try:
        os.kill(PARENT, 0)
    except OSError:
        return x_t
    raise RuntimeError("sees the parent")"""
NEIGHBOUR = """
def f(T, steps):
    return [open(p) for p in NEIGHBOURS]"""
RECORD = """
def f(theirs, denoiser, x_t, t, y):
    os.makedirs(os.path.dirname(RECORD), exist_ok=True)
    with open(RECORD, "w") as file:
        file.write('{"6.2": {"state": "right", "tries": 1, "solved": 1}}')
    return 0"""
PICKLE = """
class Bomb:
    def __reduce__(self):
        return os.system, ("touch " + RECORD + ".bomb",)
def f(tokens, hidden, nothing):
    return Bomb()"""
RUBBISH = """
def f(text, number, length):
    for fd in range(256):
        try:
            os.write(fd, b"right" * 1000)
        except OSError:
            pass"""
# exercise: (code, what the words must hold)
ATTACKS = {
    "1.1": (LIES, ""),
    "1.2": ("def f(fake):\n    raise SystemExit(0)", "it raised SystemExit: 0"),
    "1.3": ("def f(points, centres, sigma):\n    raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
    "1.4": ("def f(x):\n    return torch.empty(12 << 30, dtype=torch.uint8)[:9].sum()", "it raised RuntimeError"),
    "1.5": ("import socket\ndef f(G, n):\n    socket.create_connection(('127.0.0.1', PORT), 2)", "it raised"),
    "2.1": ("from diffusion_lessons.forward import add_noise as f", "No module named 'diffusion_lessons'"),
    "2.2": (IMPORTED, "it raised ModuleNotFoundError"),
    "2.3": (BY_PATH, "it raised FileNotFoundError"),
    "2.4": (IN_MEMORY, "it raised LookupError: nowhere"),
    "2.5": (PATCHES, ""),
    "3.1": ("def f(eps, x_t, t, schedule):\n    wide = 1.0\n    for k in range(12):\n        wide = (wide,) * 12\n"
            "    return wide", "it raised ValueError: that is too large"),
    "3.3": ("def f(t, width, T):\n    return torch.ones(1).expand(2 ** 40)", "too large"),
    "3.6": ("def f(net, x0, schedule):\n    return kept(x0, x0, x0, schedule)", "it raised"),
    "4.1": (PROCESSES, "you noised it back to time t"),
    "4.2": (UNDO, ""),
    "4.3": (NEIGHBOUR, "it raised FileNotFoundError"),
    "4.4": ("def f(x_s, x0, mask, s, eps, schedule):\n    raise ValueError('\\ud800 \\0 =1+1')", "it raised"),
    "4.5": (OUTLIVES, ""),
    "5.1": (RUBBISH, "not the result of a function"),
    "5.2": ("def f(q, k, v):\n    return [0.5] * 10 ** 5", "too large"),
    "5.3": ("def f(q, k, v, real):\n    while True:\n        try:\n            pass\n        except BaseException:\n"
            "            pass", "it did not return within"),
    "5.4": (PICKLE, "not a Bomb"),
    "6.1": ("def f(denoiser, x_t, t, y, w):\n    n = 9000\n"
            "    return denoiser(torch.ones(1, 1, 1, n), t, torch.ones(n))",
            "the arguments are too large"),
    "6.2": (RECORD, ""),
    "6.3": ("def f(denoiser, x_t, t, y, negative, w):\n    deep = []\n    for k in range(900):\n"
            "        deep = [deep, deep]\n    return deep", "it raised ValueError: that is too deep"),
    "6.4": ("def f(x0_guided, x0_plain):\n    os._exit(0)", "has ended: does it exit"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The rows of a notebook full of attacks, and what became of the things that they were after."""
    place = tmp_path_factory.mktemp("attacked")
    known = place / "progress" / "progress.json"
    known.parent.mkdir()
    (place / "namespaces").mkdir()
    known.write_text(json.dumps({id: {"state": "right", "tries": 1, "solved": 1} for id in EXERCISES}))
    write(place / "class" / "ann.ipynb", ["print('a neighbour')"])
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    names = {"PORT": listener.getsockname()[1], "PATH": str(PACKAGE / "forward.py"), "PROJECT": str(PACKAGE.parent),
             "PARENT": os.getpid(),
             "HIDDEN": [str(p) for p in (PACKAGE, place, sys.prefix, "/usr", "/tmp")], "RECORD": str(known),
             "NEIGHBOURS": [str(place / "class" / "ann.ipynb")]}
    said = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    codes = {"3.2": KEPT, **{id: code for id, (code, _) in ATTACKS.items()}}
    write(place / "class" / "eve.ipynb", [said, *cells_of(codes)])
    before = known.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_LESSONS_PROGRESS", str(known))
        patch.setattr(checking, "SECONDS", 5.0)
        patch.setattr(tempfile, "tempdir", str(place / "namespaces"))
        rows = grading.write_csv(grading.grade_folder(place / "class"), place / "class" / "grades.csv")
    with listener, pytest.raises(BlockingIOError):     # nobody came
        listener.accept()
    found = {row.exercise: row for row in rows if row.who == "eve"}
    return {"rows": found, "place": place, "record": (before, known.read_text())}


@needs_namespaces
@pytest.mark.faults
@pytest.mark.parametrize("id", ATTACKS)
def test_no_attack_makes_a_wrong_answer_right(attacked, id):
    row = attacked["rows"][id]
    assert row.state == "not yet", row.message
    assert ATTACKS[id][1] in row.message, row.message


@needs_namespaces
@pytest.mark.faults
def test_an_honest_answer_among_attacks_stays_right(attacked):
    assert attacked["rows"]["3.2"].state == "right", attacked["rows"]["3.2"].message


@needs_namespaces
@pytest.mark.faults
def test_the_attacks_left_nothing_behind(attacked):
    assert attacked["record"][0] == attacked["record"][1]
    for folder in (PACKAGE, attacked["place"], Path(sys.prefix), Path("/usr"), Path("/tmp")):
        assert not (folder / "broken_in").exists()
    assert not list(attacked["place"].rglob("*.bomb"))
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in running if str(attacked["place"]).encode() in line]    # every namespace is closed
    assert not list((attacked["place"] / "namespaces").iterdir())
    assert not [line for line in running if line.startswith(b"sleep\x0031415.%d" % os.getpid())]
    with open(attacked["place"] / "class" / "grades.csv", newline="", encoding="utf-8-sig") as file:
        assert len(list(csv.reader(file))) == 2 + len(attacked["rows"])


# ---------------------------------------------------------------- the parts


def frame(header, blob=b"", lengths=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(wire.HEAD.pack(*(lengths or (len(header), len(blob)))) + header + blob)


def tensor(shape, dtype="torch.float32"):
    return {"is": "tensor", "dtype": dtype, "shape": shape, "grad": False}


NONSENSE = {
    "no JSON": frame(b"right"),
    "longer than allowed": frame({}, lengths=(wire.HEADER + 1, 0)),
    "more bytes than allowed": frame({}, lengths=(2, wire.BYTES + 1)),
    "a huge shape": frame(tensor([2**40, 2**20])),
    "a negative shape": frame(tensor([-1, -1]), b"1234"),
    "no number for a shape": frame(tensor(["2"]), b"12345678" * 2),
    "an unknown dtype": frame(tensor([1], "torch.complex64"), b"12345678"),
    "bytes left over": frame(tensor([1]), b"12345678"),
    "an object with attributes": frame({"is": "record", "name": "x", "fields": ["__array_interface__"], "items": [1]}),
    "a thing that was never handed over": frame({"is": "kept", "number": 7, "items": []}),
    "an unknown kind": frame({"is": "pickle", "items": []}),
    "no field names": frame({"is": "named", "name": "x", "fields": ["__array__"], "items": [1]}),
    "far too deep": frame(b'{"is":"list","items":[' * 5000 + b"]}" * 5000),
    "a little too deep": frame(b'{"is":"list","items":[' * 30 + b"]}" * 30),
    "a tensor of many dimensions": frame(tensor([1] * 17), b"1234"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_frame_that_is_not_as_it_should_be_is_refused(what):
    NONSENSE[what].seek(0)
    with pytest.raises(ValueError):
        wire.read(NONSENSE[what], Sandbox(isolated=False).own)


def test_what_travels_arrives_unchanged():
    values = [1, 2.5, math.inf, True, None, ..., "x", {"a": 1, 2: [3]}, (4, [5]), torch.arange(6).reshape(2, 3),
              torch.tensor(7.0, requires_grad=True), torch.zeros(0, 3), torch.ones(2, dtype=torch.bool),
              torch.rand(4, dtype=torch.bfloat16), torch.rand(3, 2).T, Prediction(torch.ones(1), torch.zeros(1))]
    pipe = io.BytesIO()
    wire.write(pipe, values)
    pipe.seek(0)
    back = wire.read(pipe, None)
    for a, b in zip(values[:9], back, strict=False):
        assert a == b
        assert type(a) is type(b)
    for a, b in zip(values[9:15], back[9:], strict=False):
        assert torch.equal(a, b)
        assert (a.dtype, a.requires_grad) == (b.dtype, b.requires_grad)
    assert type(back[15]).__name__ == "Prediction"
    assert back[15].eps == 1


def test_values_have_limits_that_do_not_hang_on_the_interpreter():
    deep = fits = 1
    for _ in range(wire.DEPTH + 1):
        deep, fits = {"deeper": deep}, deep
    with pytest.raises(ValueError, match="too deep"):
        wire.write(io.BytesIO(), deep)
    pipe = io.BytesIO()
    wire.write(pipe, fits)
    pipe.seek(0)
    assert wire.read(pipe, None) == fits
    wide = 1
    for _ in range(wire.DEPTH - 1):
        wide = (wide,) * 50
    for large, words in ((wide, "too many values"), (range(10**12), "too many values"), ("x" * 10**7, "too much text"),
                         ([torch.zeros(wire.BYTES // 8)] * 9, "too large"), (torch.zeros([1] * 17), "too deep")):
        with pytest.raises(ValueError, match=words):
            wire.write(io.BytesIO(), large)


def test_brackets_within_strings_are_no_depth():
    text = {"a": ['[[[{"', "\\", {"[[": 1}], "[": "]]]"}
    assert wire.nesting(json.dumps(text).encode()) == 3
    assert wire.nesting(b'"[[' + b'\\"[' * 5) == 0    # a string that does not end


def test_only_what_an_answer_needs_is_taken_from_a_notebook(tmp_path):
    code = """import math, sys
%time
x = [1, 2]
y = open("never")
print(x)
TABLE = [math.sqrt(k) for k in x]
TABLE[0] = 1.0
def f(a):
    return a + g(TABLE)
@deco
class C: pass
g = lambda a: a if deco else C.size
for k in x: f(k)
if x:
    deco = list
check("2.4", f)
def f(a):
    return 2 * a"""
    write(tmp_path / "a.ipynb", ["def f(", code])
    found = notebook.read(tmp_path / "a.ipynb")
    [attempt] = found.attempts["2.4"]
    [(name, text, chosen)] = attempt.cells
    kept = [ast.unparse(ast.parse(text).body[k]).splitlines()[0] for k in chosen]
    assert kept == ["import math, sys", "x = [1, 2]", "TABLE = [math.sqrt(k) for k in x]", "TABLE[0] = 1.0",
                    "def f(a):", "@deco", "g = lambda a: a if deco else C.size", "if x:"]
    assert attempt.expression == ("cell 2", 16, "f")
    assert list(found.broken) == ["cell 1"]
    assert "in line 1" in found.broken["cell 1"]


@needs_namespaces
def test_namespaces_hide_folders_within_those_that_it_shows(tmp_path):
    look = ("import os, sys; print([len(os.listdir(p)) for p in sys.argv[1:]], os.listdir('/proc'), "
            "os.path.exists('/old/usr'))")
    torch_folder, numpy_folder = Path(torch.__file__).parent, Path(np.__file__).parent
    command = [sys.executable, "-I", "-c", look, str(torch_folder), str(numpy_folder)]
    command = sandbox.namespace_command(str(tmp_path), [torch_folder], command)
    said = subprocess.run(command, capture_output=True, text=True).stdout
    assert re.fullmatch(r"\[0, [1-9]\d*\] \[\] False\n", said)


def test_without_namespaces_it_says_so_and_still_refuses_the_package(tmp_path, monkeypatch):
    escapes = """
import time
def f(x_s, s, t, eps, schedule):
    if os.fork():
        os._exit(0)
    os.setsid()      # it keeps the pipe open
    time.sleep(6)
    os._exit(0)"""
    write(tmp_path / "ann.ipynb", cells_of({"2.1": REFERENCES["2.1"], "2.2": WRONG["1.1"][0], "2.3": escapes}))
    monkeypatch.setattr(checking, "SECONDS", 4.0)
    monkeypatch.setattr(sandbox, "can_isolate", lambda: False)
    whole = sandbox.text_of    # as elsewhere than on Linux: the worker may start processes
    monkeypatch.setattr(sandbox, "text_of", lambda name: whole(name).replace("    allow_threads_only()\n", ""))
    rows = graded(tmp_path)
    assert [rows[id].state for id in ("2.1", "2.2", "2.3")] == ["right", "not yet", "not yet"]
    assert "No module named 'diffusion_lessons'" in rows["2.2"].message
    assert "did not return within" in rows["2.3"].message
    assert {rows[id].isolated for id in ("2.1", "2.2", "2.3")} == {"not isolated"}


def test_the_example_of_the_instructors_page_is_an_exercise_that_works():
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    space = {}
    exec(code, space)
    exercise = space["NEW"]
    assert exercise.id not in EXERCISES
    assert check_attempt(exercise, exercise.answer).state == "right"

    def plain(x0, x_t, t, schedule):
        a = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt()

    assert check_attempt(exercise, plain).state == "right"
    for mistake, words in exercise.mistakes:
        assert check_attempt(exercise, lambda *args, mistake=mistake: mistake(*args)) == ("not yet", words)
    assert check_attempt(exercise, lambda x0, x_t, t, s: x_t).state == "not yet"


def test_the_instructors_page_names_every_exercise_once():
    assert re.findall(r"^\| (\d\.\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == sorted(EXERCISES)
