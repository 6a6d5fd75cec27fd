"""Reading a notebook in a process of its own: whatever is in the file, the grading goes on.

Nothing in the notebook is run, but a parser can be made to hang, to fill the memory or to crash. The process loads no
torch, so it starts in a fraction of a second.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusion_lessons.grading import notebook
from diffusion_lessons.grading.guard import guarded
from diffusion_lessons.limits import TooLong

SECONDS = 30.0         # for one notebook, on a busy machine; a long honest one takes half a second
MEMORY = 2 << 30       # bytes of address space
ANSWER = 64 << 20      # characters of what is found in it
# The package's modules without what their packages' __init__ would load.
BOOT = """
import sys, types
for name, folder in (("", ""), (".exercises", "/exercises"), (".grading", "/grading")):
    package = sys.modules["diffusion_lessons" + name] = types.ModuleType("diffusion_lessons" + name)
    package.__path__ = [sys.argv[1] + folder]
from diffusion_lessons.grading import reading
print(reading.answer(sys.argv[2]))
"""


def read(path: Path) -> notebook.Notebook:
    """Read the Notebook in a file. Raises ValueError with the reason when there is none, TooLong after SECONDS."""
    command = [sys.executable, "-I", "-c", BOOT, str(Path(__file__).parents[1]), str(path)]
    try:
        done = subprocess.run(guarded(command, SECONDS + 5, MEMORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=SECONDS, start_new_session=True)
    except subprocess.TimeoutExpired:
        raise TooLong from None
    if done.returncode:
        raise ValueError("the process that reads it has ended: it is too large, or nested too deeply")
    found = json.loads(done.stdout)
    if "trouble" in found:
        raise ValueError(found["trouble"])
    return unpacked(found)


def answer(path: str) -> str:
    """In that process: what is in the notebook, or why nothing is, as JSON."""
    try:
        text = json.dumps(packed(notebook.read(path)))
    except (ValueError, OSError) as error:
        return json.dumps({"trouble": str(error)})
    except Exception as error:
        return json.dumps({"trouble": f"it could not be read ({type(error).__name__}: {error})"})
    return text if len(text) <= ANSWER else json.dumps({"trouble": "it is too large: too many cells and checks"})


def packed(found: notebook.Notebook) -> dict[str, Any]:
    """A Notebook in plain lists and dicts. The text of a cell, which many attempts share, is in it once."""
    each = [one for attempts in found.attempts.values() for one in attempts]
    return {"texts": {name: text for one in each for name, text, _ in one.cells},
            "attempts": {id: [[[(name, chosen) for name, _, chosen in one.cells], one.expression, one.idle]
                              for one in attempts] for id, attempts in found.attempts.items()},
            "rest": [found.unused, found.broken, found.modules]}


def unpacked(form: dict[str, Any]) -> notebook.Notebook:
    """The Notebook again."""
    attempts = {id: [notebook.Attempt([(name, form["texts"][name], chosen) for name, chosen in cells],
                                      tuple(expression), idle) for cells, expression, idle in many]
                for id, many in form["attempts"].items()}
    return notebook.Notebook(attempts, *form["rest"])
