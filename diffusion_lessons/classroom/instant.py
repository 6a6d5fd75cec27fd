"""Fast pictures for widgets: matplotlib plots the axes once, and PIL draws on them what changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lessons.classroom.style import BLUE, GREY, SKY, VERMILLION, Drawing, styled
from diffusion_lessons.images import png, tile
from diffusion_lessons.schedules import Schedule

SIZE = 240   # of a picture, in screen pixels


def picture_bytes(x: Tensor, size: int = SIZE) -> bytes:
    """A picture, or a batch in a grid, as a PNG of about `size` screen pixels, enlarged without blurring."""
    picture = tile(x)
    factor = max(1, round(size / max(picture.shape[:2])))
    return png(Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1)))


class Axes:
    """Axes that matplotlib plots once, as a picture; `at` gives the pixel of a point in their coordinates."""

    def __init__(self, plot: Callable, **settings: Any):
        figure = Drawing(figsize=(3.8, SIZE / 100), layout="constrained")
        ax = figure.add_subplot()
        plot(ax)
        ax.set(**settings)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        self.to_pixels: Any = ax.transData.frozen()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point, counted from the top left corner."""
        x, y = self.to_pixels.transform((x, y))     # from the bottom left corner
        return x, self.picture.height - y


class CurveWithDot:
    """The curve of alpha_bar with a dot on it."""

    @styled
    def __init__(self, schedule: Schedule):
        self.alpha_bar = schedule.alpha_bar
        self.axes = Axes(lambda ax: ax.plot(range(schedule.T + 1), self.alpha_bar, color=BLUE), xlabel="t",
                         ylim=(-0.04, 1.04))

    def plot(self, t: int) -> bytes:
        """The curve with a dot at t, as PNG bytes."""
        picture, r = self.axes.picture.copy(), 7
        x, y = self.axes.at(t, self.alpha_bar[t].item())
        ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=VERMILLION, outline="white", width=2)
        return png(picture)


class Histogram:
    """A histogram of values, next to the bell curve of pure noise."""

    EDGES = np.linspace(-4, 4, 41)

    @styled
    def __init__(self):
        at = np.linspace(-4, 4, 200)
        self.bell = np.exp(-at**2 / 2) / (2 * np.pi) ** 0.5
        self.axes = Axes(lambda ax: ax.plot(at, self.bell, color=GREY, linestyle="--"), xlabel="value of a pixel",
                         ylim=(0, 1.5))

    def plot(self, x: Tensor) -> bytes:
        """The histogram of all values in x, as PNG bytes; bars that are too high end at the top."""
        heights, _ = np.histogram(x, self.EDGES, density=True)
        picture = self.axes.picture.copy()
        pen = ImageDraw.Draw(picture, "RGBA")
        for low, high, height in zip(self.EDGES, self.EDGES[1:], heights):
            (left, top), (right, bottom) = self.axes.at(low, min(height, 1.5)), self.axes.at(high, 0)
            if height:
                pen.rectangle((left + 1, top, right - 1, bottom), fill=SKY + "a0")
        return png(picture)
