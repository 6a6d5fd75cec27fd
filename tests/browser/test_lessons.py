"""Each lesson in JupyterLab, as a learner meets it: it runs, everything that can be moved moves, nothing complains."""

from pathlib import Path

import pytest
from moving import move_all

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_its_widgets_move(open_lesson, path):
    lesson = open_lesson(path)
    lesson.run_all()
    lesson.shoot_all()
    print(move_all(lesson))
    lesson.check()
    lesson.check_page()
