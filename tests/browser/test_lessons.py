"""Each lesson in JupyterLab, as a learner meets it: it runs, everything that can be moved moves, nothing complains."""

from pathlib import Path

import pytest
from lesson import WHOLE
from moving import move_all

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SHOWN = "02_adding_noise.ipynb"     # quick, and with formulas, film strips, a film and a widget


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_its_widgets_move(open_lesson, path):
    lesson = open_lesson(path)
    lesson.run_all()
    lesson.shoot_all()
    print(move_all(lesson))
    lesson.check()
    lesson.check_page()


def font_sizes(lesson):
    """Pixels of code, of text and of what was printed."""
    places = [".cm-content", ".jp-RenderedMarkdown p", ".jp-RenderedText pre"]
    return [lesson.page.locator(f"{WHOLE} {place}").first.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
            for place in places]


def test_presentation_and_single_document_mode(open_lesson):
    lesson = open_lesson(NOTEBOOKS[0].with_name(SHOWN))
    room = lesson.width()

    lesson.command("View", "application:toggle-presentation-mode")
    lesson.run_all()
    lesson.check_is_seen()
    lesson.shoot_all("presentation")
    large = font_sizes(lesson)
    lesson.command("View", "application:toggle-presentation-mode")

    lesson.command("View", "application:toggle-mode")
    lesson.wait(lambda: lesson.width() > room, 10, "the tabs are gone and the notebook has more room")
    lesson.run_all_afresh()
    lesson.check_is_seen()
    lesson.shoot_all("single")
    assert all(a > b for a, b in zip(large, font_sizes(lesson))), "presentation mode does not show all of it larger"
