"""Run notebooks without a browser, and see the errors that other runners miss.

    python tests/notebook_runner.py notebooks/*.ipynb --out build/notebooks

A notebook passes when every cell runs, no widget's callback fails, and nothing needed the network.
Callbacks of `interact` and of buttons swallow their exceptions: the cell that made them succeeds and the
traceback travels alone, as a message. So this runner reads every message, and afterwards moves each slider,
menu and button.
"""

import argparse
import copy
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete, CellExecutionError, CellTimeoutError, DeadKernelError

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "diffusion_lessons"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Report:
    """What happened to one notebook. It is good when `errors` is empty."""

    path: Path
    seconds: float = 0.0  # running the cells
    widget_seconds: float = 0.0  # moving the widgets afterwards
    moves: int = 0  # how many moves and clicks that were
    errors: list = field(default_factory=list)
    notebook: nbformat.NotebookNode = None  # executed, as it was before the widgets were moved
    afterwards: list = field(default_factory=list)  # the executed cells that were asked for after the last one


class WatchingClient(NotebookClient):
    """A NotebookClient that keeps every error it hears of, whoever swallowed it."""

    def __init__(self, nb, **settings):
        super().__init__(nb, **settings)
        self.heard = []

    async def _async_poll_output_msg(self, parent_msg_id, cell, cell_index):
        # nbclient's own loop drops what does not answer the running cell: errors of late callbacks, for one.
        while True:
            msg = await self.kc.iopub_channel.get_msg(timeout=None)
            self.listen(msg, cell, cell_index)
            if msg["parent_header"].get("msg_id") == parent_msg_id:
                try:
                    self.process_message(msg, cell, cell_index)
                except CellExecutionComplete:
                    return

    def listen(self, msg, cell, cell_index):
        """Note an error message, an error put into an Output widget, or a traceback on stderr."""
        if "raises-exception" in cell.metadata.get("tags", []):
            return
        kind, content = msg["msg_type"], msg["content"]
        if kind == "error":
            self.note(cell, cell_index, content)
        elif kind == "stream" and content["name"] == "stderr" and TRACEBACK in content["text"]:
            self.note(cell, cell_index, {"traceback": [content["text"]]})
        elif kind.startswith("comm"):
            outputs = content.get("data", {}).get("state", {}).get("outputs") or []
            for output in outputs:
                if output.get("output_type") == "error":
                    self.note(cell, cell_index, output)

    def note(self, cell, cell_index, error):
        words = "\n".join(error.get("traceback", [])) or f"{error.get('ename')}: {error.get('evalue')}"
        where = cell.metadata.get("runner") or f"cell {cell_index}:\n{indent(cell.source)}"
        text = f"{where}\n{COLOURS.sub('', words).rstrip()}"
        if text not in self.heard:
            self.heard.append(text)


def indent(text):
    return "\n".join("    " + line for line in text.splitlines())


def kernel_environment(folder, importable=(TESTS.parent,)):
    """The environment of the kernel: no network, no user's settings, what lies in these folders importable."""
    environment = dict(os.environ)
    # A folder with a sitecustomize.py, so that the block also holds in processes that a notebook starts.
    paths = [str(TESTS / "no_network"), *map(str, importable), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # curl, git and pip do not go through Python's sockets: point them at a proxy that nobody runs.
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy"):
        environment[name] = environment[name.upper()] = "http://127.0.0.1:9"
    environment["no_proxy"] = environment["NO_PROXY"] = "localhost,127.0.0.1,::1"
    environment["IPYTHONDIR"] = str(Path(folder) / ".ipython")
    environment.setdefault("DIFFUSION_LESSONS_PROGRESS", str(Path(folder) / "progress.json"))
    environment.pop("MPLBACKEND", None)  # or the kernel would not draw inline
    return environment


def run_notebook(path, timeout=600, out=None, move_widgets=True, importable=(TESTS.parent,), afterwards=()):
    """Run one notebook in a copy, in a folder of its own, and return its Report.

    timeout: seconds that one cell may take;  out: a folder for the executed copy, or None;
    importable: folders that its imports may come from: the course's own, as a rule;
    afterwards: sources of further cells, run in the same kernel after the last one and kept out of the copy.
    """
    path = Path(path)
    report = Report(path)
    nb = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        resources = {"metadata": {"path": folder}}
        client = WatchingClient(nb, timeout=timeout, kernel_name="python3", resources=resources)
        client.reset_execution_trackers()
        environment = kernel_environment(folder, importable)
        said = Path(folder) / ".kernel-stderr"  # what the kernel's process says itself
        try:
            with said.open("wb") as stderr, client.setup_kernel(env=environment, stderr=stderr):
                run_cells(client, report)
                if not report.errors and not client.heard:
                    run_afterwards(client, report, afterwards)
                if move_widgets and not report.errors and not client.heard:
                    run_widgets(client, report)
        except DeadKernelError:
            report.errors.append("the kernel died and said:\n" + said.read_text(errors="replace")[-2000:])
    report.errors = client.heard + report.errors
    if not report.errors:
        report.notebook.metadata["made_from"] = fingerprint(path)
    if out is not None:
        write(report.notebook, Path(out) / path.name)
    return report


def write(notebook, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def is_fresh(target, source):
    """Whether `target` is this notebook, run without a fault on the package as it is now: nobody need run it again."""
    try:
        return nbformat.read(target, as_version=4).metadata.get("made_from") == fingerprint(source)
    except (OSError, ValueError):
        return False


def fingerprint(source):
    """A digest of a notebook, of all the package's files and of the libraries that change its results."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "matplotlib", "ipywidgets")]
    digest = hashlib.sha256("\n".join(versions).encode())
    for file in [Path(source), *files]:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def run_cells(client, report):
    start = time.perf_counter()
    report.notebook = client.nb
    try:
        execute_from(client, report, 0)
    finally:
        report.seconds = time.perf_counter() - start
        client.set_widgets_metadata()
        report.notebook = copy.deepcopy(client.nb)


def run_afterwards(client, report, sources):
    """Append these cells and run them, for their outputs alone."""
    first = len(client.nb.cells)
    client.nb.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    execute_from(client, report, first)
    report.afterwards = copy.deepcopy(client.nb.cells[first:])


def execute_from(client, report, first):
    """Run the cells from the index `first` on, up to the first that fails."""
    for index, cell in enumerate(client.nb.cells[first:], first):
        try:
            client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
        except CellTimeoutError as error:
            report.errors.append(f"cell {index}:\n{indent(cell.source)}\n{error}")
            return
        except CellExecutionError as error:
            if not client.heard:  # as a rule its message has been heard, and one mention is enough
                report.errors.append(COLOURS.sub("", str(error)))
            return


def run_widgets(client, report):
    """Append a cell that moves every widget, run it, and read off what it says."""
    start = time.perf_counter()
    source = (TESTS / "widget_mover.py").read_text(encoding="utf-8") + "\nawait move_all()\n"
    cell = nbformat.v4.new_code_cell(source, metadata={"runner": "after the last cell, moving the widgets:"})
    client.nb.cells.append(cell)
    try:
        client.execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    except (CellExecutionError, CellTimeoutError) as error:
        report.errors.append(f"moving the widgets: {COLOURS.sub('', str(error)[-2000:])}")
    report.widget_seconds = time.perf_counter() - start
    said = "".join(o.get("text", "") for o in cell.outputs if o.output_type == "stream")
    for count in re.findall(r"^widget moves: (\d+)$", said, flags=re.MULTILINE):
        report.moves += int(count)
    report.errors += re.findall(r"<<widget error\n(.*?)\n>>", said, flags=re.DOTALL)


def write_times(seconds):
    """Write what lessons took, beside this machine's speed, to where `minutes.how_long` reads it."""
    sys.path.insert(0, str(TESTS.parent))
    from diffusion_lessons.classroom import minutes

    times = {"speed": round(minutes.speed(3), 2), "seconds": seconds}
    minutes.FILE.write_text(json.dumps(times, indent=1) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Run notebooks headless and fail on any error.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the executed copies")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one cell (default 600)")
    parser.add_argument("--no-widgets", action="store_true", help="do not move the widgets afterwards")
    parser.add_argument("--times", action="store_true", help="write down how long each takes: for a quiet machine")
    options = parser.parse_args(arguments)

    absent = [str(path) for path in options.notebooks if not path.is_file()]
    if absent:
        parser.error("no such notebook: " + ", ".join(absent))
    failed, seconds = 0, {}
    for path in options.notebooks:
        print(f"{path.name} ...", end=" ", flush=True)
        report = run_notebook(path, options.timeout, options.out, not options.no_widgets)
        print(f"{report.seconds:.1f} s, and {report.widget_seconds:.1f} s for {report.moves} widget moves")
        for error in report.errors:
            print(f"FAILED in {path.name}, {error}\n", flush=True)
        failed += bool(report.errors)
        seconds[path.stem.split("_")[0]] = round(report.seconds, 1)
    if options.times and not failed:
        write_times(seconds)
    print(f"{len(options.notebooks) - failed} of {len(options.notebooks)} notebooks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
