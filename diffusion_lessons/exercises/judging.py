"""Judging a learner's function by what it does with fresh random input, compared with the package's own.

An exercise is data: how to draw input, the right answer, the usual mistakes as functions, hints. What counts are the
numbers: an array of numpy or a list stands for the tensor that it could be. Where something is to be trained, the
gradients count as well.
"""

import dataclasses
import dis
import functools
import inspect
import linecache
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from diffusion_lessons.exercises.limits import SECONDS, TooLong, within

DRAWS = 3          # inputs for each check; a mistake is named only when it explains all the answers
AS_IT_WAS = "that is the code as it was: the bug is still in it."     # for exercises that mend something
ROUNDING = 2e-4    # answers may differ by this share of the numbers' size: float32 here, float64 there

# Python's words for what usually goes wrong, and ours.
HELP = [
    (RuntimeError, "size of tensor a .* must match",
     "The shapes do not fit: one number per picture has shape (B,), and must become (B, 1, 1, 1) before it can "
     "multiply (B, C, H, W). Try .reshape(-1, 1, 1, 1)."),
    (IndexError, "out of range|out of bounds",
     "An index runs past the end. alpha_bar, alpha and beta have T + 1 entries, numbered 0..T: t is the index."),
    (NameError, "not defined", "Is it one of the arguments, and did you run the cell with the imports?"),
    (Exception, "can't be used as indices|indices must be|tensors used as indices|only integer tensors",
     "An index must be an integer: leave t as it is when you look something up with it."),
    (Exception, "numpy|can't convert|cannot be converted to Scalar|converted to Python scalars",
     "Stay with torch: its functions take tensors, those of math take one number."),
    (RuntimeError, "same dtype|should be the same|scalar type",
     "A network's weights are float32, and it takes nothing else. alpha_bar is float64, and what you multiply with "
     "many of its numbers becomes float64 too: .float() in time."),
    (RuntimeError, "in-place operation",
     "Something is written into a tensor that others still need (as x += ... and x.mul_() do): make a new one."),
]


class Verdict(NamedTuple):
    """state: "right", "not yet" or "not tried";  words: what to tell the learner."""

    state: str
    words: str


class Raised(Exception):
    """An exception of an attempt that runs in another process: a class it belongs to, its name, message and line."""

    def __init__(self, kind, name, message, line=None):
        self.kind, self.name, self.message, self.line = kind, name, message, line


def close(a, b, tolerance=None):
    """Whether two answers agree but for rounding; with a tolerance, whether no number is further off than that."""
    a, b = as_numbers(a), as_numbers(b)
    if a.shape != b.shape:
        return False
    if tolerance is not None:
        return bool(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True))
    scale = np.abs(b[np.isfinite(b)]).max(initial=1e-6)
    return bool(np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * scale, equal_nan=True))


def with_slopes(function, *case):
    """For exercises about what is trained: the result, and behind it its slopes along every input of floats.

    A result that leads back to none of them comes as it is.
    """
    case = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in case]
    result = function(*case)
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        return result
    total = (result * torch.arange(1, result.numel() + 1).reshape(result.shape).cos()).sum()   # no two count alike
    inputs = [a for a in case if isinstance(a, torch.Tensor) and a.requires_grad]
    slopes = torch.autograd.grad(total, inputs, allow_unused=True)
    slopes = [torch.zeros_like(a) if slope is None else slope for a, slope in zip(inputs, slopes)]
    return torch.cat([result.detach().reshape(-1), *(slope.reshape(-1) for slope in slopes)])


@dataclass(frozen=True)
class Exercise:
    """One exercise, as data."""

    id: str
    call: str                     # how the function is called: "add_noise(x0, t, eps, schedule)"
    draw: Callable                # draw(generator, k): the arguments of the k-th try, fresh numbers each time
    answer: Callable              # what is right
    reference: Callable           # the function as a learner would write it, under its name in the notebook
    hints: list                   # from a nudge to almost the answer
    mistakes: list                # (function, what to say when the learner's does the same)
    praise: str
    shows: tuple = ()             # functions or properties of the package whose source is the solution; else reference
    remark: str = ""              # a sentence above the solution
    same: Callable = None         # same(given, wanted); else they must be close
    others: tuple = ()            # other functions that are right as well
    given: tuple = ()             # functions of the package that an answer may call; graders lend these and no others
    wrong: Callable = None        # wrong(given, *case): where much is right: words for what is not, else None
    use: Callable = None          # use(function, *case): where there is more to it than function(*case)
    trains: bool = False          # use gives slopes as well, and these must be right
    tolerance: float = None       # for what is measured: how far off it may be
    whole: bool = False           # the result are whole numbers, to look something up with

    @property
    def name(self):
        """What the notebook calls the function."""
        return self.call.split("(")[0]

    @property
    def takes(self):
        """How many arguments it takes."""
        return self.call.count(",") + 1

    def agrees(self, given, wanted):
        """Whether that is the right result."""
        return self.same(given, wanted) if self.same else close(given, wanted, self.tolerance)

    def run(self, function, *case):
        """The numbers that a function gives for this input."""
        return self.use(function, *case) if self.use else function(*case)

    def plain(self):
        """The same without `use`, for where the attempt comes already put to use: it takes what `draw` draws."""
        if not self.use:
            return self
        used = functools.partial(functools.partial, self.use)
        call = ", ".join(list(inspect.signature(self.use).parameters)[1:])
        return dataclasses.replace(self, use=None, call=f"{self.name}({call})", answer=used(self.answer),
                                   others=tuple(map(used, self.others)),
                                   mistakes=[(used(mistake), words) for mistake, words in self.mistakes])


def judge(exercise, attempt, draws=DRAWS):
    """What there is to say about the attempt: a Verdict. Nothing that the attempt raises comes out."""
    not_tried = Verdict("not tried", f"not tried yet. Write {exercise.call}, then run this cell again.")
    if attempt is ... or attempt is None or is_stub(attempt):
        return not_tried
    if not callable(attempt):
        return Verdict("not yet", "hand over the function itself, by its name and without brackets: this is a "
                                  f"{type(attempt).__name__}.")
    generator = torch.Generator()
    generator.seed()
    cases = [exercise.draw(generator, k) for k in range(draws)]
    if refuses(attempt, exercise.takes):
        return Verdict("not yet", f"it should be {exercise.call}, with {exercise.takes} arguments in this order; "
                                  f"yours takes {inspect.signature(attempt)}.")
    run, given = functools.partial(exercise.run, attempt), []
    wanted = [exercise.run(exercise.answer, *copies(case)) for case in cases]    # first: what torch loads then, it has
    for case in cases:
        used = copies(case)
        try:
            result = within(SECONDS, run, *used)
        except TooLong:
            return Verdict("not yet", f"it was not back after {SECONDS:g} seconds, and was stopped. Is there a loop "
                                      "that never ends?")
        except Exception as error:
            if not given:
                return describe(error, attempt)
            given.append(error)    # it works, but not always
            continue
        if result is ...:
            return not_tried
        trouble = unusable(result, used, case)
        if trouble:
            return Verdict("not yet", trouble)
        given.append(result)
    failed = [result for result in given if isinstance(result, Exception)]
    trouble = None if failed else what_is_off(exercise, run, cases, given, wanted)
    if failed or trouble:
        words = named(exercise, cases, given)
        return Verdict("not yet", words or trouble) if words or trouble else describe(failed[0], attempt)
    return Verdict("right", exercise.praise + remark_on(given, cases))


def what_is_off(exercise, run, cases, given, wanted):
    """Words for what is not right, as far as that can be seen; None when all is right."""
    if exercise.wrong:
        return next((words for case, result in zip(cases, given) if (words := exercise.wrong(result, *case))), None)
    right = [exercise.agrees(a, b) for a, b in zip(given, wanted)]
    if not all(right) and not any(answers(exercise, other, cases, given) for other in exercise.others):
        return diagnose(exercise, run, cases, given, wanted, right)
    if exercise.whole and not all(map(are_whole, given)):
        return ("the numbers are right, but they are floats, and nothing can be looked up with a float. In Python "
                "round(x) gives an integer; torch.round and np.round do not.")
    return None


def answers(exercise, other, cases, given):
    """Whether the results are those of another right function."""
    return all(exercise.agrees(result, exercise.run(other, *copies(case))) for case, result in zip(cases, given))


def named(exercise, cases, given):
    """Words for the usual mistake that explains all results, if there is one. A result may be an exception."""
    for mistake, words in exercise.mistakes:
        wrong = functools.partial(exercise.run, mistake)
        if all(explains(wrong, case, result, exercise.tolerance) for case, result in zip(cases, given)):
            return words
    return None


def diagnose(exercise, run, cases, given, wanted, right):
    """Words for a wrong answer that is no usual mistake: what is visibly off."""
    have, want = as_numbers(given[0]), as_numbers(wanted[0])
    if exercise.trains:
        value = as_numbers(exercise.run(lambda *case: without_slopes(exercise.answer, *case), *copies(cases[0])))
        if have.size == value.size and close(have.reshape(-1), value.reshape(-1)):
            return ("the number is right, but it has lost its way back to the weights, without which nothing is "
                    "learned: give back the tensor, without .item(), .detach(), .numpy() or no_grad.")
        if have.shape == want.shape and close(have[:value.size], want[:value.size]):
            return ("the number is right, but not its slopes: training would walk another way. All of it must be "
                    "computed from what comes in, with nothing detached.")
        if have.size == value.size:
            want = value
    if have.shape != want.shape:
        kind = f"is a {type(given[0]).__name__} of" if isinstance(given[0], tuple) else "has"
        return f"the result {kind} shape {have.shape}, wanted is {want.shape}."
    if not np.isfinite(have).all() and np.isfinite(want).all():
        return ("the result holds infinite numbers or NaN: is there a division by 0, or the root of a "
                "negative number?")
    if not explains(functools.partial(within, SECONDS, run), cases[0], given[0], exercise.tolerance):
        return ("it gives another result each time for the same input: it draws random numbers of its own. "
                "All that is random comes in through its arguments.")
    if exercise.tolerance and all(map(functools.partial(close, tolerance=5 * exercise.tolerance), given, wanted)):
        off = max(np.abs(as_numbers(a) - as_numbers(b)).max() for a, b in zip(given, wanted))
        return (f"nearly: it is off by {off:.2g} at most, and {exercise.tolerance:g} is allowed. A measurement becomes "
                "surer when it is repeated.")
    if any(right):
        return (f"right for {sum(right)} of {len(given)} random inputs, but not for all. For which might it fail? "
                "(A single picture, the first and the last t, other sizes?)")
    ratio = have[np.abs(want) > 1e-3] / want[np.abs(want) > 1e-3]
    if len(ratio) > 1 and np.allclose(ratio, ratio[0], rtol=1e-3):
        return f"the result is {ratio[0]:.3g} times what is wanted: a factor is off."
    error = np.abs(have - want).mean()
    return f'the numbers differ from what is wanted, by {error:.2g} on average. hint("{exercise.id}") helps.'


def without_slopes(function, *case):
    """The result alone."""
    with torch.no_grad():
        return function(*case)


def remark_on(given, cases):
    """A word on a right answer that will not do as the input of a network, else nothing."""
    floats = [a.dtype for case in cases for a in leaves(case) if a.is_floating_point() and a.ndim > 1]
    if torch.float64 in [getattr(result, "dtype", None) for result in given] and set(floats) == {torch.float32}:
        return (" (It comes out as float64, since alpha_bar is that. A network takes float32 only: .float() before it "
                "goes into one.)")
    return ""


def explains(function, case, result, tolerance=None):
    """Whether this function gives that result, or fails where the other failed."""
    try:
        made = function(*copies(case))
    except Exception:
        return isinstance(result, Exception)
    try:
        return close(result, made, tolerance)
    except (TypeError, ValueError):    # one of the two is an exception, or no array of numbers
        return False


def are_whole(result):
    """Whether these are integers by kind, not only by value."""
    if isinstance(result, (list, tuple)):
        return all(map(are_whole, result))
    if isinstance(result, torch.Tensor):
        return not result.is_floating_point()
    return isinstance(result, (int, range)) or np.asarray(result).dtype.kind in "biu"


def unusable(result, used, case):
    """Words for a result that cannot be compared, or for an input that was written into; else None."""
    if result is None:
        return "the function gives nothing back. Does it end in a return?"
    try:
        as_numbers(result)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return f"the result should be numbers, in one tensor, not a {type(result).__name__}."
    if not untouched(used, case):
        return ("the function writes into its own input (as x += ... and x.mul_() do). The caller still needs "
                "it: make a new tensor.")
    return None


def is_stub(attempt):
    """Whether the function's body is only `...`, `pass`, a docstring, or `return ...`."""
    code = getattr(attempt, "__code__", None)
    if code is None:
        return False
    idle = ("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL")
    steps = [step for step in dis.get_instructions(code) if step.opname not in idle]
    values = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return len(steps) <= 2 and len(values) == 1 and values[0] in (None, ...)


def refuses(attempt, count):
    """Whether the function cannot be called with that many arguments."""
    try:
        inspect.signature(attempt).bind(*range(count))
    except TypeError:
        return True
    except ValueError:   # some built-in functions have no signature to look at
        return False
    return False


def describe(error, attempt):
    """A Verdict on the learner's exception: its words, the line that raised it, and help where we know some."""
    if not isinstance(error, Raised):
        error = Raised(type(error), type(error).__name__, str(error), own_line(error, attempt))
    where = f"\nin line {error.line[0]} of its cell:  {error.line[1]}" if error.line else ""
    if "ellipsis" in error.message:
        return Verdict("not tried", f"not tried yet: there is still a ... to be replaced{where}")
    words = f"it raised {error.name}: {error.message}{where}"
    for kind, pattern, help in HELP:
        if issubclass(error.kind, kind) and re.search(pattern, error.message):
            return Verdict("not yet", f"{words}\n{help}")
    return Verdict("not yet", words)


def own_line(error, attempt):
    """(number, text) of the line of the attempt's own cell that raised it, or None."""
    own = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    if not frames:
        return None
    return frames[-1].lineno, (frames[-1].line or linecache.getline(own, frames[-1].lineno)).strip()


def as_numbers(result):
    """A result as a float64 array. Raises TypeError or ValueError when it is none."""
    if isinstance(result, torch.Tensor) and not result.is_complex():
        return result.detach().cpu().double().numpy()
    if isinstance(result, (str, dict, set)) or np.iscomplexobj(result):
        raise TypeError(f"{type(result).__name__} is no array of real numbers")
    if isinstance(result, (list, tuple, range)):
        result = [as_numbers(r) for r in result]
    return np.asarray(result, dtype=np.float64)


def copies(value):
    """The arguments again, whatever they are made of, so that nobody can spoil them for the next."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, torch.Generator):
        return torch.Generator().set_state(value.get_state())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(copies, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(copies, value))
    if isinstance(value, dict):
        return {key: copies(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{f.name: copies(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


def leaves(value):
    """All tensors in there, wherever they lie."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, f.name) for f in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [a for item in value for a in leaves(item)] if isinstance(value, (list, tuple)) else []


def untouched(used, case):
    """Whether what was handed over is still as it was."""
    if isinstance(case, dict):
        return used.keys() == case.keys() and untouched(list(used.values()), list(case.values()))
    if isinstance(case, list) and len(used) != len(case):
        return False
    if isinstance(case, (list, tuple)):
        return all(map(untouched, used, case))
    if isinstance(case, (bool, int, float, str)):
        return used == case
    before, after = leaves(case), leaves(used)
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
