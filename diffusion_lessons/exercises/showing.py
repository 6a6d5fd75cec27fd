"""How a verdict, a hint and a solution look: a box or code in a notebook, plain text elsewhere."""

import html
import inspect
import textwrap

from diffusion_lessons.classroom.style import BLUE, GREEN, GREY, VERMILLION

SIGNS = {"right": (GREEN, "\u2713"), "not yet": (VERMILLION, "\u2717"), "not tried": (GREY, "\u2026"),
         "hint": (BLUE, "?")}


class Box:
    """A few words with a coloured edge and a sign, so that the colour is not needed to read it.

    The words keep the page's own colour: one that can be read on white is too dark for a dark page.
    """

    def __init__(self, kind, words):
        self.kind, self.words = kind, words

    def __repr__(self):
        return f"{SIGNS[self.kind][1]} {self.words}"

    def _repr_html_(self):
        colour, sign = SIGNS[self.kind]
        return (f'<div style="border-left:6px solid {colour};padding:6px 12px;margin:4px 0;white-space:pre-wrap;'
                f'font-family:sans-serif;font-size:15px;line-height:1.45"><b>{sign}</b> '
                f"{html.escape(self.words)}</div>")


class Report:
    """How far one has come: a line for each lesson, a sign for each exercise.

    known: {exercise: {"state": "right", "not yet" or "not tried", "tries": how many}}
    """

    def __init__(self, known):
        self.lessons = {}
        for id, one in known.items():
            self.lessons.setdefault(id.split(".")[0], {})[id] = one
        self.done = sum(one["state"] == "right" for one in known.values())
        self.total = len(known)

    def __repr__(self):
        lines = [f"lesson {int(number):02}   " + "   ".join(self.words(id, one) for id, one in lesson.items())
                 for number, lesson in self.lessons.items()]
        return "\n".join([f"{self.done} of {self.total} exercises solved", *lines])

    def words(self, id, one):
        tries = f" ({one['tries']} tries)" if one["tries"] > 1 else ""
        return f"{SIGNS[one['state']][1]} {id}{tries}"

    def _repr_html_(self):
        def cell(id, one):
            edge = f"border-left:6px solid {SIGNS[one['state']][0]};padding:2px 14px 2px 8px"
            return f'<td style="text-align:left"><span style="{edge}">{self.words(id, one)}</span></td>'

        rows = [f"<tr><td>lesson {int(number):02}</td>" + "".join(cell(id, one) for id, one in lesson.items()) + "</tr>"
                for number, lesson in self.lessons.items()]
        return ('<div style="font-family:sans-serif;font-size:15px">'
                f"<b>{self.done} of {self.total} exercises solved</b><table>{''.join(rows)}</table></div>")


class Code:
    """Source code, coloured by whatever shows the notebook."""

    def __init__(self, source, remark=""):
        self.source, self.remark = source, remark

    def __repr__(self):
        return (f"# {self.remark}\n\n" if self.remark else "") + self.source

    def _repr_markdown_(self):
        return f"{self.remark}\n\n```python\n{self.source}```\n"


def source_of(thing):
    """The source of a function, method or property of the package, after a line that says where it stands."""
    function = thing.fget if isinstance(thing, property) else thing
    where = f"# {function.__module__.replace('.', '/')}.py"
    return f"{where}\n{textwrap.dedent(inspect.getsource(function)).rstrip()}\n"
