"""How verdicts, hints, predictions and solutions look: a box or code in a notebook, plain text elsewhere."""

import html
import inspect
import textwrap
from typing import Any

from diffusion_lessons.classroom.style import BLUE, GREEN, GREY, ORANGE, VERMILLION

SIGNS = {"right": (GREEN, "\u2713"), "not yet": (VERMILLION, "\u2717"), "not tried": (GREY, "\u2026"),
         "hint": (BLUE, "?"), "prediction": (BLUE, "?"), "surprise": (ORANGE, "!")}


class Box:
    """A short text with a coloured edge and a sign, so that it can be read without the colour.

    The text keeps the page's own colour: one that is legible on white is too dark for a dark page.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text

    def __repr__(self) -> str:
        return f"{SIGNS[self.kind][1]} {self.text}"

    def _repr_html_(self) -> str:
        colour, sign = SIGNS[self.kind]
        return (f'<div style="border-left:6px solid {colour};padding:6px 12px;margin:4px 0;white-space:pre-wrap;'
                f'font-family:sans-serif;font-size:15px;line-height:1.45"><b>{sign}</b> '
                f"{html.escape(self.text)}</div>")


class Report:
    """The learner's progress: one line for each lesson, a sign for each exercise, and counts of what was right.

    exercises: {id: {"state": "right", "not yet" or "not tried", "tries": a count}}
    predictions: {id: {"right": True, False, or None before it was measured}}
    questions: {id: {"before": True, False or None, "after": True, False or None}}, None for what was not answered
    """

    def __init__(self, exercises: dict[str, dict[str, Any]], predictions: dict[str, dict[str, Any]] | None = None,
                 questions: dict[str, dict[str, bool | None]] | None = None):
        measured = {id: one["right"] for id, one in (predictions or {}).items() if one["right"] is not None}
        after = [one["after"] for one in (questions or {}).values() if one["after"] is not None]
        self.exercises, self.judged, self.answers = map(by_lesson, (exercises, measured, questions or {}))
        self.lessons = sorted(self.exercises | self.judged | self.answers,
                              key=lambda number: (number.rstrip("b").zfill(3), number))
        solved = sum(one["state"] == "right" for one in exercises.values())
        self.heading = f"{solved} of {len(exercises)} exercises solved"
        for name, verdicts in (("predictions", list(measured.values())), ("questions", after)):
            self.heading += f", {sum(verdicts)} of {len(verdicts)} {name} right" if verdicts else ""

    def __repr__(self) -> str:
        return "\n".join([self.heading, *(f"lesson {self.name(number)}   " + "   ".join(self.cells(number))
                                          for number in self.lessons)])

    def name(self, number: str) -> str:
        return f"{number:0>{3 if number.endswith('b') else 2}}"

    def cells(self, number: str) -> list[str]:
        """A lesson's exercises, then its counts, in words."""
        exercises = [self.words(id, one) for id, one in self.exercises.get(number, {}).items()]
        return [*exercises, *self.counts(number)]

    def words(self, id: str, one: dict[str, Any]) -> str:
        tries = f" ({one['tries']} tries)" if one["tries"] > 1 else ""
        return f"{SIGNS[one['state']][1]} {id}{tries}"

    def counts(self, number: str) -> list[str]:
        judged, answers = self.judged.get(number, {}), self.answers.get(number, {}).values()
        said = [f"predictions: {sum(judged.values())} of {len(judged)} right"] if judged else []
        after = [one["after"] for one in answers if one["after"] is not None]
        said += [f"questions: {sum(after)} of {len(after)} right"] if after else []
        both = [one for one in answers if None not in one.values()]
        if both:
            then, now = (sum(bool(one[when]) for one in both) for when in ("before", "after"))
            said.append(f"warm-up: {then} of {len(both)} right before, {now} after")
        return said

    def _repr_html_(self) -> str:
        def cell(id: str, one: dict[str, Any]) -> str:
            edge = f"border-left:6px solid {SIGNS[one['state']][0]};padding:2px 14px 2px 8px"
            return f'<td style="text-align:left"><span style="{edge}">{self.words(id, one)}</span></td>'

        rows = [f"<tr><td>lesson {self.name(number)}</td>"
                + "".join(cell(id, one) for id, one in self.exercises.get(number, {}).items())
                + "".join(f'<td style="text-align:left">{words}</td>' for words in self.counts(number)) + "</tr>"
                for number in self.lessons]
        return (f'<div style="font-family:sans-serif;font-size:15px"><b>{self.heading}</b>'
                f"<table>{''.join(rows)}</table></div>")


def by_lesson(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{lesson: {id: ...}} of {id: ...}: the lesson of "4b.q1" is "4b"."""
    lessons: dict[str, dict[str, Any]] = {}
    for id, one in found.items():
        lessons.setdefault(id.split(".")[0], {})[id] = one
    return lessons


class Code:
    """Source code, highlighted by whatever shows the notebook."""

    def __init__(self, source: str, remark: str = "") -> None:
        self.source, self.remark = source, remark

    def __repr__(self) -> str:
        return (f"# {self.remark}\n\n" if self.remark else "") + self.source

    def _repr_markdown_(self) -> str:
        return f"{self.remark}\n\n```python\n{self.source}```\n"


def source_of(thing: Any) -> str:
    """The source of a function, method or property of the package, after a line that names its file."""
    function: Any = thing.fget if isinstance(thing, property) else thing
    where = f"# {function.__module__.replace('.', '/')}.py"
    return f"{where}\n{textwrap.dedent(inspect.getsource(function)).rstrip()}\n"
