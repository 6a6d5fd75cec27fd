"""The numbers that a caller chooses: one range for each, checked in one place, from Python and the command line alike.

Each check says what it found. Without one, seed="3" becomes a string of gigabytes, and an infinite guidance scale gives
black pictures.
"""

import operator
import reprlib
from typing import Any

RANGES: dict[str, tuple[float, float]] = {
    "count": (1, 1_000_000),        # pictures
    "batch": (1, 4096),             # pictures at once
    "steps": (1, 1_000_000),        # of sampling; a schedule has its own limit, T
    "seed": (0, 2**32 - 1),         # beyond it the seeds of pictures repeat
    "guidance": (0, 100),
    "guidance_scale": (0, 100),     # as diffusers calls it
    "strength": (0, 1),
    "size": (1, 8192),              # pixels to a side
    "eta": (0, 1),
}  # fmt: skip


def whole_number(name: str, value: Any, low: float | None = None, high: float | None = None) -> int:
    """The value as an int, if it is one: Python's, numpy's or a tensor of one.

    name: for the message, and for the range in RANGES if none is given.  Raises ValueError.
    """
    low, high = RANGES[name] if low is None or high is None else (low, high)
    try:
        found = operator.index(value)
    except (TypeError, RuntimeError, ValueError, OverflowError):    # a tensor of fractions, or of many numbers
        found = None
    if found is None or _is_bool(value) or not low <= found <= high:
        raise ValueError(f"{name} must be a whole number from {low:,} to {high:,}, not {shown(value)}")
    return found


def real_number(name: str, value: Any, low: float | None = None, high: float | None = None) -> float:
    """The value as a float, if it is a finite number.

    name: for the message, and for the range in RANGES if none is given.  Raises ValueError.
    """
    low, high = RANGES[name] if low is None or high is None else (low, high)
    try:
        found = float("nan") if isinstance(value, str | bytes | bytearray) or _is_bool(value) else float(value)
    except (TypeError, RuntimeError, ValueError, OverflowError):
        found = float("nan")
    if not low <= found <= high:
        raise ValueError(f"{name} must be a number from {low:,} to {high:,}, not {shown(value)}")
    return found


def shown(value: Any) -> str:
    """A value for an error message: short, whatever it is."""
    try:
        text = " ".join(reprlib.repr(value).split())
    except Exception:    # an integer of 5,000 digits, or an object whose repr fails
        return f"this {type(value).__name__}"
    return text if len(text) < 80 else f"{text[:60]}..."


def _is_bool(value: Any) -> bool:
    """True and False, also numpy's and torch's, are no numbers here."""
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
