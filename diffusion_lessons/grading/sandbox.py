"""A worker process for untrusted functions: without the package, and on Linux without network and your files.

On Linux `unshare` puts it into namespaces of its own. Where that is missing or refused it runs without them, and
the CSV says so. It ends with this process, however this one ends (see `guard`).
"""

import contextlib
import functools
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

import diffusion_lessons
from diffusion_lessons.exercises import record
from diffusion_lessons.exercises.checking import Raised
from diffusion_lessons.grading import wire
from diffusion_lessons.grading.guard import Folder, guarded
from diffusion_lessons.limits import TooLong

MEMORY = 8 << 30      # bytes of address space: torch alone reserves some without using it
START = 120.0         # seconds to import torch, on a busy machine
PROCESSOR = 240.0     # seconds of processor time for a worker; honest code takes ten, most of them to import torch
SMALL = 10_000        # numbers in the arguments of a call back to the parent
BROADCAST = 4 << 20   # numbers in the product of these arguments, if they are broadcast against each other
CARRIED = 256 << 20   # bytes that all messages from the worker about one attempt may hold

# Run by `unshare` as process 1 of its own namespaces:
# sh -c NAMESPACE_SCRIPT namespace ROOT SHOWN... -- HIDDEN... -- COMMAND...
NAMESPACE_SCRIPT = """
set -e
root=$1; shift
mount -t tmpfs -o size=32m,mode=755 tmpfs "$root"
mkdir "$root/tmp" "$root/dev" "$root/proc" "$root/old"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    mount -o remount,bind,ro,nosuid,nodev "$root$1"
    shift
done
shift
while [ "$1" != -- ]; do
    mount -t tmpfs -o size=4k,mode=755 tmpfs "$root$1"
    shift
done
shift
for name in null zero urandom; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mount --rbind /proc "$root/proc"    # umount reads it; then it is unmounted as well
cd "$root"
pivot_root . old
cd /tmp
umount -l /old
umount -l /proc
# Once more, so that none of these mounts can be undone in there: they belong to the outer namespace.
unshare --user --mount -- "$@"
exit $?    # this shell stays process 1: when it ends, everything started in here ends
"""
# The first lines of the worker: two files as text, because it cannot see the package that they come from.
BOOT = """
import sys, types
sys.modules["wire"] = types.ModuleType("wire")
exec(sys.argv.pop(1), vars(sys.modules["wire"]))
exec(sys.argv.pop(1))
"""
NAMESPACES = ["--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
GONE = "its process has ended: does it exit, or need very much memory?"
STRANGE = "what came back was not the result of a function."


class WorkerDied(Raised):
    """The worker has ended, or what it sent was no valid reply. The message says which."""

    def __init__(self, message: str) -> None:
        super().__init__(RuntimeError, "", message)


def text_of(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def shown() -> list[Path]:
    """The folders that Python and torch need, none inside another."""
    python = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)]
    libraries = [Path(str(module.__file__)).parents[1] for module in (torch, np)]
    found: list[Path] = []
    for path in map(Path, sorted(map(str, ["/usr", "/bin", "/sbin", "/lib", "/lib64", *python, *libraries]))):
        if path.is_dir() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def namespace_command(root: str, hidden: Iterable[Path], command: Sequence[str]) -> list[str]:
    """The command line that runs a command in namespaces of its own, without the hidden folders."""
    seen, covered = shown(), []
    for path in map(Path.resolve, [Path(str(diffusion_lessons.__file__)).parent, record.path().parent, *hidden]):
        for other in seen:
            if path.is_dir() and path.is_relative_to(other.resolve()) and path != other.resolve():
                covered.append(other / path.relative_to(other.resolve()))
    return ["unshare", *NAMESPACES, "--", "sh", "-c", NAMESPACE_SCRIPT, "namespace", root, *map(str, seen), "--",
            *map(str, covered), "--", *command]


def pipes(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to and from a process."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@functools.cache
def can_isolate() -> bool:
    """Whether this machine allows such namespaces."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    folder = Folder()
    try:
        command = namespace_command(folder.path, [], [sys.executable, "-I", "-c", ""])
        return subprocess.run(guarded(command, PROCESSOR, MEMORY), capture_output=True, timeout=60).returncode == 0
    finally:
        folder.remove()


class TooMuch(ValueError):
    """The worker has sent more about one attempt than it may."""

    def __init__(self) -> None:
        super().__init__(f"its calls and results carry more than {CARRIED >> 20} MiB in all: fewer or smaller ones "
                         "will do.")


class Meter:
    """The pipe from the worker, which can be read up to a number of bytes. Raises TooMuch beyond."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, CARRIED

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise TooMuch
        return self.file.read(size)


class Sandbox:
    """One worker process, started when it is first needed, and again after it has died."""

    def __init__(self, hidden: Iterable[Path] = (), isolated: bool | None = None, memory: int = MEMORY,
                 small: int = SMALL, broadcast: int = BROADCAST) -> None:
        self.hidden, self.memory, self.small, self.broadcast = hidden, memory, small, broadcast
        self.isolated = can_isolate() if isolated is None else isolated
        self.process: subprocess.Popen | None = None
        self.folder: Folder | None = None
        self.busy, self.trains = False, False
        self.kept: list[Any] = []

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self) -> None:
        """Start the worker. Raises OSError when it does not answer."""
        self.folder = folder = Folder()
        self.trains = False
        command = [sys.executable, "-I", "-c", BOOT, text_of("wire.py"), text_of("worker.py")]
        if self.isolated:
            command = namespace_command(folder.path, self.hidden, command)
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        self.process = subprocess.Popen(
            guarded(command, PROCESSOR, self.memory), cwd=folder.path,
            # Parts of torch ask for the user's name, and there is none in the namespace.
            env={**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LOGNAME": "learner"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.meter = Meter(pipes(self.process)[1])
        try:
            self.ask(None, START)
        except (WorkerDied, TooLong) as error:
            raise OSError("the process for the learners' code could not be started") from error

    def end(self, close: bool = True) -> None:
        """Stop the worker and, in a namespace, every process that it started."""
        process, self.process, self.busy = self.process, None, False
        folder, self.folder = self.folder, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError, AttributeError):    # elsewhere: at least those that stayed in its session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in pipes(process) if close else ():
                with contextlib.suppress(OSError):
                    pipe.close()
        if folder is not None:    # there is one without a process when a signal came while that was started
            folder.remove()

    def load(self, code: dict[str, Any], seconds: float, trains: bool = False) -> dict[str, Any]:
        """Load the attempt, in a new worker if there is none, and return a description of it. Raises as `ask` does.

        trains: whether it may use an optimizer. PyTorch takes seconds to import these.
        """
        if self.busy:    # an earlier call was given up
            self.end(close=False)
        if self.process is None:
            self.start()
        if trains and not self.trains:
            self.ask({"load_optimizers": True}, START)
            self.trains = True
        self.kept, self.meter.left = [], CARRIED
        return self.ask({"load": code}, seconds)

    def call(self, arguments: list, seconds: float) -> dict[str, Any]:
        """Call the attempt. Raises as `ask` does."""
        return self.ask({"call": arguments}, seconds)

    def ask(self, message: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send one message and return the reply; meanwhile serve the worker's calls back.

        Raises TooLong when it takes longer than that, WorkerDied when there is no valid reply. Both end the worker.
        """
        if self.process is None:
            raise WorkerDied(GONE)
        outcome: queue.SimpleQueue = queue.SimpleQueue()
        self.busy = True
        threading.Thread(target=self.exchange, args=(self.process, self.meter, message, outcome), daemon=True).start()
        try:
            found = outcome.get(timeout=seconds)
        except queue.Empty:
            self.end(close=False)    # the thread is still reading
            raise TooLong from None
        self.busy = False
        if isinstance(found, Exception):
            self.end()
            raise WorkerDied(GONE if isinstance(found, (EOFError, OSError)) else
                             str(found) if isinstance(found, TooMuch) else STRANGE) from found
        return found

    def exchange(self, process: subprocess.Popen, meter: Meter, message: dict[str, Any] | None,
                 outcome: queue.SimpleQueue) -> None:
        """Write the message and put the reply, or the exception instead of it, into the queue."""
        reply: Any
        to_worker = pipes(process)[0]
        try:
            if message is not None:
                wire.write(to_worker, message, self.kept, most=wire.CELLS)
            while "ask" in (reply := wire.read(meter, self.own)):
                wire.write(to_worker, self.answer(reply))
        except Exception as error:    # the worker may send anything
            reply = error
        outcome.put(reply)

    def own(self, form: dict[str, Any], items: list) -> Any:
        """The object that stayed here, for the worker's number of it."""
        return self.kept[form["number"]]

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Call one of the functions that stayed here, for the worker."""
        try:
            arguments, keywords = list(question["args"]), dict(question["kwargs"])
            given = self.tensors_of([arguments, keywords])
            # Tensors of one shape are multiplied number by number; those of different shapes may be broadcast.
            together = math.prod(map(math.prod, {a.shape for a in given}))
            if sum(a.numel() for a in given) > self.small or together > self.broadcast:
                raise ValueError("the arguments are too large")
            return {"result": self.kept[question["ask"]](*arguments, **keywords)}
        except Exception as error:
            return {"raised": type(error).__name__, "message": str(error)}

    def tensors_of(self, value: Any) -> list[torch.Tensor]:
        """All tensors that came from the worker, however nested. Raises TypeError at an object that was not kept here.

        So a schedule is the one that was handed out, and nothing that looks like one.
        """
        if isinstance(value, torch.Tensor):
            return [value]
        if type(value) in (list, tuple, dict):
            parts = value if not isinstance(value, dict) else [*value.keys(), *value.values()]
            return [tensor for part in parts for tensor in self.tensors_of(part)]
        plain = value is None or value is ... or isinstance(value, (bool, int, float, str))
        if not plain and not any(value is thing for thing in self.kept):
            raise TypeError(f"pass tensors, numbers and what your function was given, not a {type(value).__name__}")
        return []
