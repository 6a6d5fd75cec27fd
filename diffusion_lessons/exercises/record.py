"""The learner's record: exercises solved, predictions made and questions answered, in one file that outlives a restart.

It stays on this machine; nothing is sent anywhere.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from diffusion_lessons.runtime import atomic_write, home

PREDICTIONS, QUESTIONS = "predictions", "questions"    # their keys in the file; all other keys are exercises


def path() -> Path:
    """The file: one for each learner, in the home folder, or the one that DIFFUSION_LESSONS_PROGRESS names."""
    return Path(os.environ.get("DIFFUSION_LESSONS_PROGRESS") or home() / ".diffusion_lessons" / "progress.json")


def read() -> dict[str, dict[str, Any]]:
    """{exercise: {"state": "right" or "not yet", "tries": a count, "solved": seconds since 1970, or None}}

    A damaged file counts as empty and is kept under another name.
    """
    return _load()[0]


def read_predictions() -> dict[str, dict[str, Any]]:
    """{prediction: {"said": a choice or a number, "right": True, False, or None until it has been measured}}"""
    return _load()[1]


def read_questions() -> dict[str, dict[str, str | None]]:
    """{question: {"before": what was chosen before the lesson, or None, "after": what was chosen in it, or None}}"""
    return _load()[2]


def note(id: str, state: str) -> None:
    """Count one more try, "right" or "not yet". An exercise solved once stays solved."""
    exercises, predictions, questions = _load()
    one = exercises.setdefault(id, {"state": "not yet", "tries": 0, "solved": None})
    one["tries"] += 1
    if state == "right" and one["state"] != "right":
        one.update(state="right", solved=round(time.time()))
    _save(exercises, predictions, questions)


def note_prediction(id: str, said: str | float, right: bool | None = None) -> None:
    """Keep the latest prediction, and whether it was right once that is known."""
    exercises, predictions, questions = _load()
    predictions[id] = {"said": said, "right": right}
    _save(exercises, predictions, questions)


def note_question(id: str, said: str, before: bool) -> None:
    """Keep an answer to a question, given before the lesson or in it."""
    exercises, predictions, questions = _load()
    questions.setdefault(id, {"before": None, "after": None})["before" if before else "after"] = said
    _save(exercises, predictions, questions)


def _load() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    file = path()
    try:
        found = json.loads(file.read_text())
        predictions = {str(id): {"said": _answer(one["said"]), "right": _verdict(one["right"])}
                       for id, one in found.pop(PREDICTIONS, {}).items()}
        questions = {str(id): {when: _choice(one[when]) for when in ("before", "after")}
                     for id, one in found.pop(QUESTIONS, {}).items()}
        exercises = {str(id): {"state": str(one["state"]), "tries": int(one["tries"]), "solved": one.get("solved")}
                     for id, one in found.items()}
        return exercises, predictions, questions
    except FileNotFoundError:
        return {}, {}, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if file.is_file():
            os.replace(file, file.with_suffix(".damaged"))
        return {}, {}, {}


def _save(exercises: dict[str, Any], predictions: dict[str, Any], questions: dict[str, Any]) -> None:
    others = {PREDICTIONS: predictions, QUESTIONS: questions}
    found = exercises | {key: answers for key, answers in others.items() if answers}
    try:
        with atomic_write(path()) as scratch:
            scratch.write_text(json.dumps(found, indent=1) + "\n")
    except OSError:    # a home folder that cannot be written to must not stop a lesson
        pass


def _answer(said: Any) -> str | float:
    if not isinstance(said, (str, int, float)):
        raise TypeError(f"{said!r} is no prediction")
    return said


def _verdict(right: Any) -> bool | None:
    if right not in (True, False, None):
        raise TypeError(f"{right!r} is no verdict")
    return right


def _choice(said: Any) -> str | None:
    if not isinstance(said, (str, type(None))):
        raise TypeError(f"{said!r} is no choice")
    return said
