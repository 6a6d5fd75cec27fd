"""A time limit for a function, a learner's or a download, on every system."""

import contextlib
import ctypes
import threading
from collections.abc import Callable
from typing import Any

SECONDS = 10.0    # for an exercise: far longer than any right answer takes


class TooLong(Exception):
    """The function did not return in time."""


class Stop(BaseException):
    """Raised inside a function that has to end; no `except Exception` of its own catches it."""


def within(seconds: float, function: Callable, *arguments: Any) -> Any:
    """Call a function and return its result, or raise its exception; raise TooLong when it takes longer than that.

    It runs in a thread of its own and is stopped at its next line of Python. A call that hangs inside a library ends
    when the library returns: nobody waits for it.
    """
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = function(*arguments)
        except BaseException as error:    # raised again below, in the caller's thread
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:                              # Ctrl-C in the meantime must not leave it running either
        if thread.is_alive():
            stop(thread)
    if "error" in outcome and not isinstance(outcome["error"], Stop):
        raise outcome["error"]
    if "result" not in outcome:
        raise TooLong
    return outcome["result"]


def stop(thread: threading.Thread) -> None:
    """Raise Stop inside a thread that is still running."""
    with contextlib.suppress(ValueError):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Stop))
    thread.join(0.5)
