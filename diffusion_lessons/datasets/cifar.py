"""CIFAR-10: 32x32 colour photos of ten kinds of things (Krizhevsky 2009)."""

from diffusion_lessons.datasets.files import check_split, data_folder, fetch, read_npz, read_torchvision

CLASSES = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")
FOLDER = "cifar-10-batches-py"  # torchvision's name for it


def load_cifar(split="train", folder=None):
    """Load CIFAR-10: cifar10.npz in the data folder, else torchvision's files there, else a download.

    split: "train" (50,000) or "test" (10,000)  ->  Pictures with x (N, 3, 32, 32) uint8
    Raises ValueError for a broken file, FileNotFoundError (with what to do) when it cannot be had.
    """
    check_split(split)
    folder = data_folder(folder)
    try:
        photos = real_photos(split, folder)
    except OSError as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not there ({error}). What to do: call again with a network (170 MB, once), "
            f"or put cifar10.npz (Keras layout: x_train y_train x_test y_test) into {folder}, "
            "or name another folder in the environment variable DIFFUSION_LESSONS_DATA."
        ) from error
    print(f"photos ({split}): CIFAR-10, {len(photos.y):,} pictures from {photos.source}")
    return photos


def real_photos(split, folder):
    if (folder / "cifar10.npz").exists():
        return read_npz(folder / "cifar10.npz", split, (32, 32, 3))
    from torchvision.datasets import CIFAR10  # slow to import, and needed only here

    if not (folder / FOLDER).exists():
        fetch(CIFAR10, folder, FOLDER, [CIFAR10.url])
    return read_torchvision(CIFAR10, folder, FOLDER, split, (32, 32, 3))
