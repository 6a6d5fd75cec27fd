"""A process for functions that nobody has read: no package, and on Linux no network and none of your files.

On Linux `unshare` gives it a room of its own. Where that is missing or refused it runs without, and is told apart.
"""

import contextlib
import functools
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import diffusion_lessons
from diffusion_lessons.exercises import record
from diffusion_lessons.exercises.limits import TooLong
from diffusion_lessons.grading import wire

MEMORY = 8 << 30      # bytes of address space: torch alone takes up some of them without using them
START = 300.0         # seconds to import torch, on a machine that has much else to do
SMALL = 10_000        # numbers in the arguments of a question to the parent: its memory is not the child's to fill

# Run by `unshare` as process 1 of its own namespaces:  sh -c ROOM room ROOT SHOWN... -- HIDDEN... -- COMMAND...
ROOM = """
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
mount --rbind /proc "$root/proc"    # umount looks into it; then it goes as well
cd "$root"
pivot_root . old
cd /tmp
umount -l /old
umount -l /proc
# Once more, so that none of these mounts can be undone in there: they belong to a namespace above.
unshare --user --mount -- "$@"
exit $?    # and this shell stays process 1: when it goes, all that was started in here goes
"""
# The first lines of the child: two files as text, as it cannot see the package that they come from.
BOOT = """
import sys, types
sys.modules["wire"] = types.ModuleType("wire")
exec(sys.argv.pop(1), vars(sys.modules["wire"]))
exec(sys.argv.pop(1))
"""
NAMESPACES = ["--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
GONE = "the process that it ran in is gone: does it exit, or need very much memory?"
STRANGE = "what came back was no answer of a function."


class Lost(Exception):
    """The child is gone, or what it sent was no answer. The words say which."""


def text_of(name):
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def shown():
    """The folders that Python and torch need, none within another."""
    python = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)]
    libraries = [Path(module.__file__).parents[1] for module in (torch, np)]
    found = []
    for path in map(Path, sorted(map(str, ["/usr", "/bin", "/sbin", "/lib", "/lib64", *python, *libraries]))):
        if path.is_dir() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def room(root, hidden, command):
    """The command line that runs a command in a room of its own."""
    seen, covered = shown(), []
    for path in map(Path.resolve, [Path(diffusion_lessons.__file__).parent, record.path().parent, *hidden]):
        for other in seen:
            if path.is_dir() and path.is_relative_to(other.resolve()) and path != other.resolve():
                covered.append(other / path.relative_to(other.resolve()))
    return ["unshare", *NAMESPACES, "--", "sh", "-c", ROOM, "room", root, *seen, "--", *covered, "--", *command]


@functools.cache
def can_isolate():
    """Whether this machine lets us build such a room."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    with tempfile.TemporaryDirectory() as root:
        ends = subprocess.run(room(root, [], [sys.executable, "-I", "-c", ""]), capture_output=True, timeout=60)
    return ends.returncode == 0


class Sandbox:
    """One child process, started when it is first needed, and again after it was lost."""

    def __init__(self, hidden=(), isolated=None, memory=MEMORY):
        self.hidden, self.memory = hidden, memory
        self.isolated = can_isolate() if isolated is None else isolated
        self.process, self.busy, self.kept = None, False, []
        self.spent = 0.0    # seconds of waiting for learners' code

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def start(self):
        self.folder, self.trains = tempfile.mkdtemp(prefix="grading-"), False
        command = [sys.executable, "-I", "-c", BOOT, text_of("wire.py"), text_of("child.py"), str(self.memory)]
        if self.isolated:
            command = room(self.folder, self.hidden, command)
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        self.process = subprocess.Popen(
            command, cwd=self.folder,
            # Parts of torch ask for the user's name, which nobody has in there.
            env={**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LOGNAME": "learner"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            self.ask(None, START)
        except (Lost, TooLong) as error:
            raise OSError("a process for the learners' code could not be started") from error

    def end(self, close=True):
        """Stop the child and, in a room of its own, all that it started."""
        process, self.process, self.busy = self.process, None, False
        if process is None:
            return
        process.kill()
        with contextlib.suppress(OSError, AttributeError):    # elsewhere: at least what did not leave its session
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout) if close else ():
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, code, seconds, trains=False):
        """Make the attempt ready, in a new child if there is none. Returns what it is. Raises as `ask` does.

        trains: whether it may use an optimizer. These take PyTorch seconds to load, which are not the learner's.
        """
        if self.busy:    # somebody gave up waiting for it
            self.end(close=False)
        if self.process is None:
            self.start()
        if trains and not self.trains:
            before = self.spent
            self.ask({"load_optimizers": True}, START)
            self.spent, self.trains = before, True
        self.kept = []
        return self.ask({"load": code}, seconds)

    def call(self, arguments, seconds):
        """Call the attempt. Raises as `ask` does."""
        return self.ask({"call": arguments}, seconds)

    def ask(self, message, seconds):
        """Send one message and return the answer; meanwhile answer what the child asks.

        Raises TooLong when it takes longer than that, Lost when there is no answer. Both end the child.
        """
        if self.process is None:
            raise Lost(GONE)
        self.busy, outcome, start = True, queue.SimpleQueue(), time.monotonic()
        threading.Thread(target=self.exchange, args=(self.process, message, outcome), daemon=True).start()
        try:
            found = outcome.get(timeout=seconds)
        except queue.Empty:
            self.end(close=False)    # the thread is still reading
            raise TooLong from None
        finally:
            self.spent += time.monotonic() - start if message is not None else 0.0
        self.busy = False
        if isinstance(found, Exception):
            self.end()
            raise Lost(GONE if isinstance(found, (EOFError, OSError)) else STRANGE) from found
        return found

    def exchange(self, process, message, outcome):
        try:
            if message is not None:
                wire.write(process.stdin, message, self.kept, most=wire.CELLS)
            while "ask" in (reply := wire.read(process.stdout, self.own)):
                wire.write(process.stdin, self.answer(reply))
        except Exception as error:    # it may send anything
            reply = error
        outcome.put(reply)

    def own(self, form, items):
        """What the child means by a thing that stayed here."""
        return self.kept[form["number"]]

    def answer(self, question):
        """Call one of the functions that were handed over, as the child asks."""
        arguments, words = question["args"], question["kwargs"]
        try:
            if sum(a.numel() for a in [*arguments, *words.values()] if isinstance(a, torch.Tensor)) > SMALL:
                raise ValueError("the arguments are too large")
            return {"result": self.kept[question["ask"]](*arguments, **words)}
        except Exception as error:
            return {"raised": type(error).__name__, "message": str(error)}
