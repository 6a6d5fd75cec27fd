"""One JupyterLab and one Chromium for all browser tests, and a separate page for each lesson."""

from contextlib import contextmanager

import nbformat
import pytest
from lab import find_chromium, running_lab
from lesson import SHOTS, Lesson
from playwright.sync_api import sync_playwright

# Only this machine has an address: requests of a page to any other host are refused, and recorded by wire.Ears.
FLAGS = ["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


def pytest_sessionstart(session):
    try:
        find_chromium()
    except FileNotFoundError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser.new_context()     # one for all tests, so that JupyterLab is loaded only once
        browser.close()


@contextmanager
def opening(lab, browser):
    """open_lesson(path): a copy of this notebook in JupyterLab, with its kernel ready; closed at the end."""
    pages = []

    def open_lesson(path, shots=SHOTS):
        (lab.folder / path.name).write_bytes(path.read_bytes())
        page = browser.new_page()
        pages.append(page)
        lesson = Lesson(page, lab, path.stem, shots)
        lesson.open()
        return lesson

    yield open_lesson
    for page in pages:
        page.close()
    lab.stop_kernels()


@pytest.fixture
def open_lesson(lab, browser):
    with opening(lab, browser) as open_lesson:
        yield open_lesson


@pytest.fixture
def open_in_notebook7(browser, tmp_path):
    with running_lab(tmp_path, app="notebook") as lab, opening(lab, browser) as open_lesson:
        yield open_lesson


def run_cells(open_lesson, folder, sources, shots):
    """Open and run a notebook of these code cells."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = folder / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    lesson = open_lesson(path, shots)
    lesson.run_all()
    return lesson


@pytest.fixture
def open_cells(open_lesson, tmp_path):
    """open_cells(source, ...): a notebook of these code cells, opened and run."""
    return lambda *sources: run_cells(open_lesson, tmp_path, sources, tmp_path)


@pytest.fixture(scope="module")
def cells(lab, browser, request, tmp_path_factory):
    """The notebook of a module's CELLS, opened and run once for all its tests."""
    with opening(lab, browser) as open_lesson:
        yield run_cells(open_lesson, tmp_path_factory.mktemp("cells"), request.module.CELLS, SHOTS)
