"""Predictions: say what you expect, then see it beside what was measured.

A notebook asks with `predict`, before the cell that measures; that cell ends in `outcome`, under the same id.
"""

import html
import math
import re
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

from diffusion_lessons.classroom.widgets import LABELLING, close
from diffusion_lessons.exercises import record
from diffusion_lessons.exercises.showing import Box

ID = re.compile(r"\d+\.[a-z]+")       # "4.c": the letters tell a prediction from an exercise, "4.3"
NOTHING_YET = (None, ..., "", "?")    # answers that are none

_asked: dict[str, "Question"] = {}         # what has been asked since the kernel started,
_measured: dict[str, float | str] = {}     # what came out,
_forms: dict[str, "Form"] = {}             # and the widgets that ask


@dataclass(frozen=True)
class Question:
    """A question with choices, or one whose answer is a number and counts as right when it is near enough.

    between: the lowest and the highest number that make sense
    within: how far off a right number may be;  factor: how many times too large or too small it may be
    Raises ValueError for a question that cannot be answered or judged.
    """

    id: str
    text: str
    choices: tuple[str | float, ...] = ()
    between: tuple[float, float] | None = None
    within: float | None = None
    factor: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.choices and len(set(map(str, self.choices))) < max(2, len(self.choices)):
            raise ValueError(f"prediction {self.id} needs two different choices or more, not {self.choices}")
        if [bool(self.choices), self.within is not None, self.factor is not None].count(True) != 1:
            raise ValueError(f"prediction {self.id} needs choices=[...], or for a number either within=... or "
                             "factor=..., which say how near counts as right")

    @property
    def wanted(self) -> str:
        """What kind of answer it takes, in words."""
        if self.choices:
            return "one of " + ", ".join(map(self.show, self.choices))
        bounds = "a number from {} to {}".format(*map(self.show, self.between)) if self.between else "a number"
        return bounds + ("" if self.between or not self.unit else f", in {self.unit}")

    @property
    def tolerance(self) -> str:
        """How near counts as right, in words."""
        return f"within {self.show(self.within)}" if self.factor is None else f"within a factor of {self.factor:g}"

    def read(self, answer: Any) -> str | float:
        """The answer as one of the choices or as a number. Raises ValueError that says what it takes."""
        if self.choices:
            same = [choice for choice in self.choices if choice == answer or str(choice) == str(answer).strip()]
            if same:
                return same[0]
        else:
            plain = answer.replace(",", "").removesuffix(self.unit) if isinstance(answer, str) else answer
            try:
                number = float(plain)
            except (TypeError, ValueError):
                number = math.nan
            low, high = self.between or (-math.inf, math.inf)
            if low <= number <= high and math.isfinite(number):
                return number
        raise ValueError(f"{answer!r} is not {self.wanted}")

    def right(self, said: Any, measured: Any) -> bool:
        """Whether the prediction came true, within the tolerance."""
        if self.choices:
            return bool(said == measured)
        if self.within is not None:
            return abs(said - measured) <= self.within
        return said * measured > 0 and max(said / measured, measured / said) <= (self.factor or 1)

    def show(self, value: Any) -> str:
        """A number with three digits that count and its unit; a choice as it is, in quotation marks."""
        if isinstance(value, str):
            return f'"{value}"'
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return number + (self.unit if self.unit in ("", "%") else f" {self.unit}")


def check_id(id: str) -> None:
    """Raises ValueError for what is no id of a prediction."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise ValueError(f'{id!r} is no id of a prediction: write the lesson, a dot and a letter, such as "4.c" '
                         '(numbers such as "4.3" belong to exercises)')


def predict(id: str, text: str, choices: Any = (), *, between: tuple[float, float] | None = None,
            within: float | None = None, factor: float | None = None, unit: str = "", answer: Any = None) -> None:
    """Ask for a prediction: buttons for choices, a field for a number. Without widgets, give it as answer=...

    id: lesson and letter, such as "4.c";  text: the question, in a few plain words
    choices: the answers to choose from; else a number is asked for, between (lowest, highest), and counts as right
    within an absolute distance or within a factor;  unit: such as "%"
    It stops nothing when no answer is given. Raises ValueError for a question that cannot be answered or judged.
    """
    question = _asked[id] = Question(id, text, tuple(choices), between, within, factor, unit)
    trouble = "" if answer in NOTHING_YET else say(question, answer)
    if id in _forms:
        close(_forms.pop(id).box)
    if getattr(get_ipython(), "kernel", None):
        _forms[id] = Form(question, trouble)
        display(_forms[id].box)
    else:
        display(Box("prediction", f"{id}: {text}\n{trouble or comment(question)}"))


def outcome(id: str, measured: Any) -> None:
    """Show what came out beside what was predicted, and remember whether the prediction was right.

    id: as in `predict`;  measured: a number, or one of the choices
    It stops nothing when there was no prediction. Raises ValueError for an outcome that nobody could have predicted.
    """
    check_id(id)
    question = _asked.get(id)
    if question is None:
        display(Box("not tried", f'{id}: run the cell with predict("{id}", ...) first; it asks for your prediction.'))
        return
    _measured[id] = value = question.read(measured) if question.choices else float(measured)
    said = said_before(question)
    if said is None:
        display(Box("not tried", f"{id}: {question.text}\nIt was {question.show(value)}. You made no prediction; "
                                 "that is fine. Next time, guess first."))
    else:
        right = question.right(said, value)
        record.note_prediction(id, said, right)
        display(Box("right" if right else "surprise", f"{id}: {question.text}\n{comment(question)}"))
    if id in _forms:
        _forms[id].tell(comment(question))


def say(question: Question, answer: Any) -> str:
    """Note a prediction. Returns what is wrong with it, or nothing."""
    try:
        said = question.read(answer)
    except ValueError as error:
        return f"Not noted: {error}."
    known, measured = record.read_predictions().get(question.id), _measured.get(question.id)
    if measured is None:
        record.note_prediction(question.id, said)
    elif known is None or known["right"] is None:
        record.note_prediction(question.id, said, question.right(said, measured))
    elif known["said"] != said:
        return f"It was {question.show(measured)}. Your prediction was {question.show(known['said'])}, and it stands."
    return ""


def said_before(question: Question) -> str | float | None:
    """What was predicted, now or in an earlier session; None if nothing was, or nothing that fits the question."""
    try:
        return question.read(record.read_predictions()[question.id]["said"])
    except (KeyError, ValueError):
        return None


def comment(question: Question) -> str:
    """What there is to say about a question at this moment."""
    said, measured = said_before(question), _measured.get(question.id)
    if said is None:
        return "" if getattr(get_ipython(), "kernel", None) else (
            f'Your prediction, {question.wanted}: predict("{question.id}", ..., answer=...)')
    words = f"You said {question.show(said)}"
    if measured is None:
        return f"{words}. Now run the cells that measure it."
    words = f"{words}, it was {question.show(measured)}: "
    if question.right(said, measured):
        return words + ("right." if question.choices else f"right, {question.tolerance}.")
    return words + ("a surprise." if question.choices else f"a surprise, not {question.tolerance}.")


class Form:
    """The widget that asks: buttons or a text field, and a line of text below."""

    def __init__(self, question: Question, trouble: str = "") -> None:
        self.question, said = question, said_before(question)
        layout = widgets.Layout(width="auto", max_width="100%")
        self.control: widgets.Widget
        if question.choices:    # not RadioButtons: their arrow keys are JupyterLab's own
            self.control = widgets.ToggleButtons(options=[str(choice) for choice in question.choices],
                                                 value=None if said is None else str(said), layout=layout,
                                                 description=question.text,
                                                 style={"description_width": "initial", "button_width": "auto"})
        else:
            self.control = widgets.Text(value="" if said is None else f"{said:g}", placeholder=question.wanted,
                                        description=question.text, continuous_update=False, layout=layout,
                                        style={"description_width": "initial"})
        self.line = widgets.HTML()
        self.tell(trouble or comment(question))
        self.control.observe(self.changed, "value")
        self.box = widgets.VBox([self.control, self.line, widgets.HTML(LABELLING)])
        self.box.add_class("dl-widget")

    def changed(self, change: Any) -> None:
        """Somebody has chosen, or written something."""
        if change["new"] not in NOTHING_YET:
            self.tell(say(self.question, change["new"]) or comment(self.question))

    def tell(self, words: str) -> None:
        """Write into the line below; screen readers speak it."""
        self.line.value = f'<span role="status" style="font-size:15px">{html.escape(words)}</span>'
