"""The questions are well made, each answer is noted and gets its reply, and the notebooks ask them all.

Whether the right answer is right, test_question_answers.py works out.
"""

import ast
import json
import re
import tomllib
from collections import Counter

import nbformat
import pytest
from notebook_runner import run_notebook
from test_notebooks import NOTEBOOKS, calls, code_cells, read

from diffusion_lessons import exercises
from diffusion_lessons.exercises import question, questions, record, warm_up
from diffusion_lessons.exercises.questions import QUESTIONS

ASKING = [path for path in NOTEBOOKS if path.stem[0].isdigit()]    # the others ask no questions
LESSONS = [path.stem.split("_")[0] for path in ASKING]
each = pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS)
one = QUESTIONS["2.q3"]
RIGHT = one.letter(one.right)
WRONG = next(letter for letter, choice in one.choices.items() if choice != one.right)


@pytest.fixture(autouse=True)
def new_kernel():
    """Forget what was said, as a restarted kernel does."""
    def restart():
        for known in (questions._said, questions._first, questions._forms):
            known.clear()

    restart()
    return restart


# ---------------------------------------------------------------- how they are made


def test_each_lesson_has_six_to_ten_questions_with_ids_of_its_own():
    raw = {path.stem: tomllib.loads(path.read_text(encoding="utf-8"))["questions"]
           for path in questions.FOLDER.glob("*.toml")}
    assert sorted(raw) == LESSONS
    ids = [one["id"] for lesson in raw.values() for one in lesson]
    assert len(set(ids)) == len(ids) == len(QUESTIONS)
    for lesson, found in raw.items():
        assert 6 <= len(found) <= 10
        assert [one["id"] for one in found] == [f"{lesson.lstrip('0') or 0}.q{k}" for k in range(1, len(found) + 1)]
        assert all(set(one) <= {"id", "section", "before", "ask", "right", "wrong"} for one in found)


@each
def test_has_choices_that_differ_and_a_short_reply_to_each(asked):
    assert 3 <= len(asked.replies) <= 4
    plain = {re.sub(r"\W", "", choice.lower()) for choice in asked.replies}
    assert len(plain) == len(asked.replies), "two choices are equal"
    assert len(set(asked.replies.values())) == len(asked.replies), "two choices get the same reply"
    assert asked.right in asked.replies
    assert 15 < len(asked.text) < 240
    for choice, reply in asked.replies.items():
        assert 0 < len(choice) <= 100, choice
        sentences = re.findall(r"[.?!](?=[\s)\"]|$)", reply.replace("et al.", "et al").replace("...", "…"))
        assert 1 <= len(sentences) <= 3, reply
        assert reply[-1] in ".)", reply
        assert not re.search(r"[$\\{}]", choice + reply + asked.text), "no LaTeX: buttons cannot show it"


def test_the_right_answer_is_not_given_away_by_its_length_or_its_place():
    places, longest, shortest = Counter(), 0, 0
    for asked in QUESTIONS.values():
        lengths = sorted(map(len, asked.replies))
        places[asked.letter(asked.right)] += 1
        longest += len(asked.right) == lengths[-1]
        shortest += len(asked.right) == lengths[0]
    most = 0.4 * len(QUESTIONS)
    assert longest < most, longest
    assert shortest < most, shortest
    assert set(places) == set("ABCD")
    assert min(places.values()) > 0.1 * len(QUESTIONS), places
    assert max(places.values()) < most, places
    for lesson in LESSONS:
        assert len({one.letter(one.right) for one in QUESTIONS.values() if one.lesson == lesson}) >= 3, lesson


def test_the_order_is_mixed_but_the_same_every_time():
    assert list(one.choices) == list("ABCD")
    assert set(one.choices.values()) == set(one.replies)
    again = questions.load()["2.q3"]
    assert again.choices == one.choices
    other = questions.MultipleChoice(one.id, "02", "", "", one.right, dict(reversed(one.replies.items())))
    assert other.choices == one.choices, "the order depends on where the choices stand in the file"
    assert any(list(q.choices.values()) != list(q.replies) for q in QUESTIONS.values())


@each
def test_belongs_to_a_heading_of_its_notebook(asked):
    headings = [line.lstrip("#").strip() for cell in read(ASKING[LESSONS.index(asked.lesson)]).cells
                if cell.cell_type == "markdown" for line in cell.source.splitlines() if line.startswith("#")]
    assert asked.section in headings


# ---------------------------------------------------------------- in the notebooks


@pytest.mark.parametrize("path", ASKING, ids=LESSONS)
def test_a_notebook_asks_each_of_its_questions_once_and_warms_up_before_its_first_section(path):
    nb, lesson = read(path), path.stem.split("_")[0]
    own = [id for id, asked in QUESTIONS.items() if asked.lesson == lesson]
    asked = calls(nb, "question")
    assert [id for _, id in asked] == own
    headings = {cell.source.splitlines()[0]: i for i, cell in enumerate(nb.cells) if cell.cell_type == "markdown"}
    assert headings["## Check yourself"] < asked[0][0] < headings["## Recap"]
    before = [id for id in own if QUESTIONS[id].before]
    warm = calls(nb, "warm_up")
    assert [id for _, id in warm] == [lesson] * (len(before) > 0)
    assert 2 <= len(before) <= 4 or lesson == "00"
    first = min((i for heading, i in headings.items() if heading.startswith("## 1 ")), default=0)
    assert all(i < first for i, _ in warm)


@pytest.mark.parametrize("path", ASKING, ids=LESSONS)
def test_its_questions_are_no_slides_of_their_own(path):
    """The slides take them from the data, each where it belongs."""
    for i, cell in code_cells(read(path)):
        names = {getattr(node.func, "id", "") for node in ast.walk(ast.parse(cell.source.replace("%", "#")))
                 if isinstance(node, ast.Call)} if "question" in cell.source or "warm_up" in cell.source else set()
        if names & {"question", "warm_up"}:
            assert cell.metadata["slideshow"]["slide_type"] == "skip", f"cell {i}"


def test_the_exam_has_three_to_five_questions_with_points_for_each_lesson():
    text = (NOTEBOOKS[0].parent.parent / "docs" / "exam.md").read_text(encoding="utf-8")
    lessons = re.split(r"^## Lesson (\w+):.*$", text, flags=re.MULTILINE)[1:]
    assert lessons[::2] == LESSONS
    for lesson, part in zip(lessons[::2], lessons[1::2]):
        asked = re.split(r"^\*\*\d\. ", part, flags=re.MULTILINE)[1:]
        assert 3 <= len(asked) <= 5, lesson
        for one in asked:
            total, answer = re.match(r".*?\*\*\s*\((\d+) points(.*)", one, re.DOTALL).groups()
            assert answer.count("\n- ") >= 1, one
            each = re.search(r", (\d) each\)", answer)
            points = [int(n) for n in re.findall(r"\((\d)(?: for either)?\)", answer)]
            assert int(total) == (int(each[1]) * 3 if each else sum(points)), one


# ---------------------------------------------------------------- without widgets


def test_it_shows_question_and_choices_and_says_how_to_answer(capsys):
    question("2.q3")
    said = capsys.readouterr().out
    assert said.startswith(f"? 2.q3: {one.text}\n  A: ")
    assert all(f"  {letter}: {choice}\n" in said for letter, choice in one.choices.items())
    assert 'Your answer, A, B, C or D: question("2.q3", answer="...")' in said
    assert not any(reply in said for reply in one.replies.values())
    assert record.read_questions() == {}


@each
def test_every_answer_gets_its_own_reply(asked, capsys):
    for letter, choice in asked.choices.items():
        question(asked.id, answer=letter)
        said = capsys.readouterr().out
        sign, words = ("\u2713", "right") if choice == asked.right else ("\u2717", "not so")
        assert said.startswith(f"{sign} {asked.id}: ")
        assert said.endswith(f"You said {letter}: {words}. {asked.replies[choice]}\n")


@pytest.mark.parametrize("answer", [RIGHT, RIGHT.lower(), f" {RIGHT} ", one.right])
def test_an_answer_is_a_letter_or_the_words(answer):
    question("2.q3", answer=answer)
    assert record.read_questions() == {"2.q3": {"before": None, "after": one.right}}


@pytest.mark.parametrize("answer", ["E", "AB", "half", 3, True, ["A"]])
def test_an_answer_that_is_no_choice_is_not_noted(answer, capsys):
    question("2.q3", answer=answer)
    assert f"Not noted: {answer!r} is none of A, B, C, D." in capsys.readouterr().out
    assert record.read_questions() == {}


@pytest.mark.parametrize("answer", [None, ..., "", "?"])
def test_without_an_answer_nothing_stops(answer):
    question("2.q3", answer=answer)
    assert record.read_questions() == {}


@pytest.mark.parametrize(("id", "words"), [("2.q99", "this lesson has 2.q1, 2.q2"), ("2.3", 'such as "2.q3"'),
                                           ("q3", 'such as "2.q3"'), (2, 'such as "2.q3"'), (["2.q3"], "such as")])
def test_an_unknown_id_is_refused(id, words):
    with pytest.raises(ValueError, match="there is no question") as refused:
        question(id)
    assert words in str(refused.value)


def test_the_first_answer_counts_until_the_kernel_is_restarted(new_kernel):
    question("2.q3", answer=WRONG)
    question("2.q3", answer=RIGHT)
    assert record.read_questions()["2.q3"]["after"] == one.choices[WRONG]
    new_kernel()
    question("2.q3", answer=RIGHT)                       # another day, another try
    assert record.read_questions()["2.q3"]["after"] == one.right


def test_before_the_lesson_nothing_is_told_and_the_very_first_answer_stands(new_kernel, capsys):
    question("2.q3", before=True, answer=WRONG)
    said = capsys.readouterr().out
    assert f"You said {WRONG}. The end of the lesson asks again" in said
    assert not any(reply in said for reply in one.replies.values())
    assert said.startswith("? ")
    question("2.q3", answer=RIGHT)
    new_kernel()
    capsys.readouterr()
    question("2.q3", before=True, answer=RIGHT)          # now it is known: too late
    assert f"Your first answer, {WRONG}, is the one that was noted." in capsys.readouterr().out
    assert record.read_questions() == {"2.q3": {"before": one.choices[WRONG], "after": one.right}}


def test_a_warm_up_asks_what_is_marked_and_takes_answers(capsys):
    warm_up("02")
    said = capsys.readouterr().out
    for id, asked in QUESTIONS.items():
        assert (f"{id}: {asked.text}" in said) == (asked.lesson == "02" and asked.before)
    assert 'question("2.q2", before=True, answer="...")' in said
    with pytest.raises(ValueError, match="no warm-up for lesson '2'; there is one for 01, 02, 03, 04, 04b, 05, 06, 07"):
        warm_up("2")


def test_progress_compares_before_and_after(capsys):
    answers = {"2.q2": (0, 1), "2.q8": (0, 0), "2.q9": (1, 1), "4b.q1": (None, 1), "0.q1": (None, 0)}
    for id, pair in answers.items():
        asked = QUESTIONS[id]
        wrong = next(choice for choice in asked.replies if choice != asked.right)
        for before, right in zip((True, False), pair):
            if right is not None:
                question(id, before=before, answer=asked.right if right else wrong)
    question("3.q1", before=True, answer="A")            # and never again: not compared
    capsys.readouterr()
    exercises.progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"0 of {len(exercises.EXERCISES)} exercises solved, 3 of 5 questions right"
    found = {line[:10].strip(): line for line in lines[1:]}
    assert list(found)[:6] == [f"lesson {n}" for n in ("00", "01", "02", "03", "04", "04b")]
    assert found["lesson 02"].endswith("questions: 2 of 3 right   warm-up: 1 of 3 right before, 2 after")
    assert found["lesson 00"] == "lesson 00   questions: 0 of 1 right"
    assert found["lesson 04b"] == "lesson 04b   questions: 1 of 1 right"
    assert "questions" not in found["lesson 03"] + found["lesson 01"]
    page = exercises.Report(record.read(), None, questions.verdicts())._repr_html_()
    assert "<td" in page
    assert "warm-up: 1 of 3 right before, 2 after</td></tr>" in page


def test_answers_lie_beside_exercises_and_predictions_in_the_record():
    record.note("2.1", "right")
    record.note_prediction("2.a", "a blur", False)
    question("2.q3", answer=RIGHT)
    record.note("2.2", "not yet")
    record.note_prediction("2.b", 3.5)
    assert set(record.read()) == {"2.1", "2.2"}
    assert set(record.read_predictions()) == {"2.a", "2.b"}
    assert record.read_questions() == {"2.q3": {"before": None, "after": one.right}}


@pytest.mark.parametrize("kept", [[], {"2.q3": 3}, {"2.q3": {"before": None}}, {"2.q3": {"before": 3, "after": None}}])
def test_a_damaged_record_is_put_aside(kept):
    text = json.dumps({"questions": kept})
    record.path().write_text(text)
    question("2.q2", answer="A")
    assert set(record.read_questions()) == {"2.q2"}
    assert record.path().with_suffix(".damaged").read_text() == text


def test_an_answer_to_a_question_that_has_changed_since_does_not_count():
    record.note_question("2.q3", "what was once a choice", before=False)
    record.note_question("2.q77", "a question that is no more", before=False)
    assert questions.verdicts() == {"2.q3": {"before": None, "after": None}}


# ---------------------------------------------------------------- in a notebook

LEARNER = """import ipywidgets as w
known = getattr(w.widgets.widget, "_instances", None) or w.Widget.widgets
groups = [one for one in known.values() if isinstance(one, w.ToggleButtons)]
def lines():
    return [one.value for one in known.values() if isinstance(one, w.HTML) and "status" in one.value]
"""
ASK = 'from diffusion_lessons.exercises import question\nquestion("2.q3")\nquestion("2.q3", before=True)'


def test_a_learner_clicks_and_reads_the_reply_and_running_again_leaves_nothing_behind(tmp_path):
    choose = f"""{LEARNER}assert [one.description[:6] for one in groups] == ["2.q3: "] * 2
assert [one.value for one in groups] == [None, None]
groups[0].index = "ABCD".index({WRONG!r})
groups[0].index = "ABCD".index({RIGHT!r})
groups[1].index = 0
print(*lines(), sep="\\n")
before = len(known)"""
    again = f"{ASK}\nassert len(known) == before, (before, len(known))\n{LEARNER}print(groups[0].value)"
    path = tmp_path / "asks.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in (ASK, choose, again)]), path)
    report = run_notebook(path, move_widgets=False)
    assert report.errors == []
    cells = report.notebook.cells
    assert all("application/vnd.jupyter.widget-view+json" in output["data"] for output in cells[0].outputs)
    after, before = cells[1].outputs[0].text.splitlines()
    assert f"\u2713 You said {RIGHT}: right." in after
    assert "role=\"status\"" in after
    assert "You said A. The end of the lesson asks again" in before
    assert cells[2].outputs[-1].text == f"{one.right}\n"
    assert record.read_questions() == {"2.q3": {"before": one.choices["A"], "after": one.choices[WRONG]}}
