"""Processes that do not outlive the grader: they end with it, have limits from their first moment, and leave no folder.

How it ends does not matter. The kernel sees to it, on Linux for the processes and on Linux and macOS for the limits.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:    # Windows
    fcntl = None    # type: ignore[assignment]

PREFIX = "diffusion-lessons-grading-"
FILE = 16 << 20     # bytes in one file
OPEN = 256          # files open at once

# A small Python that becomes the command: python -c GUARD PARENT SECONDS MEMORY COMMAND...
GUARD = f"""
import os, resource, sys
parent, seconds, memory, *command = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)    # PR_SET_PDEATHSIG, SIGKILL: it stays through exec
    if os.getppid() != int(parent):           # too late
        sys.exit(1)
for name, most in (("AS", int(memory)), ("CPU", int(seconds)), ("FSIZE", {FILE}), ("NOFILE", {OPEN}), ("CORE", 0)):
    try:
        what = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    except (AttributeError, ValueError, OSError):    # macOS does not limit the address space
        pass
os.execvp(command[0], command)
"""


def guarded(command: Sequence[str], seconds: float, memory: int) -> list[str]:
    """The command line that runs a command under limits, each of which holds for every process that it starts.

    seconds: of processor time;  memory: bytes of address space. On Linux it ends when the thread that started it does.
    """
    if os.name != "posix":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), str(round(seconds)), str(memory), *command]


class Folder:
    """A new, empty folder, locked as long as this process lives."""

    def __init__(self) -> None:
        self.handle: int | None = None
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX)
            if fcntl is None:
                return
            self.handle = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):    # some network drives know no locks
                fcntl.flock(self.handle, fcntl.LOCK_EX)
            if os.path.isdir(self.path):    # else another grader has just taken it for a dead one's
                return
            os.close(self.handle)

    def remove(self) -> None:
        """Remove it, with what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.handle is not None:
            os.close(self.handle)


def sweep() -> None:
    """Remove the folders of graders that were killed: those that nobody has locked."""
    if fcntl is None:
        return
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not re.fullmatch(PREFIX + r"\w{8}", path.name):
            continue
        with contextlib.suppress(OSError):    # locked, not a folder, or somebody else's
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)
