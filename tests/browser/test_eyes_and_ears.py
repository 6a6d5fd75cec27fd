"""Contrast on light and dark pages, and what a screen reader speaks: boxes, a film and all widgets."""

import re
from pathlib import Path

import pytest
from lesson import HIGH, WIDE
from moving import CHOICE, SLIDER, move_all

from diffusion_lessons.exercises.questions import QUESTIONS

TESTS = Path(__file__).resolve().parents[1]
CELLS = [
    f"""import sys
import torch
from diffusion_lessons.classroom import animate
from diffusion_lessons.exercises import check, hint, outcome, predict, progress, question
from diffusion_lessons.forward import add_noise
sys.path.append({str(TESTS)!r})
from small_widgets import every_widget
from widget_mover import live_widgets
make = every_widget()""",
    """check("2.1", add_noise)
check("2.1", lambda x0, t, eps, schedule: x0)
check("2.2", ...)
hint("2.1")
progress()""",
    """predict("2.a", "Half way there is", choices=["a digit", "a blur"])
predict("2.b", "The rabbit is gone at t =", between=(0, 1000), within=150)""",
    'outcome("2.a", "a digit")',
    'question("2.q3")\nquestion("2.q3", before=True)',
    'animate([torch.full((1, 8, 8), k / 9) for k in range(11)], titles=[f"t = {1000 - 100 * k}" for k in range(11)])',
    *(f'make["{name}"]()' for name in ("schedule_explorer", "denoise_slider", "loop_player", "walk_slider",
                                       "sampler_bench", "brush", "prompt_lab")),
    'print("models:", len(live_widgets()))',
]


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_words_can_be_read(cells, theme):
    cells.theme(theme)
    cells.shoot_all(theme.split()[1].lower())
    assert cells.check_contrast() > 60
    prompt, lab = cells.page.locator(".widget-text input").nth(1), cells.areas(SLIDER)[-1]

    def write(words, answer):
        prompt.fill(words)
        prompt.press("Enter")
        cells.wait(lambda: lab.locator("b", has_text=answer).count(), 30, f"an answer to {words!r}")

    before = prompt.input_value()
    write("a blue dragn", "dragn")
    cells.check_contrast()
    write(before, before)
    boxes = cells.page.locator(".jp-RenderedHTML").all_inner_texts()
    assert [sum(words.startswith(sign) for words in boxes) for sign in "✓✗…?"] == [1, 1, 2, 1]
    assert any("exercises solved" in words for words in boxes)


def test_controls_and_pictures_have_names(cells):
    told = cells.check_names()
    names = {role: {name for kind, name in told if kind == role} for role in ("slider", "button", "combobox")}
    assert {"frame", "t", "step", "longitude", "eta", "w"} <= names["slider"]
    assert {"play", "back to the first step", "repeat"} <= names["button"]
    assert {"schedule", "T", "ink", "look for"} <= names["combobox"]
    assert {"a digit", "a blur"} <= names["button"]
    assert ("group", "Half way there is") in told
    asked = QUESTIONS["2.q3"]
    assert told.count(("group", f"2.q3: {asked.text}")) == 2
    assert all(told.count(("button", f"{letter}: {choice}")) == 2 for letter, choice in asked.choices.items())
    assert ("textbox", "The rabbit is gone at t =") in told

    explorer, film = cells.areas(SLIDER)[0], cells.page.locator(".dl-player")
    handle, frame = explorer.locator(SLIDER), film.locator("input")
    for key, t in (("End", 100), ("Home", 0)):
        cells.changed(explorer, lambda key=key: (handle.focus(), cells.page.keyboard.press(key)), key)
        assert float(handle.get_attribute("aria-valuetext")) == t
        assert explorer.locator("img:visible").nth(1).get_attribute("alt").startswith(f"x_t at t = {t} of 100, linear")
    for key, words in (("ArrowRight", "t = 900"), ("End", "t = 0")):
        cells.changed(film, lambda key=key: (frame.focus(), cells.page.keyboard.press(key)), key)
        assert frame.get_attribute("aria-valuetext") == words
    cells.check_names()      # what was rendered again has its names too


def test_a_long_answer_is_shown_in_full_below_the_one_before(cells):
    asked = cells.page.locator(".dl-question").first
    boxes = [button.bounding_box() for button in asked.locator(CHOICE).all()]
    assert len(boxes) == 4
    assert all(a["y"] + a["height"] <= b["y"] for a, b in zip(boxes, boxes[1:]))
    cut = "e => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1"
    assert not any(one.evaluate(cut) for one in asked.locator(f"{CHOICE}, .widget-label").all())
    cells.page.set_viewport_size({"width": 700, "height": 900})
    try:
        assert not any(one.evaluate(cut) for one in asked.locator(f"{CHOICE}, .widget-label").all())
    finally:
        cells.page.set_viewport_size({"width": WIDE, "height": HIGH})


def test_running_the_cells_again_leaves_no_models_behind(cells):
    def models():
        return int(re.search(r"models: (\d+)", cells.page.locator(".jp-RenderedText").last.inner_text())[1])

    before = models()
    cells.run_all_again()
    assert models() == before > 100


def test_every_widget_moves(cells):
    counts = move_all(cells)
    assert counts == {".dl-player": 1, ".widget-play": 1, SLIDER: 15, "select": 8, CHOICE: 10,
                      ".widget-text input": 3}, counts
