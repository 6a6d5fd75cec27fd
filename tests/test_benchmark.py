"""The benchmark counts and fits rightly, and its report says what was measured. How fast anything is, no test says."""

import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import contenders
import few_steps
import report
import timing

MACHINE = dict(processor="an abacus", cores=2, threads=1, device="cpu", system="Linux", python="3.11.7", torch="2.14.1",
               date="2026-11-28")
MEASURED = dict(name="digits", does="Our digits.", batch=64, samples=16, steps=50, sampler="DDIM", parameters=1_200_000,
                versions={"diffusion-lessons": "0.1.0"}, rate=50.0, gflops=30.0, matrix_product=60.0, convolution=40.0,
                sampling=4.0, sampling_default=80.0, estimated=False, outside_network=0.034, memory=722.4, data="MNIST")
MEASURED["import"] = 0.2
GROWTH = [dict(what=what, **{what: x}, seconds=0.01 * x**p, memory=5.0 * x) for what, p in
          (("size", 2.1), ("width", 1.7), ("batch", 1.0)) for x in (8, 16, 32)]


def found(**change):
    return {"machine": MACHINE, "command": "make bench", "quick": False, "contenders": [MEASURED], "growth": GROWTH,
            "accuracy": [], **change}


def test_operations_are_those_of_the_formula():
    x, layer = torch.randn(2, 3, 8, 8, requires_grad=True), nn.Conv2d(3, 5, 3, padding=1)
    forward = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert timing.operations(lambda: layer(x)) == forward
    assert timing.operations(lambda: layer(x).sum().backward()) == 3 * forward


def test_the_largest_convolution_is_the_one_with_the_most_operations(monkeypatch):
    monkeypatch.setattr(timing, "seconds", lambda work: work() is None or 1.0)
    network = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Conv2d(64, 2, 3, padding=1, stride=2), nn.Conv2d(2, 400, 1))
    rate = timing.largest_convolution(network, lambda: network(torch.zeros(1, 1, 8, 8)))
    assert rate * 1e9 == pytest.approx(max(2 * 64 * 64, 2 * 2 * 16 * 64 * 9, 2 * 400 * 16 * 2))


def test_the_stopwatch_counts_what_is_inside_the_network_alone():
    class Sleeper(nn.Module):
        def forward(self):
            time.sleep(0.05)

    network, began = Sleeper(), time.perf_counter()
    watch = timing.Stopwatch(network)
    for _ in range(3):
        network()
        time.sleep(0.05)
    assert 0.15 <= watch.total <= time.perf_counter() - began - 0.15


@pytest.mark.parametrize("p", [0.5, 1.0, 2.3])
def test_an_exponent_is_found_again(p):
    x = [16, 32, 64, 128]
    assert report.exponent(x, [3.7 * value**p for value in x]) == pytest.approx(p)
    crooked = [3.7 * value**p * factor for value, factor in zip(x, (1.02, 0.98, 1.02, 0.98))]
    assert report.exponent(x, crooked) == pytest.approx(p, abs=0.03)


def test_the_report_says_what_was_measured():
    said = report.page(found())
    assert "| **digits** | 1.2 M | 50.0 | 30 | 50% | 75% | 80.0 s | 4.0 s | 3.4% | 722 MiB | 0.20 s |" in said
    for words in ("an abacus, 2 cores", "torch 2.14.1, diffusion-lessons 0.1.0", "2026-11-28", "`make bench`",
                  "on MNIST", "width (channels of the first level)",
                  "8 to 32: seconds by the power 2.10, memory by the power 1.00"):
        assert words in said
    assert "mean nothing" not in said
    assert "legible" not in said
    other = report.page(found(quick=True, contenders=[MEASURED | {"estimated": True, "data": "synthetic digits"}]))
    assert "its figures mean nothing" in other
    assert "| about 80.0 s |" in other
    assert "MNIST was not there" in other


def test_the_report_says_how_long_it_took_to_draw_digits_and_what_was_not_reached():
    accuracy = [{"name": "digits", "most": 30, "checks": [(1.0, 0.91), (2.0, 0.94)], "90": 1.0, "95": None}]
    assert "| **digits** | 1.0 min | not within 30 min (best 94%) |" in report.page(found(accuracy=accuracy))


def test_the_figures_are_drawn_on_light_and_on_dark(tmp_path):
    from PIL import Image

    paths = report.write(tmp_path, found())
    corners = [Image.open(path).convert("RGB").getpixel((0, 0)) for path in paths[1:3]]
    assert corners == [(255, 255, 255), (18, 18, 18)]
    assert all(path.exists() for path in paths)


def test_a_training_is_asked_until_it_is_good_enough_and_no_longer(monkeypatch):
    from diffusion_lessons.evaluation import metrics

    class Fake(contenders.Contender):
        def __init__(self, x, y, batch):
            self.steps = 0

        def step(self):
            self.steps += 1

        def sample(self, y, steps):
            return torch.zeros(len(y), 1, 28, 28)

    now, answers = [0.0], iter([0.5, 0.93, 0.94, 0.96, 1.0])

    def accuracy(*_):
        now[0] += takes    # seconds of a check
        return next(answers)

    def clock():
        now[0] += 0.1      # of a step of training
        return now[0]

    takes = 1.0
    monkeypatch.setattr(contenders.time, "perf_counter", clock)
    monkeypatch.setattr(metrics, "accuracy", accuracy)
    monkeypatch.setitem(contenders.CONTENDERS, "fake", Fake)
    took = contenders.minutes_to_accuracy("fake", None, None, 60)
    minutes = [at for at, _ in took["checks"]]
    assert [share for _, share in took["checks"]] == [0.5, 0.93, 0.94, 0.96]
    assert (took["90"], took["95"]) == (minutes[1], minutes[3])
    assert minutes == pytest.approx([0.5 * 1.15**k for k in range(4)], rel=0.02)
    takes, answers = 60.0, iter([0.3] * 100)
    never = contenders.minutes_to_accuracy("fake", None, None, 3)
    assert never["95"] is None
    assert [at for at, _ in never["checks"]] == pytest.approx([0.5, 1.5, 2.5, 3], rel=0.02)    # a minute apart


@pytest.mark.parametrize("name", ["digits", "diffusers"])
def test_a_contender_trains_and_samples_by_the_label(name):
    x, y, _ = contenders.digits(quick=True)
    torch.manual_seed(0)
    contender = contenders.CONTENDERS[name](x, y, 2)
    before = [w.clone() for w in contender.network.parameters()]
    contender.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, contender.network.parameters()))
    assert contender.sample(torch.tensor([3, 5]), 2).shape == (2, 1, 28, 28)


def test_the_fewest_steps_within_a_tenth_of_the_best_are_chosen():
    found = {("ddim", 5): (1.2, 0.9, 1), ("ddim", 10): (1.05, 0.9, 2), ("ddpm", 10): (1.09, 1.0, 2),
             ("ddim", 50): (1.0, 0.9, 9)}
    assert few_steps.fewest(found) == ("ddim", 10)
    assert few_steps.fewest(found | {("dpm++", 5): (1.1, 0.9, 1)}) == ("dpm++", 5)
