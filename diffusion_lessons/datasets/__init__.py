"""Picture sets and 2-D point sets: where the data of the lessons comes from."""

from .cifar import load_cifar
from .digits import load_digits
from .drawn import draw_digits
from .files import data_folder
from .pictures import Pictures, to_float, to_uint8
from .rabbit import rabbit
from .toy import rabbit_outline, ring, spiral, two_moons

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
