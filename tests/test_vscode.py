"""A lesson as VS Code runs it.

VS Code itself is not started. What its Jupyter extension does differently is done here as it does it: it works in the
notebook's folder, runs lines of its own before the first cell, names each cell by an address in the metadata of the
request, lets a cell that fails stop nothing, and does not send cells that are empty. It shows widgets without
JupyterLab: what they need beyond the three packages that it brings would be fetched from the web. And it shows HTML
without JupyterLab's style sheets.
"""

import re
from pathlib import Path

import nbformat
import pytest
from notebook_runner import WatchingClient, kernel_environment

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "02_adding_noise.ipynb"
BROUGHT = {"@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output"}
COUNT = """
import sys
import ipywidgets as _all
print(len(getattr(_all.widgets.widget, "_instances", None) or _all.Widget.widgets))
"""


class VSCodeClient(WatchingClient):
    """Sends a notebook's cells as VS Code does."""

    def begin(self, path):
        self.path, self.index = path, None
        self.kc.execute = self.send
        for line in ("import sys as _VSCODE_sys\nprint(_VSCODE_sys.executable); del _VSCODE_sys",
                     f'import os\nimport sys\n%cd "{path.parent}"\nif os.getcwd() not in sys.path:\n'
                     "    sys.path.insert(0, os.getcwd())",
                     f"__vsc_ipynb_file__ = {str(path)!r}"):
            self.run(line, store_history=False)

    def send(self, code, store_history=True, **_):
        content = dict(code=code, silent=False, store_history=store_history, user_expressions={}, allow_stdin=True,
                       stop_on_error=False)
        about = {} if self.index is None else {"cellId": f"vscode-notebook-cell:{self.path}#W{self.index}sZmlsZQ%3D%3D"}
        message = self.kc.session.msg("execute_request", content, metadata=about)
        self.kc.shell_channel.send(message)
        return message["header"]["msg_id"]

    def run(self, source, index=None, **how):
        """Run these lines, as the cell of that index if there is one. Returns the cell with its outputs."""
        self.index = index
        cell = nbformat.v4.new_code_cell(source)
        return self.execute_cell(cell, 0, **how)

    def run_all(self):
        for index, cell in enumerate(self.nb.cells):
            self.index = index
            if cell.cell_type == "code" and cell.source.strip():
                self.execute_cell(cell, index)


@pytest.fixture
def opened(tmp_path):
    """A copy of the lesson in a folder of its own, its kernel ready; run from another folder."""
    path = tmp_path / "lessons" / LESSON.name
    path.parent.mkdir()
    path.write_bytes(LESSON.read_bytes())
    environment = kernel_environment(tmp_path) | {"VSCODE_PID": "1", "VSCODE_CWD": "/", "TERM_PROGRAM": "vscode"}
    client = VSCodeClient(nbformat.read(path, as_version=4), timeout=600, kernel_name="python3",
                          resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel(env=environment):
        client.begin(path)
        yield client


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


@pytest.mark.long
def test_a_lesson_runs_as_in_vs_code(opened):
    opened.run_all()
    assert not opened.heard, "\n\n".join(opened.heard)
    assert Path(printed(opened.run("import os\nprint(os.getcwd())")).strip()) == opened.path.parent

    # Widgets: only what VS Code brings, and none left over when a cell is run again.
    opened.set_widgets_metadata()
    models = opened.nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert {model["model_module"] for model in models} <= BROUGHT
    index, cell = next((k, cell) for k, cell in enumerate(opened.nb.cells) if "schedule_explorer(" in cell.source)
    before = printed(opened.run(COUNT))
    again = opened.run(cell.source, index)
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in again.outputs)
    assert int(printed(opened.run(COUNT))) == int(before) > 20

    # Pages: whatever they look like, they do not lean on JupyterLab.
    pages = ["".join(output.data["text/html"]) for cell in opened.nb.cells for output in cell.get("outputs", [])
             if "text/html" in output.get("data", {})]
    assert len(pages) > 10
    assert not [page for page in pages if re.search(r"--jp-|class=.?jp-|<script|require\(", page)]
