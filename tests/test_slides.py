"""What goes on the slides, and what the lecturer's notes say beside them. How decks look: tests/browser."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import slides  # noqa: E402

NOTES = sorted((ROOT / "docs" / "notes").glob("*.md"))
each_lesson = pytest.mark.parametrize("notes", NOTES, ids=lambda path: path.stem)
DRAWING = {"curves", "film_strip"}


def lesson(notes):
    [path] = (ROOT / "notebooks").glob(f"{notes.stem}_*.ipynb")
    return nbformat.read(path, as_version=4)


def test_the_lessons_of_the_course_have_notes():
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))    # the others are no lectures
    assert [path.stem for path in NOTES] == [slides.number(path) for path in notebooks]


@each_lesson
def test_every_section_has_notes_in_the_lesson_s_order(notes):
    assert list(slides.speaker_notes(notes)) == [title for title, _ in slides.sections(lesson(notes))]


@each_lesson
def test_a_lesson_fits_its_hour(notes):
    minutes = [re.match(r"\*\*(\d+) min", text) for text in slides.speaker_notes(notes).values()]
    assert all(minutes)
    assert 15 <= sum(int(found[1]) for found in minutes) <= (25 if notes.stem == "00" else 60)


@each_lesson
def test_where_the_class_predicts_the_notes_say_what_to_ask_and_what_to_expect(notes):
    said, asked = slides.speaker_notes(notes), 0
    for title, cells in slides.sections(lesson(notes)):
        if any(re.search(r"^predict\(", cell.source, re.M) for cell in cells if cell.cell_type == "code"):
            asked += 1
            assert re.search(r"\b(ask|polls?)\b", said[title].lower()), title
            assert "Reply" in said[title] or "Point at" in said[title], title
    assert asked > 0


def test_the_guest_lecture_has_the_sections_of_its_plan_and_says_its_minutes():
    plan = slides.guest_plan()
    assert sum(minutes for minutes, *_ in plan) == 85                        # and five for questions
    assert [(lesson, section) for _, lesson, section, _ in plan][:2] == [("00", ""), ("01", "3")]
    needed = {lesson for _, lesson, _, _ in plan}
    page = slides.guest_deck({notes.stem: lesson(notes) for notes in NOTES if notes.stem in needed})
    titles = re.findall(r'<section class="part" data-title="(.*?)">', page)
    assert [title.partition(" · ")[0] for title in titles[1:]] == [section or "00" for _, _, section, _ in plan]
    assert page.count("<h1>") == 1
    assert re.findall(r"<strong>(\d+) min in this lecture:", page) == [str(minutes) for minutes, *_ in plan]


def test_a_cell_that_only_draws_is_shown_without_its_code():
    assert slides.is_plumbing("times = [1, 2]\ncurves(times, times)", DRAWING, shows=True)
    assert not slides.is_plumbing("def jump(x):\n    return 2 * x\n\ncurves([1], [jump(1)])", DRAWING, shows=True)
    assert not slides.is_plumbing("for t in range(9):\n    x = x + t\ncurves(x, x)", DRAWING, shows=True)


def test_a_long_cell_that_measures_is_shown_without_its_code_unless_it_runs_the_loop():
    measuring = "".join(f"a{k} = {k}\n" for k in range(8)) + "print(a1)"
    assert slides.is_plumbing(measuring, DRAWING, shows=True)
    assert not slides.is_plumbing(measuring + "\nfor step in loop:\n    pass", DRAWING, shows=True)
    assert not slides.is_plumbing("print(tokenizer('a frog'))", DRAWING, shows=True)


def test_checks_and_answers_are_not_shown():
    source = "x = 1\nassert x == (\n    1)\noutcome('2.a', 'gone')\nif x:\n    assert x\ncurves(x)"
    assert slides.shown(source) == "x = 1\nif x:\n    assert x\ncurves(x)"
    loop = "for k in range(3):\n    print(k)\n"
    assert slides.shown(loop + "    assert k < 3\nx = 1") == loop + "x = 1"


def test_a_comment_moves_up_where_a_line_would_be_too_long():
    aligned = "x = 1" + " " * 60 + "# the picture\ny = '   # no comment'"
    assert slides.shown(aligned) == aligned
    too_long = "x = 1" + " " * 90 + "# the picture\ny = 2" + " " * 20 + "# its label"
    assert slides.shown(too_long) == "x = 1  # the picture\ny = 2  # its label"


def test_a_cell_that_only_opens_a_widget_shows_no_code():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    output = nbformat.v4.new_output("execute_result", data=view)
    widget = nbformat.v4.new_code_cell("def read(x):\n    return x\n\nlab(read, 1)", outputs=[output])
    page = slides.part("Title", [widget], "notes", set(), {})
    assert slides.LIVE in page
    assert not re.search(r"lab\(|begin", page)
    widget.outputs.append(nbformat.v4.new_output("stream", name="stdout", text="1"))
    assert "read" in slides.part("Title", [widget], "notes", set(), {})


def test_long_printed_text_is_cut_and_names_no_folder_of_this_machine():
    said = slides.shortened([f"line {k}" for k in range(50)] + ["All is well."])
    assert said[:2] + said[-2:] == ["line 0", "line 1", "line 49", "All is well."]
    assert len(said) == 11
    assert "41 more lines" in said[8]
    assert slides.shortened(["a"] * 20) == ["a"] * 20
    assert slides.shortened(["Python (/home/ann/course/.venv/bin/python)"]) == ["Python (…/.venv/bin/python)"]


def test_an_answer_waits_for_the_lecturer():
    said = "… 2.a: The rabbit is gone at t =\nIt was 391. You made no prediction; that is fine. Next time, guess first."
    page = slides.answer({"text/plain": said})
    assert "The rabbit is gone at t = <strong class=\"fragment\">391</strong>" in page
    assert slides.answer({"text/plain": "0 of 34 exercises solved"}) == ""


def test_the_choices_of_a_poll_come_from_the_buttons():
    source = "remedies = ['a']\npredict('1.h', 'Prevents it:', choices=[*remedies, 'none'])"
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "box"}}
    cell = nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("display_data", data=view)])
    widgets = {"box": {"state": {"children": ["IPY_MODEL_buttons"]}},
               "buttons": {"state": {"_options_labels": ["slower", "none"]}}}
    assert slides.polls(cell, widgets) == [("Prevents it:", ["slower", "none"], "")]


def test_a_poll_shows_all_its_choices_at_once_and_needs_no_question_of_its_own():
    page = slides.poll("**Predict.** How many?", [("It is", ["one", "two"], "")])
    assert "fragment" not in page
    assert page.index("How many?") < page.index("<li>one</li><li>two</li>")
    bare = slides.poll("", [("The wrong one:", list(range(1, 9)), "")])
    assert bare.startswith('<div class="block poll"')
    assert [bare.count(words) for words in ('data-start="poll"', 'class="short"', "Predict")] == [1, 1, 0]
    assert 'class="short"' not in page


def test_a_long_line_is_wrapped_deeper_than_it_begins():
    assert '<div class="line" style="--in:4">    x = 1</div>' in slides.lines_of(["    x = 1"])


def test_only_what_is_beside_a_deck_is_loaded():
    for name in ("deck.html", "index.html"):
        page = (slides.LOOK / name).read_text(encoding="utf-8")
        assert re.findall(r'(?:src|href)="(?!assets/|data:)[^"]*"', page) == []
        assert set(re.findall(r'"assets/([\w.]+)"', page)) <= {*slides.ASSETS, "deck.css", "deck.js"}
    assert "http" not in (slides.LOOK / "deck.css").read_text(encoding="utf-8")


def test_an_answer_in_a_skipped_cell_is_shown_and_nothing_else_of_it():
    said = "… 2.a: The rabbit is gone at t =\nIt was 391. You made no prediction; that is fine. Next time, guess first."
    output = nbformat.v4.new_output("display_data", data={"text/plain": said, "text/html": "<p></p>"})
    skipped = {"slideshow": {"slide_type": "skip"}}
    cell = nbformat.v4.new_code_cell("outcome('2.a', 391)", outputs=[output], metadata=skipped)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell])
    [(title, cells)] = slides.sections(notebook)
    page = slides.part(title, cells, "notes", set(), {})
    assert "391</strong>" in page
    assert "outcome" not in page


def test_the_still_beside_a_widget_is_shown_though_its_cell_is_skipped():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    skipped = {"slideshow": {"slide_type": "skip"}}
    widget = nbformat.v4.new_code_cell("lab()", outputs=[nbformat.v4.new_output("execute_result", data=view)])
    still = nbformat.v4.new_code_cell("draw()", metadata=skipped, outputs=[
        nbformat.v4.new_output("execute_result", data={"image/png": "AAAA"}, metadata={"image/png": {"alt": "a cat"}})])
    other = nbformat.v4.new_code_cell("1", metadata=skipped, outputs=still.outputs)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), widget, still, other])
    [(title, cells)] = slides.sections(notebook)
    page = slides.part(title, cells, "notes", set(), {})
    assert page.count('<img alt="a cat"') == 1
    assert "draw()" not in page
