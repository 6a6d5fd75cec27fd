"""One look for every figure: the palette, the fonts, and a figure that a notebook shows exactly once."""

import functools
import io
import re

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from diffusion_lessons.pipelines.text_to_image import shown

# Okabe & Ito's eight colours, told apart by people with any of the usual kinds of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
PALETTE = dict(black=BLACK, orange=ORANGE, sky=SKY, green=GREEN, yellow=YELLOW, blue=BLUE,
               vermillion=VERMILLION, purple=PURPLE)
GREY = "#666666"   # for what stands behind: grids, notes, true values

# Lines differ in colour, dashes and marker, so that a grey print still tells them apart.
# Yellow is too pale for a line.
LINES = [(BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"),
         (ORANGE, (0, (6, 1, 1, 1, 1, 1)), "v"), (SKY, (0, (8, 3)), "P"), (BLACK, (0, (1, 1)), "X")]

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.facecolor": "white", "savefig.facecolor": "white",
    "font.family": "sans-serif", "font.size": 14, "axes.titlesize": 15, "axes.labelsize": 14,
    "xtick.labelsize": 13, "ytick.labelsize": 13, "legend.fontsize": 13, "figure.titlesize": 16,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.8,
    "lines.linewidth": 2.5, "lines.markersize": 7, "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=[line[0] for line in LINES]),
    "image.cmap": "gray", "image.interpolation": "nearest",
}


def use_style():
    """Give the course's look to figures that you make with matplotlib yourself."""
    matplotlib.rcParams.update(STYLE)


class Drawing(Figure):
    """A matplotlib Figure that shows itself when it is the last value of a cell (or goes through `display`).

    It is not known to pyplot, so no notebook shows it a second time and nothing has to be closed.
    """

    def _repr_mimebundle_(self, **kwargs):
        return shown(png_of(self), described(self))


def png_of(figure):
    """The figure as PNG bytes, cropped to what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def described(figure):
    """What stands in a figure, for those who cannot see it: its titles, its axes, and the names of what is drawn."""
    said = []
    for ax in figure.axes:
        legend = ax.get_legend()
        columns, rows = (", ".join(label.get_text() for label in labels if ax.texts and ax.axison)
                         for labels in (ax.get_xticklabels(), ax.get_yticklabels()))    # of tables, and bars
        parts = {"": ax.get_title("left") or ax.get_title(), "across: ": ax.get_xlabel() or columns,
                 "up: ": ax.get_ylabel() or rows,
                 "shown: ": ", ".join(text.get_text() for text in legend.get_texts()) if legend else "",
                 "with the words: ": ", ".join(text.get_text() for text in ax.texts)}
        said += [name + words for name, words in parts.items() if words.strip()]
    return "Figure. " + " ".join(re.sub(r"[\\{}]", " ", "; ".join(said).replace("$", "")).split())


def contrast(a, b):
    """How far two colours differ in brightness: 1 to 21. Text needs 4.5 (WCAG 2.2, criterion 1.4.3).

    (L1 + 0.05) / (L2 + 0.05), L1 >= L2 the relative luminances
    """
    rgb = np.array([to_rgb(a), to_rgb(b)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))


def legible(colour):
    """The colour, darkened as far as text on white needs it.  -> "#rrggbb" """
    rgb = np.array(to_rgb(colour))
    while contrast(rgb, "white") < 4.5:
        rgb *= 0.98
    return to_hex(rgb)


def styled(make):
    """A decorator: what is drawn inside has the course's look, whatever the learner has set."""
    @functools.wraps(make)
    def wrapped(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return make(*args, **kwargs)
    return wrapped


def line_of(index):
    """Colour, dashes and marker of the index-th line of a figure."""
    colour, dashes, marker = LINES[index % len(LINES)]
    return dict(color=colour, linestyle=dashes, marker=marker)
