"""What the browser tests need: a Chromium, and a JupyterLab of their own."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from notebook_runner import kernel_environment

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome",
         "/Applications/Chromium.app/Contents/MacOS/Chromium",
         "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
NO_CHROMIUM = """The browser tests need Chromium, and none was found. Install it and call make test-browser again:
    Debian or Ubuntu  sudo apt install chromium
    Fedora            sudo dnf install chromium
    macOS             brew install --cask chromium
or give the path of the one you have: make test-browser CHROMIUM=/path/to/chromium"""
SETTINGS = {
    # Render all cells, even those outside the window, so that tests and screenshots can find them.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def find_chromium():
    """The path of a Chromium.  Raises FileNotFoundError that says how to get one."""
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"CHROMIUM={named} is no program.\n{NO_CHROMIUM}" if named else NO_CHROMIUM)


class Lab:
    """A running JupyterLab or Notebook 7: its address, its folder, and its log."""

    def __init__(self, folder, port, said, app):
        self.folder, self.said, self.app = folder, said, app
        self.root, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)

    def url(self, name):
        """The address of a notebook."""
        place = "lab/tree" if self.app == "jupyterlab" else "notebooks"
        return f"{self.root}/{place}/{name}?reset&token={self.token}"

    def ask(self, path, method="GET"):
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.root}/api/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def stop_kernels(self):
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


@contextmanager
def running_lab(folder, app="jupyterlab", timeout=240):
    """JupyterLab, or Notebook 7 (app="notebook"), on loopback, with settings and records of its own: nobody's are read,
    nobody's are changed.
    """
    folder = Path(folder)
    work = folder / "notebooks"
    work.mkdir()
    for name, values in SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "DIFFUSION_LESSONS_PROGRESS": "progress.json"}
    environment = kernel_environment(folder) | {name: str(folder / place) for name, place in own.items()}
    port = free_port()
    lab = Lab(work, port, folder / "server.log", app)
    environment["JUPYTER_TOKEN"] = lab.token
    command = [sys.executable, "-m", app, str(work), "--no-browser", "--allow-root",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with lab.said.open("wb") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        wait_for(lab, server, timeout)
        yield lab
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with suppress(ProcessLookupError):      # what it left behind, such as its kernels
            os.killpg(server.pid, signal.SIGKILL)


def wait_for(lab, server, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end and server.poll() is None:
        try:
            return lab.ask("status")
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"{lab.app} did not start within {timeout} s and said:\n{lab.said.read_text()[-3000:]}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
