"""Showing pictures: a grid of them, or film strips above each other. Pixels stay square and sharp."""

from functools import lru_cache

import torch
from matplotlib.textpath import TextPath

from diffusion_lessons.classroom.style import Drawing, styled
from diffusion_lessons.datasets.labeled_images import to_uint8

DPI, GAP, WIDTH = 100, 8, 960     # all in screen pixels; WIDTH is what a notebook's column holds
SMALL, LARGE = 13, 16             # font sizes in points


def as_rgb(picture, white=1.0):
    """One picture as bytes for the screen: -1 is black, `white` and above is white.

    picture: (H, W), (1, H, W), (3, H, W), or a batch of one of these  ->  (H, W, 3) uint8 array
    """
    x = torch.as_tensor(picture).detach().cpu()
    if x.ndim == 4 and len(x) == 1:
        x = x[0]
    if x.ndim == 2:
        x = x[None]
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise ValueError(f"a picture is (1, H, W) or (3, H, W), not {tuple(x.shape)}; "
                         "of a batch show one, or all of them with show_pictures")
    x = x if x.dtype == torch.uint8 else to_uint8(x / white)
    return x.expand(3, -1, -1).permute(1, 2, 0).numpy()


@styled
def show_pictures(x, labels=None, columns=None, titles=None, scale=None, title=None, white=1.0):
    """A grid of pictures, enlarged without blurring.

    x: (B, C, H, W) or a list of (C, H, W), uint8 or float in [-1, 1], beyond which all is black or white
    labels: a word under each;  titles: a word above each;  title: one line above all
    columns: pictures in a row
    scale: screen pixels per pixel;  white: the value shown as white, grey being 0
    """
    pictures = [as_rgb(picture, white) for picture in x]
    if not pictures:
        raise ValueError("there is no picture to show: the batch is empty")
    columns = columns or (len(pictures) if len(pictures) <= 10 else 10)
    return _lay_out(_cut(pictures, columns), _cut(titles, columns), _cut(labels, columns), None, scale, title)


@styled
def film_strip(frames, titles=None, scale=None, title=None, white=1.0):
    """Pictures in time order from left to right; several strips stand above each other.

    frames: a list (or batch) of pictures, or {name of the strip: list}; the names then stand on the left
    titles: a word above each column, such as "t = 500"
    """
    strips = frames if isinstance(frames, dict) else {None: frames}
    rows = [[as_rgb(frame, white) for frame in strip] for strip in strips.values()]
    if not rows or not all(rows):
        raise ValueError("there is no picture to show: a strip is empty")
    names = None if None in strips else list(strips)
    return _lay_out(rows, titles and [titles], None, names, scale, title)


def _cut(items, columns):
    """A flat list as rows; None stays None."""
    if items is None:
        return None
    items = list(items)
    return [items[k:k + columns] for k in range(0, len(items), columns)]


def _lay_out(rows, titles, labels, names, scale, title):
    """Place rows of pictures on a figure, pixel for pixel. All measures in screen pixels, y downwards."""
    columns = max(len(row) for row in rows)
    height, width = (max(picture.shape[axis] for row in rows for picture in row) for axis in (0, 1))
    left = 14 + round(max(text_width(name) for name in names)) if names else 0
    words = [text_width(word) for group in (titles, labels) for row in group or [] for word in row]
    words = max(words, default=0)
    if scale is None:
        room = max((WIDTH - left) / columns - GAP, words + GAP)
        scale = max(1, min(int(room // width), round(160 / max(height, width))))
    wide = round(max(width * scale, words + GAP)) + GAP                              # from column to column
    line = round(SMALL * DPI / 72 * 1.5)
    each_row_titled = titles is not None and len(titles) > 1
    above, below = line * lines(titles) * each_row_titled, line * lines(labels)
    top = (round(LARGE * DPI / 72 * 1.9) if title else 0) + line * lines(titles) * (not each_row_titled)
    tall = above + height * scale + below + GAP

    total_w = max(left + columns * wide, text_width(title, LARGE) if title else 0)
    total_h = top + len(rows) * tall
    figure = Drawing(figsize=(total_w / DPI, total_h / DPI), dpi=DPI)
    ax = figure.add_axes([0, 0, 1, 1])
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


def lines(words):
    """How many lines the tallest of some rows of words takes; 0 when there are none."""
    return max((str(word).count("\n") + 1 for row in words or [] for word in row), default=0)


@lru_cache(maxsize=1000)
def text_width(text, size=SMALL):
    """How many screen pixels the widest line of a text takes, formulas included."""
    lines = [line for line in str(text).split("\n") if line.strip()]
    widths = [TextPath((0, 0), line, size=size).get_extents().width for line in lines]     # in points
    return max(widths, default=0) * DPI / 72
