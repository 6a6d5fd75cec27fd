"""Handwritten digits: real ones (MNIST) where they can be had, drawn ones otherwise."""

from diffusion_lessons.datasets.files import check_split, data_folder, fetch, read_npz, read_torchvision
from diffusion_lessons.datasets.procedural.digits import draw_digits

SOURCES = ("auto", "mnist", "drawn")
DRAWN = {"train": (12_000, 0), "test": (2_000, 1)}  # how many, and their seed
HOW_TO = (
    "put mnist.npz (Keras layout: x_train y_train x_test y_test) into {folder}, "
    "or name another folder in the environment variable DIFFUSION_LESSONS_DATA, "
    "or call again with a network"
)


def load_digits(split="train", source="auto", folder=None):
    """Load the digits 0..9, and say in one printed line which ones they are.

    split: "train" or "test";  source: "auto" (real if possible), "mnist" (real or an error), "drawn"
    -> Pictures with x (N, 1, 28, 28) uint8
    Raises ValueError for unknown words and broken files, FileNotFoundError when "mnist" cannot be had.
    """
    check_split(split)
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: choose one of {', '.join(SOURCES)}")
    if source == "drawn":
        return drawn_digits(split, "as asked")
    folder = data_folder(folder)
    try:
        digits = real_digits(split, folder)
    except OSError as error:
        how_to = HOW_TO.format(folder=folder)
        if source == "mnist":
            raise FileNotFoundError(f"MNIST is not there ({error}). What to do: {how_to}.") from error
        return drawn_digits(split, f"MNIST is not there ({error}); for the real ones {how_to}")
    print(f"digits ({split}): MNIST, {len(digits.y):,} pictures from {digits.source}")
    return digits


def real_digits(split, folder):
    """MNIST from mnist.npz, else from torchvision's files, else downloaded (OSError when offline)."""
    if (folder / "mnist.npz").exists():
        return read_npz(folder / "mnist.npz", split, (28, 28))
    from torchvision.datasets import MNIST  # slow to import, and needed only here

    if not (folder / "MNIST").exists():
        fetch(MNIST, folder, "MNIST", MNIST.mirrors)
    return read_torchvision(MNIST, folder, "MNIST", split, (28, 28))


def drawn_digits(split, why):
    count, seed = DRAWN[split]
    print(f"digits ({split}): drawn digits, {count:,} pictures made in code: {why}")
    return draw_digits(count, seed)
