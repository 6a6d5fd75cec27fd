"""Run the tests that break something on purpose, and write into docs/reliability.md how many cases there were.

    python tools/faults.py                                   all of them, 15 minutes at most
    python tools/faults.py --no-table -- tests/test_cli_failures.py    these alone, and leave the page as it is

They are the tests with the marker `faults`. A test counts as one case, unless it records how many it tries.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

from everywhere import ROOT, TABLE, commit

SECONDS = 14 * 60    # then Ctrl-C; pytest needs a moment to end
BEGIN, END = "<!-- make faults writes this table -->", "<!-- end of the faults -->"
HEAD = ["what is broken", "tests", "cases", "failed", "skipped"]

KINDS = {
    # file of tests: what they break
    "test_checkpoints": "checkpoints: changed bits, kills, two trainings at once",
    "test_training": "trainings that are killed or stopped",
    "test_foreign_weights": "weights: hostile cards, files of something else, kills while saving",
    "test_grading": "answers that attack the grader",
    "test_grading_faults": "notebooks that hang, crash or outlive the grader, or write formulas into its table",
    "test_cli_failures": "the command line: full disks, pipes, damaged files, large counts, Ctrl-C",
    "test_parameters": "numbers from Python that are none",
    "test_stable_diffusion_pipeline": "numbers and sizes of Stable Diffusion's pipeline",
    "test_datasets": "servers that drip, never end, are silent, or send something else",
    "test_odd_environments": "environments: consoles, closed streams, no home, unreadable data, an early Ctrl-C",
    "test_notebooks": "lessons run out of order",
    "test_dangerous_calls": "calls that run code, open shells or ask the network",
    "test_own_pictures": "folders of pictures: broken, hostile and odd files, damaged arrays",
}


def run(tests: list[str], results: Path, seconds: float = SECONDS) -> bool:
    """Run the tests, pytest's XML into `results`.  -> False if the time was not enough for all"""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "--dist", "worksteal",
               "-m", "faults", f"--junitxml={results}", *tests]
    heed = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)    # a shell's & ignores it
    ran = subprocess.Popen(command, cwd=ROOT, preexec_fn=heed)
    try:
        ran.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        ran.send_signal(signal.SIGINT)    # the XML has what has run so far
        try:
            ran.wait(45)
        except subprocess.TimeoutExpired:
            ran.kill()
            ran.wait()
        return False
    except BaseException:
        ran.kill()
        raise


def rows(results: Path) -> list[list[str | int]]:
    """The rows of the table from pytest's XML, one for each kind, and one for all. No XML: no rows."""
    found: dict[str, list[int]] = {}
    for case in xml.parse(results).iter("testcase") if results.exists() else ():
        file = next((part for part in case.get("classname", "").split(".") if part.startswith("test_")), "pytest")
        recorded = [p.get("value") for p in case.iter("property") if p.get("name") == "cases"]
        skipped = case.find("skipped") is not None
        failed = case.find("failure") is not None or case.find("error") is not None
        row = found.setdefault(KINDS.get(file, file), [0, 0, 0, 0])
        for k, more in enumerate((not skipped, 0 if skipped else int(recorded[0]) if recorded else 1, failed, skipped)):
            row[k] += more
    if not found:
        return []
    order = [*KINDS.values(), *found]
    lines = [[kind, *found[kind]] for kind in sorted(found, key=order.index)]
    return [*lines, ["all", *(sum(column) for column in list(zip(*lines))[1:])]]


def write_table(lines: list[list[str | int]], note: str, path: Path = TABLE) -> None:
    """Put the rows and a line about them between the two marks of the page."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    table = ["| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in line) + " |"
             for line in (HEAD, *lines)]
    table.insert(1, "|" + "---|" * len(HEAD))
    path.write_text(before + "\n".join([BEGIN, "", *table, "", note, "", END]) + after, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=[], help="which tests; all that are marked if left out")
    parser.add_argument("--no-table", action="store_true", help="leave docs/reliability.md as it is")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        whole = run(args.tests, results)
        lines = rows(results)
    for line in lines:
        print(*line, sep="\t")
    if not lines:
        print("pytest has written no results")
        return 1
    stopped = "" if whole else ", stopped after 15 minutes, before all had run"
    note = f"{datetime.date.today()}, commit {commit() or 'unknown'}, {os.cpu_count()} cores{stopped}."
    if not args.no_table:
        write_table(lines, note)
    print(note)
    return 0 if whole and not lines[-1][3] else 1


if __name__ == "__main__":
    sys.exit(main())
