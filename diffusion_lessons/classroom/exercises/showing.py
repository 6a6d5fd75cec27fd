"""How a verdict, a hint and a solution look: a box or code in a notebook, plain text elsewhere."""

import html
import inspect
import textwrap

from diffusion_lessons.classroom.style import BLUE, GREEN, GREY, VERMILLION

SIGNS = {"right": (GREEN, "\u2713"), "not yet": (VERMILLION, "\u2717"), "not tried": (GREY, "\u2026"),
         "hint": (BLUE, "?")}


class Box:
    """A few words with a coloured edge and a sign, so that the colour is not needed to read it."""

    def __init__(self, kind, words):
        self.kind, self.words = kind, words

    def __repr__(self):
        return f"{SIGNS[self.kind][1]} {self.words}"

    def _repr_html_(self):
        colour, sign = SIGNS[self.kind]
        return (f'<div style="border-left:6px solid {colour};padding:6px 12px;margin:4px 0;white-space:pre-wrap;'
                f'font-family:sans-serif;font-size:15px;line-height:1.45"><b style="color:{colour}">{sign}</b> '
                f"{html.escape(self.words)}</div>")


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
