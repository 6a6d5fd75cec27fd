"""Each lesson in JupyterLab, as a learner sees it: it runs, every control works, and nothing reports an error.

Most are long, since all widgets are tried in test_eyes_and_ears.py: one in JupyterLab and one in Notebook 7 are not.
"""

from pathlib import Path

import pytest
from lesson import SHOTS, WHOLE
from moving import move_all

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SHOWN = NOTEBOOKS[2]        # quick, and with formulas, film strips, a film and a widget


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (k > 0))
                                  for k, path in enumerate(NOTEBOOKS)])
def test_runs_and_its_widgets_move(open_lesson, path):
    learns(open_lesson(path))


def test_in_notebook_7(open_in_notebook7):
    learns(open_in_notebook7(SHOWN, SHOTS / "notebook7"))


def learns(lesson):
    lesson.run_all()
    lesson.shoot_all()
    print(move_all(lesson))
    lesson.check()
    lesson.check_page()
    lesson.check_contrast()
    lesson.check_names()


def font_sizes(lesson):
    """Screenshots of code, of text and of printed output."""
    places = [".cm-content", ".jp-RenderedMarkdown p", ".jp-RenderedText pre"]
    return [lesson.page.locator(f"{WHOLE} {place}").first.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
            for place in places]


@pytest.mark.long
def test_presentation_and_single_document_mode(open_lesson):
    lesson = open_lesson(SHOWN)
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
