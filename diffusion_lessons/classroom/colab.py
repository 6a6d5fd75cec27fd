"""Google Colab: the first cell of every notebook, the links that open one there, and keeping things on a drive.

`make links REPO=owner/name` writes the next two lines, and from them the notebooks' first cells and all links.
This module needs nothing but Python, because tools/links.py reads it where nothing is installed yet.
"""

import os
import sys
from pathlib import Path

REPO = ""  # the course's repository on GitHub, owner/name; empty while nobody has named it
BRANCH = "main"

WITHOUT_ADDRESS = '''\
try:
    import diffusion_lessons
except ImportError:
    raise SystemExit(
        "The package of this course is not installed here.\\n"
        "On your own machine: run `make lab` in the folder of the course.\\n"
        "On Colab: run  %pip install git+https://github.com/OWNER/NAME  in a cell of its own. Fill in OWNER and\\n"
        "NAME from the web address of the repository this notebook comes from; then run this cell again."
    ) from None
'''
WITH_ADDRESS = '''\
try:
    import diffusion_lessons
except ImportError:
    import sys

    if "google.colab" not in sys.modules:
        raise SystemExit(
            "The package of this course is not installed here. Run `make lab` in the folder of the course, or\\n"
            "%pip install ADDRESS"
        ) from None
    %pip install --quiet ADDRESS
    import diffusion_lessons
'''


def address(repo, branch):
    """What pip installs the package from, or "" while no repository is named."""
    return f"git+https://github.com/{repo}@{branch}" if repo else ""


def first_cell(address):
    """The text of each notebook's first code cell: silent where the package is there.

    Without it, Colab installs it from the address (no --upgrade: Colab's own torch and numpy stay); any other machine
    says what to do. address: what pip installs from, or "": then Colab also says what to do.
    """
    return WITH_ADDRESS.replace("ADDRESS", address) if address else WITHOUT_ADDRESS


def link(repo, branch, notebook):
    """The web address that opens a notebook of the repository on Colab. notebook: its file name"""
    return f"https://colab.research.google.com/github/{repo}/blob/{branch}/notebooks/{notebook}"


FIRST_CELL = first_cell(address(REPO, BRANCH))


def keep_on_drive(folder="diffusion_lessons", mount="/content/drive"):
    """On Colab: keep data, outputs and solved exercises in a folder of your Google Drive, where they outlast the day.

    Colab will ask for your permission. The folder becomes the current one, so that checkpoints/ and outputs/ and
    whatever you save by a plain name land in it. On any other machine nothing changes.  -> the folder
    """
    if "google.colab" not in sys.modules:
        print("This is not Colab: what you make stays on this machine anyway.")
        return Path.cwd()
    from google.colab import drive

    drive.mount(mount)
    home = Path(mount, "MyDrive", folder)
    (home / "data").mkdir(parents=True, exist_ok=True)
    os.environ["DIFFUSION_LESSONS_DATA"] = str(home / "data")
    os.environ["DIFFUSION_LESSONS_PROGRESS"] = str(home / "progress.json")
    os.chdir(home)
    print(f"Data, outputs and solved exercises are kept in {home} from now on.")
    return home
