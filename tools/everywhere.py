"""Run the tests and all notebooks as other machines would: other kernels, thread counts, versions, Pythons.

    python tools/everywhere.py                       all settings, one by one (hours), into docs/reliability.md
    python tools/everywhere.py --list                which settings there are
    python tools/everywhere.py --only avx2-1 lowest  these alone; the other rows of the table stay as they are
    python tools/everywhere.py --only default-2 --no-table -- tests/test_gan_training.py    only these tests

A processor without AVX-512 uses other kernels than one with it, and sums in another order; so does another number of
threads. What depends on that rounding fails here; what breaks files and processes on purpose (the marker `faults`) does
not depend on it, and runs with other versions only. Kernels that this processor uses anyway are run once: "native" is
"avx2" where there is no AVX-512. The versions are built in .venv-everywhere (5 GB each): the lowest that pyproject.toml
allows, Colab's, and the newest, each on a Python that is found on this machine.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "reliability.md"
ENVIRONMENTS = ROOT / ".venv-everywhere"
BEGIN, END = "<!-- make test-everywhere writes this table -->", "<!-- end of the table -->"
HEAD = ["setting", "processor", "Python", "torch", "passed", "failed", "minutes", "day", "commit"]

# What PyTorch itself, oneDNN and MKL may use of the processor.
KERNELS = {
    "default": dict(ATEN_CPU_CAPABILITY="default", DNNL_MAX_CPU_ISA="SSE41", MKL_ENABLE_INSTRUCTIONS="SSE4_2"),
    "avx2": dict(ATEN_CPU_CAPABILITY="avx2", DNNL_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2"),
    "native": {},
}
THREADS = 1, 2, 4


@dataclass(frozen=True)
class Setting:
    """One way to run everything. versions: None for this environment, or "lowest", "colab", "newest"."""

    name: str
    python: str = ""
    versions: str | None = None
    environ: dict = field(default_factory=dict)


def native(capability: str | None = None) -> str:
    """The name among KERNELS of what this processor uses when nothing is set.

    capability: as torch.backends.cpu.get_cpu_capability() says it, which is asked if it is left out
    """
    if capability is None:
        ask = "import torch; print(torch.backends.cpu.get_cpu_capability())"
        environ = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
        capability = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environ).stdout
    return {"AVX2": "avx2", "DEFAULT": "default", "NO AVX": "default"}.get(capability.strip(), "native")


def settings(here: str) -> list[Setting]:
    """All settings that differ on this processor.  here: what it uses when nothing is set, see `native`"""
    names = list(KERNELS)
    kernels = [Setting(f"{kernel}-{threads}", environ={**KERNELS[kernel], "OMP_NUM_THREADS": str(threads)})
               for kernel in names[: names.index(here) + 1] for threads in THREADS]
    versions = [("lowest", "3.11"), ("newest", "3.11"), ("newest", "3.12"), ("newest", "3.13"), ("colab", "3.13")]
    return kernels + [Setting(f"{which}-py{python}", python, which) for which, python in versions]


def find_python(version: str) -> str | None:
    """The program of that Python: on the PATH, or as pyenv keeps it."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for program in [shutil.which(f"python{version}"), *map(str, kept)]:
        if program and subprocess.run([program, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return program
    return None


def constraints(versions: str) -> list[str]:
    """What pip must keep to: the floors of pyproject.toml, or what Colab has."""
    if versions == "lowest":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return [requirement.replace(">=", "==") for requirement in project["dependencies"]]
    if versions == "colab":
        pins = (ROOT / "tests" / "colab" / "requirements.txt").read_text()
        return [line for line in pins.splitlines() if "==" in line and not line.startswith(("ipykernel", "notebook"))]
    return []


def build(setting: Setting) -> str:
    """The Python of the setting's environment, made if it is not there. Raises RuntimeError with pip's last words."""
    folder = ENVIRONMENTS / setting.name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / ".complete").exists():
        return str(python)
    program = find_python(setting.python)
    if program is None:
        raise RuntimeError(f"Python {setting.python} is not on this machine")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([program, "-m", "venv", str(folder)], check=True)
    pins = folder / "constraints.txt"
    pins.write_text("\n".join(constraints(setting.versions)) + "\n")
    said = subprocess.run([str(python), "-m", "pip", "install", "-q", "-c", str(pins), "-e", f"{ROOT}[test]"],
                          capture_output=True, text=True)
    if said.returncode:
        shutil.rmtree(folder)
        raise RuntimeError("pip: " + said.stderr.strip().splitlines()[-1])
    (folder / ".complete").touch()
    return str(python)


def run(setting: Setting, tests: list[str]) -> tuple[dict[str, str], list[str]]:
    """Run the tests in one setting.  -> (its row of the table, the names of what failed)"""
    row = {"setting": setting.name, "processor": processor(), "day": datetime.date.today().isoformat(),
           "commit": commit()}
    try:
        python = build(setting) if setting.versions else sys.executable
    except RuntimeError as error:
        return row | {"passed": f"not run: {error}"}, []
    ask = "import platform, torch; print(platform.python_version(), torch.__version__.split('+')[0])"
    row["Python"], row["torch"] = subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.split()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", f"--junitxml={results}"]
        command += [*(["-m", "not long and not faults"] if setting.versions is None else []), *tests]
        subprocess.run(command, cwd=ROOT, env=os.environ | setting.environ)
        passed, failed = counts(results)
    return row | {"passed": f"{passed:,}", "failed": str(len(failed)),
                  "minutes": str(round((time.monotonic() - began) / 60))}, failed


def counts(results: Path) -> tuple[int, list[str]]:
    """How many tests passed, and which did not, from pytest's XML; a run that wrote none has failed as a whole."""
    if not results.exists():
        return 0, ["pytest itself"]
    cases = list(xml.parse(results).iter("testcase"))
    bad = [f"{case.get('classname')}::{case.get('name')}" for case in cases
           if any(child.tag in ("failure", "error") for child in case)]
    skipped = sum(any(child.tag == "skipped" for child in case) for case in cases)
    return len(cases) - len(bad) - skipped, bad


def commit(folder: Path = ROOT) -> str:
    """The commit that is tested, with "-dirty" if the files differ from it; "" outside a repository."""
    ask = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    return subprocess.run(ask, cwd=folder, capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return (found[1] if found else platform.processor() or platform.machine()).strip()


def write_row(row: dict[str, str], path: Path = TABLE) -> None:
    """Put one row into the table: in place of the row of that setting and processor, or as a new one."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    table, after = rest.split(END)
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    cells = [row.get(name, "") for name in HEAD]
    new = "| " + " | ".join(cells) + " |"
    mine = "| " + " | ".join(cells[:2]) + " |"
    if any(line.startswith(mine) for line in lines):
        lines = [new if line.startswith(mine) else line for line in lines]
    else:
        lines.append(new)
    head = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    path.write_text(before + "\n".join([BEGIN, "", *head, *lines, "", END]) + after, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=[], help="which tests; all but the long ones if left out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="settings whose names begin with one of these")
    parser.add_argument("--list", action="store_true", help="name the settings and stop")
    parser.add_argument("--no-table", action="store_true", help="leave docs/reliability.md as it is")
    args = parser.parse_args(arguments)
    here = native()
    known = settings(here)
    if here != "native":
        print(f"This processor's native kernels are those of {here}: they run once, under that name.")
    only = tuple(re.sub("^native", here, name) for name in args.only or [""])
    chosen = [s for s in known if s.name.startswith(only)]
    if not chosen:
        parser.error(f"no setting is called {' or '.join(args.only)}; known are {' '.join(s.name for s in known)}")
    if args.list:
        print(*(s.name for s in chosen), sep="\n")
        return 0
    bad = False
    for setting in chosen:
        print(f"=== {setting.name}: {setting.environ or setting.versions}", flush=True)
        row, failed = run(setting, args.tests)
        print(f"=== {setting.name}: {row['passed']} passed, {len(failed)} failed", *failed, sep="\n    ", flush=True)
        bad |= bool(failed)
        if not args.no_table:
            write_row(row)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
