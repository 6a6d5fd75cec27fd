"""The machine underneath: which device, how many threads, files that are either whole or not there."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch


def device() -> torch.device:
    """The best device here: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def name(device: torch.device) -> str:
    """What the device is, in words, like "cuda: Tesla T4, 14.6 GiB"."""
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        return f"cuda: {card.name}, {card.total_memory / 2**30:.1f} GiB"
    if device.type == "mps":
        return "mps: the GPU of an Apple chip, which shares the main memory"
    return "cpu (no GPU found; the lessons need none)"


def describe(chosen: torch.device | None = None) -> str:
    """For the reader of a notebook: which device this is, and what changes on another one."""
    chosen = chosen or device()
    faster = "Training would be faster on a GPU" if chosen.type == "cpu" else "Training is faster than on the CPU"
    return (f"Device: {name(chosen)}.\n"
            f"{faster}, with slightly other results, because its noise is drawn on the device.\n"
            "Sampling draws its noise on the CPU: the same seed starts from the same noise on every device,\n"
            "and the pictures differ by rounding alone.")


def home() -> Path:
    """The user's home folder; the current folder where there is none, as for a container's user without a name."""
    try:
        return Path.home()
    except RuntimeError:
        return Path.cwd()


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`, and move it there only if the block ends without an error.

    A crash, a full disk or Ctrl-C leaves the file that was there before. What a killed process has left behind of an
    earlier attempt is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_scratch(path)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        if try_lock(handle) is None:
            os.close(handle)    # Windows moves no file that is open
            handle = -1
        yield Path(scratch)
        with open(scratch, "r+b") as f:   # Windows syncs only what may be written
            os.fsync(f.fileno())
        with contextlib.suppress(OSError):   # a mounted drive may know no permissions
            os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    finally:
        if handle >= 0:
            os.close(handle)


def remove_stale_scratch(path: Path) -> None:
    """Remove the scratch files of `atomic_write` whose writer has died: nobody holds their lock any more."""
    name = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")    # as mkstemp names them
    for scratch in path.parent.iterdir():
        if name.fullmatch(scratch.name):
            with contextlib.suppress(OSError), open(scratch, "r+b") as f:
                if try_lock(f.fileno()):
                    scratch.unlink()


@contextlib.contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Let one process at a time into such a block for this path; the lock ends with the process, even a killed one.

    Where there are no locks (Windows, some network drives) everybody is let in. Raises BlockingIOError.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        locked = try_lock(handle)
        if locked is False:
            os.close(handle)
            raise BlockingIOError(f"another process is writing {path}: wait until it ends, or choose another file")
        if locked is None or (lock.exists() and os.path.samestat(os.fstat(handle), os.stat(lock))):
            break
        os.close(handle)    # whoever held it has just removed it: once more
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Lock an open file until it is closed, without waiting.  -> False if another has it, None if there are no locks"""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
