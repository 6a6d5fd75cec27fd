"""What only a notebook needs: figures, a film player and widgets.

Each plotting function returns its figure: make it the last value of a cell, or pass it to `display`.
"""

from diffusion_lessons.classroom.animation import animate
from diffusion_lessons.classroom.pictures import film_strip, show_pictures
from diffusion_lessons.classroom.plots import bars, curve, curves, heat_table, points
from diffusion_lessons.classroom.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    use_style,
)
from diffusion_lessons.classroom.widgets import (
    brush,
    denoise_slider,
    latent_lab,
    loop_player,
    prompt_lab,
    sampler_bench,
    schedule_explorer,
    walk_slider,
)

__all__ = [
    "BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PALETTE", "PURPLE", "SKY", "VERMILLION", "YELLOW",
    "animate", "bars", "brush", "curve", "curves", "denoise_slider", "film_strip", "heat_table", "latent_lab",
    "loop_player", "points", "prompt_lab", "sampler_bench", "schedule_explorer", "show_pictures", "use_style",
    "walk_slider",
]
