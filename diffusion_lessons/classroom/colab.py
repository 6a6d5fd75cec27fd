"""Google Colab: the first cell of every notebook, the links that open it there, files that come and go.

`make links REPO=owner/name` writes the next two lines, and from them the first cells of the notebooks and all links.
This module imports nothing but the standard library, because tools/links.py reads it before anything is installed.
"""

import os
import sys
import zipfile
from pathlib import Path

REPO = ""  # the course's repository on GitHub, owner/name; empty until it has one
BRANCH = "main"

WITHOUT_ADDRESS = '''\
try:
    import diffusion_lessons
except ImportError:
    raise SystemExit(
        "This course's package is not installed here.\\n"
        "On your own machine: run `make lab` in the course's folder.\\n"
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
            "This course's package is not installed here. Run `make lab` in the course's folder, or\\n"
            "%pip install ADDRESS"
        ) from None
    %pip install --quiet ADDRESS
    import diffusion_lessons
'''


def address(repo: str, branch: str) -> str:
    """What pip installs the package from, or "" without a repository."""
    return f"git+https://github.com/{repo}@{branch}" if repo else ""


def first_cell(address: str) -> str:
    """The text of each notebook's first code cell, which does nothing where the package is installed.

    Elsewhere it installs the package on Colab (without --upgrade, so that Colab keeps its torch and numpy), and says
    what to do on any other machine.  address: what pip installs from; if "", it says what to do on Colab too
    """
    return WITH_ADDRESS.replace("ADDRESS", address) if address else WITHOUT_ADDRESS


def link(repo: str, branch: str, notebook: str) -> str:
    """The web address that opens a notebook of the repository on Colab.  notebook: its file name"""
    return f"https://colab.research.google.com/github/{repo}/blob/{branch}/notebooks/{notebook}"


FIRST_CELL = first_cell(address(REPO, BRANCH))


def keep_on_drive(folder: str = "diffusion_lessons", mount: str = "/content/drive") -> Path:
    """On Colab: keep data, outputs and solved exercises in a folder of your Google Drive, where they are not deleted.

    Colab will ask for your permission. The folder becomes the current one, so that checkpoints/, outputs/ and
    anything saved without a path land in it. On any other machine nothing changes.  -> the folder
    """
    if "google.colab" not in sys.modules:
        print("This is not Colab: your files stay on this machine anyway.")
        return Path.cwd()
    from google.colab import drive

    drive.mount(mount)
    home = Path(mount, "MyDrive", folder)
    (home / "data").mkdir(parents=True, exist_ok=True)
    os.environ["DIFFUSION_LESSONS_DATA"] = str(home / "data")
    os.environ["DIFFUSION_LESSONS_PROGRESS"] = str(home / "progress.json")
    os.chdir(home)
    print(f"Data, outputs and solved exercises will be kept in {home} from now on.")
    return home


def upload(folder: str | Path = "my_pictures") -> Path:
    """On Colab: choose pictures, or a .zip of them, on your own machine; they are put into the folder.

    On any other machine nothing is uploaded: put the pictures into the folder yourself.  -> the folder
    Raises ValueError, which says what to do, for a .zip that is damaged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if "google.colab" not in sys.modules:
        print(f"This is not Colab: put your pictures into {folder.absolute()}, or name their own folder.")
        return folder
    from google.colab import files

    for name, content in files.upload().items():
        path = folder / Path(name).name
        path.write_bytes(content)
        if path.suffix.lower() == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)    # no member lands outside the folder, whatever its name
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
                raise ValueError(f"{name} cannot be unpacked ({error}): upload it again, without a password") from error
            finally:
                path.unlink()
    print(f"{sum(path.is_file() for path in folder.rglob('*'))} files are in {folder}")
    return folder


def download(*paths: str | Path) -> None:
    """On Colab: download files to your own machine. On any other machine: print where they are."""
    if "google.colab" in sys.modules:
        from google.colab import files

        for path in paths:
            files.download(str(path))
    else:
        print("They are on this machine already: " + ", ".join(map(str, paths)))
