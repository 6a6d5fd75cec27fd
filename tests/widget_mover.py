"""Move each widget of a notebook to its ends, as a curious learner would, inside the notebook's own kernel.

The runner pastes this file into a last cell and calls move_all(). It works with ipywidgets 7.7 and 8.
An error is printed between marks that the runner looks for; a swallowed one travels as a message.
"""

import asyncio
import gc
import sys
import traceback


def live_widgets():
    module = sys.modules.get("ipywidgets")
    if module is None:
        return []
    known = getattr(module.widgets.widget, "_instances", None)  # ipywidgets 8
    if known is None:
        known = module.Widget.widgets  # ipywidgets 7
    return list(known.values())


def ends_and_back(low, high, now):
    """Reach both ends so that each is a change, and come back."""
    path = [high, low] if now == low else [low, high]
    return path if path[-1] == now else [*path, now]


def moves(widget):
    """What a hand could do to this widget: a list of (trait, value), or of ("click", None)."""
    import ipywidgets as w

    if getattr(widget, "disabled", False):
        return []
    if isinstance(widget, w.Button):
        return [("click", None)]
    if isinstance(widget, (w.Checkbox, w.ToggleButton)):
        return [("value", not widget.value), ("value", widget.value)]
    if isinstance(widget, w.SelectMultiple):
        every = tuple(range(len(widget.options)))
        return [("index", i) for i in [(), *[(i,) for i in every], every, widget.index]]
    if isinstance(widget, w.SelectionRangeSlider):
        last = len(widget.options) - 1
        return [("index", i) for i in [(0, 0), (last, last), (0, last), widget.index]]
    if isinstance(widget, (w.Tab, w.Accordion)):
        return [("selected_index", i) for i in [*range(len(widget.children)), widget.selected_index]]
    if hasattr(widget, "options") and widget.has_trait("index"):  # menus, radio and toggle buttons
        count = len(widget.options)
        some = range(count) if count <= 4 else (0, count // 2, count - 1)
        return [("index", i) for i in [*some, widget.index]]
    if isinstance(widget, (w.IntProgress, w.FloatProgress)):
        return []
    if isinstance(widget, (w.IntRangeSlider, w.FloatRangeSlider)):
        low, high = widget.min, widget.max
        return [("value", v) for v in [(low, low), (high, high), (low, high), widget.value]]
    if isinstance(widget, w.FloatLogSlider):
        low, high = widget.base**widget.min, widget.base**widget.max
        return [("value", v) for v in ends_and_back(low, high, widget.value)]
    if widget.has_trait("value") and widget.has_trait("min") and widget.has_trait("max"):  # sliders, Play
        return [("value", v) for v in ends_and_back(widget.min, widget.max, widget.value)]
    if isinstance(widget, (w.IntText, w.FloatText)):
        return [("value", v) for v in [0, 1, widget.value]]
    if isinstance(widget, (w.Text, w.Textarea)):
        return [("value", v) for v in ["", "something else", "1", widget.value]]
    return []


async def move_all():
    count, seen = 0, set()
    for _ in range(3):  # a callback may make new widgets
        fresh = [widget for widget in live_widgets() if id(widget) not in seen]
        for widget in fresh:
            seen.add(id(widget))
            for trait, value in moves(widget):
                count += 1
                try:
                    if trait == "click":
                        widget.click()
                    else:
                        setattr(widget, trait, value)
                    await asyncio.sleep(0.08)  # slow widgets draw once a control rests
                except Exception:
                    name = getattr(widget, "description", "") or "no description"
                    what = "clicked" if trait == "click" else f"{trait} = {value!r}"
                    print(f"<<widget error\n{type(widget).__name__} ({name}), {what}:")
                    print(f"{traceback.format_exc()}\n>>")
        if not fresh:
            break
    await asyncio.sleep(0.2)  # let what the callbacks started come to its end
    gc.collect()  # a task that failed unseen speaks when it is collected
    print(f"widget moves: {count}")
