"""The capstone: calls are counted, neither prototypes nor noise can win, and a class's samplers run out of reach."""

import csv
import functools
import socket
from pathlib import Path

import nbformat
import pytest
import torch

import diffusion_lessons
from diffusion_lessons.cli import main
from diffusion_lessons.evaluation import capstone, metrics
from diffusion_lessons.evaluation.capstone import BASELINES, Contest, CountedDenoiser, Figures, Score
from diffusion_lessons.exercises.capstone import compete
from diffusion_lessons.forward import Prediction
from diffusion_lessons.grading import leaderboard, notebook, reading, sandbox

needs_namespaces = pytest.mark.skipif(not sandbox.can_isolate(), reason="no namespaces here")
NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "capstone.ipynb"


class Recorder:
    """A conditional denoiser that notes the times and conditions it is called with."""

    def __init__(self):
        self.seen = []

    def __call__(self, x_t, t, condition=None):
        self.seen.append((t.tolist(), None if condition is None else condition.tolist()))
        return Prediction(x_t, 2 * x_t) if condition is None else Prediction(x_t, 4 * x_t)


def counted(calls, n=3):
    recorder = Recorder()
    return recorder, CountedDenoiser(recorder, torch.arange(n), calls, 1000), torch.ones(n, 1, 28, 28)


# ---------------------------------------------------------------- the counting


def test_each_call_counts_and_one_too_many_is_refused_before_it_is_made():
    recorder, denoiser, x = counted(2)
    denoiser(x, 1000)
    denoiser(x, torch.tensor([500, 1, 7]))
    assert recorder.seen == [([1000] * 3, [0, 1, 2]), ([500, 1, 7], [0, 1, 2])]
    with pytest.raises(RuntimeError, match="can be called 2 times here; 2 are used, and this call costs 1$"):
        denoiser(x, 3)
    assert len(recorder.seen) == 2


def test_guidance_costs_two_calls_because_the_network_runs_twice():
    recorder, denoiser, x = counted(4)
    assert denoiser(x, 5, 3.0).x0[0, 0, 0, 0] == 2 + 3 * (4 - 2)
    assert (denoiser.used, len(recorder.seen)) == (2, 2)
    denoiser(x, 5, w=0)
    assert (denoiser.used, recorder.seen[-1][1]) == (3, None)
    with pytest.raises(RuntimeError, match="costs 2, because guidance runs the network twice"):
        denoiser(x, 5, 1.5)
    denoiser(x, 5, w=1)    # the last one is still there
    assert (denoiser.used, len(recorder.seen)) == (4, 4)


@pytest.mark.parametrize(("x", "t", "w", "words"), [
    (torch.ones(2, 1, 28, 28), 5, 1, "whole batch"),       # else one call could do for twice as many pictures
    (torch.ones(6, 1, 28, 28), 5, 1, "whole batch"),
    (torch.ones(3, 1, 28, 28).long(), 5, 1, "float like x_T"),
    ([1.0], 5, 1, "not list"),
    (torch.ones(3, 1, 28, 28), 0, 1, "from 1 to 1,000, not 0"),
    (torch.ones(3, 1, 28, 28), 1001, 1, "from 1 to 1,000"),
    (torch.ones(3, 1, 28, 28), 2.5, 1, "whole number"),
    (torch.ones(3, 1, 28, 28), torch.tensor([1, 2]), 1, "or 3 of them"),
    (torch.ones(3, 1, 28, 28), torch.tensor([1, 2, 1001]), 1, "from 1 to 1,000"),
    (torch.ones(3, 1, 28, 28), 5, float("nan"), "guidance must be"),
])
def test_a_call_that_is_refused_costs_nothing(x, t, w, words):
    recorder, denoiser, _ = counted(1)
    with pytest.raises(ValueError, match=words):
        denoiser(x, t, w)
    assert (denoiser.used, recorder.seen) == (0, [])


# ---------------------------------------------------------------- the score


def test_everybody_gets_the_same_noise_and_each_digit_equally_often():
    x, y = Contest(seeds=(1, 2), count=70).start()
    again, _ = Contest(seeds=(2,), count=70).start()
    assert torch.equal(x[70:], again)
    assert not torch.equal(x[:70], x[70:])
    assert y[:70].bincount().tolist() == [7] * 10
    assert y[:70].tolist() != y[70:].tolist()
    assert not set(capstone.PRACTICE.seeds) & set(Contest().seeds)


def scored(*each):
    """A Score with these scores of its seeds, in percent."""
    return Score({1: [Figures(one / 100, 0.0, 1.0) for one in each]})


def test_scores_are_ties_unless_the_lead_is_larger_than_its_spread_over_the_seeds():
    best, close, apart, wide = scored(50, 51, 52), scored(49, 49.5, 52.5), scored(45, 46, 47), scored(30, 44, 58)
    assert (best.mean, best.spread) == (pytest.approx(51), pytest.approx(2))
    assert capstone.ranks([scored(50, 40, 30), scored(49, 39, 29)]) == [1, 2]    # seeds are as hard for everybody
    assert capstone.ranks([scored(50, 40, 31), scored(49, 39, 28.5)]) == [1, 1]
    assert capstone.ranks([best, close, apart, wide]) == [1, 1, 3, 3]
    assert capstone.ranks([best, apart]) == [1, 2]
    assert capstone.ranks([scored(5), scored(5), scored(4)]) == [1, 1, 3]


@pytest.mark.parametrize(("result", "words"), [
    (lambda x: x[:1], "must return pictures"), (lambda x: None, "not NoneType"), (lambda x: x / 0 * 0, "not a number"),
    (lambda x: x.long(), "float like x_T, not torch.int64"),
])
def test_what_is_no_batch_of_pictures_is_refused_and_the_steps_are_named(result, words):
    with pytest.raises(ValueError, match=words) as caught:
        Contest((5,), 65, (2, 4)).score(lambda denoiser, x_T, steps, schedule: result(x_T))
    assert caught.value.__notes__ == ["with steps = 2"]


def stored_digits(contest, number=4):
    """Pictures made without any call in the contest: one good digit for each class, and the means of the classes.

    The digits stand for training digits, which are not always there; the classifier gets them right.
    """
    _, labels = contest.start()
    denoiser, classifier, _ = capstone.parts()
    y = torch.arange(10).repeat(number)
    noise = torch.randn(len(y), 1, 28, 28, generator=torch.Generator().manual_seed(9))
    good = BASELINES["DDIM"](CountedDenoiser(denoiser, y, 10, 1000), noise, 10, denoiser.schedule).clamp(-1, 1)
    right = metrics.predict(classifier, good).argmax(1) == y
    one = torch.stack([good[right & (y == k)][0] for k in range(10)])
    means = good.reshape(number, 10, 1, 28, 28).mean(0)
    return {"one digit per class": one[labels], "class means": means[labels]}


def scores_in(contest):
    """{sampler: Score} of both baselines, of prototypes and of noise."""
    fixed = {**stored_digits(contest), "noise": contest.start()[0]}
    samplers = {**BASELINES, **{name: lambda *_, x=x: x for name, x in fixed.items()}}
    return {name: contest.score(sampler) for name, sampler in samplers.items()}


@pytest.fixture(scope="module")
def scores():
    return scores_in(Contest((7,), 100, (4,)))


@pytest.mark.slow(seconds=10)
def test_neither_prototypes_nor_noise_can_win(scores):
    digits = scores["one digit per class"].means(4)
    assert digits.accuracy == 1          # by accuracy alone they would win,
    assert digits.recall < 0.01          # and this is why they do not
    for name in ("one digit per class", "class means", "noise"):
        assert scores[name].mean < 0.1 * scores["DDIM"].mean, name
    ranking = sorted(scores.values(), key=lambda score: -score.mean)
    places = dict(zip(map(id, ranking), capstone.ranks(ranking), strict=True))
    assert places[id(scores["DDIM"])] <= 2 < min(places[id(scores[name])] for name in ("class means", "noise"))


@pytest.mark.slow(seconds=10)
def test_dpm_solver_beats_ddim_at_four_steps(scores):
    fast, plain = (scores[name].figures[4][0] for name in ("DPM-Solver++", "DDIM"))
    assert fast.quality > plain.quality + 0.03


@pytest.mark.long
def test_in_the_whole_contest_the_order_is_the_same():
    found = scores_in(Contest())
    for name in ("one digit per class", "class means", "noise"):
        assert max(found[name].each) < 0.2 * min(found["DDIM"].each), name
    assert capstone.ahead(found["DPM-Solver++"], found["DDIM"])    # by 2.6, with a spread of 0.3


# ---------------------------------------------------------------- in the notebook


def test_compete_tells_a_stub_a_mistake_and_a_sampler_apart(capsys, monkeypatch):
    def my_sampler(denoiser, x_T, steps, schedule):
        ...

    assert compete(my_sampler) == {}
    assert "still empty" in capsys.readouterr().out
    assert compete(lambda denoiser, x_T, steps, schedule: x_T[0], Contest((5,), 65, (1,))) == {}
    said = capsys.readouterr().out
    assert "must return pictures" in said
    assert "with steps = 1" in said
    found = compete(lambda denoiser, x_T, steps, schedule: x_T, Contest((5,), 65, (1,)))["my_sampler"]
    assert found.mean < 0.01
    assert "score 0.0" in capsys.readouterr().out


# ---------------------------------------------------------------- the leaderboard

DDIM = """def my_sampler(denoiser, x_T, steps, schedule):
    x, ab = x_T, schedule.alpha_bar
    times = [round(schedule.T - k * schedule.T / steps) for k in range(steps)] + [0]
    for t, s in zip(times, times[1:]):
        eps, x0 = denoiser(x, t)
        x = (ab[s].sqrt() * x0 + (1 - ab[s]).sqrt() * eps).float()
    schedule.alpha_bar.zero_()      # there, and nowhere else
    return x
compete(my_sampler)"""
ATTACK = """
import os, socket, sys, torch
def my_sampler(denoiser, x_T, steps, schedule):
    won = []
    def attempt(name, what):
        try:
            what()
            won.append(name)
        except Exception as error:
            said[name] = str(error)
    said = {}
    attempt("package", lambda: __import__("diffusion_lessons"))
    attempt("weights", lambda: open(WEIGHTS, "rb").read())
    attempt("neighbour", lambda: open(NEIGHBOUR).read())
    attempt("network", lambda: socket.create_connection(("127.0.0.1", PORT), 2))
    attempt("process", lambda: os.fork())
    attempt("two batches", lambda: denoiser(torch.cat([x_T, x_T]), 500))
    attempt("deeper", lambda: denoiser._denoiser)
    for k in range(steps):
        denoiser(x_T, 500)
    attempt("one more", lambda: denoiser(x_T, 500))
    attempt("guided", lambda: denoiser(x_T, 500, 2.0))
    raise RuntimeError(f"won {won}; {said['one more']}; {said['two batches']}")
compete(my_sampler)"""
KEEPS = DDIM.replace("    x, ab", """    import torch
    if hasattr(torch, "kept"):
        raise RuntimeError("something was kept")
    torch.kept = True
    x, ab""")


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(nb, path)


@pytest.fixture
def read_here(monkeypatch):
    """Notebooks are read in this process: test_grading_faults has what happens to the one that reads them."""
    monkeypatch.setattr(reading, "read", notebook.read)


@pytest.mark.slow(seconds=20)
@pytest.mark.usefixtures("read_here")
def test_an_honest_sampler_is_ranked_and_attacks_and_broken_notebooks_get_their_own_rows(tmp_path):
    listener, moodle = socket.create_server(("127.0.0.1", 0)), "ann_12345_assignsubmission_file_"
    known = {"WEIGHTS": str(Path(diffusion_lessons.__file__).parent / "pretrained" / "digits.safetensors"),
             "NEIGHBOUR": str(tmp_path / moodle / "capstone.ipynb"), "PORT": listener.getsockname()[1]}
    write(tmp_path / moodle / "capstone.ipynb", DDIM)
    write(tmp_path / "=eve" / "capstone.ipynb", *(f"{name} = {value!r}" for name, value in known.items()), ATTACK)
    (tmp_path / "bob.ipynb").write_text("{")
    contest = Contest((5,), 65, (2,))
    with listener:
        found = {entry.who: entry for entry in leaderboard.entries(tmp_path, contest)}
    assert found["bob"].state == "not read"
    ann, eve = found["ann (12345)"], found["=eve"]
    plain = contest.score(BASELINES["DDIM"])    # with the schedule as it was
    assert ann.state == "ranked", ann.message
    for mine, ours in zip(ann.score.means(2), plain.means(2), strict=True):
        assert mine == pytest.approx(ours, abs=1e-3)
    assert eve.state == "not yet"
    assert eve.score is None
    assert "the network can be called 2 times here; 2 are used, and this call costs 1" in eve.message
    assert "the arguments are too large" in eve.message
    assert "with steps = 2" in eve.message
    if eve.isolated == "yes":
        assert "won []" in eve.message
    leaderboard.write(found.values(), contest, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["who"]) for row in rows] == [("1", "ann (12345)"), ("", "'=eve"), ("", "bob")]
    assert float(rows[0]["recall at 2"]) == pytest.approx(plain.means(2).recall, abs=1e-3)


@pytest.mark.usefixtures("read_here")
def test_what_needs_no_sandbox_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.Sandbox, "start", lambda self: pytest.fail("nothing had to be run"))
    stub = "def my_sampler(denoiser, x_T, steps, schedule):\n    ...\ncompete(my_sampler)"
    write(tmp_path / "stored.ipynb", f"DIGITS = {'7' * leaderboard.CODE!r}", DDIM.replace("x, ab", "DIGITS; x, ab"))
    write(tmp_path / "stub.ipynb", stub)
    write(tmp_path / "wrong.ipynb", "def my_sampler(", "print(1)")
    found = leaderboard.entries(tmp_path, Contest((5,), 65, (1,)))
    states = {entry.who: (entry.state, entry.message) for entry in found}
    assert states["stub"][0] == "not tried"
    assert states["stored"][0] == "not yet"
    assert "5,000 are allowed" in states["stored"][1]
    assert states["wrong"][0] == "missing"
    assert "Not Python: cell 1" in states["wrong"][1]


@pytest.mark.long
def test_nothing_is_kept_from_one_number_of_steps_to_the_next(tmp_path):
    write(tmp_path / "eve.ipynb", KEEPS)
    [entry] = leaderboard.entries(tmp_path, Contest((5,), 65, (1, 2)))
    assert entry.state == "ranked", entry.message


@pytest.mark.long
def test_the_command_ranks_a_class_and_writes_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(capstone, "Contest", functools.partial(Contest, count=65, steps=(4,)))
    write(tmp_path / "ann.ipynb", DDIM)
    write(tmp_path / "bob.ipynb", DDIM.replace("return x", "return x_T"))
    assert main(["leaderboard", str(tmp_path), "--seed", "5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {line[1]: (line[0], line[2]) for line in lines[1:5]}
    assert found["ann"] == found["(DDIM)"]    # a tie, since they are the same
    assert found["ann"][0] in ("1=", "2=")
    assert found["(DPM-Solver++)"][0] in ("1", "1=")
    assert found["bob"] == ("4", "0.0")
    assert lines[5][:3] == ["4", "rows", "written"]
    with open(tmp_path / "leaderboard.csv", newline="", encoding="utf-8-sig") as file:
        assert [row["who"] for row in csv.DictReader(file)][-1] == "bob"


def test_the_command_says_what_is_wrong_before_anything_is_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(leaderboard, "baselines", lambda contest: pytest.fail("the table was not tried first"))
    assert main(["leaderboard", str(tmp_path)]) == 1
    assert "there is no notebook" in capsys.readouterr().err
    write(tmp_path / "a.ipynb", "1")
    (tmp_path / "taken.csv").mkdir()
    assert main(["leaderboard", str(tmp_path), "--out", str(tmp_path / "taken.csv")]) == 1
    assert "is not a regular file" in capsys.readouterr().err
