"""The command line: one module a command, with its help text; `diffusion-lessons` and `python -m diffusion_lessons`.

Nothing here loads torch before a command runs, so that --help answers at once.
Exit codes: 0 success, 1 failure (one line says why), 2 wrong usage, 130 stopped by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

from diffusion_lessons import __version__
from diffusion_lessons.cli import captions, doctor, evaluate, generate, grade, train

PROG = "diffusion-lessons"
COMMANDS = {"doctor": doctor, "generate": generate, "train": train, "evaluate": evaluate, "captions": captions,
            "grade": grade}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    plain = argparse.RawDescriptionHelpFormatter
    about = "".join(f"  {name:<10} {command.SUMMARY}\n" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(prog=PROG, description=f"Diffusion Lessons on the command line.\n\n{about}",
                                     formatter_class=plain, epilog=f"Help on a command: {PROG} generate --help")
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, description=command.DESCRIPTION, formatter_class=plain,
                                                  epilog=command.EXAMPLES.format(prog=PROG)))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options)
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{options.command} failed: {error}", file=sys.stderr)
        return 1
