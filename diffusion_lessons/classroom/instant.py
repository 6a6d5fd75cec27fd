"""Pictures for widgets, ready within milliseconds: matplotlib draws once, what changes is put on it by hand."""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw

from diffusion_lessons.classroom.animation import tile
from diffusion_lessons.classroom.style import BLUE, GREY, SKY, VERMILLION, Drawing, styled

SIZE = 240   # screen pixels of a picture


def picture_bytes(x, size=SIZE):
    """A picture, or a batch as tiles, as a PNG of about `size` screen pixels, enlarged without blurring."""
    picture = tile(x)
    factor = max(1, round(size / max(picture.shape[:2])))
    return png(Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1)))


def png(image):
    """A PIL image as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


class Canvas:
    """Axes that matplotlib draws once; `at` says where in the picture a point of theirs lies."""

    def __init__(self, plot, **axes):
        figure = Drawing(figsize=(3.8, SIZE / 100), layout="constrained")
        ax = figure.add_subplot()
        plot(ax)
        ax.set(**axes)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        self.place = ax.transData.frozen()

    def at(self, x, y):
        x, y = self.place.transform((x, y))     # from the lower left corner
        return x, self.picture.height - y


class CurveWithDot:
    """The curve of alpha_bar, and a dot on it."""

    @styled
    def __init__(self, schedule):
        self.alpha_bar = schedule.alpha_bar
        self.canvas = Canvas(lambda ax: ax.plot(range(schedule.T + 1), self.alpha_bar, color=BLUE), xlabel="t",
                             ylim=(-0.04, 1.04))

    def draw(self, t):
        """The curve with a dot at t, as PNG bytes."""
        picture, r = self.canvas.picture.copy(), 7
        x, y = self.canvas.at(t, self.alpha_bar[t].item())
        ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=VERMILLION, outline="white", width=2)
        return png(picture)


class Histogram:
    """How often which value occurs, beside the bell of pure noise."""

    EDGES = np.linspace(-4, 4, 41)

    @styled
    def __init__(self):
        at = np.linspace(-4, 4, 200)
        self.bell = np.exp(-at**2 / 2) / (2 * np.pi) ** 0.5
        self.canvas = Canvas(lambda ax: ax.plot(at, self.bell, color=GREY, linestyle="--"), xlabel="value of a pixel",
                             ylim=(0, 1.5))

    def draw(self, x):
        """The histogram of all numbers in x, as PNG bytes; bars that are too high end at the top."""
        heights, _ = np.histogram(x, self.EDGES, density=True)
        picture = self.canvas.picture.copy()
        pen = ImageDraw.Draw(picture, "RGBA")
        for low, high, height in zip(self.EDGES, self.EDGES[1:], heights):
            (left, top), (right, bottom) = self.canvas.at(low, min(height, 1.5)), self.canvas.at(high, 0)
            if height:
                pen.rectangle((left + 1, top, right - 1, bottom), fill=SKY + "a0")
        return png(picture)
