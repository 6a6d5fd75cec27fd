"""A lesson open in a browser: run it, operate its controls, look at it."""

import re
import time
from pathlib import Path

from wire import Ears

SHOTS = Path(__file__).resolve().parents[2] / "build" / "browser"      # git ignores build/
WIDE, HIGH = 1280, 1500      # screen pixels of the window
START = 240                  # seconds for JupyterLab to load and its kernel to start
CELL = 600                   # seconds that one cell may take, on a busy machine
MOVE = 60                    # seconds for a widget to show another picture after a move
WHOLE = ".jp-NotebookPanel:not(.lm-mod-hidden)"
OUTPUT = f"{WHOLE} .jp-Cell-outputArea"
NAMED = {"slider", "button", "combobox", "textbox", "spinbutton", "checkbox", "image", "img"}    # roles in Chromium

# The visible pictures of an area, as hashes of their bytes: the address can change when the picture does not.
# Where there is no picture, its text.
LOOK = """async area => {
    const shown = [...area.querySelectorAll('img, canvas, svg')].filter(p => p.getClientRects().length);
    const bytes = async p => p.tagName == 'IMG' ? await (await fetch(p.src)).arrayBuffer()
        : new TextEncoder().encode(p.tagName == 'CANVAS' ? p.toDataURL() : p.outerHTML);
    const hash = async p => [...new Uint8Array(await crypto.subtle.digest('SHA-1', await bytes(p)))].join();
    try {
        if (shown.length) return (await Promise.all(shown.map(hash))).join(' ');
    } catch { return null }    // replaced while we looked
    return [...area.querySelectorAll('.jp-RenderedText, .jp-RenderedHTML, .widget-html')].map(t => t.innerText).join();
}"""


# Text with too little contrast to its background (WCAG 2.2, criterion 1.4.3), in the course's HTML and its widgets.
# Colours can be given in any way that CSS allows, so a canvas converts them; transparent backgrounds are blended with
# what is behind them. Returns the number of texts, and those with too little contrast.
PALE = """areas => {
    const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const over = (below, colour) => {
        pen.fillStyle = below; pen.fillRect(0, 0, 1, 1);
        pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
        return `rgb(${[...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)})`;
    };
    const behind = e => e ? over(behind(e.parentElement), getComputedStyle(e).backgroundColor) : 'white';
    const light = colour => colour.match(/[0-9]+/g).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0.05);
    const pale = [], seen = new Set();
    const judge = (e, words) => {
        if (!words.trim() || !e.checkVisibility({visibilityProperty: true})) return;
        seen.add(words);
        const ground = behind(e), ink = over(ground, getComputedStyle(e).color);
        const [low, high] = [light(ground), light(ink)].sort((a, b) => a - b), contrast = high / low;
        if (contrast < 4.5) pale.push(`${contrast.toFixed(2)}: ${ink} on ${ground}: ${words.trim().slice(0, 80)}`);
    };
    for (const area of areas) {
        const texts = document.createTreeWalker(area, NodeFilter.SHOW_TEXT);
        while (texts.nextNode())
            if (!texts.currentNode.parentElement.closest('option, style'))
                judge(texts.currentNode.parentElement, texts.currentNode.data);
        for (const field of area.querySelectorAll('select, input:not([type=range])')) judge(field, field.value);
    }
    return [seen.size, pale];
}"""


class Lesson:
    """One notebook in one page. `check`, which every method calls, raises what goes wrong as an AssertionError."""

    def __init__(self, page, lab, name, shots):
        self.page, self.lab, self.name, self.shots = page, lab, name, shots
        self.ears = Ears(page)
        self.patience = MOVE
        shots.mkdir(parents=True, exist_ok=True)
        page.set_viewport_size({"width": WIDE, "height": HIGH})
        page.set_default_timeout(START * 1000)

    def check(self):
        assert not self.ears.troubles, "\n\n".join(self.ears.troubles)

    def wait(self, condition, seconds, what):
        """Wait until condition() is true. Raises when something goes wrong, or it is not true in time."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            self.page.wait_for_timeout(100)
        self.check()

    # running

    def open(self):
        self.page.goto(self.lab.url(f"{self.name}.ipynb"))
        self.page.locator(f"{WHOLE} .jp-Notebook .jp-Cell").first.wait_for()
        self.wait(self.has_kernel, START, "the kernel is there")
        if self.lab.app == "jupyterlab":
            self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        self.page.wait_for_timeout(1000)    # Notebook 7 does not show that it has noticed
        self.check()

    def has_kernel(self):
        """Is the page connected to an idle kernel for this notebook?"""
        kernels = [one["kernel"] for one in self.lab.ask("sessions") if one["path"] == f"{self.name}.ipynb"]
        return any(kernel["execution_state"] == "idle" and kernel["connections"] for kernel in kernels)

    def command(self, menu, command):
        """Choose an item of the menu bar, or of a submenu, with the mouse."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
        item = self.page.locator(f'.lm-Menu-item[data-command="{command}"]')
        for k in range(self.page.locator('.lm-Menu-item[data-type="submenu"]').count()):
            if item.count():
                break
            self.page.locator('.lm-Menu-item[data-type="submenu"]').nth(k).hover()
            self.page.wait_for_timeout(500)
        item.click()

    def idle(self):
        state = self.page.locator(f"{WHOLE} .jp-Notebook-ExecutionIndicator").get_attribute("data-status")
        return state == "idle"

    def run_all(self):
        """Run all cells and wait for the last one. A finished cell has an execution count."""
        self.command("Run", "runmenu:run-all")
        self.wait_for_cells()

    def run_all_afresh(self):
        self.command("Run", "runmenu:restart-and-run-all")
        total = self.count_done()
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait(lambda: self.count_done() < total, 120, "the numbers of the run before are gone")
        self.wait_for_cells()

    def run_all_again(self):
        """Run all cells again in the same kernel: each gets a higher execution count."""
        before = self.numbers()
        self.command("Run", "runmenu:run-all")
        self.wait(lambda: len(self.numbers()) == len(before) and min(self.numbers()) > max(before), CELL,
                  "each cell has run again")
        self.wait_for_cells()

    def wait_for_cells(self):
        total = self.page.locator(f"{WHOLE} .jp-CodeCell").count()
        done = 0
        while done < total:
            self.wait(lambda before=done: self.count_done() > before, CELL, f"the code cell after {done} others")
            done = self.count_done()
        self.wait(self.idle, 60, "the kernel is idle after the last cell")
        self.page.wait_for_timeout(1000)    # widgets and formulas are rendered after the kernel has finished
        self.check()
        self.check_page()

    def count_done(self):
        return len(self.numbers())

    def numbers(self):
        """The execution counts of the finished cells, from top to bottom."""
        prompts = self.page.locator(f"{WHOLE} .jp-CodeCell .jp-InputPrompt").all_text_contents()
        return [int(number) for number in re.findall(r"\[(\d+)\]:", " ".join(prompts))]

    def check_page(self):
        """Problems that raise no exception: error messages, missing pictures, formulas that cannot be rendered."""
        page = self.page.locator(WHOLE)
        for trouble, selector in {
            "an error is shown": '[data-mime-type="application/vnd.jupyter.error"]',
            "a formula was not rendered": "mjx-merror, [data-mjx-error]",
            "a widget was not rendered": ".jp-OutputArea-output:has-text('Error displaying widget')",
        }.items():
            found = page.locator(selector)
            assert not found.count(), f"{trouble}: {found.first.inner_text()[:500]}"
        missing = "list => list.filter(p => p.complete && !p.naturalWidth).map(p => p.alt || p.src.slice(0, 80))"
        assert not (lost := page.locator("img").evaluate_all(missing)), f"pictures are missing: {lost}"
        # Wide pictures shrink; no cell should need scrolling sideways.
        wide = page.locator(".jp-OutputArea-output, .jp-RenderedMarkdown").evaluate_all(
            "list => list.filter(o => o.scrollWidth > o.clientWidth + 2)"
            ".map(o => [o.scrollWidth, o.clientWidth, o.innerText.slice(0, 80)])")
        assert not wide, f"wider than the page: {wide}"

    def check_contrast(self):
        """Check that the text of the course's boxes, films and widgets is legible.  -> the number of texts"""
        count, pale = self.page.locator(f"{WHOLE} .jp-RenderedHTML, {OUTPUT} .jupyter-widgets").evaluate_all(PALE)
        assert not pale, "too pale to be read:\n" + "\n".join(pale)
        return count

    def spoken(self):
        """What Chromium tells a screen reader about the outputs: a list of (role, name)."""
        devtools = self.page.context.new_cdp_session(self.page)
        devtools.send("DOM.enable")
        devtools.send("Accessibility.enable")
        root = devtools.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        places = devtools.send("DOM.querySelectorAll", {"nodeId": root, "selector": OUTPUT})["nodeIds"]
        told = [node for place in places
                for node in devtools.send("Accessibility.queryAXTree", {"nodeId": place})["nodes"]
                if not node["ignored"]]
        devtools.detach()
        return [(node["role"]["value"], node["name"]["value"].strip()) for node in told]

    def check_names(self):
        """Check that every control and every picture has a name.  -> what a screen reader speaks"""
        told = self.spoken()
        nameless = [one for one in told if one[0] in NAMED and not one[1]]
        assert not nameless, f"without a name: {nameless}"
        # The text of a slider's value is missing from Chromium's accessibility tree, so it is read from the page.
        sliders = self.page.locator(OUTPUT).locator("[role=slider]:visible, input[type=range]:visible").all()
        assert all(slider.get_attribute("aria-valuetext") for slider in sliders), "a slider has no words for its value"
        return told

    def theme(self, name):
        """Choose a theme from the menu bar."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile("^Settings$")).click()
        self.page.locator('.lm-Menu-item[data-type="submenu"]', has_text=re.compile("^Theme$")).hover()
        themes = self.page.locator('.lm-Menu-item[data-command="apputils:change-theme"]')
        themes.filter(has_text=re.compile(f"^{name}$")).click()
        body = self.page.locator("body")
        self.wait(lambda: body.get_attribute("data-jp-theme-name") == name, 30, f"the theme {name}")
        self.page.wait_for_timeout(500)

    def check_is_seen(self):
        """Text, code and a figure can be scrolled into the window."""
        for thing in (".jp-RenderedMarkdown p", ".cm-editor", ".jp-OutputArea-output img"):
            seen = self.page.locator(f"{WHOLE} {thing}:visible").first    # a film has hidden frames
            seen.scroll_into_view_if_needed()
            box = seen.bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= WIDE, f"{thing} is not within the window: {box}"
            assert box["width"] * box["height"] > 500, f"nothing is seen of {thing}: {box}"

    def width(self):
        return self.page.locator(WHOLE).bounding_box()["width"]

    # looking and operating

    def areas(self, selector):
        """The output areas of cells that contain such an element."""
        areas = self.page.locator(OUTPUT).filter(has=self.page.locator(selector))
        return [areas.nth(k) for k in range(areas.count())]

    def look(self, area):
        """The pictures of an area, as text that can be compared; None while they are being replaced."""
        return area.evaluate(LOOK)

    def rest(self, what):
        """Wait until the kernel is idle. The message that a move sends can take a moment to reach it."""
        self.page.wait_for_timeout(150)
        self.wait(self.idle, MOVE, f"the kernel is idle after {what}")

    def changed(self, area, action, what):
        """Do it, and check that the pictures of the area change."""
        before = self.look(area)
        action()
        self.wait(lambda: self.look(area) not in (None, before), self.patience, f"another picture after {what}")
        self.rest(what)

    def shoot(self, what, name):
        what.screenshot(path=self.shots / f"{self.name}_{name}.png")

    def shoot_all(self, name=""):
        """Screenshots of the whole notebook, one window after another."""
        window = self.page.locator(f"{WHOLE} .jp-WindowedPanel-outer")
        whole, part = window.evaluate("w => [w.scrollHeight - w.clientHeight + 40, w.clientHeight - 40]")
        for k in range(-(-whole // part)):
            window.evaluate("(w, to) => w.scrollTo(0, to)", k * part)
            self.page.wait_for_timeout(200)
            self.shoot(window, f"{name}{k + 1:02}")
