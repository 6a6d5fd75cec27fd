"""The capstone: one frozen network, 1, 2, 4 and 8 calls of it. The best sampler and schedule of steps win.

A sampler is a function my_sampler(denoiser, x_T, steps, schedule) that returns pictures like x_T. Its `denoiser` is a
`CountedDenoiser`, which can be called `steps` times for the whole batch. Everybody gets the same noise and labels.

At each number of steps the pictures are measured by the course's protocol (see `metrics`), and

    quality = accuracy * recall / (1 + Frechet distance)            0..1

is a product, so that no factor makes up for another: ten perfect prototypes have a recall of 0, noise has no accuracy.
The score is 100 times the mean quality over the numbers of steps. Each seed gives a score of its own. All samplers get
the same seeds, so they are compared seed by seed: one is ahead of another only when its mean lead is larger than the
spread of its lead over the seeds (the highest minus the lowest). Otherwise it is a tie.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from diffusion_lessons import weights
from diffusion_lessons.denoiser import ConditionalDenoiser
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.forward import Prediction
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.parameters import real_number, whole_number
from diffusion_lessons.samplers import DenoiserFunction, PerSampleNoise, SamplingLoop, run, timesteps
from diffusion_lessons.schedules import Schedule

Sampler: TypeAlias = Callable[[DenoiserFunction, Tensor, int, Schedule], Any]
BATCH = 110    # pictures at once: the fastest here


class CountedDenoiser:
    """The frozen network with the labels filled in, which can be called so many times for the whole batch.

    denoiser(x_t, t)       the prediction for the labels: one call
    denoiser(x_t, t, w)    with guidance (see `CFGDenoiser`): two calls, as the network runs twice; one at w = 0 (the
                           labels are ignored) and at w = 1

    x_t: like x_T;  t: an integer in 1..T, or one for each picture  ->  Prediction (eps, x0)
    Raises RuntimeError for a call too many, which is not made, and ValueError for arguments out of range.
    """

    def __init__(self, denoiser: ConditionalDenoiser, labels: Tensor, calls: int, T: int,
                 picture: Sequence[int] = (1, 28, 28)) -> None:
        self._denoiser, self._labels, self._T = denoiser, labels, T
        self._shape = (len(labels), *picture)
        self.calls, self.used = calls, 0

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: int | Tensor, w: float = 1.0) -> Prediction:
        if not isinstance(x_t, Tensor) or x_t.shape != self._shape or not x_t.is_floating_point():
            given = f"{x_t.dtype} {tuple(x_t.shape)}" if isinstance(x_t, Tensor) else type(x_t).__name__
            raise ValueError(f"x_t must be the whole batch, {self._shape} float like x_T, not {given}")
        times, w = self._times(t), real_number("guidance", w)
        cost = 1 if w in (0, 1) else 2
        if self.used + cost > self.calls:
            raise RuntimeError(f"the network can be called {self.calls} times here; {self.used} are used, and this "
                               f"call costs {cost}" + (", because guidance runs the network twice" * (cost - 1)))
        self.used += cost
        parts = [CFGDenoiser(self._denoiser, y, w)(x, s) for x, s, y in zip(
            x_t.float().split(BATCH), times.split(BATCH), self._labels.split(BATCH), strict=True)]
        return Prediction(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _times(self, t: int | Tensor) -> Tensor:
        """One time for each picture, checked.  -> (B,) int64"""
        if not isinstance(t, Tensor) or t.ndim == 0:
            return torch.full(self._shape[:1], whole_number("t", t, 1, self._T))
        if t.shape != self._shape[:1] or t.is_floating_point() or t.dtype == torch.bool:
            raise ValueError(f"t must be an integer, or {self._shape[0]} of them, not {t.dtype} {tuple(t.shape)}")
        whole_number("t", t.min(), 1, self._T)
        whole_number("t", t.max(), 1, self._T)
        return t.long()


class Figures(NamedTuple):
    """What was measured at one number of steps with one seed."""

    accuracy: float
    frechet: float
    recall: float

    @property
    def quality(self) -> float:
        """accuracy * recall / (1 + Frechet distance), in 0..1"""
        return self.accuracy * self.recall / (1 + self.frechet)


@dataclass(frozen=True)
class Score:
    """A sampler's figures, {steps: [one for each seed]}, and what follows from them.

    examples: {steps: its first ten pictures}
    """

    figures: dict[int, list[Figures]]
    examples: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def each(self) -> list[float]:
        """The score of each seed, 0..100."""
        return [100 * sum(f.quality for f in seed) / len(seed) for seed in zip(*self.figures.values(), strict=True)]

    @property
    def mean(self) -> float:
        """The mean score over the seeds."""
        return sum(self.each) / len(self.each)

    @property
    def spread(self) -> float:
        """The highest minus the lowest score of a seed."""
        return max(self.each) - min(self.each)

    def quality(self, steps: int) -> float:
        """The mean quality over the seeds at one number of steps, 0..1."""
        return sum(one.quality for one in self.figures[steps]) / len(self.figures[steps])

    def means(self, steps: int) -> Figures:
        """The figures at one number of steps, averaged over the seeds."""
        found = self.figures[steps]
        return Figures(*(sum(values) / len(found) for values in zip(*found, strict=True)))


@dataclass(frozen=True)
class Contest:
    """The conditions, the same for everybody: `count` pictures for each seed, at each number of steps.

    The seeds' pictures are one batch, 660 by default: their predictions just fit into a message of the grader.
    Raises ValueError for fewer than 65 pictures: the Frechet distance needs more than the 64 features.
    """

    seeds: Sequence[int] = (1001, 1002, 1003)
    count: int = 220
    steps: Sequence[int] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        whole_number("count", self.count, 65, 10_000)
        if not self.seeds or not self.steps:
            raise ValueError("a contest needs at least one seed and one number of steps")

    def start(self) -> tuple[Tensor, Tensor]:
        """The noise x_T and the labels, each digit equally often, in an order that the seed decides.

        -> (B, 1, 28, 28), (B,), where B = count for each seed
        """
        noise = [PerSampleNoise(seed, self.count)((1, 28, 28)) for seed in self.seeds]
        order = [torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)) for seed in self.seeds]
        return torch.cat(noise), torch.cat(order) % 10

    def score(self, sampler: Sampler) -> Score:
        """Run a sampler and measure its pictures; raises as `sample`."""
        _, classifier, real = parts()
        labels = self.start()[1].split(self.count)
        figures, examples = {}, {}
        for steps in self.steps:
            x = self.sample(sampler, steps)
            examples[steps] = x[:10]
            figures[steps] = [measure(classifier, *pair, real) for pair in zip(
                x.split(self.count), labels, strict=True)]
        return Score(figures, examples)

    def sample(self, sampler: Sampler, steps: int) -> Tensor:
        """A sampler's pictures, with so many calls.  -> (B, 1, 28, 28) in [-1, 1]

        Raises what the sampler raises, and ValueError for a result that is no batch of pictures, both with a note that
        says at how many steps.
        """
        x_T, labels = self.start()
        denoiser = parts()[0]
        counted = CountedDenoiser(denoiser, labels, steps, denoiser.schedule.T)
        try:
            return pictures(sampler(counted, x_T.clone(), steps, denoiser.schedule), x_T)
        except Exception as error:
            error.add_note(f"with steps = {steps}")
            raise


PRACTICE = Contest(seeds=(0,))


@functools.cache
def parts() -> tuple[Any, Any, Tensor]:
    """The frozen network, the classifier that measures, and the features of the real digits."""
    return weights.load_model("digits"), weights.load_model("digits_classifier"), weights.load("digits_real")[0]["test"]


def pictures(x: Any, x_T: Tensor) -> Tensor:
    """What a sampler returned, as pictures in [-1, 1]. Raises ValueError when it is something else."""
    if not isinstance(x, Tensor) or x.shape != x_T.shape or not x.is_floating_point():
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"a sampler must return pictures, {tuple(x_T.shape)} float like x_T, not {given}")
    if not x.isfinite().all():
        raise ValueError("some of the returned numbers are infinite or not a number: is there a division by zero, such "
                         "as by sqrt(1 - alpha_bar) at t = 0?")
    return x.detach().float().clamp(-1, 1)


def measure(classifier: nn.Module, x: Tensor, labels: Tensor, real: Tensor) -> Figures:
    """The figures of one set of pictures, by `metrics.report`."""
    found = metrics.report(classifier, x, labels, real)    # type: ignore[arg-type]
    return Figures(found["accuracy"], found["frechet"], found["recall"])


def baseline(method: str = "ddim") -> Sampler:
    """The package's own sampler, "ddim" or "dpm++", with evenly spaced timesteps and without guidance."""
    def sampler(denoiser: DenoiserFunction, x_T: Tensor, steps: int, schedule: Schedule) -> Tensor:
        return run(SamplingLoop(denoiser, x_T, schedule, timesteps(schedule.T, steps), method=method))

    return sampler


BASELINES: dict[str, Sampler] = {"DDIM": baseline("ddim"), "DPM-Solver++": baseline("dpm++")}


def ahead(one: Score, other: Score) -> bool:
    """Whether one score beats another: its mean lead is larger than the spread of the lead over their common seeds."""
    leads = [a - b for a, b in zip(one.each, other.each, strict=True)]
    return sum(leads) / len(leads) > max(leads) - min(leads)


def ranks(scores: Sequence[Score]) -> list[int]:
    """The ranks of scores that are sorted, best first; ties share one: 1, 2, 2, 4.

    A score shares the rank above it unless the first of that rank is ahead.
    """
    found: list[int] = []
    for place, score in enumerate(scores, 1):
        tied = found and not ahead(scores[found[-1] - 1], score)
        found.append(found[-1] if tied else place)
    return found


def table(scores: dict[str, Score]) -> str:
    """The figures of several samplers, a line for each number of steps, to be printed."""
    lines = [f"{'':<14}  steps  accuracy  Frechet  recall   quality"]
    for name, score in scores.items():
        for steps, label in zip(score.figures, itertools.chain([name], itertools.repeat(""))):
            f = score.means(steps)
            lines.append(f"{label:<14} {steps:>6} {f.accuracy:>9.1%} {f.frechet:>8.2f} {f.recall:>7.1%} "
                         f"{score.quality(steps):>9.3f}")
        over = f", spread over {len(score.each)} seeds {score.spread:.1f}" if len(score.each) > 1 else ""
        lines.append(f"{'':<14}  score {score.mean:.1f}{over}")
    return "\n".join(lines)
