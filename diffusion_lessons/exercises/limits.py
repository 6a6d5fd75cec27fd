"""A time limit for a function that a learner wrote, on every system."""

import contextlib
import ctypes
import threading

SECONDS = 10.0    # far longer than any right answer takes


class TooLong(Exception):
    """It was not back in time."""


class Stop(BaseException):
    """Raised inside a function that has to end; no `except Exception` of its own holds it up."""


def within(seconds, function, *arguments):
    """What the function gives back, or the exception it raises; TooLong when it takes longer than that.

    It runs in a thread of its own, and is stopped at its next line of Python. What waits inside a library ends when
    that comes back: nobody waits for it.
    """
    outcome = {}

    def work():
        try:
            outcome["result"] = function(*arguments)
        except BaseException as error:    # handed on below, to whoever called
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


def stop(thread):
    """Raise Stop inside a thread that still runs."""
    with contextlib.suppress(ValueError):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
    thread.join(0.5)
