"""The U of a U-Net, drawn from the shapes of its layers' outputs."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from diffusion_lessons.classroom.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, Drawing, legible, styled
from diffusion_lessons.models.unet import DownBlock, UpBlock

COLOURS = {"ResBlock": BLUE, "Attention": VERMILLION, "picture": GREEN}
Layer = tuple[str, tuple[int, int, int]]    # a name, (C, H, W)
T = TypeVar("T")
LEGEND = [  # a label, its colour, its position
    ("ResBlock", BLUE, (0.28, 1.0)), ("Attention", VERMILLION, (0.40, 1.0)), ("picture", GREEN, (0.52, 1.0)),
    ("convolution, resizing", ORANGE, (0.28, 0.93)), ("skip connection", GREY, (0.52, 0.93)),
]  # fmt: skip


@styled
def u_shape(layers: Sequence[Layer], title: str | None = None) -> Figure:
    """Draw every layer as a box, as tall as its maps and wider for more channels; skip connections are dashed arrows.

    layers: a list of (name, (C, H, W)) in the order in which they run, each name ending in the layer's type. A skip
    connection leads from each "down ... ResBlock" to an "up ... ResBlock", the last one first.
    Raises ValueError when there is no layer.
    """
    if not layers:
        raise ValueError("there is no layer to draw: run the network once, with hooks that record the shapes")
    largest, widest = max(shape[-1] for _, shape in layers), max(shape[0] for _, shape in layers)
    figure = Drawing(figsize=(max(8, 1.05 * len(layers)), 5), layout="constrained")
    ax = figure.add_subplot()
    corners, x = [], 0.0
    for name, (channels, height, _) in layers:
        wide, tall, y = 0.25 + 0.6 * channels / widest, 1.6 * height / largest, -1.3 * math.log2(largest / height)
        colour = COLOURS.get(name.split()[-1], ORANGE)
        ax.add_patch(Rectangle((x, y - tall / 2), wide, tall, color=colour, alpha=0.85, linewidth=0))
        ax.text(x + wide / 2, y - tall / 2 - 0.06, f"{channels}\n{height}$\\times${height}", ha="center", va="top",
                fontsize=12)
        corners.append((x + wide / 2, y + tall / 2, y - tall / 2))
        x += wide + 0.45
    for (start, top, _), (end, _, _) in skip_pairs(layers, corners):
        ax.plot([start, start, end], [top + 0.03, top + 0.25, top + 0.25], color=GREY, linewidth=1.6, linestyle="--")
        arrow = dict(arrowstyle="-|>", color=GREY, linewidth=1.6)
        ax.annotate("", (end, top + 0.01), (end, top + 0.27), arrowprops=arrow)
    for label, colour, at in LEGEND:
        ax.text(*at, label, color=legible(colour), weight="bold", fontsize=13, transform=ax.transAxes, va="top")
    ax.set(xlim=(-0.1, x - 0.35), ylim=(min(low for *_, low in corners) - 0.5, 0.85))
    ax.axis("off")
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def skip_pairs(layers: Sequence[Layer], things: Sequence[T]) -> list[tuple[T, T]]:
    """The two ends of each skip connection: the last block down with the first block up, and so on.

    things: one for each layer
    """
    down = [thing for (name, _), thing in zip(layers, things) if name.startswith("down") and name.endswith("ResBlock")]
    up = [thing for (name, _), thing in zip(layers, things) if name.startswith("up") and name.endswith("ResBlock")]
    return list(zip(reversed(down), up))


def named_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """The layers of a UNet in the order in which they run: conv_in, down 0, ..., mid 0, ..., up 0, ..., conv_out."""
    layers = {"conv_in": unet.get_submodule("conv_in")}
    for side, name in (("down", "down_blocks"), ("mid", "mid_block"), ("up", "up_blocks")):
        layers |= {f"{side} {k}": layer for k, layer in enumerate(_flat(unet.get_submodule(name)))}
    return layers | {"conv_out": unet.get_submodule("conv_out")}


def _flat(block: nn.Module) -> Iterator[nn.Module]:
    """The layers within blocks and lists of blocks."""
    for child in block.children():
        if isinstance(child, (nn.ModuleList, DownBlock, UpBlock)):
            yield from _flat(child)
        elif not isinstance(child, nn.Identity):
            yield child
