"""Picture sets and 2-D point sets: where the data of the lessons comes from."""

from diffusion_lessons.datasets.cifar import load_cifar
from diffusion_lessons.datasets.digits import load_digits
from diffusion_lessons.datasets.files import data_folder
from diffusion_lessons.datasets.labeled_images import Pictures, to_float, to_uint8
from diffusion_lessons.datasets.procedural.digits import draw_digits
from diffusion_lessons.datasets.procedural.rabbit import rabbit
from diffusion_lessons.datasets.toy import rabbit_outline, ring, spiral, two_moons

__all__ = [
    "Pictures",
    "data_folder",
    "draw_digits",
    "load_cifar",
    "load_digits",
    "rabbit",
    "rabbit_outline",
    "ring",
    "spiral",
    "to_float",
    "to_uint8",
    "two_moons",
]
