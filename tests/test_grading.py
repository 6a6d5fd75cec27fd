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
from pathlib import Path

import numpy as np
import pytest
import torch

import diffusion_lessons
from diffusion_lessons.__main__ import main
from diffusion_lessons.classroom import grading
from diffusion_lessons.classroom.exercises import EXERCISES, judging
from diffusion_lessons.classroom.exercises.judging import judge
from diffusion_lessons.classroom.grading import notebook, sandbox, wire
from diffusion_lessons.classroom.grading.sandbox import Sandbox, can_isolate
from diffusion_lessons.forward import Prediction

PACKAGE = Path(diffusion_lessons.__file__).parent
PAGE = PACKAGE.parent / "docs" / "instructors.md"
needs_a_room = pytest.mark.skipif(not can_isolate(), reason="`unshare` is missing or refused: no isolation here")

# What a learner could hand in.
REFERENCES = {id: f"{inspect.getsource(e.reference)}\n\nf = {e.name}" for id, e in EXERCISES.items()}
IMPORTS = """%matplotlib inline
import math, os, sys
from itertools import pairwise
import torch, torch.nn.functional as F
from diffusion_lessons.forward import add_noise, velocity
START, END = 1, 2
torch.load("a statement that must not be run")
"""


def write(path, cells):
    """A notebook of these code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{"cell_type": "markdown", "source": ["# A lesson\n", 'check("1.1", nobody)']}]
    found += [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    path.write_text(json.dumps({"cells": found, "nbformat": 4}))


def cells_of(codes):
    """A cell of imports, and one for each {exercise: code that defines f}."""
    return [IMPORTS, *(f'{code}\n\ncheck("{id}", f)' for id, code in codes.items())]


def graded(folder, **options):
    """{exercise: row} of a folder with one learner."""
    return {row.exercise: row for row in grading.grade_folder(folder, **options)}


# ---------------------------------------------------------------- honest work


def test_an_answer_in_plain_torch_is_right_in_every_exercise(tmp_path):
    assert set(REFERENCES) == set(EXERCISES)
    write(tmp_path / "ann" / "all.ipynb", cells_of(REFERENCES))
    rows = graded(tmp_path)
    assert {id: row.words for id, row in rows.items() if row.state != "right"} == {}
    assert list(rows) == list(EXERCISES)
    assert rows["2.1"].words == EXERCISES["2.1"].praise
    assert grading.summary(list(rows.values())) == f"ann   {len(EXERCISES)} of {len(EXERCISES)}"
    if can_isolate():
        assert {row.isolated for row in rows.values()} == {"yes"}


WRONG = {
    "1.1": ("from diffusion_lessons.adversarial import discriminator_loss as f", "No module named"),
    "1.2": ("class Loss:\n    def __call__(self, fake):\n        return fake.exp().mean()\nf = Loss", "takes no"),
    "1.3": ("def f(points, centres, sigma):\n    return len(sigma)", "in line 2 of its cell: return len(sigma)"),
    "1.4": ("def f(x):\n    return torch.pdist(x.flatten(1)).mean()", EXERCISES["1.4"].mistakes[1][1]),
    "2.1": ("def f(x0, t, eps, schedule):\n    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)\n"
            "    return a * x0 + (1 - a) * eps", EXERCISES["2.1"].mistakes[0][1]),
    "2.2": ("def f(beta):\n    beta += 1\n    return beta", "writes into its own input"),
    "2.3": ("def f(x, t, scale=0.5):\n    return x", "yours takes (x, t, scale=0.5)"),
    "2.4": ("def f(alpha_bar):\n    return {'x': 1}", "not a dict"),
    "2.5": ("f = torch.zeros(3)\ndef g(x): return f(x)\nf = 3", "this is a int"),
    "3.1": ("def f(eps, x_t, t, schedule):\n    return schedule.alpha_bar[t].sqrt() * x_t", "(B, 1, 1, 1)"),
    "3.2": (REFERENCES["3.2"].replace(".mean()", ".mean().item()"), ".item()"),
    "3.5": ("def f(loss, t, T, parts):\n    velocity(loss, t, T, parts)", "name 'velocity' is not defined"),
    "4.1": ("def f(x_t, t, s, prediction, schedule):\n    return prediction", "is a Prediction of shape (2, "),
    "4.4": ("def f(x_s, x0, mask, s, eps, schedule):\n    return add_noise(x_s, 10**6, eps, schedule)", "it raised"),
    "4.5": ("def f(redraw, x0, wanted):\n    return 1.0", EXERCISES["4.5"].mistakes[2][1]),
    "1.6": (inspect.getsource(EXERCISES["1.6"].reference).replace("opt_g.step()", "opt_d.step()") + "\nf = mended_step",
            judging.AS_IT_WAS),
    "2.6": ("def f(x0, t, schedule, g):\n    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)\n"
            "    return a.sqrt() * x0 + (1 - a).sqrt() * torch.rand(x0.shape, generator=g)", judging.AS_IT_WAS),
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
    write(tmp_path / "bob.ipynb", [*cells_of({"6.4": REFERENCES["6.4"], **codes}), "%%bash\nls -l *.txt", again])
    rows = graded(tmp_path)
    for id, (_, words) in WRONG.items():
        assert rows[id].state == "not yet", id
        assert words in rows[id].words, id
    assert {rows[id].state for id in IDLE} == {"not tried"}
    assert rows["5.1"].isolated == ""               # nothing was run for it
    assert rows["1.5"].state == rows["3.3"].state == "missing"
    assert 'check("1.5", ...) was not found. (No Python: cell' in rows["1.5"].words
    assert "yours takes (beta)" in rows["6.4"].words
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
    with open(tmp_path / "grades.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["who", "notebook", "exercise", "state", "words", "isolated"]
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
    numpy.ndarray.__eq__ = torch.Tensor.__eq__ = lambda *a, **k: True
def check(id, attempt):
    print("right")
def f(noising, t):
    return 100.0"""
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
    return space["add_one_step"](x_s, t, eps, schedule)"""
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
KEPT = REFERENCES["3.2"] + "\n\nclass Keep:\n    import builtins\n    builtins.kept = add_noise"
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
    "3.3": ("def f(t, width, T):\n    return torch.ones(1).expand(2 ** 40)", "too large"),
    "3.6": ("def f(net, x0, schedule):\n    return kept(x0, x0, x0, schedule)", "it raised"),
    "4.1": (PROCESSES, "you noised it back to time t"),
    "4.2": (UNDO, ""),
    "4.3": (NEIGHBOUR, "it raised FileNotFoundError"),
    "4.4": ("def f(x_s, x0, mask, s, eps, schedule):\n    raise ValueError('\\ud800 \\0 =1+1')", "it raised"),
    "4.5": (OUTLIVES, ""),
    "5.1": (RUBBISH, "no answer of a function"),
    "5.2": ("def f(q, k, v):\n    return [0.5] * 10 ** 5", "too large"),
    "5.3": ("def f(q, k, v, real):\n    while True:\n        try:\n            pass\n        except BaseException:\n"
            "            pass", "it was not back after"),
    "5.4": (PICKLE, "not a Bomb"),
    "6.1": ("def f(denoiser, x_t, t, y, w):\n    n = 9000\n"
            "    return denoiser(torch.ones(1, 1, 1, n), t, torch.ones(n))",
            "the arguments are too large"),
    "6.2": (RECORD, ""),
    "6.3": ("def f(denoiser, x_t, t, y, negative, w):\n    deep = []\n    for k in range(900):\n"
            "        deep = [deep, deep]\n    return deep", "it raised"),
    "6.4": ("def f(x0_guided, x0_plain):\n    os._exit(0)", "is gone: does it exit"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The rows of a notebook full of attacks, and what became of the things that they were after."""
    place = tmp_path_factory.mktemp("attacked")
    known = place / "progress" / "progress.json"
    known.parent.mkdir()
    (place / "rooms").mkdir()
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
        patch.setattr(judging, "SECONDS", 5.0)
        patch.setattr(tempfile, "tempdir", str(place / "rooms"))
        rows = grading.grade_folder(place / "class")
    grading.write_csv(rows, place / "class" / "grades.csv")
    with listener, pytest.raises(BlockingIOError):     # nobody came
        listener.accept()
    found = {row.exercise: row for row in rows if row.who == "eve"}
    return {"rows": found, "place": place, "record": (before, known.read_text())}


@needs_a_room
@pytest.mark.parametrize("id", ATTACKS)
def test_no_attack_makes_a_wrong_answer_right(attacked, id):
    row = attacked["rows"][id]
    assert row.state == "not yet", row.words
    assert ATTACKS[id][1] in row.words, row.words


@needs_a_room
def test_an_honest_answer_among_attacks_stays_right(attacked):
    assert attacked["rows"]["3.2"].state == "right", attacked["rows"]["3.2"].words


@needs_a_room
def test_the_attacks_left_nothing_behind(attacked):
    assert attacked["record"][0] == attacked["record"][1]
    for folder in (PACKAGE, attacked["place"], Path(sys.prefix), Path("/usr"), Path("/tmp")):
        assert not (folder / "broken_in").exists()
    assert not list(attacked["place"].rglob("*.bomb"))
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in running if str(attacked["place"]).encode() in line]    # every room is closed
    assert not list((attacked["place"] / "rooms").iterdir())
    assert not [line for line in running if line.startswith(b"sleep\x0031415.%d" % os.getpid())]
    with open(attacked["place"] / "class" / "grades.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 2 + len(EXERCISES)


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
    "too deep": frame(b'{"is":"list","items":[' * 5000 + b"]}" * 5000),
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


def test_only_what_names_things_is_taken_from_a_notebook(tmp_path):
    code = """import math
%time
x = [1, 2]
y = open("never")
print(x)
def f(a):
    return a
@deco
class C: pass
g = lambda a: a
h = g
for k in x: f(k)
check("2.4", f)
def f(a):
    return 2 * a"""
    write(tmp_path / "a.ipynb", ["def f(", code])
    attempts, bad = notebook.read(tmp_path / "a.ipynb")
    [(name, text, chosen)] = attempts["2.4"].cells
    kept = [ast.unparse(ast.parse(text).body[k]).splitlines()[0] for k in chosen]
    assert kept == ["import math", "x = [1, 2]", "def f(a):", "@deco", "g = lambda a: a", "h = g"]
    assert attempts["2.4"].expression == ("cell 2", 13, "f")
    assert bad == ["cell 1"]


@needs_a_room
def test_a_room_hides_folders_within_those_that_it_shows(tmp_path):
    look = ("import os, sys; print([len(os.listdir(p)) for p in sys.argv[1:]], os.listdir('/proc'), "
            "os.path.exists('/old/usr'))")
    torch_folder, numpy_folder = Path(torch.__file__).parent, Path(np.__file__).parent
    command = [sys.executable, "-I", "-c", look, str(torch_folder), str(numpy_folder)]
    said = subprocess.run(sandbox.room(tmp_path, [torch_folder], command), capture_output=True, text=True).stdout
    assert re.fullmatch(r"\[0, [1-9]\d*\] \[\] False\n", said)


def test_without_a_room_it_says_so_and_still_refuses_the_package(tmp_path, monkeypatch):
    escapes = """
import time
def f(x_s, s, t, eps, schedule):
    if os.fork():
        os._exit(0)
    os.setsid()      # it keeps the pipe open
    time.sleep(6)
    os._exit(0)"""
    write(tmp_path / "ann.ipynb", cells_of({"2.1": REFERENCES["2.1"], "2.2": WRONG["1.1"][0], "2.3": escapes}))
    monkeypatch.setattr(judging, "SECONDS", 4.0)
    monkeypatch.setattr(sandbox, "can_isolate", lambda: False)
    rows = graded(tmp_path)
    assert [rows[id].state for id in ("2.1", "2.2", "2.3")] == ["right", "not yet", "not yet"]
    assert "No module named 'diffusion_lessons'" in rows["2.2"].words
    assert "not back after" in rows["2.3"].words
    assert {rows[id].isolated for id in ("2.1", "2.2", "2.3")} == {"not isolated"}


def test_the_example_of_the_instructors_page_is_an_exercise_that_works():
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    space = {}
    exec(code, space)
    exercise = space["NEW"]
    assert exercise.id not in EXERCISES
    assert judge(exercise, exercise.answer).state == "right"

    def plain(x0, x_t, t, schedule):
        a = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt()

    assert judge(exercise, plain).state == "right"
    for mistake, words in exercise.mistakes:
        assert judge(exercise, lambda *args, mistake=mistake: mistake(*args)) == ("not yet", words)
    assert judge(exercise, lambda x0, x_t, t, s: x_t).state == "not yet"


def test_the_instructors_page_names_every_exercise_once():
    assert re.findall(r"^\| (\d\.\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == sorted(EXERCISES)
