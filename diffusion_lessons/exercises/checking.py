"""Check a learner's function by what it does with fresh random input, compared with the package's own.

An exercise is data: how to make input, the right answer, the usual mistakes as functions, hints. Only the numbers
count: a numpy array or a list is as good as the tensor it could be. Where something is to be trained, the gradients
count as well.
"""

import dataclasses
import functools
import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from diffusion_lessons.exercises.stubs import is_stub
from diffusion_lessons.limits import SECONDS, TooLong, within

TRIES_PER_CHECK = 3    # a mistake is named only when it explains all results
STILL_BROKEN = "this is still the original code: the bug is in it."     # in the exercises that fix a bug
ROUNDING = 2e-4        # results may differ by this share of the numbers' size: float32 here, float64 there

# Python's words for what usually goes wrong, and ours.
HELP = [
    (RuntimeError, "size of tensor a .* must match",
     "The shapes do not match: one number per picture has shape (B,), and must become (B, 1, 1, 1) before it can "
     "multiply (B, C, H, W). Try .reshape(-1, 1, 1, 1)."),
    (IndexError, "out of range|out of bounds",
     "An index is out of range. alpha_bar, alpha and beta have T + 1 entries, numbered 0..T: t is the index."),
    (NameError, "not defined", "Is it one of the arguments, and did you run the cell with the imports?"),
    (Exception, "can't be used as indices|indices must be|tensors used as indices|only integer tensors",
     "An index must be an integer: do not convert t before you look something up with it."),
    (Exception, "numpy|can't convert|cannot be converted to Scalar|converted to Python scalars",
     "Stay with torch: its functions take tensors, those of math take one number."),
    (RuntimeError, "same dtype|should be the same|scalar type",
     "A network's weights are float32, and it accepts nothing else. alpha_bar is float64, and whatever you multiply "
     "by many of its numbers becomes float64 too: convert with .float()."),
    (RuntimeError, "in-place operation",
     "A tensor that is still needed elsewhere is changed in place (as by x += ... or x.mul_()): make a new one."),
]


class Verdict(NamedTuple):
    """state: "right", "not yet" or "not tried";  message: what to tell the learner."""

    state: str
    message: str


class Raised(Exception):
    """An exception of an attempt that runs in another process: a built-in class it belongs to, its name and message.

    name: "" for what the learner's code did not raise;  line: (number, text) of its own line that did, or None
    """

    def __init__(self, kind: type[Exception], name: str, message: str, line: tuple[int, str] | None = None):
        self.kind, self.name, self.message, self.line = kind, name, message, line


def close(a: Any, b: Any, tolerance: float | None = None) -> bool:
    """Whether two results agree up to rounding; with a tolerance, whether no number differs by more than that."""
    a, b = as_numbers(a), as_numbers(b)
    if a.shape != b.shape:
        return False
    if tolerance is not None:
        return bool(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True))
    scale = np.abs(b[np.isfinite(b)]).max(initial=1e-6)
    return bool(np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING * scale, equal_nan=True))


def with_gradients(function: Callable, *case: Any) -> Any:
    """For exercises about what is trained: the result, followed by its gradients with respect to every float input.

    A result that does not depend on any of them by autograd is returned as it is.
    """
    inputs = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in case]
    result = function(*inputs)
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        return result
    total = (result * torch.arange(1, result.numel() + 1).reshape(result.shape).cos()).sum()   # no two weigh the same
    leaves_in = [a for a in inputs if isinstance(a, torch.Tensor) and a.requires_grad]
    found = torch.autograd.grad(total, leaves_in, allow_unused=True)
    gradients = [torch.zeros_like(a) if gradient is None else gradient for a, gradient in zip(leaves_in, found)]
    return torch.cat([result.detach().reshape(-1), *(gradient.reshape(-1) for gradient in gradients)])


@dataclass(frozen=True)
class Exercise:
    """One exercise, as data."""

    id: str
    call: str                     # how the function is called: "add_noise(x0, t, eps, schedule)"
    sample: Callable              # sample(generator, k): the arguments of the k-th try, fresh numbers each time
    answer: Callable              # what is right
    reference: Callable           # the function as a learner would write it, under its name in the notebook
    hints: list                   # from a nudge to almost the answer
    mistakes: list                # (function, what to say when the learner's function does the same)
    praise: str
    shows: Sequence = ()          # functions or properties of the package whose source is the solution; else reference
    remark: str = ""              # a sentence above the solution
    same: Callable | None = None  # same(result, expected); by default they must be close
    alternatives: Sequence = ()   # other functions that are right as well
    may_call: Sequence = ()       # functions of the package that an answer may call; graders expose these and no others
    wrong: Callable | None = None    # wrong(result, *case): where many results are right: what is wrong, else None
    use: Callable | None = None   # use(function, *case): where there is more to it than function(*case)
    trains: bool = False          # use gives gradients as well, and these must be right
    tolerance: float | None = None   # for what is measured: how much it may be off
    integers: bool = False        # the results must be integers, to be used as an index

    @property
    def name(self) -> str:
        """What the notebook calls the function."""
        return self.call.split("(")[0]

    @property
    def takes(self) -> int:
        """How many arguments it takes."""
        return self.call.count(",") + 1

    def agrees(self, result: Any, expected: Any) -> bool:
        """Whether that is the right result."""
        return self.same(result, expected) if self.same is not None else close(result, expected, self.tolerance)

    def run(self, function: Callable, *case: Any) -> Any:
        """The result of a function for this input."""
        return self.use(function, *case) if self.use is not None else function(*case)

    def plain(self) -> "Exercise":
        """The same exercise without `use`, for an attempt that is already wrapped in it."""
        if self.use is None:
            return self
        used = functools.partial(functools.partial, self.use)
        call = ", ".join(list(inspect.signature(self.use).parameters)[1:])
        return dataclasses.replace(self, use=None, call=f"{self.name}({call})", answer=used(self.answer),
                                   alternatives=tuple(map(used, self.alternatives)),
                                   mistakes=[(used(mistake), message) for mistake, message in self.mistakes])


def check_attempt(exercise: Exercise, attempt: Any, tries: int = TRIES_PER_CHECK) -> Verdict:
    """The Verdict on an attempt. No exception of the attempt gets out."""
    not_tried = Verdict("not tried", f"not tried yet. Write {exercise.call}, then run this cell again.")
    if attempt is ... or attempt is None or is_stub(attempt):
        return not_tried
    if not callable(attempt):
        return Verdict("not yet", "pass the function itself, by its name and without brackets: this is a "
                                  f"{type(attempt).__name__}.")
    generator = torch.Generator()
    generator.seed()
    cases = [exercise.sample(generator, k) for k in range(tries)]
    if refuses(attempt, exercise.takes):
        return Verdict("not yet", f"it should be {exercise.call}, with {exercise.takes} arguments in this order; "
                                  f"yours takes {inspect.signature(attempt)}.")
    run: Callable = functools.partial(exercise.run, attempt)
    results: list[Any] = []
    expected = [exercise.run(exercise.answer, *copies(case)) for case in cases]   # first, so that torch loads its parts
    for case in cases:
        used = copies(case)
        try:
            result = within(SECONDS, run, *used)
        except TooLong:
            return Verdict("not yet", f"it did not return within {SECONDS:g} seconds and was stopped. Is there a loop "
                                      "that never ends?")
        except Exception as error:
            if not results:
                return describe(error, attempt)
            results.append(error)    # it works, but not always
            continue
        if result is ...:
            return not_tried
        trouble = unusable(result, used, case)
        if trouble:
            return Verdict("not yet", trouble)
        results.append(result)
    failed = [result for result in results if isinstance(result, Exception)]
    trouble = None if failed else what_is_wrong(exercise, run, cases, results, expected)
    if failed or trouble:
        message = usual_mistake(exercise, cases, results) or trouble
        return Verdict("not yet", message) if message else describe(failed[0], attempt)
    return Verdict("right", exercise.praise + remark_on(results, cases))


def what_is_wrong(exercise: Exercise, run: Callable, cases: list, results: list, expected: list) -> str | None:
    """A message about results that are not right; None when they are."""
    if exercise.wrong is not None:
        return next((wrong for case, result in zip(cases, results) if (wrong := exercise.wrong(result, *case))), None)
    right = [exercise.agrees(a, b) for a, b in zip(results, expected)]
    if not all(right) and not any(matches(exercise, other, cases, results) for other in exercise.alternatives):
        return diagnose(exercise, run, cases, results, expected, right)
    if exercise.integers and not all(map(are_integers, results)):
        return ("the numbers are right, but they are floats, and a float cannot be used as an index. In Python "
                "round(x) gives an integer; torch.round and np.round do not.")
    return None


def matches(exercise: Exercise, other: Callable, cases: list, results: list) -> bool:
    """Whether the results are those of another right function."""
    return all(exercise.agrees(result, exercise.run(other, *copies(case))) for case, result in zip(cases, results))


def usual_mistake(exercise: Exercise, cases: list, results: list) -> str | None:
    """The message about the usual mistake that explains all results, if there is one. A result may be an exception."""
    for mistake, message in exercise.mistakes:
        wrong = functools.partial(exercise.run, mistake)
        if all(explains(wrong, case, result, exercise.tolerance) for case, result in zip(cases, results)):
            return message
    return None


def diagnose(exercise: Exercise, run: Callable, cases: list, results: list, expected: list, right: list) -> str:
    """A message about a wrong result that is no usual mistake: what can be seen of it."""
    have, want = as_numbers(results[0]), as_numbers(expected[0])
    if exercise.trains:
        value = as_numbers(exercise.run(lambda *case: without_gradients(exercise.answer, *case), *copies(cases[0])))
        if have.size == value.size and close(have.reshape(-1), value.reshape(-1)):
            return ("the number is right, but it is cut off from the weights, so nothing would be learned: return the "
                    "tensor, without .item(), .detach(), .numpy() or no_grad.")
        if have.shape == want.shape and close(have[:value.size], want[:value.size]):
            return ("the number is right, but its gradients are not, so training would go elsewhere. Compute all of it "
                    "from the arguments, and detach nothing.")
        if have.size == value.size:
            want = value
    if have.shape != want.shape:
        kind = f"is a {type(results[0]).__name__} of" if isinstance(results[0], tuple) else "has"
        return f"the result {kind} shape {have.shape}; it should have shape {want.shape}."
    if not np.isfinite(have).all() and np.isfinite(want).all():
        return ("the result contains infinities or NaN: is there a division by 0, or the square root of a negative "
                "number?")
    if not explains(functools.partial(within, SECONDS, run), cases[0], results[0], exercise.tolerance):
        return ("it gives a different result each time for the same input: it draws random numbers of its own. "
                "All randomness must come in through the arguments.")
    if exercise.tolerance and all(map(functools.partial(close, tolerance=5 * exercise.tolerance), results, expected)):
        off = max(np.abs(as_numbers(a) - as_numbers(b)).max() for a, b in zip(results, expected))
        return (f"nearly: it is off by up to {off:.2g}, and {exercise.tolerance:g} is allowed. Repeat the measurement "
                "and take the mean.")
    if any(right):
        return (f"right for {sum(right)} of {len(results)} random inputs, but not for all. For which might it fail? "
                "(A single picture, the first and the last t, other sizes?)")
    ratio = have[np.abs(want) > 1e-3] / want[np.abs(want) > 1e-3]
    if len(ratio) > 1 and np.allclose(ratio, ratio[0], rtol=1e-3):
        return f"the result is {ratio[0]:.3g} times what it should be: a factor is off."
    error = np.abs(have - want).mean()
    return f'the numbers differ from the right ones by {error:.2g} on average. hint("{exercise.id}") helps.'


def without_gradients(function: Callable, *case: Any) -> Any:
    """The result alone."""
    with torch.no_grad():
        return function(*case)


def remark_on(results: list, cases: list) -> str:
    """A word on a right result that a network would not accept as input, else nothing."""
    floats = [a.dtype for case in cases for a in leaves(case) if a.is_floating_point() and a.ndim > 1]
    if torch.float64 in [getattr(result, "dtype", None) for result in results] and set(floats) == {torch.float32}:
        return (" (The result is float64, because alpha_bar is. A network accepts float32 only: use .float() before "
                "you pass it to one.)")
    return ""


def explains(function: Callable, case: Any, result: Any, tolerance: float | None = None) -> bool:
    """Whether this function gives that result, or fails where the other failed."""
    try:
        made = function(*copies(case))
    except Exception:
        return isinstance(result, Exception)
    try:
        return close(result, made, tolerance)
    except (TypeError, ValueError):    # one of the two is an exception, or no array of numbers
        return False


def are_integers(result: Any) -> bool:
    """Whether these are integers by type, not only by value."""
    if isinstance(result, (list, tuple)):
        return all(map(are_integers, result))
    if isinstance(result, torch.Tensor):
        return not result.is_floating_point()
    return isinstance(result, (int, range)) or np.asarray(result).dtype.kind in "biu"


def unusable(result: Any, used: Any, case: Any) -> str | None:
    """A message about a result that cannot be compared, or about input that was changed; else None."""
    if result is None:
        return "the function returns nothing. Does it end in a return?"
    try:
        as_numbers(result)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return f"the result should be numbers, in one tensor, not a {type(result).__name__}."
    if not untouched(used, case):
        return ("the function changes its own input in place (as x += ... and x.mul_() do). The caller still needs "
                "it: make a new tensor.")
    return None


def refuses(attempt: Callable, count: int) -> bool:
    """Whether the function cannot be called with that many arguments."""
    try:
        inspect.signature(attempt).bind(*range(count))
    except TypeError:
        return True
    except ValueError:   # some built-in functions have no signature to look at
        return False
    return False


def describe(error: Exception, attempt: Any) -> Verdict:
    """A Verdict on the learner's exception: its text, the line that raised it, and help where we know some."""
    if not isinstance(error, Raised):
        error = Raised(type(error), type(error).__name__, str(error), own_line(error, attempt))
    where = f"\nin line {error.line[0]} of its cell:  {error.line[1]}" if error.line else ""
    if "ellipsis" in error.message:
        return Verdict("not tried", f"not tried yet: there is still a ... to replace{where}")
    message = f"it raised {error.name}: {error.message}{where}" if error.name else error.message
    for kind, pattern, help in HELP:
        if issubclass(error.kind, kind) and re.search(pattern, error.message):
            return Verdict("not yet", f"{message}\n{help}")
    return Verdict("not yet", message)


def own_line(error: Exception, attempt: Any) -> tuple[int, str] | None:
    """(number, text) of the line of the attempt's own cell that raised it, or None."""
    own = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    if not frames:
        return None
    number = frames[-1].lineno or 0
    return number, (frames[-1].line or linecache.getline(frames[-1].filename, number)).strip()


def as_numbers(result: Any) -> np.ndarray:
    """A result as a float64 array. Raises TypeError or ValueError when it is none."""
    if isinstance(result, torch.Tensor) and not result.is_complex():
        return result.detach().cpu().double().numpy()
    if isinstance(result, (str, dict, set)) or np.iscomplexobj(result):
        raise TypeError(f"{type(result).__name__} is no array of real numbers")
    if isinstance(result, (list, tuple, range)):
        result = [as_numbers(r) for r in result]
    return np.asarray(result, dtype=np.float64)


def copies(value: Any) -> Any:
    """A deep copy of the arguments, so that one function cannot spoil them for the next."""
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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: copies(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value


def leaves(value: Any) -> list[torch.Tensor]:
    """All tensors in there, however deeply nested."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, f.name) for f in dataclasses.fields(value) if f.init]    # not what it has cached
    if isinstance(value, dict):
        value = list(value.values())
    return [a for item in value for a in leaves(item)] if isinstance(value, (list, tuple)) else []


def untouched(used: Any, case: Any) -> bool:
    """Whether the arguments are still what they were."""
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
