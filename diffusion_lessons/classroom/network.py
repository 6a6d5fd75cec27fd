"""The U of a U-Net, drawn from the shapes that came out of its layers."""

import math

from matplotlib.patches import Rectangle

from diffusion_lessons.classroom.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, Drawing, legible, styled

COLOURS = {"ResBlock": BLUE, "Attention": VERMILLION, "picture": GREEN}
LEGEND = [  # a word, its colour, its place
    ("ResBlock", BLUE, (0.28, 1.0)), ("Attention", VERMILLION, (0.40, 1.0)), ("picture", GREEN, (0.52, 1.0)),
    ("convolution, resizing", ORANGE, (0.28, 0.93)), ("bridge (dashed)", GREY, (0.52, 0.93)),
]  # fmt: skip


@styled
def u_shape(layers, title=None):
    """Every layer as a box, as tall as its maps and the wider the more channels it has; bridges as arrows.

    layers: a list of (name, (C, H, W)) in the order of their work, where a name ends in what the layer is. Blocks named
    "down ... ResBlock" send a bridge to the blocks named "up ... ResBlock", the last one first.
    Raises ValueError when there is no layer.
    """
    if not layers:
        raise ValueError("there is no layer to draw: run the network once, with hooks that note the shapes")
    largest, widest = max(shape[-1] for _, shape in layers), max(shape[0] for _, shape in layers)
    figure = Drawing(figsize=(max(8, 1.05 * len(layers)), 5), layout="constrained")
    ax = figure.add_subplot()
    places, x = [], 0.0
    for name, (channels, height, _) in layers:
        wide, tall, y = 0.25 + 0.6 * channels / widest, 1.6 * height / largest, -1.3 * math.log2(largest / height)
        colour = COLOURS.get(name.split()[-1], ORANGE)
        ax.add_patch(Rectangle((x, y - tall / 2), wide, tall, color=colour, alpha=0.85, linewidth=0))
        ax.text(x + wide / 2, y - tall / 2 - 0.06, f"{channels}\n{height}$\\times${height}", ha="center", va="top",
                fontsize=12)
        places.append((x + wide / 2, y + tall / 2, y - tall / 2))
        x += wide + 0.45
    for (start, top, _), (end, _, _) in bridges(layers, places):
        ax.plot([start, start, end], [top + 0.03, top + 0.25, top + 0.25], color=GREY, linewidth=1.6, linestyle="--")
        arrow = dict(arrowstyle="-|>", color=GREY, linewidth=1.6)
        ax.annotate("", (end, top + 0.01), (end, top + 0.27), arrowprops=arrow)
    for word, colour, place in LEGEND:
        ax.text(*place, word, color=legible(colour), weight="bold", fontsize=13, transform=ax.transAxes, va="top")
    ax.set(xlim=(-0.1, x - 0.35), ylim=(min(low for *_, low in places) - 0.5, 0.85))
    ax.axis("off")
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def bridges(layers, things):
    """Pairs of things, one for each layer: the last block on the way down, the first on the way up, and so on."""
    down = [thing for (name, _), thing in zip(layers, things) if name.startswith("down") and name.endswith("ResBlock")]
    up = [thing for (name, _), thing in zip(layers, things) if name.startswith("up") and name.endswith("ResBlock")]
    return list(zip(reversed(down), up))
