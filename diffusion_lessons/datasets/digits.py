"""Handwritten digits: MNIST where it is available, synthetic digits where it is not."""

from pathlib import Path

from diffusion_lessons.datasets.files import Archive, check_split, data_folder, fetch, read_npz, read_torchvision
from diffusion_lessons.datasets.labeled_images import LabeledImages
from diffusion_lessons.datasets.procedural.digits import synthetic_digits

SOURCES = ("auto", "mnist", "synthetic")
MNIST_SIZES = 9_912_422, 28_881, 1_648_877, 4_542  # bytes in its four archives
SYNTHETIC = {"train": (12_000, 0), "test": (2_000, 1)}  # number of digits, seed
HOW_TO = (
    "put mnist.npz (Keras layout: x_train y_train x_test y_test) into {folder}, "
    "or set the environment variable DIFFUSION_LESSONS_DATA to another folder, "
    "or try again with a network connection"
)


def load_digits(split: str = "train", source: str = "auto", folder: str | Path | None = None) -> LabeledImages:
    """Load the digits 0..9 and print one line that says which digits they are.

    split: "train" or "test";  source: "auto" (MNIST if available, else synthetic), "mnist" or "synthetic"
    -> LabeledImages with x (N, 1, 28, 28) uint8
    Raises ValueError for unknown names and damaged files, FileNotFoundError when "mnist" is not available.
    """
    check_split(split)
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: choose one of {', '.join(SOURCES)}")
    if source == "synthetic":
        return _synthetic(split, "as requested")
    root = data_folder(folder)
    try:
        digits = _load_mnist(split, root)
    except OSError as error:
        how_to = HOW_TO.format(folder=root)
        if source == "mnist":
            raise FileNotFoundError(f"MNIST is not available ({error}). What to do: {how_to}.") from error
        return _synthetic(split, f"MNIST is not available ({error}); to get it, {how_to}")
    print(f"digits ({split}): MNIST, {len(digits.y):,} pictures from {digits.source}")
    return digits


def _load_mnist(split: str, folder: Path) -> LabeledImages:
    """MNIST from mnist.npz, else from torchvision's files, else downloaded.  Raises OSError when offline."""
    if (folder / "mnist.npz").exists():
        return read_npz(folder / "mnist.npz", split, (28, 28))
    from torchvision.datasets import MNIST  # slow to import, and needed only here

    if not (folder / "MNIST").exists():
        fetch(MNIST, folder, "MNIST", [
            Archive(f"MNIST/raw/{file}", [mirror + file for mirror in MNIST.mirrors], md5, size)
            for (file, md5), size in zip(MNIST.resources, MNIST_SIZES, strict=True)])
    return read_torchvision(MNIST, folder, "MNIST", split, (28, 28))


def _synthetic(split: str, why: str) -> LabeledImages:
    count, seed = SYNTHETIC[split]
    print(f"digits ({split}): synthetic digits, {count:,} pictures drawn in code: {why}")
    return synthetic_digits(count, seed)
