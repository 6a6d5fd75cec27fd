"""Judging a learner's function: by what it does with fresh random input, compared with the package's own.

An exercise is data: how to draw input, the right answer, the usual mistakes as functions, hints.
"""

import dis
import inspect
import linecache
import re
import traceback
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

DRAWS = 3   # inputs per check; a mistake is named only when it explains the answers to all of them

# Python's words for what usually goes wrong with shapes and indices, and ours.
HELP = [
    (TypeError, "ellipsis", "There is still a ... in it to be replaced."),
    (RuntimeError, r"size of tensor a .* must match", "The shapes do not fit: one number per picture has shape (B,), "
     "and must become (B, 1, 1, 1) before it can multiply (B, C, H, W). Try .reshape(-1, 1, 1, 1)."),
    (IndexError, "out of range|out of bounds", "An index runs past the end: alpha_bar, alpha and beta have T + 1 entries, "
     "numbered 0..T, so t itself is the index."),
    (NameError, "not defined", "Does the function use only its arguments and what you have imported?"),
    (TypeError, "only integer tensors|can't be used as indices|indices must be", "t must stay an integer to be an index."),
]


class Verdict(NamedTuple):
    """state: "right", "not yet" or "not tried";  words: what to tell the learner."""

    state: str
    words: str


def close(a, b):
    """Whether two answers agree but for rounding: within 2e-4 of the size of the numbers."""
    a, b = as_numbers(a), as_numbers(b)
    if a.shape != b.shape:
        return False
    scale = np.abs(b[np.isfinite(b)]).max(initial=1e-6)
    return bool(np.allclose(a, b, rtol=2e-4, atol=2e-4 * scale, equal_nan=False))


@dataclass(frozen=True)
class Exercise:
    """One exercise. `answer` gives the right result, `mistakes` are (function, what to say when it is this one)."""

    id: str
    name: str                       # what the function is called, as in "add_noise(x0, t, eps, schedule)"
    draw: object                    # draw(generator, k) -> the arguments, fresh numbers each time
    answer: object
    shows: list                     # functions or properties of the package whose source is the solution
    hints: list
    mistakes: list
    praise: str = "right."
    remark: str = ""                # a sentence above the solution
    same: object = close
    shapes: dict = field(default_factory=dict)


def judge(exercise, attempt, draws=DRAWS):
    """What there is to say about the attempt. Never raises for anything the attempt does, Ctrl-C excepted."""
    if attempt is ... or attempt is None or is_stub(attempt):
        return Verdict("not tried", f"not tried yet. Write {exercise.name}, then run this cell again.")
    if not callable(attempt):
        return Verdict("not yet", f"hand over the function itself, without calling it: got a {type(attempt).__name__}.")
    generator = torch.Generator()
    generator.seed()
    cases = [exercise.draw(generator, k) for k in range(draws)]
    wrong_call = refuses(attempt, cases[0], exercise.name)
    if wrong_call:
        return Verdict("not yet", wrong_call)

    given, wanted = [], []
    for arguments in cases:
        used = [copy_of(a) for a in arguments]
        try:
            result = attempt(*used)
        except Exception as error:
            return Verdict("not yet", describe(error, attempt))
        wanted.append(exercise.answer(*[copy_of(a) for a in arguments]))
        trouble = unusable(result, used, arguments)
        if trouble:
            return trouble._replace(words=trouble.words.replace("NAME", exercise.name))
        given.append(result)
    if all(exercise.same(a, b) for a, b in zip(given, wanted)):
        return Verdict("right", exercise.praise)
    return Verdict("not yet", diagnose(exercise, attempt, cases, given, wanted))


def diagnose(exercise, attempt, cases, given, wanted):
    """Words for a wrong answer: the mistake that explains it, else what is visibly off."""
    for mistake, words in exercise.mistakes:
        if all(explains(mistake, arguments, result, exercise) for arguments, result in zip(cases, given)):
            return words
    again = attempt(*[copy_of(a) for a in cases[0]])
    if not close(given[0], again):
        return ("it gives another result each time for the same input: it draws random numbers of its own. "
                "All the randomness it needs comes in through its arguments.")
    have, want = as_numbers(given[0]), as_numbers(wanted[0])
    if have.shape != want.shape:
        return f"the result has shape {have.shape}, wanted is {want.shape}."
    if not np.isfinite(have).all() and np.isfinite(want).all():
        return "the result holds infinite numbers or NaN: is there a division by 0, or the root of a negative number?"
    right = sum(exercise.same(a, b) for a, b in zip(given, wanted))
    if right:
        return f"right for {right} of {len(given)} random inputs, but not for all. At which t might it differ?"
    ratio = have[np.abs(want) > 1e-3] / want[np.abs(want) > 1e-3]
    if len(ratio) > 1 and np.allclose(ratio, ratio[0], rtol=1e-3):
        return f"the result is {ratio[0]:.3g} times what is wanted: a factor is off."
    error = np.abs(have - want).mean()
    return f'the numbers differ from what is wanted, by {error:.2g} on average. hint("{exercise.id}") helps.'


def explains(mistake, arguments, result, exercise):
    try:
        return close(result, mistake(*[copy_of(a) for a in arguments]))
    except Exception:   # a mistake need not work on every input
        return False


def unusable(result, used, arguments):
    """A Verdict for a result that cannot be compared, or for an input that was written into; else None."""
    if result is ...:
        return Verdict("not tried", "not tried yet. Write NAME, then run this cell again.")
    if result is None:
        return Verdict("not yet", "the function gives nothing back. Does it end in a return?")
    try:
        as_numbers(result)
    except (TypeError, ValueError, RuntimeError):
        return Verdict("not yet", f"the result should be numbers, not a {type(result).__name__}. NAME gives one tensor back.")
    if any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in zip(used, arguments)):
        return Verdict("not yet", "the function writes into its own input (as x += ... and x.mul_() do). "
                                  "The caller still needs it: make a new tensor.")
    return None


def is_stub(attempt):
    """Whether the function's body is only `...`, `pass` or a docstring."""
    code = getattr(attempt, "__code__", None)
    if code is None:
        return False
    steps = [i for i in dis.get_instructions(code) if i.opname not in ("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL")]
    constants = [i.argval for i in steps if i.opname in ("LOAD_CONST", "RETURN_CONST")]
    return len(steps) <= 2 and len(constants) == 1 and constants[0] in (None, ...)


def refuses(attempt, arguments, name):
    """Words for a function that cannot be called with these arguments, else None."""
    try:
        inspect.signature(attempt).bind(*arguments)
    except TypeError:
        return f"it is called as {name}, with {len(arguments)} arguments in this order; yours takes {inspect.signature(attempt)}."
    except ValueError:   # some built-in callables have no signature to look at
        return None
    return None


def describe(error, attempt):
    """The learner's exception: its kind, its words, the line of theirs that raised it, and help where we know some."""
    own = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    words = f"it raised {type(error).__name__}: {error}"
    if frames:
        line = (frames[-1].line or linecache.getline(own, frames[-1].lineno)).strip()
        words += f"\nin line {frames[-1].lineno} of its cell:  {line}"
    for kind, pattern, help in HELP:
        if isinstance(error, kind) and re.search(pattern, str(error)):
            return f"{words}\n{help}"
    return words


def as_numbers(result):
    """A result as a float64 array. Raises TypeError or ValueError when it is none."""
    if isinstance(result, torch.Tensor):
        return result.detach().cpu().double().numpy()
    if isinstance(result, (str, dict, set)):
        raise TypeError(f"{type(result).__name__} is no array of numbers")
    if isinstance(result, (list, tuple, range)):
        result = [as_numbers(r) for r in result]
    return np.asarray(result, dtype=np.float64)


def copy_of(argument):
    return argument.clone() if isinstance(argument, torch.Tensor) else argument
