"""Image data sets and 2-D point sets: the data of the lessons."""

from diffusion_lessons.datasets.cifar import load_cifar
from diffusion_lessons.datasets.digits import load_digits
from diffusion_lessons.datasets.files import data_folder
from diffusion_lessons.datasets.labeled_images import LabeledImages, to_float, to_uint8
from diffusion_lessons.datasets.procedural.digits import synthetic_digits
from diffusion_lessons.datasets.procedural.rabbit import rabbit
from diffusion_lessons.datasets.toy import rabbit_outline, ring

__all__ = [
    "LabeledImages",
    "data_folder",
    "load_cifar",
    "load_digits",
    "rabbit",
    "rabbit_outline",
    "ring",
    "synthetic_digits",
    "to_float",
    "to_uint8",
]
