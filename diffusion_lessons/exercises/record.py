"""What has been solved: a small file in the learner's home, which survives a restart."""

import json
import os
import time
from pathlib import Path

from diffusion_lessons.runtime import atomic_write


def path():
    """Where it is kept: one file for each learner, or what DIFFUSION_LESSONS_PROGRESS names."""
    return Path(os.environ.get("DIFFUSION_LESSONS_PROGRESS", Path.home() / ".diffusion_lessons" / "progress.json"))


def read():
    """{exercise: {"state": "right" or "not yet", "tries": how many, "solved": when, in seconds, or None}}

    A damaged file counts as empty, and is kept under another name.
    """
    file = path()
    try:
        found = json.loads(file.read_text())
        return {str(id): {"state": str(one["state"]), "tries": int(one["tries"]), "solved": one.get("solved")}
                for id, one in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if file.is_file():
            os.replace(file, file.with_suffix(".damaged"))
        return {}


def note(id, state):
    """One more try, right or not yet. What was solved once stays solved."""
    known = read()
    one = known.setdefault(id, {"state": "not yet", "tries": 0, "solved": None})
    one["tries"] += 1
    if state == "right" and one["state"] != "right":
        one.update(state="right", solved=round(time.time()))
    try:
        with atomic_write(path()) as scratch:
            scratch.write_text(json.dumps(known, indent=1) + "\n")
    except OSError:    # a home that cannot be written to must not stop a lesson
        pass
