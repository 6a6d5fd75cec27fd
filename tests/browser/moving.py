"""Operate every control by mouse and by keyboard, and check that the picture changes each time."""

import re

# Selectors for each kind of control. The first that matches also takes everything inside it.
PLAYER, PLAY = ".dl-player", ".widget-play"
SLIDER, MENU, BUTTON, TEXT = ".noUi-handle", "select", "button.jupyter-button", ".widget-text input"
CHOICE = ".widget-toggle-buttons button"               # of a prediction; its numbers are TEXT without a picture beside
HOLDS = f"{SLIDER}, button, select, input, textarea"    # anything that a hand could take hold of


def move_all(lesson):
    """Operate every control in every output.  -> the number of each kind"""
    counts = {}
    for n, area in enumerate(lesson.areas(HOLDS), 1):
        area.scroll_into_view_if_needed()
        known = 0
        for kind, move in MOVERS.items():
            controls = area.locator(kind)
            for k in range(controls.count()):
                inside = f":is({PLAYER}, {PLAY}) *, {CHOICE}"
                if kind == BUTTON and controls.nth(k).evaluate("(e, inside) => e.matches(inside)", inside):
                    continue
                known += 1 if kind not in (PLAYER, PLAY) else controls.nth(k).locator(HOLDS).count()
                counts[kind] = counts.get(kind, 0) + 1
                move(Hand(lesson, area, f"{n}{move.__name__}{k + 1}"), controls.nth(k))
        there = area.locator(HOLDS)
        assert known == there.count(), ("nobody knows how to move one of these:\n"
                                        + "\n".join(there.evaluate_all("list => list.map(e => e.outerHTML)")))
    return counts


class Hand:
    """Operate one control: each action must change the pictures of its area."""

    def __init__(self, lesson, area, name):
        self.lesson, self.area, self.name = lesson, area, name
        self.mouse, self.keyboard = lesson.page.mouse, lesson.page.keyboard

    def must_change(self, action, what):
        self.lesson.changed(self.area, action, f"{what} ({self.name})")

    def rest(self, what):
        self.lesson.rest(f"{what} ({self.name})")

    def shoot(self, what):
        self.lesson.shoot(self.area, f"widget{self.name}_{what}")

    def press(self, element, *keys):
        element.focus()
        for key in keys:
            self.keyboard.press(key)
            self.lesson.page.wait_for_timeout(100)


def slider(hand, handle):
    """Drag it, press an arrow key, jump to the farther end, and type the number that it started with."""
    track = handle.locator("xpath=../..")       # handle, origin, base
    start = handle.get_attribute("aria-valuetext")
    now, low, high = (float(handle.get_attribute(f"aria-value{name}")) for name in ("now", "min", "max"))
    upright = handle.get_attribute("aria-orientation") == "vertical"

    def drag(share):
        handle.scroll_into_view_if_needed()
        grip, base = handle.bounding_box(), track.bounding_box()
        x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
        to = (x, base["y"] + base["height"] * (1 - share)) if upright else (base["x"] + base["width"] * share, y)
        hand.mouse.move(x, y)
        hand.mouse.down()
        hand.mouse.move(*to, steps=12)
        hand.mouse.up()

    right = now < (low + high) / 2
    hand.must_change(lambda: drag(0.7 if right else 0.3), "dragging a slider")
    hand.shoot("mouse")
    # One step of a fine slider may not change a pixel, so the arrow is pressed several times. Notebook 7 intercepts the
    # arrows when a slider of ipywidgets has the focus; there the page keys move it.
    back = ["ArrowLeft" if right else "ArrowRight"] * 3
    if hand.lesson.lab.app == "notebook":
        back = ["PageDown" if right else "PageUp"]
    hand.must_change(lambda: hand.press(handle, *back), f"the key {back[0]}")
    hand.must_change(lambda: hand.press(handle, "Home" if right else "End"), "the key Home or End")
    hand.shoot("keyboard")
    readout = handle.locator("xpath=ancestor::*[contains(@class, 'widget-slider')]").locator(".widget-readout")
    if readout.count() == 1 and handle.get_attribute("aria-valuetext") != start:

        def write():
            readout.click()
            hand.keyboard.press("ControlOrMeta+a")
            hand.keyboard.type(start)
            hand.keyboard.press("Enter")

        hand.must_change(write, f"writing {start} beside the slider")
        assert handle.get_attribute("aria-valuetext") == start


def menu(hand, select):
    """Open it by mouse, then by keyboard; choose a neighbour each time, and go back."""
    # The open list is not part of the page, so a key always makes the choice. While it is closed, JupyterLab uses the
    # arrow keys to go to the next cell.
    start = select.evaluate("menu => menu.selectedIndex")
    last = select.locator("option").count() - 1

    def take(opened):
        down = select.evaluate("menu => menu.selectedIndex") < last
        opened()
        hand.lesson.page.wait_for_timeout(300)
        hand.keyboard.press("ArrowDown" if down else "ArrowUp")
        hand.keyboard.press("Enter")

    hand.must_change(lambda: take(select.click), "a menu opened by mouse")
    hand.shoot("mouse")
    hand.must_change(lambda: take(lambda: hand.press(select, "Space")), "a menu opened by keyboard")
    hand.shoot("keyboard")
    if select.evaluate("menu => menu.selectedIndex") != start:
        hand.must_change(lambda: select.select_option(index=start), "the menu's first choice again")


def player(hand, film):
    """The film player of this course: a button and a slider that need no kernel."""
    button, frame = film.locator("button"), film.locator("input[type=range]")
    first, last = frame.get_attribute("min"), frame.get_attribute("max")

    def play_and_stop(start):
        start()
        hand.lesson.wait(lambda: "stop" in button.inner_text(), 10, "the film plays")
        hand.lesson.page.wait_for_timeout(1000)
        button.click()
        if "stop" in button.inner_text():       # it had already reached its end, and has started again
            button.click()

    def drag():
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        y, now = box["y"] + box["height"] / 2, float(frame.input_value())
        at = 0.02 + 0.96 * now / float(last)
        hand.mouse.move(box["x"] + box["width"] * at, y)
        hand.mouse.down()
        hand.mouse.move(box["x"] + box["width"] * (0.75 if at < 0.5 else 0.25), y, steps=12)
        hand.mouse.up()

    hand.must_change(lambda: play_and_stop(button.click), "the play button")
    hand.must_change(drag, "dragging the film's slider")
    hand.shoot("mouse")
    to, from_there = ("Home", "ArrowRight") if frame.input_value() != first else ("End", "ArrowLeft")
    hand.must_change(lambda: hand.press(frame, to), f"the key {to} on the film")
    hand.must_change(lambda: hand.press(frame, from_there), f"the key {from_there} on the film")
    hand.must_change(lambda: play_and_stop(lambda: hand.press(button, "Space")), "the play button by keyboard")
    hand.shoot("keyboard")
    assert film.locator("output").inner_text() == film.locator("img:visible").first.get_attribute("data-title")


def play(hand, buttons):
    """The play button of ipywidgets: play and pause, by mouse and by keyboard, then back to the first step."""
    playing, back, again = (buttons.locator("button").nth(k) for k in range(3))

    def runs():
        return playing.locator(".fa-pause").count() > 0

    def play_and_pause(toggle):
        toggle()
        before = hand.lesson.look(hand.area)
        hand.lesson.wait(lambda: hand.lesson.look(hand.area) not in (None, before), 30, "the steps go on")
        toggle()
        hand.lesson.wait(lambda: not runs(), 10, "it pauses")

    hand.must_change(lambda: play_and_pause(playing.click), "the play button")
    hand.shoot("mouse")
    hand.must_change(lambda: play_and_pause(lambda: hand.press(playing, "Space")), "the play button by keyboard")
    hand.shoot("keyboard")
    hand.must_change(back.click, "the button back to the first step")
    for _ in range(2):      # does it start again at its end?
        again.click()
    hand.rest("the button that repeats")


def button(hand, button):
    hand.must_change(button.click, "a button")
    hand.shoot("mouse")
    hand.must_change(lambda: hand.press(button, "Space"), "a button by keyboard")
    hand.shoot("keyboard")


def line_of(control):
    """The line of text below the question of a prediction."""
    return control.locator("xpath=ancestor::*[contains(@class, 'dl-widget')][1]").locator("[role=status]")


def choice(hand, button):
    """An answer to a prediction, chosen by mouse or, each second one, by keyboard."""
    if button.locator("xpath=preceding-sibling::button").count() % 2:
        hand.press(button, "Space")
    else:
        button.click()
    hand.lesson.wait(lambda: button.get_attribute("aria-pressed") == "true", 10, "the answer is chosen")
    hand.lesson.wait(lambda: re.search("You said|Your prediction was", line_of(button).inner_text()), 10,
                     "the answer is noted")
    assert button.locator("xpath=..//button[@aria-pressed='true']").count() == 1
    hand.shoot("chosen")


def text(hand, field):
    """Click into it, type something else, then type the old text again."""
    before = field.input_value()
    if line_of(field).count():
        return number(hand, field)
    # Another number; or a word less; or, where nothing stands, a word that stands beside it: words that it may know.
    if re.fullmatch(r"-?[\d.]+", before):
        other = f"{float(before) + 1:g}"
    else:
        beside = hand.area.locator(TEXT).first.input_value().split() or ["something"]
        other = " ".join(before.split()[:-1]) or beside[-1]

    def write(words):
        field.click()
        hand.press(field, "ControlOrMeta+a", "Backspace")
        hand.keyboard.type(words)
        hand.keyboard.press("Enter")

    hand.must_change(lambda: write(other), f"writing {other!r}")
    hand.shoot("keyboard")
    hand.must_change(lambda: write(before), f"writing {before!r}")


def number(hand, field):
    """A prediction that is a number: first words that are none."""
    def write(words):
        field.click()
        hand.press(field, "ControlOrMeta+a", "Backspace")
        hand.keyboard.type(words)
        hand.keyboard.press("Enter")

    write("soon")
    hand.lesson.wait(lambda: "Not noted" in line_of(field).inner_text(), 10, "words are no number")
    write("1")
    hand.lesson.wait(lambda: "You said 1" in line_of(field).inner_text(), 10, "the number is noted")
    hand.shoot("written")


MOVERS = {PLAYER: player, PLAY: play, SLIDER: slider, MENU: menu, CHOICE: choice, BUTTON: button, TEXT: text}
