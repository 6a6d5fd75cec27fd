"""The browser tests can fail: each of these notebooks has one fault, and they find it."""

import pytest
from lab import find_chromium
from moving import move_all

pytestmark = pytest.mark.long

# A picture of one colour, with a slider and a menu; without torch, whose import takes seconds.
PICTURE = """
import io, ipywidgets
from IPython.display import HTML, display
from PIL import Image
slider, menu = ipywidgets.IntSlider(value=3, max=100), ipywidgets.Dropdown(options=["red", "green", "blue"])
picture = ipywidgets.Image()
def redraw(change=None):
    colour = [0, 0, 0]
    colour[menu.index] = 2 * slider.value
    file = io.BytesIO()
    Image.new("RGB", (60, 60), tuple(colour)).save(file, "png")
    picture.value = file.getvalue()
redraw()
"""
WATCH = "slider.observe(redraw, 'value'); menu.observe(redraw, 'value')\n"
SHOW = "display(ipywidgets.VBox([slider, menu, picture]))\n"


def test_a_good_notebook_passes(open_cells):
    more = """
button, words = ipywidgets.Button(description="more"), ipywidgets.Text(value="7")
def brighter(_):
    slider.value = (slider.value + 30) % 100
button.on_click(brighter)
words.observe(lambda change: setattr(slider, "value", 10 * int(words.value or 0)), "value")
display(ipywidgets.VBox([button, words, picture]))
"""
    imports = "import torch\nfrom diffusion_lessons.classroom import animate\n"
    film = imports + "animate([torch.full((1, 8, 8), k / 9) for k in range(10)])"
    lesson = open_cells(PICTURE + WATCH + SHOW, more, film)
    counts = move_all(lesson)
    assert sorted(counts.values()) == [1, 1, 1, 1, 1], counts


def test_a_cell_that_raises(open_cells):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        open_cells("1 + 1", "1 / 0", "2 + 2")


def test_a_callback_that_raises(open_cells):
    # JupyterLab shows nothing of this one: the picture changes, and the error disappears.
    lesson = open_cells(PICTURE + WATCH + "slider.observe(lambda change: 1 / 0, 'value')\n" + SHOW)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        move_all(lesson)


def test_an_interact_that_raises(open_cells):
    lesson = open_cells(PICTURE + "@ipywidgets.interact(x=(0, 9))\ndef show(x=0):\n    print(5 / (x < 5))\n")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        move_all(lesson)


@pytest.mark.parametrize("watched, dead", [("slider", "a menu opened"), ("menu", "dragging a slider")])
def test_a_control_that_changes_nothing(open_cells, watched, dead):
    lesson = open_cells(PICTURE + f"{watched}.observe(redraw, 'value')\n" + SHOW)
    lesson.patience = 20
    with pytest.raises(AssertionError, match=f"another picture after {dead}"):
        move_all(lesson)


def test_a_control_that_nobody_can_move(open_cells):
    lesson = open_cells("import ipywidgets\nipywidgets.Checkbox()")
    with pytest.raises(AssertionError, match="nobody knows how to move"):
        move_all(lesson)


def test_a_page_that_needs_the_network(open_cells):
    with pytest.raises(AssertionError, match="wants the network: https://example.org/"):
        open_cells("from IPython.display import HTML\nHTML('<img src=\"https://example.org/picture.png\">')")


def test_a_kernel_that_needs_the_network(open_cells):
    with pytest.raises(AssertionError, match="cut the network"):
        open_cells("import socket\nsocket.create_connection(('example.org', 443))")


def test_an_error_on_the_page(open_cells):
    with pytest.raises(AssertionError, match="out of paint"):
        open_cells("from IPython.display import Javascript\n"
                   "Javascript(\"setTimeout(() => { throw new Error('out of paint') })\")")


@pytest.mark.parametrize("source, words", [
    ("HTML('<img src=\"data:image/png;base64,AAAA\">')", "pictures are missing"),
    ("HTML('<div style=\"width: 3000px\">wide</div>')", "wider than the page"),
    ("from IPython.display import Markdown\nMarkdown(r'$\\frac{1}$')", "formula"),
])
def test_a_page_that_looks_wrong(open_cells, source, words):
    with pytest.raises(AssertionError, match=words):
        open_cells(f"from IPython.display import HTML\n{source}")


def test_words_that_are_too_pale(open_cells):
    lesson = open_cells("from IPython.display import HTML\nHTML('<p>black</p><p style=\"color:#999\">grey</p>')")
    with pytest.raises(AssertionError, match="(?s)too pale to be read:\n2.8.*grey"):
        lesson.check_contrast()


def test_a_control_and_a_picture_without_a_name(open_cells):
    lesson = open_cells("import ipywidgets\nipywidgets.IntSlider(description='loud')", PICTURE + "picture")
    with pytest.raises(AssertionError, match="(?s)without a name.*slider.*image"):
        lesson.check_names()


def test_without_chromium_it_says_how_to_get_one(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(FileNotFoundError, match="(?s)CHROMIUM=/nowhere/chromium is no program.*apt install chromium"):
        find_chromium()
