"""Finding data sets on the disk, or fetching them: shared by digits.py and cifar.py."""

import http.client
import math
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from diffusion_lessons.datasets.labeled_images import Pictures

PATIENCE = 10.0  # seconds of silence after which the network counts as absent
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, TypeError, AttributeError, ValueError)
FORGET = 60.0  # seconds for which a silence is remembered, so that the next call need not wait too
last_silence = {}  # servers -> when they last stayed silent
KEYS = ("x_train", "y_train", "x_test", "y_test")


def data_folder(folder=None):
    """The folder that holds the data sets (it need not exist yet).

    The first of: folder; the variable DIFFUSION_LESSONS_DATA; the checkout's data/; a cache at home.
    """
    named = folder or os.environ.get("DIFFUSION_LESSONS_DATA")
    if named:
        return Path(named).expanduser()
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").exists():
        return checkout / "data"
    return Path.home() / ".cache" / "diffusion_lessons"


def check_split(split):
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")


def read_npz(path, split, shape):
    """Read one split of a local file in the Keras layout: x_train, y_train, x_test, y_test.

    shape: of one picture, (28, 28) or (32, 32, 3)  ->  Pictures with x (N, C, H, W)
    Raises ValueError, naming the file and what to do, when it is broken or is something else.
    """

    def wrong(what):
        advice = "Replace it by a whole copy, or move it away to have the data fetched again"
        return ValueError(f"{path}: {what}. {advice}.")

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (f"x_{split}", f"y_{split}") if key in file}
            missing = [key for key in KEYS if key not in file]
    except BROKEN as error:
        raise wrong(f"is broken, or only half downloaded, or no npz at all ({error})") from error
    if missing:
        raise wrong(f"has no {', '.join(missing)}; it should hold {', '.join(KEYS)}")
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    problem = problem_with(x, y, shape)
    if problem:
        raise wrong(f"{split} split: {problem}")
    return as_pictures(x, y, f"{path}")


def problem_with(x, y, shape):
    """Say what is wrong with the arrays of a data set of ten classes, or None."""
    if x.ndim == 0 or x.shape[1:] != shape:
        return f"pictures have the shape {x.shape}, not (N, {', '.join(map(str, shape))})"
    problem = problem_with_labels(y, len(x))
    if problem is None and (x.dtype != np.uint8 or x.max() <= 1):
        return f"pixels are {x.dtype}{span(x)}, not bytes (uint8) from 0 to 255"
    return problem


def problem_with_labels(y, count):
    """Say what is wrong with the labels of so many pictures of ten classes, or None."""
    if y.shape not in ((count,), (count, 1)) or count == 0:
        return f"{count} pictures with labels of the shape {y.shape}, not one label for each"
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > 9:
        return f"labels are {y.dtype}{span(y)}, not whole numbers 0..9"
    return None


def span(array):
    """The range of an array in words; nothing for what has no order, such as strings."""
    return f" from {array.min():.3g} to {array.max():.3g}" if array.dtype.kind in "iuf" else ""


def as_pictures(x, y, source):
    """Turn numpy pictures (N, H, W) or (N, H, W, 3) into Pictures (N, C, H, W)."""
    x = torch.from_numpy(np.ascontiguousarray(x))
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
    return Pictures(x, torch.from_numpy(np.asarray(y).reshape(-1).astype(np.int64)), source)


def read_torchvision(dataset, folder, name, split, shape):
    """Read what torchvision has downloaded into folder / name.

    Raises ValueError, naming the folder, when a file in it is missing or broken.
    """
    try:
        loaded = dataset(folder, train=split == "train", download=False)
        x, y = np.asarray(loaded.data), np.asarray(loaded.targets)
        problem = problem_with(x, y, shape)
    except Exception as error:  # a cut file shows as almost any error, an assertion among them
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ValueError(
            f"{folder / name} is broken or only half there ({problem}). "
            "Move that folder away and call again to have it downloaded afresh."
        )
    return as_pictures(x, y, f"{folder / name}")


def fetch(dataset, folder, name, urls):
    """Let torchvision download a data set, checksums and all, into folder / name: whole or not at all.

    Raises OSError when the network is absent or silent for PATIENCE seconds, or the folder cannot be written.
    """
    if not answers(urls):
        raise OSError("no network: none of its servers answered")
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            dataset(scratch, download=True)
            os.rename(Path(scratch) / name, folder / name)
    except (RuntimeError, http.client.HTTPException) as error:  # torchvision: no mirror gave me that file
        raise OSError(f"the download failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        socket.setdefaulttimeout(before)


def answers(urls):
    """True as soon as one of the servers says anything at all within PATIENCE seconds."""
    if time.monotonic() - last_silence.get(tuple(urls), -math.inf) < FORGET:
        return False
    heard = threading.Event()

    def knock(url):
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
            heard.set()
        except urllib.error.HTTPError:  # "not found" is an answer too
            heard.set()
        except (OSError, http.client.HTTPException):
            pass

    threads = [threading.Thread(target=knock, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    # Looking up a name may hang longer than any socket timeout, hence threads that we can leave behind.
    start = time.monotonic()
    while any(thread.is_alive() for thread in threads) and not heard.wait(0.05):
        if time.monotonic() - start > PATIENCE:
            last_silence[tuple(urls)] = time.monotonic()
            break
    return heard.is_set()
