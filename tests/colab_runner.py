"""Run every notebook as Google Colab would: alone in an empty folder, where its first cell installs the package.

    make test-colab                                        all notebooks
    make test-colab ARGS=notebooks/02_adding_noise.ipynb   some of them

tests/colab/build makes the environment, with Colab's versions of what matters; tests/colab/google stands in for
Colab's own package. The first cell gets the address of a local git repository, which holds the working tree as it
is, and pip gets no index: a dependency that Colab lacks, or a torch to be replaced, shows as a failure.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import nbformat
from notebook_runner import run_notebook

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = "diffusion-lessons"
SHOWN = ("torch", "torchvision", "numpy", "matplotlib", "ipython", "ipykernel", "ipywidgets", "scikit-image")
LOAD_ALL_WEIGHTS = """
import json, sys
from diffusion_lessons import weights
for name in weights.available():
    weights.load(name)
print(json.dumps([weights.available(), sorted(path.name for path in weights.FOLDER.rglob("*.*"))]))
"""


def snapshot(root, folder):
    """Copy the working tree as it is, uncommitted changes too, into a git repository.  -> its address for pip"""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (root / name).is_file():  # not if it has been deleted, but not yet in git
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "As it is")
    return f"git+{folder.as_uri()}@main"


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def alone(path, folder, cell):
    """A copy of the notebook in this folder, with this first code cell.  -> its path"""
    nb = nbformat.read(path, as_version=4)
    next(c for c in nb.cells if c.cell_type == "code").source = cell.rstrip("\n")
    nbformat.write(nb, folder / path.name)
    return folder / path.name


def versions():
    """{name: version} of all that is installed here."""
    return {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}


def python(*arguments, **how):
    """Run this environment's Python where the repository cannot be seen."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, **how)


def prepare():
    """Make this environment's every Python start like Colab's, and its pip do without an index."""
    stand_in = Path(sysconfig.get_path("purelib"), "stand_in_for_colab.pth")
    stand_in.write_text(f"{TESTS / 'colab'}\nimport google.colab\n")  # on Colab too the kernel has imported it
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(Path(sys.prefix, "wheels")), PIP_ROOT_USER_ACTION="ignore")
    os.environ.update(PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1", PYDEVD_DISABLE_FILE_VALIDATION="1")


def try_one(path, address, out):
    """Run one notebook in a fresh Colab.  -> (its Report, what has gone wrong)"""
    from_colab = (ROOT / "diffusion_lessons" / "classroom" / "colab.py").read_text(encoding="utf-8")
    names = {}
    exec(from_colab, names)  # not imported: the package must not be here
    python("-m", "pip", "uninstall", "--quiet", "--yes", PACKAGE, check=True)
    before = versions()
    if PACKAGE in before or python("-c", "import diffusion_lessons").returncode == 0:
        return None, [f"{PACKAGE} is there before the first cell has run"]
    with tempfile.TemporaryDirectory(prefix="colab-") as folder:
        copy = alone(path, Path(folder), names["first_cell"](address))
        report = run_notebook(copy, out=out, importable=())
    after = versions()
    wrong = list(report.errors)
    if after.pop(PACKAGE, None) is None:
        wrong.append("the first cell has not installed the package")
    if after != before:
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        wrong.append("the first cell has changed what Colab brings: " + ", ".join(sorted(changed)))
    return report, wrong


def weights_that_came_along():
    """Load all weights of the installed package.  -> what is wrong with them"""
    said = python("-c", LOAD_ALL_WEIGHTS)
    if said.returncode:
        return [f"weights of the installed package: {said.stderr[-1000:]}"]
    names, files = json.loads(said.stdout)
    here = ROOT / "diffusion_lessons" / "pretrained"
    missing = sorted({path.name for path in here.rglob("*.*")} - set(files))
    print(f"{len(names)} sets of weights came with the package and are whole")
    return [f"not installed with the package: {', '.join(missing)}"] if missing else []


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Run notebooks as Google Colab would.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the executed copies")
    options = parser.parse_args(arguments)
    if not Path(sys.prefix, ".like-colab").exists():
        parser.error("this installs and uninstalls: call it by `make test-colab`, in an environment of its own")
    prepare()
    has = {name.lower(): version for name, version in versions().items()}
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {has[name]}" for name in SHOWN))
    failed = []
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        address = snapshot(ROOT, Path(folder).resolve())
        for path in options.notebooks:
            print(f"{path.name} ...", end=" ", flush=True)
            report, wrong = try_one(path, address, options.out)
            print(f"{report.seconds:.1f} s, and {report.widget_seconds:.1f} s for {report.moves} widget moves"
                  if report else "not run")
            for error in wrong:
                print(f"FAILED in {path.name}, {error}\n", flush=True)
            failed += wrong
    if not failed:
        failed = weights_that_came_along()
        print(*failed, sep="\n", end="\n" if failed else "")
    good = "Every first cell installed the package and changed nothing else."
    print(f"{len(failed)} faults" if failed else good)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
