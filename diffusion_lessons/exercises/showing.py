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
    """The learner's progress: one line for each lesson, a sign for each exercise, and the count of right predictions.

    exercises: {id: {"state": "right", "not yet" or "not tried", "tries": a count}}
    predictions: {id: {"right": True, False, or None before it was measured}}
    """

    def __init__(self, exercises: dict[str, dict[str, Any]], predictions: dict[str, dict[str, Any]] | None = None):
        self.lessons: dict[str, dict[str, dict[str, Any]]] = {}
        for id, one in exercises.items():
            self.lessons.setdefault(id.split(".")[0], {})[id] = one
        self.judged: dict[str, list[bool]] = {}
        for id, one in (predictions or {}).items():
            if one["right"] is not None:
                self.judged.setdefault(id.split(".")[0], []).append(one["right"])
        solved = sum(one["state"] == "right" for one in exercises.values())
        self.heading = f"{solved} of {len(exercises)} exercises solved"
        made = sum(self.judged.values(), [])
        if made:
            self.heading += f", {sum(made)} of {len(made)} predictions right"

    def __repr__(self) -> str:
        lines = [f"lesson {int(number):02}   "
                 + "   ".join(filter(None, [*(self.words(id, one) for id, one in lesson.items()), self.right(number)]))
                 for number, lesson in self.lessons.items()]
        return "\n".join([self.heading, *lines])

    def words(self, id: str, one: dict[str, Any]) -> str:
        tries = f" ({one['tries']} tries)" if one["tries"] > 1 else ""
        return f"{SIGNS[one['state']][1]} {id}{tries}"

    def right(self, number: str) -> str:
        judged = self.judged.get(number)
        return f"predictions: {sum(judged)} of {len(judged)} right" if judged else ""

    def _repr_html_(self) -> str:
        def cell(id: str, one: dict[str, Any]) -> str:
            edge = f"border-left:6px solid {SIGNS[one['state']][0]};padding:2px 14px 2px 8px"
            return f'<td style="text-align:left"><span style="{edge}">{self.words(id, one)}</span></td>'

        rows = [f"<tr><td>lesson {int(number):02}</td>" + "".join(cell(id, one) for id, one in lesson.items())
                + (f'<td style="text-align:left">{self.right(number)}</td>' if self.right(number) else "") + "</tr>"
                for number, lesson in self.lessons.items()]
        return (f'<div style="font-family:sans-serif;font-size:15px"><b>{self.heading}</b>'
                f"<table>{''.join(rows)}</table></div>")


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
