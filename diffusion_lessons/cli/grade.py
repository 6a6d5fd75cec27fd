"""diffusion-lessons grade: the exercises in a folder of notebooks, for lecturers."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion_lessons.cli.options import file_name

SUMMARY = "grade the exercises in a folder of notebooks, for lecturers"
DESCRIPTION = ("Grade the exercises in a folder of notebooks, and write a table (CSV). Learners' functions run in "
               "processes of their own.")
EXAMPLES = """examples:
  all notebooks in a folder and below; the table is homework/grades.csv
    {prog} grade homework
  the table somewhere else
    {prog} grade homework --out lesson02.csv

A learner is named after the folder that the notebook lies in, such as ann or
section1/ann; a notebook in the given folder itself is named after its file.
docs/instructors.md says how it works, and what it cannot see.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", type=Path, help="where the notebooks are, in it or below")
    parser.add_argument("--out", type=file_name(".csv"), metavar="PATH", help="the table (default FOLDER/grades.csv)")


def run(options: argparse.Namespace) -> int:
    """Grade, write the table, and print a line for each learner."""
    from diffusion_lessons import grading

    out = options.out or options.folder / "grades.csv"
    with ending_in_order():
        rows = grading.write_csv(grading.grade_folder(options.folder, progress=True), out)
    print(grading.summary(rows))
    if any(row.isolated == "not isolated" for row in rows):
        print("Not isolated: here the learners' code ran with your rights and your network. See docs/instructors.md.")
    print(f"{len(rows)} rows written to {out}")
    return 0


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """In here, SIGTERM and SIGHUP end the program as an exception does, so that the learners' processes end first."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in signals if signal.getsignal(number) is signal.SIG_DFL]    # nohup ignores SIGHUP
    if threading.current_thread() is not threading.main_thread():
        ours = []
    try:
        for number in ours:
            signal.signal(number, end)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
