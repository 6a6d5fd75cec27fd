"""Figures of pictures: a grid with labels, or film strips one above another. Pixels stay square and sharp."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from matplotlib.textpath import TextPath
from torch import Tensor

from diffusion_lessons.classroom.style import Drawing, styled
from diffusion_lessons.images import as_rgb

DPI, GAP, WIDTH = 100, 8, 960     # in screen pixels; WIDTH is that of a notebook's column
SMALL, LARGE = 13, 16             # font sizes in points


@styled
def show_pictures(x: Tensor | Iterable[Tensor], labels: Sequence | None = None, columns: int | None = None,
                  titles: Sequence | None = None, scale: int | None = None, title: str | None = None,
                  white: float = 1.0) -> Drawing:
    """A grid of pictures, enlarged without blurring.

    x: (B, C, H, W) or a list of (C, H, W), uint8 or float in [-1, 1]; values outside are black or white
    labels: text below each;  titles: text above each;  title: one line above all of them
    columns: pictures in a row;  scale: screen pixels per pixel;  white: the value shown as white (0 is grey)
    Raises ValueError when there is no picture.
    """
    pictures = [as_rgb(picture, white) for picture in x]
    if not pictures:
        raise ValueError("there are no pictures to show: the batch is empty")
    columns = columns or (len(pictures) if len(pictures) <= 10 else 10)
    return _lay_out(_cut(pictures, columns), _cut(titles, columns), _cut(labels, columns), None, scale, title)


@styled
def film_strip(frames: Sequence[Tensor] | Tensor | dict[str, Sequence[Tensor]], titles: Sequence | None = None,
               scale: int | None = None, title: str | None = None, white: float = 1.0) -> Drawing:
    """Pictures in order of time from left to right; several strips stand one above another.

    frames: a list (or batch) of pictures, or {name of the strip: list}; the names are shown on the left
    titles: text above each column, such as "t = 500"
    Pictures less than half as tall as the tallest are enlarged by a whole number, as far as they stay no taller.
    Raises ValueError when a strip is empty.
    """
    strips = frames if isinstance(frames, dict) else {None: frames}
    rows = [[as_rgb(frame, white) for frame in strip] for strip in strips.values()]
    height = max((picture.shape[0] for row in rows for picture in row), default=0)
    rows = [[_enlarged(picture, height // picture.shape[0]) for picture in row] for row in rows]
    if not rows or not all(rows):
        raise ValueError("there are no pictures to show: a strip is empty")
    names = None if None in strips else list(strips)
    return _lay_out(rows, titles and [titles], None, names, scale, title)


def _enlarged(picture, times):
    """Each pixel of an (H, W, 3) array as a square of `times` x `times` pixels."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _cut(items, columns):
    """Split a flat list into rows; None stays None."""
    if items is None:
        return None
    items = list(items)
    return [items[k:k + columns] for k in range(0, len(items), columns)]


def _lay_out(rows, titles, labels, names, scale, title):
    """Place rows of pictures in a figure, pixel for pixel. All lengths are in screen pixels, with y downwards."""
    columns = max(len(row) for row in rows)
    height, width = (max(picture.shape[axis] for row in rows for picture in row) for axis in (0, 1))
    left = 14 + round(max(text_width(name) for name in names)) if names else 0
    text = max((text_width(word) for group in (titles, labels) for row in group or [] for word in row), default=0)
    if scale is None:
        room = max((WIDTH - left) / columns - GAP, text + GAP)
        scale = max(1, min(int(room // width), round(160 / max(height, width))))
    wide = round(max(width * scale, text + GAP)) + GAP                              # from column to column
    line = round(SMALL * DPI / 72 * 1.5)
    each_row_titled = titles is not None and len(titles) > 1
    above, below = line * lines(titles) * each_row_titled, line * lines(labels)
    top = (round(LARGE * DPI / 72 * 1.9) if title else 0) + line * lines(titles) * (not each_row_titled)
    tall = above + height * scale + below + GAP

    total_w = max(left + columns * wide, text_width(title, LARGE) if title else 0)
    total_h = top + len(rows) * tall
    figure = Drawing(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, total_w), ylim=(total_h, 0))
    ax.axis("off")
    if title:
        ax.text(0, 4, title, fontsize=LARGE, weight="bold", va="top")
    for r, row in enumerate(rows):
        y = top + r * tall + above
        if names:
            ax.text(left - 14, y + height * scale / 2, names[r], fontsize=SMALL, ha="right", va="center")
        for c, picture in enumerate(row):
            x = left + c * wide + (wide - GAP - picture.shape[1] * scale) // 2
            ax.imshow(picture, extent=(x, x + picture.shape[1] * scale, y + picture.shape[0] * scale, y))
            middle = x + picture.shape[1] * scale / 2
            if titles and r < len(titles) and c < len(titles[r]):
                ax.text(middle, y - 5, titles[r][c], fontsize=SMALL, ha="center", va="bottom")
            if labels and r < len(labels) and c < len(labels[r]):
                ax.text(middle, y + height * scale + 5, labels[r][c], fontsize=SMALL, ha="center", va="top")
    ax.set(xlim=(0, total_w), ylim=(total_h, 0), aspect="auto")
    return figure


def lines(words: Sequence | None) -> int:
    """The number of lines of the tallest text in some rows of texts; 0 when there are none."""
    return max((str(word).count("\n") + 1 for row in words or [] for word in row), default=0)


@lru_cache(maxsize=1000)
def text_width(text: object, size: int = SMALL) -> float:
    """The width of a text's widest line in screen pixels, formulas included."""
    lines = [line for line in str(text).split("\n") if line.strip()]
    widths = [TextPath((0, 0), line, size=size).get_extents().width for line in lines]     # in points
    return max(widths, default=0) * DPI / 72
