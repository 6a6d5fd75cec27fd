"""Find data sets on disk, or download them: shared by digits.py and cifar.py."""

import hashlib
import http.client
import math
import os
import shlex
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from diffusion_lessons.datasets.labeled_images import LabeledImages
from diffusion_lessons.limits import TooLong, within
from diffusion_lessons.runtime import home

PATIENCE = 10.0  # seconds without an answer after which we count as offline
SLOWEST = 50_000  # bytes a second, on the whole: a download at less counts as broken
FORGET = 60.0  # seconds for which that is remembered, so that the next call need not wait
last_silence: dict[tuple[str, ...], float] = {}  # servers -> when they last failed to answer
KEYS = ("x_train", "y_train", "x_test", "y_test")


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of the data sets (it need not exist yet).

    The first of: folder; the environment variable DIFFUSION_LESSONS_DATA; data/ in the checkout; a cache in the home.
    """
    named = folder or os.environ.get("DIFFUSION_LESSONS_DATA")
    if named:
        return Path(os.path.expanduser(named))    # which leaves ~ where there is no home
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / "data"
    return home() / ".cache" / "diffusion_lessons"


def check_split(split: str) -> None:
    """Raise ValueError unless split is "train" or "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")


def read_npz(path: Path, split: str, shape: tuple[int, ...]) -> LabeledImages:
    """Read one split of a local file in the Keras layout: x_train, y_train, x_test, y_test.

    shape: of one picture, (28, 28) or (32, 32, 3)  ->  LabeledImages with x (N, C, H, W)
    Raises ValueError, with the file and what to do, when it is damaged, something else, or may not be read.
    """
    check_readable(path)

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


class Unreadable(ValueError):
    """A file or a folder is there, but its permissions keep it from being read."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{path} cannot be read: permission denied. It may well be intact: make it readable "
                         f"(chmod -R u+rX {shlex.quote(str(path))}), or ask its owner to.")


def check_readable(path: Path, inside: bool = True) -> None:
    """Raise Unreadable unless a file, or a folder and everything inside it, may be read."""
    for place in [path, *path.rglob("*")] if inside and path.is_dir() else [path]:
        if place.exists() and not os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0)):
            raise Unreadable(place)


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

    Raises ValueError, with the folder and what to do, when a file in it is missing, damaged, or may not be read.
    """
    check_readable(folder / name)
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


class Archive(NamedTuple):
    """One file of a data set as its servers have it. path: where torchvision looks for it;  size: in bytes, at most"""

    path: str
    urls: list[str]
    md5: str
    size: int


def fetch(dataset: Any, folder: Path, name: str, archives: list[Archive]) -> None:
    """Download a data set's archives, and let torchvision unpack them into folder / name: completely or not at all.

    Raises OSError when no server answers within PATIENCE seconds, when one sends something else, more than there is or
    less than SLOWEST, or when the folder cannot be written.
    """
    if not answers(archives[0].urls):
        raise OSError("no network connection: none of its servers answered")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            for archive in archives:
                download(archive, Path(scratch, archive.path))
            dataset(scratch, download=True)    # finds the archives, verified, and unpacks them
            os.rename(Path(scratch) / name, folder / name)
    except RuntimeError as error:
        raise OSError(f"the download failed: {str(error).strip().splitlines()[-1]}") from error


def download(archive: Archive, path: Path) -> None:
    """Write one archive to the path, from the first server that has it. Raises OSError with the last one's reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    why = ""
    for url in archive.urls:
        try:
            content = within(PATIENCE + archive.size / SLOWEST, read_url, url, archive.size)
        except TooLong:
            why = f"{url} sends less than {SLOWEST // 1000} kB a second"
        except (OSError, http.client.HTTPException) as error:
            why = f"{url}: {' '.join(str(error).split()) or type(error).__name__}"
        else:
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == archive.md5:
                path.write_bytes(content)
                return
            why = f"{url} sends something else than it should"
    raise OSError(f"the download failed: {why}")


def read_url(url: str, most: int) -> bytearray:
    """What a server sends. Raises OSError where it is silent for PATIENCE seconds, or sends more bytes than `most`."""
    content = bytearray()
    bar = tqdm(total=most, desc="downloading", unit="B", unit_scale=True, leave=False)
    with bar, urllib.request.urlopen(url, timeout=PATIENCE) as response:
        while part := response.read1(1 << 16):    # whatever has come: a drip must not keep `within` from stopping this
            content += part
            bar.update(len(part))
            if len(content) > most:
                raise OSError(f"sends more than the {most:,} bytes that it should")
    return content


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
