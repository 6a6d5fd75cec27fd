"""Figures of numbers: curves, point sets, bars and heat maps. Each function returns its figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from diffusion_lessons.classroom.style import GREY, LINES, ORANGE, Drawing, contrast, legible, line_of, styled

NEAR = 0.07   # lines that end closer together than this fraction of the height get a legend


def as_array(values: Any) -> np.ndarray:
    """A tensor, a list or an array of numbers as a float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    if isinstance(values, (list, tuple)):
        values = [as_array(value) for value in values]
    return np.asarray(values, dtype=np.float64)


@styled
def curves(xs: Any, ys: Mapping[str, Any], xlabel: str = "", ylabel: str = "", title: str | None = None, log: str = "",
           spread: str = "band", markers: bool | None = None, marks: Mapping[str, float] | None = None,
           size: tuple[float, float] = (9, 4.5), xlim: Sequence | None = None, ylim: Sequence | None = None) -> Drawing:
    """One or more lines on the same axes, which differ in colour, dashes and marker.

    xs: (N,) numbers, or {name: (N,)} if each line has its own
    ys: {name: (N,)}, or {name: (seeds, N)}: then the line is the mean over the seeds
    spread: "band" shades the range from the lowest seed to the highest, "points" shows each seed
    log: "", "x", "y" or "xy";  markers: True, False, or None for markers on lines with few points
    marks: {label: x} adds a thin vertical line at x, with its label
    Raises ValueError when xs and ys do not match, or a line has no finite value.
    """
    figure = Drawing(figsize=size, layout="constrained")
    ax = figure.add_subplot()
    ends = {}
    for k, (name, values) in enumerate(ys.items()):
        x, y = as_array(xs[name] if isinstance(xs, dict) else list(xs)), as_array(values)
        if y.shape[-1:] != x.shape or y.ndim > 2:
            raise ValueError(f"{name!r} has values of shape {y.shape} for x of shape {x.shape}: "
                             "give (N,) or (seeds, N)")
        ends[name] = _line(ax, x, y, name, line_of(k), spread, markers)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if "y" in log else "linear")
    if "x" in log:
        _log_axis(ax, x)
    if title:
        ax.set_title(title)
    ax.set(**{name: limits for name, limits in {"xlim": xlim, "ylim": ylim}.items() if limits is not None})
    for label, at in (marks or {}).items():
        ax.axvline(at, color=GREY, linewidth=1.2)
        ax.annotate(label, (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
                    textcoords="offset points", color=GREY, va="top", fontsize=12)
    _name_lines(ax, ends)
    return figure


def curve(xs: Any, ys: Any, xlabel: str = "", ylabel: str = "", title: str | None = None, **options: Any) -> Drawing:
    """A single line; all arguments as in `curves`."""
    return curves(xs, {"_": ys}, xlabel, ylabel, title, **options)


def _line(ax, x, y, name, style, spread, markers):
    """Plot one line with the spread of its seeds.  -> x and y of its end, its colour"""
    if markers is False or (markers is None and len(x) > 30):
        style["marker"] = ""
    mean = y if y.ndim == 1 else y.mean(0)
    ax.plot(x, mean, label=name, **style)
    if y.ndim == 2 and spread == "band":
        ax.fill_between(x, y.min(0), y.max(0), color=style["color"], alpha=0.18, linewidth=0)
    elif y.ndim == 2:
        ax.plot(x, y.T, linestyle="", marker="o", markersize=4, color=style["color"], alpha=0.5)
    finite = np.flatnonzero(np.isfinite(mean))
    if len(finite) == 0:
        raise ValueError(f"{name!r} has no finite value to plot")
    return x[finite[-1]], mean[finite[-1]], style["color"]


def _log_axis(ax, x):
    """A logarithmic x axis with plain numbers, and a tick at each point if there are few."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    if len(x) <= 9:
        ax.set_xticks(x)
        ax.xaxis.set_minor_locator(NullLocator())


def _name_lines(ax, ends):
    """Write each name at the end of its line, or use a legend if ends are close or not at the right."""
    if len(ends) < 2:
        return
    to_axes = ax.transData + ax.transAxes.inverted()
    positions = np.array([to_axes.transform((x, y)) for x, y, _ in ends.values()])
    across, heights = positions[:, 0], np.sort(positions[:, 1])
    if np.ptp(across) > 0.02 or across.max() < 0.9 or (np.diff(heights) < NEAR).any():
        ax.legend(handlelength=3.2)
        return
    for name, (_, y, colour) in ends.items():     # outside the axes, where no line runs through it
        ax.annotate(name, (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                    color=legible(colour), va="center", weight="bold", annotation_clip=False)


@styled
def points(sets: Mapping[str, Any] | Sequence, titles: Sequence[str] | None = None, limits: Any = None,
           colours: Sequence | None = None, title: str | None = None, size: float = 3.2, dot: float = 6) -> Drawing:
    """Sets of 2-D points side by side, all on the same scale.

    sets: {title: (N, 2)} or a list of (N, 2);  titles: for a list
    limits: (low, high) of both axes, by default wide enough for all points
    colours: for each set the class of each point, (N,) integers, or None
    Raises ValueError when a set is not (N, 2).
    """
    if isinstance(sets, Mapping):
        titles, sets = list(sets), list(sets.values())
    sets = [as_array(xy) for xy in sets]
    if any(xy.ndim != 2 or xy.shape[1] != 2 for xy in sets):
        raise ValueError(f"points must be (N, 2), got {[xy.shape for xy in sets]}")
    if limits is None:
        low, high = np.concatenate(sets).min(0), np.concatenate(sets).max(0)       # (2,) each
        half = (high - low).max() / 2 * 1.06 + 1e-9
        limits = [((a + b) / 2 - half, (a + b) / 2 + half) for a, b in zip(low, high)]
    else:
        limits = [limits, limits]
    figure = Drawing(figsize=(size * len(sets), size + 0.4 + 0.4 * bool(title)), layout="constrained")
    for k, xy in enumerate(sets):
        ax = figure.add_subplot(1, len(sets), k + 1)
        classes = np.zeros(len(xy), int) if colours is None else as_array(colours[k]).astype(int)
        for c in np.unique(classes):
            colour, _, marker = LINES[c % len(LINES)]
            x, y = xy[classes == c].T
            ax.scatter(x, y, s=dot, color=colour, marker=marker, linewidths=0, alpha=0.7)
        ax.set(xlim=limits[0], ylim=limits[1], aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="#bbbbbb")
        if titles is not None:
            ax.set_title(titles[k], loc="center", weight="normal")
    if title:
        figure.suptitle(title, weight="bold")
    return figure


@styled
def bars(values: Mapping[str, Any], ylabel: str = "", title: str | None = None, fmt: str = "{:.2f}",
         size: tuple[float, float] | None = None, log: bool = False) -> Drawing:
    """One bar for each name with its value above; several seeds are shown as dots around their mean.

    values: {name: number or list of seeds}, or {group: {name: number or list}} for groups of bars
    """
    grouped = any(isinstance(value, dict) for value in values.values())
    groups = values if grouped else {name: {"": value} for name, value in values.items()}
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    across = 1.6 + 1.25 * len(groups) * max(1, 0.7 * len(series))
    figure = Drawing(figsize=size or (max(4, min(10, across)), 4), layout="constrained")
    ax = figure.add_subplot()
    wide = 0.8 / len(series) if grouped else 0.6
    for k, name in enumerate(series):
        style: Any = dict(color=LINES[k % len(LINES)][0], hatch=["", "//", "..", "xx"][k % 4], edgecolor="white")
        for g, group in enumerate(groups.values()):
            if name in group:
                seeds = np.atleast_1d(as_array(group[name]))
                _bar(ax, g + (k - (len(series) - 1) / 2) * wide, seeds, wide * 0.92, style, fmt)
        ax.bar(0, 0, label=name, linewidth=0, **style)       # an empty bar, for the legend
    ax.set_xticks(range(len(groups)), [str(name) for name in groups])
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel=ylabel, yscale="log" if log else "linear")
    ax.grid(False, axis="x")
    ax.margins(y=0.15)
    if grouped:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=len(series))
    if title:
        ax.set_title(title)
    return figure


def _bar(ax, x, seeds, wide, style, fmt):
    """One bar as high as the mean, a dot for each seed, and the mean above."""
    ax.bar(x, seeds.mean(), wide, linewidth=0, **style)
    if len(seeds) > 1:
        ax.plot(np.full(len(seeds), x), seeds, "o", markersize=5, color="black", markerfacecolor="white")
    ax.annotate(fmt.format(seeds.mean()), (x, max(seeds.max(), 0)), xytext=(0, 5), textcoords="offset points",
                ha="center", va="bottom")


@styled
def heat_table(values: Any, rows: Sequence, columns: Sequence, fmt: str = "{:.2f}", title: str | None = None,
               xlabel: str = "", ylabel: str = "", best: str | None = None,
               size: tuple[float, float] | None = None) -> Drawing:
    """A table of numbers in which larger ones have darker cells.

    values: (R, C), or (R, C, seeds), which shows means and standard deviations
    best: "max" or "min" frames that cell
    Raises ValueError when rows and columns do not match values.
    """
    table = as_array(values)
    if table.ndim not in (2, 3) or table.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"a table of {len(rows)} rows and {len(columns)} columns cannot show values of "
                         f"shape {table.shape}")
    mean = table if table.ndim == 2 else table.mean(2)
    low, extent = np.nanmin(mean), np.ptp(mean[np.isfinite(mean)]) or 1.0
    colours = colormaps["Blues"](0.08 + 0.82 * (mean - low) / extent)                          # (R, C, 4)
    size = size or (2.2 + 1.9 * len(columns), 1.3 + 0.85 * len(rows))
    figure = Drawing(figsize=size, layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(colours, aspect="auto")
    for r, c in np.ndindex(mean.shape):
        text = fmt.format(mean[r, c])
        if table.ndim == 3 and table.shape[2] > 1:
            text += f"\n± {fmt.format(table[r, c].std(ddof=1))}"
        ink = max(("white", "black"), key=lambda ink: contrast(ink, colours[r, c, :3]))
        ax.text(c, r, text, ha="center", va="center", color=ink, fontsize=15)
    if best is not None:
        r, c = np.unravel_index((np.nanargmax if best == "max" else np.nanargmin)(mean), mean.shape)
        ax.add_patch(Rectangle((c - 0.48, r - 0.46), 0.96, 0.92, fill=False, linewidth=4, color=ORANGE))
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.hlines(np.arange(len(rows) - 1) + 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=3)
    ax.vlines(np.arange(len(columns) - 1) + 0.5, -0.5, len(rows) - 0.5, color="white", linewidth=3)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(xlabel, labelpad=10)
    ax.set_ylabel(ylabel, labelpad=10)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    if title:
        ax.set_title(title)
    return figure
