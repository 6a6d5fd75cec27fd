"""The capstone's leaderboard: the samplers in a folder of notebooks, run in the grader's sandbox and ranked.

The frozen network stays in this process, which makes and counts its calls: a sampler gets tensors and returns tensors.
Each number of steps has a worker of its own, so that nothing computed with more calls can be kept for fewer.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from diffusion_lessons.evaluation.capstone import BASELINES, Contest, Score, ranks
from diffusion_lessons.exercises import checking
from diffusion_lessons.exercises.checking import Raised, describe
from diffusion_lessons.grading import answer, guard, named, notebook, notebooks_in, reading, visible, write_table
from diffusion_lessons.grading.sandbox import Sandbox
from diffusion_lessons.grading.submissions import submission_of
from diffusion_lessons.limits import TooLong
from diffusion_lessons.schedules import Schedule

CALL = 300.0        # seconds for all pictures at one number of steps, the network's time included; honest ones take 20
CODE = 5_000        # characters of the cells and modules that a sampler needs: room for ideas, not for stored pictures


class Entry(NamedTuple):
    """What became of one notebook. state: "ranked", "not yet", "not tried", "missing", "not read", "not checked"; or
    "baseline" for a sampler of the course."""

    who: str
    notebook: str
    state: str
    message: str = ""
    isolated: str = ""    # "yes" or "not isolated"; empty where nothing was run
    score: Score | None = None


class RemoteSampler:
    """A learner's sampler, in a new worker at each call."""

    def __init__(self, attempt: notebook.Attempt, modules: dict[str, str], sandbox: Sandbox) -> None:
        self.code = {"cells": attempt.cells, "attempt": attempt.expression, "exposed": {}, "modules": modules}
        self.sandbox = sandbox

    def __call__(self, denoiser: Any, x_T: Tensor, steps: int, schedule: Schedule) -> Any:
        self.sandbox.end()
        found = answer(self.sandbox.load(self.code, checking.SECONDS))
        if not found["callable"]:
            raise Raised(TypeError, "", f"compete() was given no function, but a {found['type']}.")
        # What it changes of x_T and of the schedule is left where it is.
        return answer(self.sandbox.call([denoiser, x_T, steps, schedule], CALL))["result"]


def enter(path: Path, who: str, name: str, sandbox: Sandbox, contest: Contest) -> Entry:
    """The Entry of one notebook: the last `compete` in it that was given more than the empty function."""
    try:
        found = reading.read(path)
    except TooLong:
        return Entry(who, name, "not read", f"it could not be read within {reading.SECONDS:g} seconds.")
    except (ValueError, OSError) as error:
        return Entry(who, name, "not read", str(error))
    attempts = found.attempts.get(notebook.CAPSTONE, [])
    tried = [attempt for attempt in attempts if not attempt.idle]
    if not tried:
        broken = "; ".join(f"{cell}: {why}" for cell, why in list(found.broken.items())[:3])
        note = f" (Not Python: {broken}.)" if broken else ""
        return Entry(who, name, "not tried", "my_sampler is still empty.") if attempts else Entry(
            who, name, "missing", f"compete(my_sampler) was not found.{note}")
    size = sum(len(text) for _, text, _ in tried[-1].cells) + sum(map(len, found.modules.values()))
    size += len(tried[-1].expression[2])
    if size > CODE:
        return Entry(who, name, "not yet", f"the cells that it needs have {size:,} characters; {CODE:,} are allowed.")
    state, message, score = attempt_score(RemoteSampler(tried[-1], found.modules, sandbox), contest)
    return Entry(who, name, state, message, "yes" if sandbox.isolated else "not isolated", score)


def attempt_score(sampler: RemoteSampler, contest: Contest) -> tuple[str, str, Score | None]:
    """(state, message, Score or None) of a sampler, whatever it does."""
    try:
        return "ranked", "", contest.score(sampler)
    except Exception as error:    # whatever the learner's code, or what came back from it, has set off
        note = f" ({'; '.join(error.__notes__)})" if getattr(error, "__notes__", None) else ""
        if isinstance(error, Raised):
            return "not yet", describe(error, None).message + note, None
        if isinstance(error, TooLong):
            return "not yet", f"it took more than {CALL:g} seconds{note}.", None
        if isinstance(error, ValueError):    # of `pictures`
            return "not yet", f"{error}{note}", None
        return "not checked", f"it could not be scored ({type(error).__name__}: {error}).", None


def entries(folder: str | Path, contest: Contest, progress: bool = False) -> Iterator[Entry]:
    """An iterator over the entries of all notebooks in a folder and below. Raises ValueError when there are none.

    Learners are named as by `grade_folder`, or by the name and number that Moodle or Canvas gave to the file.
    """
    folder = Path(folder)
    guard.sweep()
    return (entry_of(path, folder, contest) for path in
            tqdm(notebooks_in(folder), desc="leaderboard", unit="notebook", disable=not progress))


def entry_of(path: Path, folder: Path, contest: Contest) -> Entry:
    """The Entry of one notebook in a folder, run in a sandbox of its own. Whatever goes wrong is in its state."""
    who, name = named(path, folder)
    who, batch = submission_of(who, name).label(), contest.count * len(contest.seeds)
    numbers = batch * (28 * 28 + 1)    # of x_t, and of t, one for each picture
    try:
        with Sandbox(hidden=[folder], small=numbers, broadcast=numbers * batch) as sandbox:
            return enter(path, who, name, sandbox, contest)
    except Exception as error:    # one notebook must not end the leaderboard
        return Entry(who, name, "not checked", f"it could not be scored ({type(error).__name__}: {error}).")


def baselines(contest: Contest) -> list[Entry]:
    """The course's own samplers, as entries."""
    return [Entry(f"({name})", "", "baseline", score=contest.score(sampler)) for name, sampler in BASELINES.items()]


def ranked(found: Iterable[Entry]) -> list[tuple[str, Entry]]:
    """(rank, Entry) for each: the best score first, "1=" where it is shared, those without a score last."""
    found = list(found)
    scored = sorted(((entry, entry.score) for entry in found if entry.score is not None), key=lambda e: -e[1].mean)
    places = ranks([score for _, score in scored])
    return [(f"{place}{'=' * (places.count(place) > 1)}", entry) for place, (entry, _) in zip(places, scored)
            ] + [("", entry) for entry in found if entry.score is None]


def write(found: Iterable[Entry], contest: Contest, out: str | Path) -> None:
    """Write the leaderboard as a table for a spreadsheet; raises as `grading.write_csv`."""
    header = ["rank", "who", "notebook", "state", "score", "spread"]
    for steps in contest.steps:
        header += [f"{figure} at {steps}" for figure in ("accuracy", "frechet", "recall")]
    rows = []
    for rank, entry in ranked(found):
        numbers = [""] * (len(header) - 4)
        if score := entry.score:
            numbers = [f"{score.mean:.2f}", f"{score.spread:.2f}"]
            numbers += [f"{value:.4f}" for steps in contest.steps for value in score.means(steps)]
        rows.append([rank, entry.who, entry.notebook, entry.state, *numbers, entry.message, entry.isolated])
    write_table([*header, "message", "isolated"], rows, out)


def summary(found: Sequence[Entry], contest: Contest) -> str:
    """A line for each entry: rank, score with its spread, and the quality at each number of steps."""
    width = max(len(visible(entry.who)) for entry in found)
    lines = [f"rank  {'':<{width}}   score  spread   quality at " + "".join(f"{s:>7}" for s in contest.steps)]
    for rank, entry in ranked(found):
        start = f"{rank:>4}  {visible(entry.who):<{width}}  "
        if score := entry.score:
            each = "".join(f"{score.quality(steps):>7.3f}" for steps in contest.steps)
            lines.append(f"{start}{score.mean:>6.1f}  {score.spread:>6.1f}{'':<14}{each}")
        else:
            lines.append(f"{start}{entry.state}: {visible(entry.message)}")
    return "\n".join(lines)
