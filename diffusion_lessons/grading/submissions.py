"""Who handed in which notebook, by the names that Moodle and Canvas give to files, and how many points that makes."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusion_lessons.exercises import EXERCISES, notebook_of
from diffusion_lessons.grading import Row, harmless

# "Full Name_1234567_assignsubmission_file_" is a folder (in newer versions without the last underscore), or the
# beginning of a file's name. Moodle takes the underscores out of the name, so what comes first is not the learner's.
MOODLE = re.compile(r"(?P<name>[^_]*)_(?P<id>[0-9]+)_assignsubmission_file(_.*)?")
# "lastnamefirstname_LATE_12345_678910_notebook-1.ipynb": the user, the file. Without names "anon_Ab1Cd_678910_...".
CANVAS = re.compile(r"(?:(?P<name>.+?)_)??(?P<late>LATE_)?(?P<id>[0-9]+|anon_[0-9A-Za-z]{5})_[0-9]+_.+")


class Submission(NamedTuple):
    """Who handed in. id: Moodle's participant number or Canvas's user id, empty for any other name of a file."""

    name: str
    id: str = ""
    late: bool = False

    def label(self) -> str:
        """What stands in the tables."""
        return " ".join(part for part in (self.name, f"({self.id})" if self.id else "") if part)


def submission_of(who: str, notebook: str) -> Submission:
    """The Submission that a notebook belongs to, by its path. Names that neither platform gives stay as they are."""
    for part in notebook.split("/"):    # the outermost one: what is in a folder was named by the learner
        if found := MOODLE.fullmatch(part):
            return Submission(found["name"], found["id"])
        if found := CANVAS.fullmatch(part):
            return Submission(found["name"] or "", found["id"], bool(found["late"]))
    return Submission(who)


def labelled(rows: Iterable[Row]) -> Iterable[Row]:
    """The same rows, as they come, with learners' names and numbers instead of their files' names."""
    return (row._replace(who=submission_of(row.who, row.notebook).label()) for row in rows)


def points_of(text: str) -> dict[str, float]:
    """{exercise: points} for "02" (a point for each exercise of that notebook), "04,04b", "2.1=2,2.3" or "02,2.6=3".

    Of several parts about an exercise the last one counts. Raises ValueError.
    """
    worth: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        lesson = name.zfill(3 if name[-1:].isalpha() else 2)
        ids = [id for id in EXERCISES if id == name or notebook_of(id) == lesson]
        if not ids:
            raise ValueError(f"--points: {name!r} is neither a notebook such as 02 or 04b nor an exercise such as 2.1")
        try:
            value = float(number) if equals else 1.0
        except ValueError:
            value = math.nan
        if not 0 < value <= 1000:
            raise ValueError(f"--points: {part.strip()!r} gives no points: say {name}=2; more than 0, at most 1000")
        worth.update(dict.fromkeys(ids, value))
    return {id: worth[id] for id in EXERCISES if id in worth}


@dataclass(frozen=True)
class Points:
    """One learner's points by exercise; None where a lecturer has to look."""

    submission: Submission
    by_exercise: dict[str, float | None]

    @property
    def score(self) -> float | None:
        """The sum, or None where a lecturer has to look."""
        known = [value for value in self.by_exercise.values() if value is not None]
        return sum(known) if len(known) == len(self.by_exercise) else None


def points(rows: Sequence[Row], worth: dict[str, float]) -> list[Points]:
    """The Points of each learner: all for an exercise that is right in any of their notebooks, else none.

    None stands for what could not be read or checked, and for all exercises where none of them was handed in.
    """
    groups: dict[tuple[str, str], list[tuple[Row, Submission]]] = {}
    for row in rows:
        submission = submission_of(row.who, row.notebook)
        groups.setdefault(submission[:2], []).append((row, submission))
    found = []
    for (name, id), group in groups.items():
        theirs = [row for row, _ in group]
        strange = not any(row.exercise in worth for row in theirs)
        found.append(Points(Submission(name, id, any(submission.late for _, submission in group)),
                            {one: None if strange else earned(one, theirs, worth[one]) for one in worth}))
    return found


def earned(id: str, rows: Sequence[Row], most: float) -> float | None:
    """The points for one exercise."""
    if any(row.exercise == id and row.state == "right" for row in rows):
        return most
    unsure = any(row.exercise in ("", id) and row.state in ("not read", "not checked") for row in rows)
    return None if unsure else 0.0


def write_points(found: Sequence[Points], worth: dict[str, float], out: Path) -> None:
    """Write a row for each learner: points by exercise, score and max_score; above them the points possible."""
    with open(out, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(["who", "id", "late", *(f"q{id}" for id in worth), "score", "max_score"])
        total = number(sum(worth.values()))
        table.writerow(["points possible", "", "", *map(number, worth.values()), total, total])
        for one in found:
            who = one.submission
            table.writerow([harmless(who.name), harmless(who.id), "yes" if who.late else "",
                            *map(number, one.by_exercise.values()), number(one.score), total])


def number(value: float | None) -> str:
    """A number with at most two decimals, and nothing for None."""
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
