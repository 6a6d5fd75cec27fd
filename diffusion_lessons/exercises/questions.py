"""Multiple-choice questions in which each wrong answer is a common misconception and gets its own reply.

The questions are data, in misconceptions/00.toml and so on, one file a lesson; notebooks, slides and the site all take
them from there. A lesson asks with `question`. With `warm_up` it asks a few of them before it begins, without replies,
so that `progress` can compare before and after.
"""

import hashlib
import html
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display

from diffusion_lessons.classroom.widgets import LABELLING, close
from diffusion_lessons.exercises import record
from diffusion_lessons.exercises.predictions import NOTHING_YET
from diffusion_lessons.exercises.showing import Box

FOLDER = Path(__file__).with_name("misconceptions")
ID = re.compile(r"(\d+b?)\.q\d+")    # "2.q3" or "4b.q1": the q tells a question from an exercise, "2.3"

# One answer below the other, and long ones over several lines: ipywidgets puts them side by side and cuts them off.
STYLE = """<style>
.dl-question .widget-toggle-buttons, .dl-question .widget-toggle-buttons > div {
    display: flex; flex-flow: column nowrap; align-items: stretch; width: auto; max-width: 46em; height: auto;
    gap: 3px; overflow: visible }
.dl-question { margin-bottom: 14px }
.dl-question .widget-toggle-buttons .widget-label {
    width: auto; max-width: none; height: auto; margin: 0 0 4px 2px; white-space: normal; overflow: visible;
    text-align: left; font-size: 15px; line-height: 1.45 }
.dl-question .widget-toggle-buttons button {
    width: auto !important; height: auto; min-height: 30px; padding: 5px 12px; white-space: normal; overflow: visible;
    text-align: left; font-size: 14px; line-height: 1.4 }
.dl-question .widget-html-content { white-space: normal; line-height: 1.45 }
</style>"""


@dataclass(frozen=True)
class MultipleChoice:
    """A question with its right answer, its wrong ones, and a reply to each.

    lesson: the number of its notebook, "02" or "04b";  section: the heading in that notebook where it belongs
    replies: {choice: what to say to whoever chose it}, the right one included
    before: whether `warm_up` asks it too
    """

    id: str
    lesson: str
    section: str
    text: str
    right: str
    replies: dict[str, str]
    before: bool = False

    @property
    def choices(self) -> dict[str, str]:
        """{"A": a choice, "B": ...} in an order that is mixed, but the same everywhere and every time."""
        def mixed(choice: str) -> str:
            return hashlib.sha256(f"{self.id} {choice}".encode()).hexdigest()

        return dict(zip("ABCDEF", sorted(self.replies, key=mixed)))

    def letter(self, choice: str) -> str:
        """The letter of one of the choices."""
        return next(letter for letter, one in self.choices.items() if one == choice)

    def read(self, answer: Any) -> str:
        """The choice that an answer means: its letter or its words. Raises ValueError for anything else."""
        words = str(answer).strip()
        if words.upper() in self.choices:
            return self.choices[words.upper()]
        if words in self.replies:
            return words
        raise ValueError(f"{answer!r} is none of {', '.join(self.choices)}")


def load() -> dict[str, MultipleChoice]:
    """All questions, lesson by lesson: {id: question}."""
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for one in tomllib.loads(path.read_text(encoding="utf-8"))["questions"]:
            replies = dict([one["right"], *one["wrong"]])
            found[one["id"]] = MultipleChoice(one["id"], path.stem, one["section"], one["ask"], one["right"][0],
                                              replies, one.get("before", False))
    return found


QUESTIONS = load()
_said: dict[tuple[str, bool], str] = {}           # (id, before): what has been chosen last since the kernel started,
_first: dict[tuple[str, bool], str] = {}          # and what was chosen first
_forms: dict[tuple[str, bool], "Choices"] = {}    # the widgets that ask


def question(id: str, *, answer: Any = None, before: bool = False) -> None:
    """Ask a question: buttons to choose from, and a reply to each choice. Without widgets, give answer="B".

    id: lesson, q and number, such as "2.q3";  answer: a letter, or a choice in full
    before: ask without a reply, as `warm_up` does
    It stops nothing when no answer is given. Raises ValueError for an id that does not exist.
    """
    asked, key = find(id), (id, before)
    trouble = "" if answer in NOTHING_YET else say(asked, answer, before)
    if key in _forms:
        close(_forms.pop(key).box)
    if getattr(get_ipython(), "kernel", None):
        _forms[key] = Choices(asked, before, trouble)
        display(_forms[key].box)
    else:
        kind, words = comment(asked, before)
        lines = [f"{id}: {asked.text}", *(f"  {letter}: {choice}" for letter, choice in asked.choices.items())]
        display(Box(kind, "\n".join([*lines, trouble or words or how_to_answer(asked, before)])))


def warm_up(lesson: str) -> None:
    """Ask a few of a lesson's questions before it begins, and say only afterwards, at its end, what is right.

    lesson: the number of its notebook, "02" or "04b". Raises ValueError for a lesson that has no such questions.
    """
    asked = [one.id for one in QUESTIONS.values() if one.lesson == lesson and one.before]
    if not asked:
        lessons = sorted({one.lesson for one in QUESTIONS.values() if one.before})
        raise ValueError(f"there is no warm-up for lesson {lesson!r}; there is one for {', '.join(lessons)}")
    for id in asked:
        question(id, before=True)


def find(id: str) -> MultipleChoice:
    """The question with that id. Raises ValueError that lists the lesson's own, or says what an id looks like."""
    if isinstance(id, str) and id in QUESTIONS:
        return QUESTIONS[id]
    looks_right = ID.fullmatch(id) if isinstance(id, str) else None
    near = [one for one in QUESTIONS if looks_right and one.startswith(f"{looks_right[1]}.")]
    raise ValueError(f"there is no question {id!r}; " + (f"this lesson has {', '.join(near)}" if near else
                     'an id is the lesson, a dot, q and a number, such as "2.q3"'))


def say(asked: MultipleChoice, answer: Any, before: bool) -> str:
    """Note an answer. Returns what is wrong with it, or nothing.

    The first answer counts: after the lesson the first one since the kernel started, before it the first one ever.
    """
    try:
        choice = asked.read(answer)
    except ValueError as error:
        return f"Not noted: {error}."
    _said[asked.id, before] = choice
    known = record.read_questions().get(asked.id, {}).get("before")
    if before and known in asked.replies:
        _first[asked.id, before] = str(known)
    if (asked.id, before) not in _first:
        _first[asked.id, before] = choice
        record.note_question(asked.id, choice, before)
    return ""


def comment(asked: MultipleChoice, before: bool) -> tuple[str, str]:
    """What there is to say about a question at this moment: a kind of Box, and words."""
    said = _said.get((asked.id, before))
    if said is None:
        return "prediction", ""
    letter, first = asked.letter(said), _first[asked.id, before]
    if before:
        stands = "" if said == first else f" Your first answer, {asked.letter(first)}, is the one that was noted."
        return "prediction", f"You said {letter}.{stands} The end of the lesson asks again, and says what is right."
    return (("right", f"You said {letter}: right. {asked.replies[said]}") if said == asked.right else
            ("not yet", f"You said {letter}: not so. {asked.replies[said]}"))


def how_to_answer(asked: MultipleChoice, before: bool) -> str:
    """The call that answers, for those who have no buttons."""
    letters = list(asked.choices)
    return (f"Your answer, {', '.join(letters[:-1])} or {letters[-1]}: "
            f'question("{asked.id}", {"before=True, " if before else ""}answer="...")')


def verdicts() -> dict[str, dict[str, bool | None]]:
    """{id: {"before": True, False, or None if it was not answered, "after": the same}} for what has been answered."""
    return {id: {when: None if said not in QUESTIONS[id].replies else said == QUESTIONS[id].right
                 for when, said in answers.items()}
            for id, answers in record.read_questions().items() if id in QUESTIONS}


class Choices:
    """The widget that asks: the question, a button for each choice, and a line of text below."""

    def __init__(self, asked: MultipleChoice, before: bool, trouble: str = "") -> None:
        self.asked, self.before = asked, before
        self.control = widgets.ToggleButtons(
            options=[(f"{letter}: {choice}", choice) for letter, choice in asked.choices.items()],
            value=_said.get((asked.id, before)), description=f"{asked.id}: {asked.text}",
            layout=widgets.Layout(width="auto", max_width="100%"),
            style={"description_width": "initial", "button_width": "auto"})
        self.line = widgets.HTML()
        self.tell(trouble)
        self.control.observe(self.changed, "value")
        self.box = widgets.VBox([self.control, self.line, widgets.HTML(STYLE + LABELLING)])
        self.box.add_class("dl-widget").add_class("dl-question")

    def changed(self, change: Any) -> None:
        """Somebody has chosen."""
        if change["new"] not in NOTHING_YET:
            self.tell(say(self.asked, change["new"], self.before))

    def tell(self, trouble: str = "") -> None:
        """Write into the line below; screen readers speak it. A sign tells right from wrong without any colour."""
        kind, words = comment(self.asked, self.before)
        sign = {"right": "\u2713 ", "not yet": "\u2717 "}.get(kind, "")
        self.line.value = f'<span role="status" style="font-size:15px">{sign}{html.escape(trouble or words)}</span>'
