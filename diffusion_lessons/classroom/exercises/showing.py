"""How a verdict, a hint and a solution look: a box or a piece of code in a notebook, plain text elsewhere."""

import html
import inspect
import textwrap

COLOURS = {"right": ("#009E73", "\u2713"), "not yet": ("#D55E00", "\u2717"), "not tried": ("#888888", "\u2026"),
           "hint": ("#0072B2", "?")}


class Box:
    """A few words with a coloured edge and a sign, so that the colour is not needed to read it."""

    def __init__(self, kind, words):
        self.kind, self.words = kind, words

    def __repr__(self):
        return f"{COLOURS[self.kind][1]} {self.words}"

    def _repr_html_(self):
        colour, sign = COLOURS[self.kind]
        return (f'<div style="border-left:6px solid {colour};padding:6px 12px;margin:4px 0;white-space:pre-wrap;'
                f'font-family:sans-serif;font-size:15px;line-height:1.45"><b style="color:{colour}">{sign}</b> '
                f"{html.escape(self.words)}</div>")


class Code:
    """Source code, coloured by whatever shows the notebook."""

    def __init__(self, source, remark=""):
        self.source, self.remark = source, remark

    def __repr__(self):
        return self.source + (f"\n# {self.remark}\n" if self.remark else "")

    def _repr_markdown_(self):
        return f"{self.remark}\n\n```python\n{self.source}\n```\n"


def source_of(thing):
    """The source of a function or property of the package, with a line that says where it stands."""
    function = thing.fget if isinstance(thing, property) else thing
    where = f"# {function.__module__.replace('.', '/')}.py"
    return f"{where}\n{textwrap.dedent(inspect.getsource(function)).rstrip()}\n"
