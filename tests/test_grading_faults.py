"""What learners' files and code can do to the grader: nothing that lasts, nothing that ends it, nothing unseen."""

import collections
import contextlib
import csv
import io
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
import types
from pathlib import Path

import pytest
import torch

from diffusion_lessons import grading
from diffusion_lessons.cli import main
from diffusion_lessons.cli.grade import ending_in_order
from diffusion_lessons.exercises import EXERCISES
from diffusion_lessons.exercises.checking import Verdict
from diffusion_lessons.forward import add_noise
from diffusion_lessons.grading import guard, notebook, reading, sandbox, wire
from diffusion_lessons.grading.sandbox import Sandbox, can_isolate
from diffusion_lessons.limits import TooLong
from diffusion_lessons.schedules import from_betas

pytestmark = pytest.mark.faults

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
RIGHT = """def f(x0, t, eps, schedule):
    a = schedule.alpha_bar[t].float().reshape(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps
"""
CHECK = 'check("2.1", f)'
STUB = f"def f(x0, t, eps, schedule):\n    ...\n\n{CHECK}"    # graded without a worker


def write(path, *cells):
    """A notebook file of these code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{"cell_type": "code", "source": cell} for cell in cells]
    path.write_text(json.dumps({"cells": found, "nbformat": 4}))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# ---------------------------------------------------------------- what the worker may ask for


class Script:
    """A worker's end of the pipe: it sends one message after another, each made when it is read."""

    def __init__(self, messages):
        self.messages, self.rest = iter(messages), b""

    def read(self, size):
        while len(self.rest) < size:
            pipe = io.BytesIO()
            wire.write(pipe, next(self.messages))
            self.rest += pipe.getvalue()
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def ask(*arguments):
    return {"ask": 1, "args": list(arguments), "kwargs": {}}


def conversation(messages, kept):
    """(What the parent answers to a worker that sends these messages, how the exchange ends)."""
    there = Sandbox(isolated=False)
    there.kept = kept
    answers = []
    there.answer = lambda question: answers.append(Sandbox.answer(there, question)) or answers[-1]
    outcome = queue.SimpleQueue()
    process = types.SimpleNamespace(stdin=io.BytesIO(), stdout=Script(messages))
    there.exchange(process, sandbox.Meter(process.stdout), None, outcome)
    return answers, outcome.get()


def kept_number(number):
    """What stayed in the parent, as the worker sends it back."""
    return wire.StandIn(_number=number)


@pytest.fixture
def lent():
    """What was handed out for an exercise: a schedule and add_noise."""
    return [from_betas("x", torch.full((15,), 0.1, dtype=torch.float64)), add_noise]


PICTURE, TIMES = torch.ones(2, 1, 3, 3), torch.tensor([1, 2])
LARGE = torch.zeros(sandbox.SMALL + 1)
Fake = collections.namedtuple("Fake", "alpha_bar")
REFUSED = {
    "a large tensor": (LARGE, "too large"),
    "in a tuple": ((LARGE,), "too large"),
    "in a list in a list": ([[1, [LARGE]]], "too large"),
    "in a dict": ({"a": {"b": LARGE}}, "too large"),
    "many small ones": ([torch.zeros(100)] * 101, "too large"),
    "in a namedtuple": (Fake(LARGE), "not a Fake"),
    "a namedtuple in a dict": ({"a": [Fake(torch.zeros(16))]}, "not a Fake"),
    "a generator": (torch.Generator(), "not a Generator"),
    "something else": (object(), "not a object"),
    "what is broadcast": ([torch.zeros(1, 1, 1, 4000), torch.zeros(4000, 1)], "too large"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_is_counted_to_its_last_tensor_and_holds_nothing_of_the_learners_making(what, lent):
    thing, words = REFUSED[what]
    for place in range(4):
        arguments = [PICTURE, TIMES, PICTURE, kept_number(0)]
        arguments[place] = thing
        answers, end = conversation([ask(*arguments), {"result": 1}], lent)
        assert words in answers[0]["message"]
        assert end == {"result": 1}


def test_the_schedule_that_was_handed_out_is_taken_and_no_other(lent):
    answers, _ = conversation([ask(PICTURE, TIMES, PICTURE, kept_number(0)),
                               ask(PICTURE, TIMES, PICTURE, Fake(lent[0].alpha_bar)), {"result": 1}], lent)
    assert torch.equal(answers[0]["result"], add_noise(PICTURE, TIMES, PICTURE, lent[0]))
    assert answers[1]["raised"] == "TypeError"


@pytest.mark.parametrize("made", [lambda: Fake(torch.zeros(10**6)), lambda: [torch.zeros(10**6)],
                                  lambda: {"a": torch.zeros(10**6)}])
def test_nothing_of_a_request_is_held(made, lent):
    requests = (ask(PICTURE, made(), PICTURE, kept_number(0)) for _ in range(15))
    tracemalloc.start()
    try:
        answers, end = conversation((request for part in (requests, [{"result": 1}]) for request in part), lent)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(answers) == 15
    assert end == {"result": 1}
    assert held < 2 << 20, f"{held / 2**20:.0f} MiB are held"    # each of the large ones brings 4


def test_all_requests_of_an_exercise_together_are_bounded(lent, monkeypatch):
    monkeypatch.setattr(sandbox, "CARRIED", 1 << 20)
    request = ask(torch.zeros(1, 1, 50, 50), TIMES[:1], torch.zeros(1, 1, 50, 50), kept_number(0))    # 20 kB
    answers, end = conversation((request for _ in range(1000)), lent)
    assert 45 < len(answers) < 53
    assert all(answer["result"].shape == (1, 1, 50, 50) for answer in answers)
    assert isinstance(end, sandbox.TooMuch)
    assert "more than 1 MiB in all" in str(end)


# ---------------------------------------------------------------- what the worker may do


TRIES = """
import ctypes, resource, subprocess, threading
def f():
    said, libc, ran = {}, ctypes.CDLL(None, use_errno=True), []
    def attempt(name, start):
        try:
            number = start()
            if name != "a thread" and number == 0:
                os._exit(0)
            said[name] = "started"
        except OSError as error:
            said[name] = type(error).__name__
    def call(*arguments):
        number = libc.syscall(*map(ctypes.c_long, arguments))
        if number < 0:
            raise OSError(ctypes.get_errno(), "refused")
        return number
    fork, vfork, clone, shmget = (57, 58, 56, 29) if os.uname().machine == "x86_64" else (1079, 1071, 220, 194)
    attempt("fork", os.fork)
    attempt("a command", lambda: os.posix_spawn("/bin/true", ["true"], {}))
    attempt("a child", lambda: subprocess.Popen(["/bin/true"]).pid)
    attempt("clone", lambda: call(clone, 17, 0, 0, 0, 0))
    attempt("clone3", lambda: call(435, ctypes.addressof(ctypes.create_string_buffer(88)), 88))
    attempt("shared memory", lambda: call(shmget, 0, 4096, 0o1600))
    thread = threading.Thread(target=lambda: (ran.append(1), attempt("fork in a thread", os.fork)))
    thread.start()
    thread.join()
    limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name))
              for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE")]
    raise RuntimeError(repr((said, ran, limits)))
"""


@needs_linux
def test_a_worker_starts_threads_but_no_processes_and_has_limits():
    code = {"cells": [("cell 1", f"import os\n{TRIES}", [0, 1, 2])], "attempt": ("cell 1", 1, "f"), "exposed": {},
            "modules": {}}
    with Sandbox() as worker:
        worker.load(code, 60)
        said, ran, limits = eval(worker.call([], 60)["message"])
    assert said.pop("clone3") == "OSError"    # "there is no such call", so that the C library takes clone
    assert said == dict.fromkeys(["fork", "a command", "a child", "clone", "shared memory", "fork in a thread"],
                                 "PermissionError")
    assert ran == [1]
    wanted = [sandbox.MEMORY, sandbox.PROCESSOR, guard.FILE, guard.OPEN, 0]
    assert [hard <= most and soft == hard for (soft, hard), most in zip(limits, wanted)] == [True] * 5


# ---------------------------------------------------------------- one notebook and its class


@pytest.mark.parametrize("terms", [300, 980, 990, 1000, 5000])
def test_an_expression_of_many_terms_is_a_row(terms, tmp_path):
    long = f"b{' + b' * (terms - 1)}"
    write(tmp_path / "a.ipynb", f"def f(b):\n    return {long}\ncheck('2.2', f)", f"b = 1\ncheck('2.3', {long})", STUB)
    found = reading.read(tmp_path / "a.ipynb")
    assert found.attempts["2.1"][0].idle
    for id in ("2.2", "2.3"):
        assert len(found.attempts.get(id, [])) == 1 or "recursion depth" in found.unused[id]
        assert terms > 300 or id in found.attempts


def test_of_many_checks_the_last_ones_count_and_of_too_many_none_does(tmp_path):
    lines = "\n".join(["def g(b): return b", *['check("2.2", g)'] * 100])
    write(tmp_path / "many.ipynb", lines, "[" + 'check("2.2", g), ' * 5000 + "]", 'check("2.2", lambda b: b)')
    found = reading.read(tmp_path / "many.ipynb")
    given = [one.expression[2] for one in found.attempts["2.2"]]
    assert given == ["g"] * (notebook.MOST_ATTEMPTS - 1) + ["lambda b: b"]
    write(tmp_path / "one.ipynb", 'check("2.2", g)\n' * 20_000)
    assert "320,000 characters" in reading.read(tmp_path / "one.ipynb").unused["2.2"]
    write(tmp_path / "four.ipynb", "x = 1", 'check("2.2", g)\n' * 5000)
    with pytest.raises(ValueError, match="more than 5,000 statements"):
        reading.read(tmp_path / "four.ipynb")


def test_what_is_read_in_a_process_of_its_own_is_what_is_read_here(tmp_path):
    (tmp_path / "own.py").write_text("import other")
    write(tmp_path / "a.ipynb", "from own import x\n" + RIGHT + CHECK, "def f(", STUB,
          "%%bash\n" + CHECK.replace("1", "3"), "%%timeit\n" + RIGHT + 'check("2.4",\n  (lambda b:\n  "\u00eb"))')
    found = reading.read(tmp_path / "a.ipynb")
    assert found == notebook.read(tmp_path / "a.ipynb")
    assert [len(found.attempts["2.1"]), list(found.modules), len(found.broken), len(found.unused)] == [2, ["own"], 1, 1]


def test_reading_loads_no_torch():
    script = reading.BOOT.replace("print(reading.answer(sys.argv[2]))", "print('torch' in sys.modules)")
    command = [sys.executable, "-I", "-c", script, str(Path(reading.__file__).parents[1])]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


def test_a_class_of_the_worst_files_has_a_row_for_each(tmp_path, monkeypatch):
    folder = tmp_path / "class"
    write(folder / "ann.ipynb", STUB)
    write(folder / "zoe.ipynb", STUB)
    (folder / "link.ipynb").symlink_to("/dev/zero")
    (folder / "nowhere.ipynb").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(folder):    # a socket's path may not be long
            listener.bind("socket.ipynb")
        with open(folder / "huge.ipynb", "wb") as file:
            file.truncate(notebook.LARGEST_FILE + 1)
        (folder / "bomb.ipynb").write_text('{"cells": [' + "{}," * 6_000_000 + "{}]}")
        write(folder / "code.ipynb", *["x = 1\n" * 15_000] * 23)
        os.mkfifo(folder / "own.py")
        write(folder / "module.ipynb", "import own\n" + STUB)
        monkeypatch.setattr(reading, "MEMORY", 250 << 20)
        rows = {row.who: row for row in grading.grade_folder(folder) if row.exercise in ("", "2.1")}
    assert {who: row.state for who, row in rows.items()} == {
        **dict.fromkeys(["ann", "zoe", "module"], "not tried"),
        **dict.fromkeys(["link", "nowhere", "pipe", "socket", "huge", "bomb", "code"], "not read")}
    for who, words in {"link": "a link, a device", "pipe": "a link, a device", "socket": "a link, a device",
                       "huge": "the file has 100 MiB", "bomb": "damaged (MemoryError)",
                       "code": "2,070,000 characters of code"}.items():
        assert words in rows[who].message


def test_a_reading_that_hangs_or_crashes_is_a_row(tmp_path, monkeypatch):
    write(tmp_path / "ann.ipynb", STUB)
    monkeypatch.setattr(reading, "BOOT", "import os; os.abort()")
    [row] = grading.grade_folder(tmp_path)
    assert row[3:5] == ("not read", "the process that reads it has ended: it is too large, or nested too deeply")
    monkeypatch.setattr(reading, "BOOT", "import time; time.sleep(600)")
    monkeypatch.setattr(reading, "SECONDS", 0.2)
    [row] = grading.grade_folder(tmp_path)
    assert row[3:5] == ("not read", "it could not be read within 0.2 seconds.")
    with pytest.raises(TooLong):
        reading.read(tmp_path / "ann.ipynb")


def test_whatever_goes_wrong_with_one_notebook_is_its_row_and_the_next_one_is_graded(tmp_path, monkeypatch):
    for who in ("ann", "bob", "cy"):
        write(tmp_path / who / "02.ipynb", STUB)
    whole = grading.grade_notebook

    def grade_notebook(path, who, name, worker):
        if who == "bob":
            raise MemoryError("full")
        yield from whole(path, who, name, worker)

    monkeypatch.setattr(grading, "grade_notebook", grade_notebook)
    rows = grading.write_csv(grading.grade_folder(tmp_path), tmp_path / "t.csv")
    assert [row.who for row in rows] == ["ann"] * 6 + ["bob"] + ["cy"] * 6
    assert rows[6][2:5] == ("", "not checked", "it could not be graded (MemoryError: full).")


def test_an_exercise_that_cannot_be_checked_is_its_own_row():
    def load(*_):
        raise OSError("no memory for a process")

    attempt = notebook.Attempt([], ("cell 1", 1, "f"), False)
    verdict = grading.grade_attempt(EXERCISES["2.1"], attempt, types.SimpleNamespace(load=load), {})
    assert verdict.state == "not checked"
    assert verdict.message == "it could not be checked (OSError: no memory for a process)."


def test_of_many_attempts_no_more_are_tried_when_the_time_is_over(monkeypatch):
    tried = []
    monkeypatch.setattr(grading, "grade_attempt", lambda *args: tried.append(args) or Verdict("not tried", "x"))
    for end, count in ((float("inf"), 5), (-1.0, 1)):
        tried.clear()
        attempts = [notebook.Attempt([], ("cell 1", 1, "f"), False)] * 5
        grading.grade_exercise(EXERCISES["2.1"], attempts, None, {}, end)
        assert len(tried) == count


def test_a_table_that_is_no_file_is_refused_before_anything_is_graded(tmp_path, capsys, monkeypatch):
    write(tmp_path / "ann.ipynb", STUB)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "full.csv").symlink_to("/dev/full")
    monkeypatch.setattr(grading, "rows_of", lambda *args: pytest.fail("graded before the table was tried"))
    for name in ("pipe.csv", "full.csv"):
        assert main(["grade", str(tmp_path), "--out", str(tmp_path / name)]) == 1
        assert f"{name} is not a file: name another one" in capsys.readouterr().err


# ---------------------------------------------------------------- nothing outlives the grader


def running(mark):
    """The ids of the processes whose command line holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def until(true, seconds=20):
    """Wait until it is true. Returns whether it is."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


STARTER = """
import json, os, subprocess, sys
command = json.loads(sys.argv[1])
command[5] = str(os.getpid())    # guarded's parent
process = subprocess.Popen(command, start_new_session=True)
process.wait()
"""


@needs_linux
@pytest.mark.parametrize("isolated", [pytest.param(True, marks=pytest.mark.skipif(
    not can_isolate(), reason="`unshare` is missing or refused")), False])
def test_a_worker_ends_with_the_process_that_started_it(isolated, scratch):
    mark = f"31416.{os.getpid()}"
    command = ["sleep", mark]
    if isolated:
        command = sandbox.namespace_command(str(scratch), [], command)
    command = guard.guarded(command, 60, sandbox.MEMORY)
    assert command[5] == str(os.getpid())
    starter = subprocess.Popen([sys.executable, "-I", "-S", "-c", STARTER, json.dumps(command)])
    sleeping = [b"sleep", mark.encode(), b""]
    assert until(lambda: any(Path(f"/proc/{n}/cmdline").read_bytes().split(b"\0") == sleeping for n in running(mark)))
    starter.kill()
    starter.wait()
    assert until(lambda: not running(mark))


@needs_linux
def test_a_worker_whose_grader_is_gone_does_not_begin():
    command = guard.guarded(["echo", "begun"], 60, sandbox.MEMORY)
    assert subprocess.run(command, capture_output=True).stdout == b"begun\n"
    command[5] = "1"
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="no such limits")
def test_processor_time_is_limited():
    command = guard.guarded([sys.executable, "-I", "-S", "-c", "while True: pass"], 1, sandbox.MEMORY)
    assert subprocess.run(command, timeout=60).returncode in (-signal.SIGKILL, -signal.SIGXCPU)


@pytest.mark.skipif(guard.fcntl is None, reason="no locks on folders here")
def test_the_folders_of_dead_graders_are_removed_and_no_others(scratch):
    alive, dead = guard.Folder(), guard.Folder()
    (Path(dead.path) / "left").write_text("x")
    os.close(dead.handle)    # as the kernel does at its end
    others = [scratch / "grading-homework", scratch / f"{guard.PREFIX}of-mine", scratch / f"{guard.PREFIX}a_file__"]
    for folder in others[:2]:
        folder.mkdir()
    others[2].write_text("x")
    (scratch / "elsewhere").mkdir()
    (scratch / f"{guard.PREFIX}a_link__").symlink_to(scratch / "elsewhere")
    guard.sweep()
    assert sorted(path.name for path in scratch.iterdir()) == sorted(
        [Path(alive.path).name, *(path.name for path in others), "elsewhere", f"{guard.PREFIX}a_link__"])
    alive.remove()
    assert not Path(alive.path).exists()


@pytest.mark.skipif(guard.fcntl is None, reason="no locks on folders here")
def test_a_folder_that_is_swept_away_while_it_is_made_is_made_again(scratch, monkeypatch):
    made, whole = [], tempfile.mkdtemp

    def mkdtemp(**options):
        made.append(whole(**options))
        if len(made) == 1:
            guard.sweep()    # another grader's, between the making and the lock
            os.makedirs(made[0], exist_ok=True)
            monkeypatch.setattr(guard.fcntl, "flock", lambda *args: os.rmdir(made[0]))
        else:
            monkeypatch.undo()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    folder = guard.Folder()
    assert [Path(path).exists() for path in made] == [False, True]
    assert folder.path == made[1]
    folder.remove()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals")
def test_hup_and_term_end_it_as_an_exception_does():
    before, hung_up = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(SystemExit) as stopped, ending_in_order():
            signal.raise_signal(number)
        assert stopped.value.code == 128 + number
    assert signal.getsignal(signal.SIGTERM) is before
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)    # as nohup leaves it
        with ending_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, hung_up)    # nohup may have left it ignored


def test_a_signal_while_a_worker_is_started_leaves_no_folder(scratch, monkeypatch):
    def stopped(*args, **options):
        raise SystemExit(143)

    monkeypatch.setattr(subprocess, "Popen", stopped)
    with pytest.raises(SystemExit), Sandbox(isolated=False) as worker:
        worker.load({}, 1)
    assert not list(scratch.iterdir())


@pytest.mark.skipif(guard.fcntl is None, reason="no locks on folders here")
def test_a_grading_begins_by_removing_what_a_killed_one_has_left_and_ends_in_order(scratch, tmp_path, monkeypatch):
    dead, seen = guard.Folder(), []
    os.close(dead.handle)
    write(tmp_path / "class" / "ann.ipynb", STUB)

    def rows_of(*_):
        seen.append((signal.getsignal(signal.SIGTERM), Path(dead.path).exists()))
        yield grading.Row("ann", "ann.ipynb", "", "missing", "")

    monkeypatch.setattr(grading, "rows_of", rows_of)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert main(["grade", str(tmp_path / "class")]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    [(handler, left)] = seen
    assert handler is not signal.SIG_DFL
    assert not left


LOOP = "def f(x, *rest):\n    while True:\n        pass\n" + "".join(f"check('2.{k}', f)\n" for k in (2, 3, 4, 6))


@pytest.mark.long
@needs_linux
def test_a_grader_that_is_ended_leaves_the_rows_so_far_and_nothing_else(tmp_path):
    package = str(Path(grading.__file__).parents[2])
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch"),
                   "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    (tmp_path / "scratch").mkdir()
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
    graders = {}
    for number in signals:
        write(tmp_path / number.name / "ann.ipynb", STUB)
        write(tmp_path / number.name / "bob.ipynb", LOOP)
        command = [sys.executable, "-m", "diffusion_lessons", "grade", str(tmp_path / number.name)]
        graders[number] = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL,
                                           preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))

    def rows_of(number):
        table = tmp_path / number.name / "grades.csv"
        if not table.exists():
            return []
        with open(table, newline="", encoding="utf-8-sig") as file:
            return [row["who"] for row in csv.DictReader(file)]

    try:
        for number, grader in graders.items():
            assert until(lambda number=number: len(rows_of(number)) > 6, 200)
            assert grader.poll() is None    # bob's loops go on
            grader.send_signal(number)
            assert grader.wait(120) == (-number if number == signal.SIGKILL else 128 + number)
            assert set(rows_of(number)[6:]) == {"bob"}
            assert len(rows_of(number)) < 12
    finally:
        for grader in graders.values():
            grader.kill()
    assert until(lambda: not running(str(tmp_path)))
    assert len(list((tmp_path / "scratch").iterdir())) == 1     # the killed one's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        guard.sweep()
    assert not list((tmp_path / "scratch").iterdir())


# ---------------------------------------------------------------- spreadsheets and terminals


def test_no_column_of_the_table_is_a_formula_or_steers_a_terminal(tmp_path):
    bad = ["=1+1", "+1", "-1", "@a", "\uff1d1", "\ufe661", "\u22121", " \t=2", "a;=1", "a; \"=1", "\x1b]0;x\x07",
           "\x9b2J", "a\rb", "\u202egnp.exe", "\u200b=1", "\ufeff=1", "\x00", "\x7f", "\u2028=1", "\x08\x08=1"]
    rows = [grading.Row(*[text] * len(grading.Row._fields)) for text in bad]
    grading.write_csv(iter(rows), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8-sig") as file:
        table = list(csv.reader(file))[1:]
    assert len(table) == len(bad)
    for cells in table:
        assert len(set(cells)) == 1    # every column alike
        assert cells[0].isprintable()
        for part in cells[0].split(";"):
            assert part.strip(" \"")[:1] not in tuple("=+-@\uff1d\ufe66\u2212")
    said = grading.summary([row._replace(exercise="2.1") for row in rows])
    assert all(line.isprintable() for line in said.split("\n"))
    assert len(said.split("\n")) == len(bad)


def test_names_of_files_are_shown_and_not_obeyed(tmp_path, capsys):
    write(tmp_path / "\x1b[2J\x1b]0;owned\x07ann" / "=cmd|'!A1.ipynb", STUB)
    write(tmp_path / "=HYPERLINK(1)" / "\u202e+1.ipynb", STUB)
    write(tmp_path / "\u0646\u06cc\u200c\u0645\u06cc" / "02.ipynb", STUB)    # a Persian name, with its joiner
    assert main(["grade", str(tmp_path), "--out", str(tmp_path / "t.csv")]) == 0
    said = capsys.readouterr().out
    assert "\\x1b[2J\\x1b]0;owned\\x07ann" in said
    assert "\u0646\u06cc\u200c\u0645\u06cc" in said
    with open(tmp_path / "t.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {row["who"] for row in rows} == {"\\x1b[2J\\x1b]0;owned\\x07ann", "'=HYPERLINK(1)",
                                            "\u0646\u06cc\u200c\u0645\u06cc"}
    assert "\\u202e+1.ipynb" in {Path(row["notebook"]).name for row in rows}
    for text in (said, *(cell for row in rows for cell in row.values())):
        assert not [c for c in text if not c.isprintable() and c not in "\n\u200c"]
