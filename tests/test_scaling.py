"""What the page on scaling works out follows from its formulas, and the page says what the command would say today."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import scaling

WORK = scaling.Training("tiny", 10**9, 1e12, 64)


def test_an_all_reduce_sends_nearly_twice_the_gradients_whatever_the_number_of_gpus():
    assert scaling.all_reduce(10**9, 1) == 0
    sent = 2 * 7 / 8 * 4e9
    assert scaling.all_reduce(10**9, 8) == pytest.approx(sent / (0.8 * 300e9) + 6 * 20e-6)
    assert scaling.all_reduce(10**9, 1000) == pytest.approx(2 * 0.999 * 4e9 / (0.8 * 200e9) + 20 * 20e-6)
    assert scaling.all_reduce(0, 1000) == pytest.approx(20 * 20e-6)


def test_communication_costs_only_what_does_not_fit_into_the_backward_pass():
    computing, talking, share = scaling.efficiency(WORK, 8, 64)
    assert talking < 2 / 3 * computing
    assert share == 1
    computing, talking, share = scaling.efficiency(WORK, 1000, 1)
    assert computing == pytest.approx(1e12 / (312e12 * 0.35))
    assert share == pytest.approx(computing / (computing / 3 + talking))    # forward, then whichever takes longer
    assert scaling.efficiency(WORK, 1000, 0.1)[2] < share


def test_durations_are_in_units_that_one_can_picture():
    said = [scaling.duration(hours) for hours in (150_000, 100, 5, 0.5, 0.01)]
    assert said == ["17.1 years", "4.2 days", "5.0 hours", "30.0 minutes", "36.0 s"]


def test_only_the_named_place_of_a_page_is_filled_in():
    page = "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n"
    assert scaling.fill_in(page, "one", r"new \1") == page.replace("old", r"new \1")
    with pytest.raises(ValueError, match="<!-- three -->"):
        scaling.fill_in(page, "three", "x")


def test_the_page_says_what_the_command_works_out_and_stable_diffusion_has_its_size():
    page, tables = scaling.PAGE.read_text("utf-8"), scaling.worked_out()
    assert scaling.fill_in(scaling.fill_in(page, "worked out", tables), "costs", scaling.costs()) == page
    assert "| Stable Diffusion v1 | 860 M |" in tables    # as published


@pytest.mark.long
def test_one_process_and_two_are_measured():
    table = scaling.measured(steps=1)
    rates = [float(line.split("|")[2]) for line in table.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert len(rates) == 2
    assert min(rates) > 0
    assert "| 1 |" in table
    assert "| 100% |" in table
