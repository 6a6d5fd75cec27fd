"""Find data sets on disk, or download them: shared by digits.py and cifar.py."""

import http.client
import math
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_lessons.datasets.labeled_images import LabeledImages

PATIENCE = 10.0  # seconds without an answer after which we count as offline
FORGET = 60.0  # seconds for which that is remembered, so that the next call need not wait
last_silence: dict[tuple[str, ...], float] = {}  # servers -> when they last failed to answer
KEYS = ("x_train", "y_train", "x_test", "y_test")


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of the data sets (it need not exist yet).

    The first of: folder; the environment variable DIFFUSION_LESSONS_DATA; data/ in the checkout; a cache in the home.
    """
    named = folder or os.environ.get("DIFFUSION_LESSONS_DATA")
    if named:
        return Path(named).expanduser()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / "data"
    return Path.home() / ".cache" / "diffusion_lessons"


def check_split(split: str) -> None:
    """Raise ValueError unless split is "train" or "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")


def read_npz(path: Path, split: str, shape: tuple[int, ...]) -> LabeledImages:
    """Read one split of a local file in the Keras layout: x_train, y_train, x_test, y_test.

    shape: of one picture, (28, 28) or (32, 32, 3)  ->  LabeledImages with x (N, C, H, W)
    Raises ValueError, with the file and what to do, when it is damaged or something else.
    """

    def wrong(what):
        advice = "Replace it with a complete copy, or move it away to download the data again"
        return ValueError(f"{path}: {what}. {advice}.")

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (f"x_{split}", f"y_{split}") if key in file}
            missing = [key for key in KEYS if key not in file]
    except Exception as error:  # one changed byte can raise almost any error, NotImplementedError or LZMAError too
        raise wrong(f"is damaged, incomplete, or not an npz file ({type(error).__name__}: {error})") from error
    if missing:
        raise wrong(f"has no {', '.join(missing)}; it should hold {', '.join(KEYS)}")
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    problem = problem_with(x, y, shape)
    if problem:
        raise wrong(f"{split} split: {problem}")
    return as_pictures(x, y, f"{path}")


def problem_with(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> str | None:
    """What is wrong with the arrays of a data set of ten classes, or None."""
    if x.ndim == 0 or x.shape[1:] != shape:
        return f"pictures have the shape {x.shape}, not (N, {', '.join(map(str, shape))})"
    problem = problem_with_labels(y, len(x))
    if problem is None and (x.dtype != np.uint8 or x.max() <= 1):
        return f"pixels are {x.dtype}{span(x)}, not bytes (uint8) from 0 to 255"
    return problem


def problem_with_labels(y: np.ndarray, count: int) -> str | None:
    """What is wrong with the labels of `count` pictures of ten classes, or None."""
    if y.shape not in ((count,), (count, 1)) or count == 0:
        return f"{count} pictures with labels of the shape {y.shape}, not one label for each"
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > 9:
        return f"labels are {y.dtype}{span(y)}, not whole numbers 0..9"
    return None


def span(array: np.ndarray) -> str:
    """The range of an array in words; "" for types without an order, such as strings."""
    return f" from {array.min():.3g} to {array.max():.3g}" if array.dtype.kind in "iuf" else ""


def as_pictures(x: np.ndarray, y: np.ndarray, source: str) -> LabeledImages:
    """Turn numpy pictures (N, H, W) or (N, H, W, 3) into LabeledImages (N, C, H, W)."""
    pixels = torch.from_numpy(np.ascontiguousarray(x))
    pixels = pixels[:, None] if x.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
    return LabeledImages(pixels, torch.from_numpy(np.asarray(y).reshape(-1).astype(np.int64)), source)


def read_torchvision(dataset: Any, folder: Path, name: str, split: str, shape: tuple[int, ...]) -> LabeledImages:
    """Read the files that torchvision has downloaded into folder / name.

    Raises ValueError, with the folder and what to do, when a file in it is missing or damaged.
    """
    try:
        loaded = dataset(folder, train=split == "train", download=False)
        x, y = np.asarray(loaded.data), np.asarray(loaded.targets)
        problem = problem_with(x, y, shape)
    except Exception as error:  # a truncated file can raise almost any error, even an AssertionError
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ValueError(
            f"{folder / name} is damaged or incomplete ({problem}). "
            "Move that folder away and try again to download it anew."
        )
    return as_pictures(x, y, f"{folder / name}")


def fetch(dataset: Any, folder: Path, name: str, urls: list[str]) -> None:
    """Let torchvision download a data set into folder / name and verify its checksums: completely or not at all.

    Raises OSError when no server answers within PATIENCE seconds, or the folder cannot be written.
    """
    if not answers(urls):
        raise OSError("no network connection: none of its servers answered")
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            dataset(scratch, download=True)
            os.rename(Path(scratch) / name, folder / name)
    except (RuntimeError, http.client.HTTPException) as error:  # RuntimeError: no mirror had a file
        raise OSError(f"the download failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        socket.setdefaulttimeout(before)


def answers(urls: list[str]) -> bool:
    """Does any of the servers answer at all within PATIENCE seconds? Returns as soon as one does."""
    if time.monotonic() - last_silence.get(tuple(urls), -math.inf) < FORGET:
        return False
    answered = threading.Event()

    def ask(url):
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
            answered.set()
        except urllib.error.HTTPError:  # "not found" is an answer too
            answered.set()
        except (OSError, http.client.HTTPException):
            pass

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    # Looking up a host name can hang longer than any socket timeout, hence threads that we can abandon.
    start = time.monotonic()
    while any(thread.is_alive() for thread in threads) and not answered.wait(0.05):
        if time.monotonic() - start > PATIENCE:
            last_silence[tuple(urls)] = time.monotonic()
            break
    return answered.is_set()
