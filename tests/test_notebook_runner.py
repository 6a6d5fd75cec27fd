"""The runner must see what others miss, and must not cry wolf."""

import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_runner
import pytest
from notebook_runner import run_notebook

RUNNER = Path(__file__).with_name("notebook_runner.py")


@pytest.fixture
def notebook(tmp_path):
    def make(*cells, name="tiny.ipynb"):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        path = tmp_path / name
        nbformat.write(nb, path)
        return path

    return make


def failure(path, **options):
    report = run_notebook(path, timeout=60, **options)
    assert report.errors, "the runner saw nothing wrong"
    return "\n".join(report.errors)


GOOD = """
import ipywidgets as w
import matplotlib.pyplot as plt
seen = []
def draw(n, name, check):
    seen.append((n, name, check))
    plt.plot([0, n])
w.interact(draw, n=w.IntSlider(3, 1, 9), name=["a", "b"], check=True)
button, play, box = w.Button(), w.Play(min=0, max=4), w.Text("frog")
button.on_click(lambda _: seen.append("click"))
play.observe(lambda change: seen.append(change["new"]), "value")
"""


def test_a_good_notebook_with_widgets_passes_and_each_is_moved(notebook, tmp_path):
    mark = tmp_path / "seen.txt"
    record = f"import atexit; atexit.register(lambda: open({str(mark)!r}, 'w').write(repr(seen)))"
    report = run_notebook(notebook(GOOD, record), out=tmp_path / "out")
    assert report.errors == []
    assert report.moves >= 3 + 2 + 2 + 1 + 2 + 2
    seen = mark.read_text()
    for event in ("(1, 'a', True)", "(9, 'a', True)", "(3, 'b', True)", "(3, 'a', False)", "'click'", " 4"):
        assert event in seen, f"{event} was never reached in {seen}"
    executed = nbformat.read(tmp_path / "out" / "tiny.ipynb", as_version=4)
    assert len(executed.cells) == 2, "the runner's own cell was left in the copy"
    assert executed.cells[0].outputs
    assert executed.cells[0].execution_count == 1


def test_a_raised_error_fails_and_names_the_cell(notebook):
    words = failure(notebook("x = 1", "y = x / 0"))
    assert "ZeroDivisionError" in words
    assert "y = x / 0" in words


def test_a_cell_that_says_it_raises_may_raise(notebook, tmp_path):
    path = notebook("1 / 0", "print('still here')")
    nb = nbformat.read(path, as_version=4)
    nb.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(nb, path)
    assert run_notebook(path).errors == []


def test_interact_that_always_raises_fails(notebook):
    source = "from ipywidgets import interact\n@interact(n=(0, 9))\ndef f(n):\n    raise KeyError('always')"
    assert "always" in failure(notebook(source), move_widgets=False)


def test_interact_that_raises_at_its_upper_end_fails(notebook):
    source = "from ipywidgets import interact\n@interact(n=(0, 9))\ndef f(n):\n    list(range(9))[n]"
    path = notebook(source)
    assert run_notebook(path, move_widgets=False).errors == [], "the error must need a moved slider"
    assert "IndexError" in failure(path)


def test_observe_that_raises_fails(notebook):
    source = """
import ipywidgets as w
s = w.FloatSlider(min=0, max=1)
def changed(change):
    if change["new"] == 1:
        raise ArithmeticError("too far")
s.observe(changed, "value")
"""
    assert "too far" in failure(notebook(source))


def test_a_button_whose_handler_raises_fails(notebook):
    source = "import ipywidgets as w\nb = w.Button()\nb.on_click(lambda _: undefined_name)\nb"
    assert "undefined_name" in failure(notebook(source))


def test_a_menu_whose_last_entry_raises_fails(notebook):
    source = """
import ipywidgets as w
out = w.Output()
menu = w.Dropdown(options=["ddim", "ddpm", "oops"])
def changed(change):
    with out:
        assert change["new"] != "oops", "no such sampler"
menu.observe(changed, "value")
"""
    assert "no such sampler" in failure(notebook(source))


def test_a_thread_and_a_task_that_fail_unseen_are_heard(notebook):
    thread = "import threading\nt = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    assert "ZeroDivisionError" in failure(notebook(thread))
    task = """
import asyncio, ipywidgets as w
async def late():
    raise LookupError("afterwards")
b = w.Button()
b.on_click(lambda _: asyncio.ensure_future(late()) and None)
"""
    assert "afterwards" in failure(notebook(task))


@pytest.mark.parametrize(
    "source",
    [
        "import urllib.request; urllib.request.urlopen('http://example.com', timeout=5)",
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    ],
)
def test_the_network_is_cut(notebook, source):
    # Without the proxy, so that the block itself is what refuses.
    plain = "import os\nfor n in list(os.environ):\n    if n.lower().endswith('_proxy'): del os.environ[n]"
    assert "the notebook runner has cut the network" in failure(notebook(plain, source))


def test_the_network_is_cut_in_other_processes_and_open_to_this_machine(notebook):
    source = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5).close()
code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
assert "has cut the network" in said.stderr, said
"""
    assert run_notebook(notebook(source)).errors == []


def test_a_cell_without_end_fails(notebook):
    words = "\n".join(run_notebook(notebook("while True: pass"), timeout=3).errors)
    assert "while True" in words


def test_a_dead_kernel_fails(notebook):
    assert "died" in failure(notebook("import os; os._exit(1)"))


def test_runs_in_a_folder_of_its_own(notebook, tmp_path):
    path = notebook("open('made_here.txt', 'w').write('x')")
    assert run_notebook(path).errors == []
    assert not (tmp_path / "made_here.txt").exists()


def test_exercises_and_predictions_of_a_run_are_in_nobodys_record(notebook, monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFUSION_LESSONS_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = 'predict("1.a", "Which?", choices=["this", "that"])\nassert record.path().parent.samefile(".")'
    report = run_notebook(notebook("from diffusion_lessons.exercises import predict, record\n" + source))
    assert report.errors == []
    assert report.moves >= 3    # which notes an answer
    assert not (tmp_path / "home" / ".diffusion_lessons").exists()


def test_cells_afterwards_meet_what_the_notebook_left_and_stay_out_of_the_copy(notebook, tmp_path):
    path = notebook("x = 20", "x += 1")
    report = run_notebook(path, out=tmp_path / "out", afterwards=["x *= 2", "x"])
    assert report.errors == []
    assert report.afterwards[1].outputs[0]["data"]["text/plain"] == "42"
    assert len(nbformat.read(tmp_path / "out" / path.name, as_version=4).cells) == 2
    assert "ZeroDivisionError" in failure(path, afterwards=["x / 0", "x"])


def test_a_copy_is_fresh_until_the_notebook_or_the_package_changes(notebook, tmp_path, monkeypatch):
    package = tmp_path / "diffusion_lessons"
    package.mkdir()
    (package / "module.py").write_text("a = 1")
    monkeypatch.setattr(notebook_runner, "PACKAGE", package)
    path, copy = notebook("1 + 1"), tmp_path / "out" / "tiny.ipynb"
    assert not notebook_runner.is_fresh(copy, path), "there is no copy yet"
    report = run_notebook(path, out=tmp_path / "out")
    assert report.errors == []
    assert notebook_runner.is_fresh(copy, path)
    (package / "module.py").write_text("a = 2")
    assert not notebook_runner.is_fresh(copy, path)
    (package / "module.py").write_text("a = 1")
    assert notebook_runner.is_fresh(copy, path)
    notebook("1 + 2")
    assert not notebook_runner.is_fresh(copy, path)


def test_a_copy_with_an_error_is_never_fresh(notebook, tmp_path):
    path = notebook("1 / 0")
    assert run_notebook(path, out=tmp_path / "out").errors
    assert not notebook_runner.is_fresh(tmp_path / "out" / path.name, path)


def test_the_command_prints_seconds_and_fails_with_one_bad_notebook(notebook):
    good, bad = notebook("1 + 1", name="good.ipynb"), notebook("1 / 0", name="bad.ipynb")
    command = [sys.executable, str(RUNNER)]
    said = subprocess.run([*command, str(good)], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "good.ipynb ... " in said.stdout
    assert " s, and " in said.stdout
    said = subprocess.run([*command, str(good), str(bad)], capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    assert "FAILED in bad.ipynb" in said.stdout
    assert "ZeroDivisionError" in said.stdout
    said = subprocess.run([*command, "absent.ipynb"], capture_output=True, text=True, timeout=120)
    assert said.returncode == 2
