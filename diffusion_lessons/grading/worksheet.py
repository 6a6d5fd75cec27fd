"""Fill in the table that Moodle or Canvas gave: the same file with one column filled is what they import."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusion_lessons.grading import FORMULA, harmless, visible
from diffusion_lessons.grading.submissions import Points, Submission, number

AS_IT_CAME = "give the file as Moodle (grading worksheet) or Canvas (gradebook export) wrote it"


class Form(NamedTuple):
    """How a file is written."""

    encoding: str
    delimiter: str
    newline: str


@dataclass
class Worksheet:
    """The table of a platform, and where in it the grades belong."""

    rows: list[list[str]]           # the titles first
    form: Form
    column: int                     # of the grades
    maximum: str                    # the highest grade, as the file writes it
    names: list[int]                # the columns with the learner's name
    personal: list[int]             # all columns that say who somebody is
    students: dict[str, list[str]]  # {id: row}

    def fits(self, who: Submission) -> bool:
        """Whether the name in a file's name is that of the row with its number.

        Moodle may put a group's name in front; with blind marking it writes "Participant", as in the row. A team's
        number may be that of another learner's row.
        """
        row, name = self.students[who.id], letters(who.name)
        expected = letters("".join(row[k] for k in self.names))
        return name.endswith(expected) or name == letters(row[0].rstrip("0123456789"))

    def fill(self, found: Sequence[Points], total: float) -> list[str]:
        """Write the grades into their rows, scaled to the highest one.  -> what is left for the lecturer to do"""
        left = []
        for one in found:
            who = visible(one.submission.label())
            if one.submission.id not in self.students:
                left.append(f"{who}: no row has this number")
            elif not self.fits(one.submission):
                left.append(f"{who}: the row with this number has another name")
            elif one.score is None:
                left.append(f"{who}: something could not be graded, or is another lesson's: see the table")
            elif self.students[one.submission.id][self.column] == "EX":
                left.append(f"{who}: is excused (EX), and stays so")
            else:
                grade = number(one.score / total * float(self.maximum.replace(",", ".")))
                self.students[one.submission.id][self.column] = (
                    grade.replace(".", ",") if "," in self.maximum else grade)
        return left

    def write(self, out: Path) -> None:
        """Write the table as it was read. Only a name that a spreadsheet would take for a formula is changed."""
        with open(out, "w", newline="", encoding=self.form.encoding) as file:
            table = csv.writer(file, delimiter=self.form.delimiter, lineterminator=self.form.newline)
            table.writerow(self.rows[0])
            table.writerows([guarded(cell) if k in self.personal else cell for k, cell in enumerate(row)]
                            for row in self.rows[1:])


def guarded(cell: str) -> str:
    """A cell as it is, unless a spreadsheet could take it for a formula."""
    return harmless(cell) if re.search(FORMULA, visible(cell)) else cell


def letters(name: str) -> str:
    """The letters and digits of a name, in lower case: what no platform takes out of a file's name."""
    return "".join(c for c in unicodedata.normalize("NFC", name).lower() if c.isalnum())


def read(path: Path, column: str | None = None) -> Worksheet:
    """Read the table of either platform. column: what the grades' column is called, if it is not clear.

    Raises OSError, and ValueError that says what is wrong with the file or lists the columns.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not in UTF-8: {AS_IT_CAME}, not a copy that was saved elsewhere") from None
    encoding, text = ("utf-8-sig" if text[:1] == "\ufeff" else "utf-8"), text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is damaged ({error}): {AS_IT_CAME}") from None
    header = rows[0] if rows else []
    rows = [row + [""] * (len(header) - len(row)) if row else row for row in rows]
    form = Form(encoding, delimiter, "\r\n" if first.endswith("\r") else "\n")
    canvas = header[:1] in (["Student"], ["LastName"]) and "ID" in header and "Section" in header
    return (canvas_worksheet if canvas else moodle_worksheet)(path, rows, form, column)


def moodle_worksheet(path: Path, rows: list[list[str]], form: Form, column: str | None) -> Worksheet:
    """Moodle's: "Participant 1234567" comes first, the highest grade stands behind the grade."""
    ids = [re.fullmatch(r"\D*([0-9]+)", row[0]) for row in rows[1:] if row]
    if not ids or None in ids:
        raise ValueError(f"{path} is neither Moodle's table, with Identifier first, nor Canvas's, with Student: "
                         f"{AS_IT_CAME}")
    k = chosen(path, rows[0][1:-1], column or "Grade") + 1
    students = {id[1]: row for id, row in zip(ids, filter(None, rows[1:])) if id}
    maximum = highest(path, next(iter(students.values()))[k + 1])
    return Worksheet(rows, form, k, maximum, names=[1], personal=list(range(1, k)), students=students)


def canvas_worksheet(path: Path, rows: list[list[str]], form: Form, column: str | None) -> Worksheet:
    """Canvas's: a column for each assignment, such as "Lesson 02 (12345)", and a row "Points Possible"."""
    header, behind, id = rows[0], rows[0].index("Section") + 1, rows[0].index("ID")
    possible = next((row for row in rows[1:] if row and "Points Possible" in row[0]), None)
    if possible is None:
        raise ValueError(f'{path} has no row "Points Possible": {AS_IT_CAME}')
    assignments = [title if re.search(r" \([0-9]+\)$", title) else "" for title in header[behind:]]
    if column is None and sum(map(bool, assignments)) == 1:
        column = "".join(assignments)
    k = behind + chosen(path, assignments, column)
    personal = [n for n in range(behind) if n != id]
    students = {row[id]: row for row in rows[1:] if row and re.fullmatch("[0-9]+", row[id])}
    return Worksheet(rows, form, k, highest(path, possible[k]), list(range(id)), personal, students)


def chosen(path: Path, titles: list[str], wanted: str | None) -> int:
    """The number of the column with that title, which may lack Canvas's number. Raises ValueError."""
    found = [k for k, title in enumerate(titles) if wanted and wanted in (title, re.sub(r" \([0-9]+\)$", "", title))]
    if len(found) != 1:
        raise ValueError(f"{path}: say which column the grades belong in, with --column and one of "
                         f"{', '.join(repr(title) for title in titles if title)}")
    return found[0]


def highest(path: Path, text: str) -> str:
    """The highest grade, as the file writes it. Raises ValueError when it is no number."""
    if not re.fullmatch(r"[0-9]+([.,][0-9]+)?", text.strip()):
        raise ValueError(f"{path}: {text!r} is no highest grade: the assignment must be graded in points")
    return text.strip()
