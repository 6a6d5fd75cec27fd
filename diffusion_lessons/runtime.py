"""The machine underneath: which device, how many threads, files that are either whole or not there."""

import contextlib
import os
import tempfile
from pathlib import Path

import torch


def device():
    """The best device here: cuda, mps or cpu, as a torch.device."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextlib.contextmanager
def atomic_write(path):
    """Yield a scratch path beside `path`, and move it there only when the block ends well.

    A crash, a full disk or Ctrl-C leaves the file that was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(scratch)
        with open(scratch, "r+b") as f:   # Windows syncs only what may be written
            os.fsync(f.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
