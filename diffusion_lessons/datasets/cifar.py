"""CIFAR-10: 32x32 colour photos in ten classes (Krizhevsky 2009)."""

from pathlib import Path

from diffusion_lessons.datasets.files import Archive, check_split, data_folder, fetch, read_npz, read_torchvision
from diffusion_lessons.datasets.labeled_images import LabeledImages

CLASSES = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")
ARCHIVE = 170_498_071  # bytes
FOLDER = "cifar-10-batches-py"  # torchvision's name for it


def load_cifar(split: str = "train", folder: str | Path | None = None) -> LabeledImages:
    """Load CIFAR-10 from cifar10.npz in the data folder, else from torchvision's files there, else download it.

    split: "train" (50,000) or "test" (10,000)  ->  LabeledImages with x (N, 3, 32, 32) uint8
    Raises ValueError for a damaged file, and FileNotFoundError, with what to do, when the data cannot be downloaded.
    """
    check_split(split)
    root = data_folder(folder)
    try:
        photos = _load(split, root)
    except OSError as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not available ({error}). What to do: try again with a network connection (170 MB, once), "
            f"or put cifar10.npz (Keras layout: x_train y_train x_test y_test) into {root}, "
            "or set the environment variable DIFFUSION_LESSONS_DATA to another folder."
        ) from error
    print(f"photos ({split}): CIFAR-10, {len(photos.y):,} pictures from {photos.source}")
    return photos


def _load(split: str, folder: Path) -> LabeledImages:
    """CIFAR-10 from whichever source comes first.  Raises OSError when there is none."""
    if (folder / "cifar10.npz").exists():
        return read_npz(folder / "cifar10.npz", split, (32, 32, 3))
    from torchvision.datasets import CIFAR10  # slow to import, and needed only here

    if not (folder / FOLDER).exists():
        fetch(CIFAR10, folder, FOLDER, [Archive(CIFAR10.filename, [CIFAR10.url], CIFAR10.tgz_md5, ARCHIVE)])
    return read_torchvision(CIFAR10, folder, FOLDER, split, (32, 32, 3))
