"""One style for all figures: the palette, the fonts, and a figure that a notebook shows exactly once."""

import functools
import io
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from diffusion_lessons.images import mimebundle

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The palette of Okabe & Ito: eight colours that people with any common kind of colour blindness can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
PALETTE = dict(black=BLACK, orange=ORANGE, sky=SKY, green=GREEN, yellow=YELLOW, blue=BLUE,
               vermillion=VERMILLION, purple=PURPLE)
GREY = "#666666"   # for the background: grids, notes, true values

# Lines differ in colour, dashes and marker, so that they can be told apart in black and white.
# Yellow is too pale for a line.
LINES = [(BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"),
         (ORANGE, (0, (6, 1, 1, 1, 1, 1)), "v"), (SKY, (0, (8, 3)), "P"), (BLACK, (0, (1, 1)), "X")]

STYLE: Any = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.facecolor": "white", "savefig.facecolor": "white",
    "font.family": "sans-serif", "font.size": 14, "axes.titlesize": 15, "axes.labelsize": 14,
    "xtick.labelsize": 13, "ytick.labelsize": 13, "legend.fontsize": 13, "figure.titlesize": 16,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.8,
    "lines.linewidth": 2.5, "lines.markersize": 7, "legend.frameon": False,
    "axes.prop_cycle": cycler(color=[line[0] for line in LINES]),
    "image.cmap": "gray", "image.interpolation": "nearest",
}


def use_style() -> None:
    """Apply the course's style to the figures that you make with matplotlib yourself."""
    matplotlib.rcParams.update(STYLE)


class Drawing(Figure):
    """A matplotlib Figure that shows itself when it is the last value of a cell (or goes through `display`).

    pyplot does not manage it, so no notebook shows it twice and it need not be closed.
    """

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return mimebundle(png_of(self), alt_text(self))


def png_of(figure: Figure) -> bytes:
    """The figure as PNG bytes, cropped to its contents."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def alt_text(figure: Figure) -> str:
    """A description of a figure for those who cannot see it: its titles, its axes, and its legend."""
    parts = []
    for ax in figure.axes:
        legend = ax.get_legend()
        columns, rows = (", ".join(label.get_text() for label in labels if ax.texts and ax.axison)
                         for labels in (ax.get_xticklabels(), ax.get_yticklabels()))    # of tables and bars
        labels_of = {"": ax.get_title("left") or ax.get_title(), "across: ": ax.get_xlabel() or columns,
                 "up: ": ax.get_ylabel() or rows,
                 "shown: ": ", ".join(text.get_text() for text in legend.get_texts()) if legend else "",
                 "text: ": ", ".join(text.get_text() for text in ax.texts)}
        parts += [name + text for name, text in labels_of.items() if text.strip()]
    return "Figure. " + " ".join(re.sub(r"[\\{}]", " ", "; ".join(parts).replace("$", "")).split())


def contrast(a: Any, b: Any) -> float:
    """The contrast ratio of two colours, 1 to 21. Text needs 4.5 (WCAG 2.2, criterion 1.4.3).

    (L1 + 0.05) / (L2 + 0.05), L1 >= L2 the relative luminances
    """
    rgb = np.array([to_rgb(a), to_rgb(b)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))


def legible(colour: Any) -> str:
    """The colour, darkened until text in it is legible on white.  -> "#rrggbb" """
    rgb = np.array(to_rgb(colour))
    while contrast(rgb, "white") < 4.5:
        rgb *= 0.98
    return to_hex(tuple(rgb))


def styled(make: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A decorator: figures made inside have the course's style, whatever the learner has set."""
    @functools.wraps(make)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with matplotlib.rc_context(STYLE):
            return make(*args, **kwargs)
    return wrapped


def line_of(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of line number `index` of a figure."""
    colour, dashes, marker = LINES[index % len(LINES)]
    return dict(color=colour, linestyle=dashes, marker=marker)
