"""The course's pages in Chromium, from the disk and with no network: nothing fails, every picture loads.

DIFFUSION_LESSONS_SITE names a folder of pages that have been built; without it they are built here, as by `make site`.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import pages  # noqa: E402

pytestmark = pytest.mark.long
LOCAL = ("file:", "data:", "blob:")
LOADED = """async () => {
    await new Promise(go => document.readyState == 'complete' ? go() : addEventListener('load', go));
    if (window.MathJax) await MathJax.startup.promise;
    const images = [...document.querySelectorAll('.bd-main img')];
    images.forEach(image => image.loading = 'eager');
    await Promise.allSettled(images.map(image => image.decode()));
    return {images: images.length, broken: images.filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80)),
            silent: images.filter(i => !i.alt).map(i => i.src.slice(0, 80)), html: document.documentElement.outerHTML,
            formulas: document.querySelectorAll('.math').length,
            drawn: document.querySelectorAll('mjx-container svg').length,
            wrong: [...document.querySelectorAll('[data-mml-node="merror"]')].map(e => e.textContent),
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth}
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    if named := os.environ.get("DIFFUSION_LESSONS_SITE"):
        return Path(named).resolve()
    out = tmp_path_factory.mktemp("site")
    assert pages.main(["--out", str(out)]) == 0
    return out / "html"


@pytest.fixture
def page(browser):
    """A page that records what fails, and every request that leaves this machine."""
    page = browser.new_page()
    page.trouble = []
    page.on("console", lambda said: page.trouble.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("requestfailed", lambda request: page.trouble.append(f"failed: {request.url[:200]}"))
    page.on("request", lambda asked: None if asked.url.startswith(LOCAL) else page.trouble.append(asked.url[:200]))
    yield page
    page.close()


def test_every_page_opens_from_the_disk_without_a_network(site, page):
    files = [file for file in sorted(site.rglob("*.html")) if "_static" not in file.parts]    # the theme's own parts
    assert len(files) > 50
    images = {}
    for file in files:
        page.goto(file.as_uri())
        found = page.evaluate(LOADED)
        name = str(file.relative_to(site))
        assert page.trouble == [], name
        assert found["broken"] == [], name
        assert found["silent"] == [], f"{name}: pictures without an alternative text"
        assert found["wrong"] == [], f"{name}: formulas that MathJax cannot read"
        assert found["drawn"] >= found["formulas"], name
        assert found["wide"] <= 0, f"{name} is wider than the window"
        assert "jupyter.widget-view" not in found["html"], name
        images[name] = found["images"]
    for lesson in pages.lessons():
        assert images[f"lessons/{lesson.stem}.html"] > 4, lesson.name


def test_an_animation_moves_without_a_kernel(site, page):
    page.goto((site / "lessons/02_adding_noise.html").as_uri())
    player = page.locator(".dl-player").first
    shown = "player => [...player.querySelectorAll('img')].findIndex(i => i.style.display == 'block')"
    before = player.evaluate(shown)
    player.locator("input[type=range]").evaluate("e => { e.value = 3; e.dispatchEvent(new Event('input')) }")
    assert player.evaluate(shown) == 3 != before
    assert page.trouble == []


def test_the_search_finds_a_function_and_a_lesson(site, page):
    page.goto(f"{(site / 'search.html').as_uri()}?q=add_noise")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results a[href*='forward.html']").count() > 0
    page.goto(f"{(site / 'search.html').as_uri()}?q=guidance")
    page.wait_for_selector("#search-results a[href*='06_classifier_free_guidance.html']")
    assert page.trouble == []


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_are_readable_in_light_and_dark(mode, site, page):
    page.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
    page.goto((site / "lessons/02_adding_noise.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == mode
    style = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.filter] }"
    back, effect = page.locator(".cell_output img[alt^=Figure]").first.evaluate(style)
    assert effect == "none"
    assert back == "rgb(255, 255, 255)" or mode == "light"
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, body[4:-1].split(","))) > 380) == (mode == "light")


def test_the_pages_are_small_and_hold_no_answers(site):
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 60 * 2**20
    assert not list((site / "api").glob("exercises.lesson*"))
    lesson = (site / "lessons/01_gans_and_mode_collapse.html").read_text(encoding="utf-8")
    assert "1.1: right" not in lesson
