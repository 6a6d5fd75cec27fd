"""The command line: one module a command, with its help text; `diffusion-lessons` and `python -m diffusion_lessons`.

Nothing here loads torch before a command runs, so that --help answers at once.
Exit codes: 0 success, 1 failure (one line says why), 2 wrong usage, 70 a fault of the program, 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

from diffusion_lessons import __version__
from diffusion_lessons.cli import captions, class_check, doctor, evaluate, generate, grade, leaderboard, train

PROG = "diffusion-lessons"
COMMANDS = {"doctor": doctor, "generate": generate, "train": train, "evaluate": evaluate, "captions": captions,
            "grade": grade, "leaderboard": leaderboard, "class-check": class_check}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    plain = argparse.RawDescriptionHelpFormatter
    about = "".join(f"  {name:<12} {command.SUMMARY}\n" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(prog=PROG, description=f"Diffusion Lessons on the command line.\n\n{about}",
                                     formatter_class=plain, epilog=f"Help on a command: {PROG} generate --help")
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, description=command.DESCRIPTION, formatter_class=plain,
                                      epilog=command.EXAMPLES.format(prog=PROG))
        command.add_arguments(options)
        options.add_argument("--debug", action="store_true", help="show where a failure came from (a traceback)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    mend_streams()
    try:
        return run(build_parser().parse_args(arguments))
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def mend_streams() -> None:
    """See to it that a message cannot end a command: closed streams swallow it, others write \\xe9 for a letter that
    they do not have.

    Without this, the next file to be opened would take a closed stream's place, and get the messages of libraries.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def run(options: argparse.Namespace) -> int:
    """Run the command; what goes wrong becomes one line and an exit code, with --debug a traceback too."""
    try:
        import_torch()
        from diffusion_lessons.distributed import joined

        with joined():
            return COMMANDS[options.command].run(options)
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        sentence = explain(error)
        print(f"{options.command} failed: {sentence or unexpected(error)}", file=sys.stderr)
        return 1 if sentence else 70


def explain(error: Exception) -> str | None:
    """One sentence for a failure that is to be expected, None for a fault of the program."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (f"there is no room to write {error.filename or 'the file'} ({error.strerror}): free some space and "
                "give the same command again. Files that were there before are unchanged")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "t allocate memory" in said:
        return "not enough memory: choose a smaller --batch or --count"
    if isinstance(error, ImportError):
        return f"{said}: {PROG} doctor says what is missing"
    return said or type(error).__name__ if isinstance(error, ValueError | OSError | FloatingPointError) else None


def unexpected(error: Exception) -> str:
    """One sentence for a fault of the program."""
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}. This is a fault of the program; with --debug it shows where"


def import_torch() -> None:
    """Import torch, which takes seconds; Ctrl-C meanwhile ends the program at once, with one line.

    An import that is broken off by an exception would end in a long traceback of anything.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def stop(*_: object) -> None:
        os.write(2, b"\nstopped\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    try:
        with contextlib.suppress(ImportError):    # the command says so itself
            import torch  # noqa: F401
    finally:
        signal.signal(signal.SIGINT, before)
