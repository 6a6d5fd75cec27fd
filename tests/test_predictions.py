"""A prediction is asked for, kept, and shown beside what was measured; without one nothing stops."""

import json

import nbformat
import pytest
import torch
from notebook_runner import run_notebook

from diffusion_lessons import exercises
from diffusion_lessons.exercises import check, outcome, predict, predictions, record

RABBIT = dict(text="The rabbit is gone at t =", between=(0, 1000), within=150)
MIDDLE = dict(text="Half way there is", choices=["a digit", "a blur", "nothing"])
FASTER = dict(text="How many times faster?", factor=3, unit="times")
MODES = dict(text="How many of the 8 modes?", choices=[1, 4, 8])
SHARE = dict(text="How many are right?", between=(0, 100), within=5, unit="%")


@pytest.fixture(autouse=True)
def new_kernel():
    """Forget what was asked and measured, as a restarted kernel does."""
    def restart():
        for known in (predictions._asked, predictions._measured, predictions._forms):
            known.clear()

    restart()
    return restart


@pytest.mark.parametrize(
    ("question", "answer", "measured", "words"),
    [
        (RABBIT, 300, 450, "\u2713 2.a: The rabbit is gone at t =\nYou said 300, it was 450: right, within 150."),
        (RABBIT, 300, 451, "You said 300, it was 451: a surprise, not within 150."),
        (RABBIT, 600, 450, "right, within 150."),
        (RABBIT, "1,000", 850.4, "You said 1,000, it was 850: right"),
        (RABBIT, 0, torch.tensor([12.5]), "You said 0, it was 12.5: right"),
        (FASTER, 100, 300, "You said 100 times, it was 300 times: right, within a factor of 3."),
        (FASTER, "100 times", 301, "it was 301 times: a surprise, not within a factor of 3."),
        (FASTER, 100, 33, "You said 100 times, it was 33 times: a surprise"),
        (FASTER, 100, 34, "it was 34 times: right"),
        (FASTER, -100, 100, "surprise"),
        (FASTER, 0, 100, "surprise"),
        (SHARE, "30 %", 25.5, "You said 30%, it was 25.5%: right, within 5%."),
        (MIDDLE, "a blur", "a digit", '! 2.a: Half way there is\nYou said "a blur", it was "a digit": a surprise.'),
        (MIDDLE, " a digit ", "a digit", 'You said "a digit", it was "a digit": right.'),
        (MODES, 8, 8.0, "You said 8, it was 8: right."),
        (MODES, "4", 8, "You said 4, it was 8: a surprise."),
    ],
)
def test_what_was_said_stands_beside_what_was_measured(question, answer, measured, words, capsys):
    predict("2.a", **question, answer=answer)
    assert record.read_predictions()["2.a"]["right"] is None
    capsys.readouterr()
    outcome("2.a", measured)
    said = capsys.readouterr().out
    assert words in said
    assert record.read_predictions()["2.a"]["right"] is (": right" in said)


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [(RABBIT, 1001, "1001 is not a number from 0 to 1,000"), (RABBIT, "soon", "'soon' is not a number from 0 to 1,000"),
     (RABBIT, -1, "-1 is not a number"), (FASTER, float("nan"), "nan is not a number"), (FASTER, "inf", "'inf' is not"),
     (FASTER, [3], "[3] is not a number, in times"), (MODES, 5, "5 is not one of 1, 4, 8"),
     (MIDDLE, "A digit", '\'A digit\' is not one of "a digit", "a blur", "nothing"')],
)
def test_an_answer_that_does_not_fit_is_not_noted(question, answer, words, capsys):
    predict("2.a", **question, answer=answer)
    assert f"Not noted: {words}" in capsys.readouterr().out
    assert record.read_predictions() == {}


@pytest.mark.parametrize("answer", [None, ..., "?", ""])
def test_without_a_prediction_nothing_stops(answer, capsys):
    predict("2.a", **RABBIT, answer=answer)
    assert 'a number from 0 to 1,000: predict("2.a", ..., answer=...)' in capsys.readouterr().out
    outcome("2.a", 420)
    assert "It was 420. You made no prediction; that is fine. Next time, guess first." in capsys.readouterr().out
    outcome("2.b", 420)
    assert 'run the cell with predict("2.b", ...) first' in capsys.readouterr().out
    assert record.read_predictions() == {}


@pytest.mark.parametrize("id", ["2.1", "2", "a", "2.A", "2.a1", "2a", 2.1, None])
def test_an_id_that_is_not_a_predictions_own_is_refused(id):
    with pytest.raises(ValueError, match=r'a dot and a letter, such as "4.c"'):
        predict(id, **RABBIT)
    with pytest.raises(ValueError, match="belong to exercises"):
        outcome(id, 3)
    with pytest.raises(ValueError, match="no exercise '2.a'"):
        check("2.a", ...)


@pytest.mark.parametrize("how", [{}, dict(choices=["a"]), dict(choices=["a", "a"]), dict(choices=[1, "1"]),
                                 dict(within=1, factor=2), dict(choices=["a", "b"], within=1)])
def test_a_question_that_cannot_be_judged_is_refused(how):
    with pytest.raises(ValueError, match=r"prediction 2.a needs"):
        predict("2.a", "What?", **how)


def test_an_outcome_that_nobody_could_choose_is_refused():
    predict("2.a", **MIDDLE)
    with pytest.raises(ValueError, match="'a dgit' is not one of"):
        outcome("2.a", "a dgit")


def test_the_first_answer_that_met_its_outcome_stands(new_kernel, capsys):
    predict("2.a", **MIDDLE, answer="nothing")
    predict("2.a", **MIDDLE, answer="a blur")          # nothing has been measured: one may think again
    outcome("2.a", "a digit")
    predict("2.a", **MIDDLE, answer="a digit")         # too late
    assert 'It was "a digit". Your prediction was "a blur", and it stands.' in capsys.readouterr().out
    assert record.read_predictions() == {"2.a": {"said": "a blur", "right": False}}
    new_kernel()
    predict("2.a", **MIDDLE)
    assert 'You said "a blur". Now run the cells that measure it.' in capsys.readouterr().out
    predict("2.a", **MIDDLE, answer="a digit")         # another day, another try
    outcome("2.a", "a digit")
    assert record.read_predictions() == {"2.a": {"said": "a digit", "right": True}}


def test_a_first_answer_after_the_outcome_is_judged_at_once(capsys):
    predict("2.a", **MIDDLE)
    outcome("2.a", "a digit")
    capsys.readouterr()
    predict("2.a", **MIDDLE, answer="a digit")
    assert 'You said "a digit", it was "a digit": right.' in capsys.readouterr().out
    assert record.read_predictions()["2.a"]["right"] is True


def test_a_question_that_has_changed_forgets_its_old_answer(new_kernel, capsys):
    predict("2.a", **MIDDLE, answer="a blur")
    new_kernel()
    predict("2.a", **RABBIT)
    outcome("2.a", 400)
    assert "You made no prediction" in capsys.readouterr().out


def test_exercises_and_predictions_are_kept_side_by_side_and_counted(capsys):
    check("2.1", exercises.EXERCISES["2.1"].answer)
    for id, answer in (("1.a", "a digit"), ("2.a", "a digit"), ("2.b", "a blur"), ("2.c", "a blur")):
        predict(id, **MIDDLE, answer=answer)
        if id != "2.c":
            outcome(id, "a digit")
    check("2.1", lambda *args: args[0])
    assert set(record.read()) == {"2.1"}
    assert set(record.read_predictions()) == {"1.a", "2.a", "2.b", "2.c"}
    capsys.readouterr()
    exercises.progress()
    said = capsys.readouterr().out
    assert f"1 of {len(exercises.EXERCISES)} exercises solved, 2 of 3 predictions right" in said
    assert "2.6   predictions: 1 of 2 right\n" in said
    assert "3.6\n" in said
    page = exercises.Report(record.read(), record.read_predictions())._repr_html_()
    assert "predictions: 1 of 2 right</td></tr>" in page


@pytest.mark.parametrize("kept", [[], {"2.a": 3}, {"2.a": {"said": 3}}, {"2.a": {"said": [], "right": None}},
                                  {"2.a": {"said": 3, "right": "yes"}}])
def test_a_damaged_record_is_put_aside(kept):
    text = json.dumps({"predictions": kept})
    record.path().write_text(text)
    predict("2.b", **MIDDLE, answer="a blur")
    assert set(record.read_predictions()) == {"2.b"}
    assert record.path().with_suffix(".damaged").read_text() == text


# ---------------------------------------------------------------- in a notebook

LEARNER = """import ipywidgets as w
known = getattr(w.widgets.widget, "_instances", None) or w.Widget.widgets
def live(kind):
    return [one for one in known.values() if isinstance(one, kind)]
def lines():
    return [one.value for one in live(w.HTML) if "status" in one.value]
"""
ASK = """from diffusion_lessons.exercises import outcome, predict
predict("2.a", "Half way there is", choices=["a digit", "a blur"])
predict("2.b", "The rabbit is gone at t =", between=(0, 1000), within=150)"""
MEASURE = 'outcome("2.a", "a digit")\noutcome("2.b", 400)'


@pytest.fixture
def run(tmp_path):
    def run(*cells, **how):
        path = tmp_path / "asks.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells]), path)
        report = run_notebook(path, **how)
        assert report.errors == []
        return report

    return run


def words(cell):
    return [output["data"]["text/plain"] for output in cell.outputs if output.output_type == "display_data"]


def test_a_learner_clicks_and_writes_and_sees_the_outcome(run):
    choose = 'live(w.ToggleButtons)[0].index = 1\nlive(w.Text)[0].value = "300"\nprint(*lines(), sep="\\n")'
    cells = run(ASK, LEARNER + choose, MEASURE, "print(*lines(), sep='\\n')", move_widgets=False).notebook.cells
    assert "application/vnd.jupyter.widget-view+json" in cells[0].outputs[1]["data"]
    assert cells[1].outputs[0].text.count("Now run the cells that measure it.") == 2
    assert words(cells[2]) == [
        '! 2.a: Half way there is\nYou said "a blur", it was "a digit": a surprise.',
        "\u2713 2.b: The rabbit is gone at t =\nYou said 300, it was 400: right, within 150."]
    assert cells[3].outputs[0].text.count("it was") == 2
    assert record.read_predictions() == {"2.a": {"said": "a blur", "right": False},
                                         "2.b": {"said": 300, "right": True}}
    again = run(ASK, LEARNER + 'print(live(w.ToggleButtons)[0].value, live(w.Text)[0].value, sep=", ")',
                move_widgets=False).notebook.cells
    assert again[1].outputs[0].text == "a blur, 300\n"     # an answer is remembered


def test_running_all_without_a_prediction_stops_nothing_and_moving_the_widgets_fails_nowhere(run):
    report = run(ASK, MEASURE)
    assert [text.count("You made no prediction") for text in words(report.notebook.cells[1])] == [1, 1]
    assert report.moves >= 3 + 4
    assert set(record.read_predictions()) == {"2.a", "2.b"}     # the runner's hand was the learner's


def test_what_does_not_fit_is_said_under_the_field_and_a_cell_run_again_leaves_nothing_behind(run):
    cells = run(ASK, LEARNER + 'live(w.Text)[0].value = "soon"\nprint(*lines())\nbefore = len(known)',
                ASK, "assert len(known) == before, (before, len(known))", move_widgets=False).notebook.cells
    assert "Not noted: &#x27;soon&#x27; is not a number from 0 to 1,000." in cells[1].outputs[0].text
