"""diffusion-lessons grade: the exercises in a folder of notebooks, for lecturers."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lessons.cli.options import check_out, file_name

if TYPE_CHECKING:
    from diffusion_lessons.grading.submissions import Points
    from diffusion_lessons.grading.worksheet import Worksheet

SUMMARY = "grade the exercises in a folder of notebooks, for lecturers"
DESCRIPTION = ("Grade the exercises in a folder of notebooks, and write a table (CSV). Learners' functions run in "
               "processes of their own.")
EXAMPLES = """examples:
  all notebooks in a folder and below; the table is homework/grades.csv
    {prog} grade homework
  the table somewhere else
    {prog} grade homework --out lesson02.csv
  points too, one for each exercise of lesson 02; they are homework/grades_points.csv
    {prog} grade homework --points 02
  chosen exercises, with points of their own
    {prog} grade homework --points 2.1,2.2,2.6=3
  a download of Moodle or Canvas, and its grading worksheet or gradebook to fill in
    {prog} grade download --points 02 --worksheet Grades.csv
    {prog} grade download --points 02 --worksheet Gradebook.csv --column "Lesson 02"

A learner is named after the folder that the notebook lies in, such as ann or
section1/ann; a notebook in the given folder itself is named after its file.
docs/instructors.md says how it works, and what it cannot see.
"""
NOT_ISOLATED = "Not isolated: here the learners' code ran with your rights and your network. See docs/instructors.md."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", type=Path, help="where the notebooks are, in it or below")
    parser.add_argument("--out", type=file_name(".csv"), metavar="PATH", help="the table (default FOLDER/grades.csv)")
    parser.add_argument("--points", metavar="EXERCISES",
                        help="also write points for these: 02 (a notebook), 2.1=2,2.3 (exercises) or both")
    parser.add_argument("--worksheet", type=file_name(".csv"), metavar="PATH",
                        help="also fill in this table of Moodle or Canvas; goes with --points")
    parser.add_argument("--column", metavar="TITLE",
                        help="its column for the grades (default: Moodle's Grade, or Canvas's only assignment)")


def run(options: argparse.Namespace) -> int:
    """Grade, write the tables, and print a line for each learner.  Raises ValueError for options that do not fit."""
    from diffusion_lessons import grading
    from diffusion_lessons.grading import submissions, worksheet

    out = options.out or options.folder / "grades.csv"
    worth = submissions.points_of(options.points) if options.points is not None else {}
    if (options.worksheet and not worth) or (options.column and not options.worksheet):
        raise ValueError("--worksheet needs --points, which says what counts, and --column needs --worksheet")
    sheet = worksheet.read(options.worksheet, options.column) if options.worksheet else None
    check_outs(options, out)
    with ending_in_order():
        graded = grading.grade_folder(options.folder, progress=True)
        rows = grading.write_csv(submissions.labelled(graded) if worth else graded, out)
    print(grading.summary(rows))
    if any(row.isolated == "not isolated" for row in rows):
        print(NOT_ISOLATED)
    print(f"{len(rows)} rows written to {out}")
    if worth:
        found = submissions.points(rows, worth)
        submissions.write_points(found, worth, points_out(out))
        print(f"points for {', '.join(worth)} written to {points_out(out)}")
        if sheet:
            fill(sheet, found, sum(worth.values()), sheet_out(out, options.worksheet))
    return 0


def points_out(out: Path) -> Path:
    """Where the points go: beside the table."""
    return out.with_name(f"{out.stem}_points.csv")


def sheet_out(out: Path, worksheet: Path) -> Path:
    """Where the worksheet goes when it is filled in: beside the table."""
    return out.with_name(f"{worksheet.stem}_filled.csv")


def check_outs(options: argparse.Namespace, out: Path) -> None:
    """Raise OSError or ValueError before the work when a file cannot be written, or would replace another."""
    paths = [out, *([points_out(out)] if options.points else [])]
    if options.worksheet:
        paths += [sheet_out(out, options.worksheet), options.worksheet]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"one of {', '.join(map(str, paths))} would replace another: name another table with --out")
    for path in paths[1:3]:
        check_out(path)


def fill(sheet: Worksheet, found: Sequence[Points], total: float, out: Path) -> None:
    """Write the worksheet with the grades in it, and print what is left to do by hand."""
    left = sheet.fill(found, total)
    sheet.write(out)
    print(f"{len(found) - len(left)} of {len(sheet.students)} rows filled in (full marks: {sheet.maximum}), "
          f"written to {out}")
    for line in left:
        print(f"Not filled in: {line}")


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
