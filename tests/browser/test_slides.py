"""The lessons' slides, opened from disk: every slide fits, nothing is cut, and nothing is asked of a network."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import slides  # noqa: E402

LESSONS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
           if (slides.NOTES / f"{slides.number(path)}.md").exists()]
SIZES = [(1280, 720), (1920, 1080)]
SHORT, *_ = (path for path in LESSONS if slides.number(path) == "02")
each_lesson = pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path == SHORT else pytest.mark.long) for path in LESSONS])

# Goes to every slide, with all its fragments shown, and says what is wrong with it.
LOOK = """() => Reveal.getSlides().flatMap(slide => {
  const {h, v} = Reveal.getIndices(slide), wrong = [];
  Reveal.slide(h, v || 0, 99);
  const say = what => wrong.push(`slide ${Reveal.getSlidePastCount() + 1}: ${what}`);
  const frame = {left: 0, top: 0, right: innerWidth, bottom: innerHeight};
  const inside = (node, box) => { const r = node.getBoundingClientRect(); return r.width > 0 && r.height > 0
    && r.left >= box.left - 1 && r.top >= box.top - 1 && r.right <= box.right + 1 && r.bottom <= box.bottom + 1; };
  const room = slide.querySelector('.room');
  if (room.scrollHeight > room.clientHeight + 1) say(`${room.scrollHeight - room.clientHeight} pixels too tall`);
  if (room.scrollWidth > room.clientWidth + 1) say(`${room.scrollWidth - room.clientWidth} pixels too wide`);
  for (const node of room.querySelectorAll('.line, p, li, tr, h1, h2, h3, button, mjx-container')) {
    if (!inside(node, frame)) say(`outside the screen: ${node.textContent.slice(0, 40)}`);
    const cut = node.matches('.line') && node.scrollWidth > node.clientWidth + 1;
    if (cut) say(`a cut line: ${node.textContent.slice(0, 40)}`);
  }
  for (const image of room.querySelectorAll('img')) {
    if (!(image.complete && image.naturalWidth > 0)) say('a figure did not load');
    else if (image.checkVisibility() && !inside(image, frame)) say('a figure outside the screen');
    if (!image.alt) say('a figure without a description');
  }
  if (!room.textContent.trim() && !room.querySelector('img')) say('nothing on it');
  if ((slide.querySelector('aside.notes')?.textContent.trim().length || 0) < 40) say('no notes');
  return wrong;
})"""


# Goes to every slide with an answer, with nothing of it shown, and says which words would give it away.
GIVEN_AWAY = """() => Reveal.getSlides().filter(slide => slide.querySelector('.answer')).flatMap(slide => {
  const {h, v} = Reveal.getIndices(slide);
  Reveal.slide(h, v || 0, -1);
  const after = node => slide.querySelector('.answer').compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING;
  return [...slide.querySelectorAll('.answer strong, .printed, .prose')]
    .filter(node => (!node.matches('.prose') || after(node)) && !node.matches('.fragment:not(.visible)'))
    .map(node => node.textContent.slice(0, 40));
})"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """build(path): the lesson's deck, made once. Runs the notebook if `make test-notebooks` has left no fresh copy."""
    folder, made = tmp_path_factory.mktemp("slides"), {}

    def build(path):
        if path not in made:
            slides.main([str(path), "--out", str(folder)])
            made[path] = folder / f"{path.stem}.html"
        return made[path]

    return build


@pytest.fixture
def show(browser):
    """show(deck, size): the deck in a page of its own, which writes down what it asks for and complains about."""
    pages = []

    def show(deck, size=SIZES[0], query=""):
        page = browser.new_page()
        pages.append(page)
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.said = []
        page.on("console", lambda message: page.said.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("requestfailed", lambda request: page.said.append(f"failed: {request.url[:200]}"))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:"))
                else page.said.append(f"asked for {request.url[:200]}"))
        page.goto(deck.as_uri() + query)
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=120_000)
        return page

    yield show
    for page in pages:
        page.close()


@each_lesson
def test_every_slide_fits_and_nothing_is_missing(build, show, path):
    deck = build(path)
    for size in SIZES:
        page = show(deck, size)
        assert page.evaluate(LOOK) == []
        assert page.said == []

    notebook = slides.executed_copy(path, ROOT / "build")
    parts, drawing = slides.sections(notebook), slides.drawing_names(notebook)
    titles = page.evaluate("[...new Set(Reveal.getSlides().map(slide => slide.dataset.part))]")
    assert titles == [title for title, _ in parts]
    cells = [cell for _, some in parts for cell in some
             if cell.cell_type == "code" and slides.slide_type(cell) != "skip"]
    code = [shown for cell in cells if not re.search(r"^predict\(", cell.source, re.M)
            and (shown := slides.code_on_slide(cell, drawing, slides.outputs(cell, False)))]
    lines = page.evaluate("[...document.querySelectorAll('.code .line')].map(line => line.textContent)")
    assert [line.rstrip() for line in lines] == [line.rstrip() for line in "\n".join(code).split("\n")]
    stills = [cell for _, some in parts for cell in some
              if slides.slide_type(cell) == "skip" and not slides.answers(cell)]
    figures = sum("image/png" in output.get("data", {}) for cell in cells + stills for output in cell.outputs)
    films = sum("dl-player" in output.get("data", {}).get("text/html", "") for cell in cells for output in cell.outputs)
    assert page.locator(".figure img").count() == figures
    assert page.locator(".player").count() == films
    assert figures + films > 2


@each_lesson
def test_each_prediction_is_polled_before_its_answer(build, show, path):
    page = show(build(path))
    def places(kind):
        return dict(page.evaluate(f"[...document.querySelectorAll('.{kind}')].map(node => [node.dataset.label, "
                                  "Reveal.getSlides().indexOf(node.closest('.slide'))])"))

    polls, answers = places("poll"), places("answer")
    asked = len(re.findall(r"^predict\(", "\n".join(c.source for c in slides.nbformat.read(path, 4).cells), re.M))
    assert len(polls) == asked > 0
    assert set(polls) == set(answers)
    assert [label for label in polls if not polls[label] < answers[label]] == []
    assert page.locator(".answer strong.fragment").count() == asked           # hidden until the lecturer goes on
    assert page.locator(".poll .fragment").count() == 0                       # all choices stand there at once
    assert page.evaluate(GIVEN_AWAY) == []


def said(text, **metadata):
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    return nbformat.v4.new_code_cell("print(x)", outputs=[output], metadata=metadata)


@pytest.fixture
def show_cells(show, tmp_path):
    """show_cells(cell, ...): a deck of a title and these cells; a string is Markdown."""
    def show_cells(*cells):
        notebook = nbformat.v4.new_notebook(cells=[
            nbformat.v4.new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in ("# A title", *cells)])
        slides.fetch_assets(tmp_path)
        notes = {title: "what the lecturer says there" for title, _ in slides.sections(notebook)}
        (tmp_path / "deck.html").write_text(slides.deck(notebook, notes), encoding="utf-8")
        return show(tmp_path / "deck.html")

    return show_cells


def on_slides(page):
    return page.evaluate("Reveal.getSlides().map(slide => slide.querySelector('.room').textContent)")


def test_slides_that_would_be_nearly_empty_join_their_neighbours(show_cells):
    own = {"slideshow": {"slide_type": "subslide"}}
    full = "\n\n".join(f"Paragraph {k} of words that fill a slide, " + "and more of them, " * 9 for k in range(5))
    exercises = [nbformat.v4.new_markdown_cell(f"**Exercise 9.{k}.** Write it.", metadata=own) for k in (1, 2)]
    page = show_cells("## One", full, *exercises, said("a line", **own), "## Two", "A remark.")
    _, first, second, third = on_slides(page)
    assert "Paragraph 4" in first
    assert "Exercise" not in first                                          # it is full
    assert all(words in second for words in ("Exercise 9.1", "Exercise 9.2", "a line"))
    assert "A remark" in third                                              # sections stay apart


def test_what_is_under_reveal_joins_nothing(show_cells):
    hidden = "<details><summary>Reveal</summary>\n\nIt was x.</details>"
    _, bug, reveal = on_slides(show_cells("## Spot the bug", f"Why?\n\n{hidden}"))
    assert "Why?" in bug
    assert [("It was x." in words) for words in (bug, reveal)] == [False, True]


def test_words_that_give_an_answer_away_wait_for_the_lecturer(show_cells):
    answer = nbformat.v4.new_output("display_data", data={
        "text/html": "<p></p>",
        "text/plain": "… 9.a: It is\nIt was 12. You made no prediction; that is fine. Next time, guess first."})
    measured = said("measured: 12 times")
    measured.outputs.append(answer)
    page = show_cells("## One", measured, "**What we saw.** It was twelve.")
    page.evaluate("Reveal.slide(1, 0, -1)")
    words = page.locator(".printed, .answer strong, .prose:has-text('twelve')")
    assert page.evaluate(GIVEN_AWAY) == []
    page.keyboard.press("Space")
    assert [words.nth(k).is_visible() for k in range(words.count())] == [True] * 3
    assert on_slides(page)[-1] == on_slides(page)[1]                        # all on one slide, at one press of the key
    page.evaluate("document.querySelector('.printed').classList.remove('fragment')")
    assert page.evaluate(GIVEN_AWAY) == ["measured: 12 times"]


def test_a_table_of_printed_text_keeps_its_lines(show_cells):
    rows = """() => [...document.querySelectorAll('.printed .line')].map(line => {
      const range = document.createRange();
      range.selectNodeContents(line);
      return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
    })"""
    for width, lines in ((118, 1), (140, 2)):                               # too wide to be read smaller: wrapped
        page = show_cells("## One", said("\n".join("x" * width for _ in range(3))))
        page.evaluate("Reveal.slide(1, 0)")
        assert page.evaluate(rows) == [lines] * 3


def test_the_speaker_sees_the_notes(build, show, browser):
    page = show(build(SHORT))
    page.evaluate("Reveal.slide(1, 0)")
    with browser.expect_page() as opened:
        page.keyboard.press("s")
    opened.value.wait_for_function("document.querySelector('.speaker-controls-notes .value')?.textContent.length > 40",
                                   timeout=60_000)
    said = opened.value.inner_text(".speaker-controls-notes .value").splitlines()[0]
    assert said == list(slides.speaker_notes(slides.NOTES / "02.md").values())[1].splitlines()[0].replace("*", "")
    opened.value.close()


def test_the_handout_has_a_page_for_each_slide(build, show, browser):
    deck = build(SHORT)
    count = show(deck).evaluate("Reveal.getTotalSlides()")
    slides.print_pdf(browser, deck)
    assert len(re.findall(rb"/Type\s*/Page\b", deck.with_suffix(".pdf").read_bytes())) == count


def test_dark_and_light(build, show):
    page = show(build(SHORT))
    colours = []
    for _ in range(2):
        colours.append(page.evaluate("[getComputedStyle(document.body).backgroundColor, "
                                     "getComputedStyle(document.querySelector('.reveal')).color]"))
        page.keyboard.press("d")
    light, dark = colours
    assert light[0] == "rgb(255, 255, 255)"
    assert not set(light) & set(dark)


NO_WRAP = "<style>.line { white-space: pre !important } .lines { font-size: 40px !important }</style>"


@pytest.mark.parametrize("harm, complaint", [
    ("room.insertAdjacentHTML('beforeend', '<p style=\"height: 900px\">tall</p>')", "too tall"),
    (f"document.head.insertAdjacentHTML('beforeend', '{NO_WRAP}')", "a cut line"),
    ("document.querySelector('.figure img').src = 'nowhere.png'", "did not load"),
    ("document.querySelector('.figure img').style.marginLeft = '900px'", "too wide"),
    ("document.querySelectorAll('aside.notes').forEach(notes => notes.remove())", "no notes"),
    ("document.querySelector('.figure img').alt = ''", "without a description")])
def test_a_fault_is_noticed(build, show, harm, complaint):
    page = show(build(SHORT))
    page.evaluate("() => { const room = document.querySelectorAll('.room')[1]; " + harm + "; }")
    page.wait_for_timeout(300)
    assert any(complaint in what for what in page.evaluate(LOOK))
