"""The course's web pages: lessons with their results, API, map, glossary, a lecturer's desk. They need no network.

    python tools/pages.py                       into build/site/html; runs the notebooks first where that is needed
    python tools/pages.py --executed FOLDER      takes the executed notebooks from there, whatever their age

`make site` calls this. The pages' sources are in site/ and docs/; what stands in the package, in the notebooks or in
minutes.json is taken from there, so that nothing is said twice. Exercises are shown unsolved.
"""

import argparse
import functools
import html
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from datetime import datetime
from pathlib import Path

import nbformat

import diffusion_lessons
from diffusion_lessons.classroom import minutes

FOLDER = Path(__file__).resolve().parent.parent
NOTEBOOKS = FOLDER / "notebooks"
BUILD = FOLDER / "build" / "site"
MATHJAX = "mathjax@3.2.2"
WIDGET = "application/vnd.jupyter.widget-view+json"
NOT_FOR_LEARNERS = ("cli", "grading", "exercises.lesson", "exercises.inputs", "__main__")     # the answers, for one
REPOSITORY = "../diffusion_lessons/"
# Where the course lay when the notebooks ran is nobody's concern.
OUR_FOLDERS = re.compile(r"(?:[A-Z]:)?[\\/](?:[\w. -]+[\\/])+(?=(?:\.venv|data|diffusion_lessons)\b)")
# So is how fast that machine was: a reader has another.
HOW_LONG = re.compile(r"Run All takes about .*? on this machine \(.*?\)")
NO_PREDICTION = re.compile(r" You made no prediction; that is fine\. Next time, guess first\.")


def lessons():
    """The notebooks in the order of the course."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def number(path):
    """04b_the_loop_at_work.ipynb -> 04b"""
    return path.stem.split("_")[0]


def read(path):
    return nbformat.read(path, as_version=4)


# The lessons

def lesson_page(source, executed):
    """A notebook as a page: the learner's cells with the results, stills for widgets, links that lead to pages.

    source: as shipped;  executed: the same, run, with or without its exercises filled in.
    Raises ValueError when the executed copy is of another notebook.
    """
    if [cell.id for cell in source.cells] != [cell.id for cell in executed.cells]:
        raise ValueError("the executed copy has other cells than the notebook: run it again")
    widgets = executed.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    page = nbformat.v4.new_notebook(metadata={"kernelspec": source.metadata.kernelspec})
    for shipped, run in zip(source.cells, executed.cells):
        cell = nbformat.from_dict({**shipped, "metadata": {}})
        if cell.cell_type == "markdown":
            cell.source = with_links(cell.source)
        elif "raise SystemExit" in cell.source:
            continue                                   # that the package is missing, nobody need be told here
        elif shipped.source == run.source:             # a solved exercise stays unsolved here
            cell.outputs = [kept for output in run.outputs if (kept := still(output, widgets))]
        page.cells.append(cell)
    return page


def with_links(text):
    """Links to the package's files become links to its API pages: to the function that is named, where one is."""
    def to_api(match):
        label, module = match[1], match[2].removesuffix(".py").replace("/", ".")
        name = f"diffusion_lessons.{module}.{label.strip('`').split('.')[-1]}"
        return f"{{py:obj}}`{label.strip('`')} <{name}>`"

    return re.sub(r"\[([^\]]+)\]\(" + re.escape(REPOSITORY) + r"([\w/.]+)\)", to_api, text)


def still(output, widgets):
    """What a page without a kernel shows for an output: itself, a card for a widget, nothing for a progress bar."""
    view = output.get("data", {}).get(WIDGET)
    if view is None:
        if "text/html" in output.get("data", {}):
            output.data["text/html"] = NO_PREDICTION.sub("", output.data["text/html"])
        if "text" in output:
            output.text = OUR_FOLDERS.sub("…/", output.text)
            output.text = HOW_LONG.sub("[in the notebook: how long Run All takes on your machine]", output.text)
        return output
    parts = list(inside(view["model_id"], widgets))
    if any(kind.startswith("FloatProgress") for kind, _ in parts):
        return None
    controls = [text for kind, text in parts if "Slider" in kind or kind in ("DropdownModel", "ToggleButtonsModel")]
    said = [text for kind, text in parts if kind in ("TextModel", "FloatTextModel", "LabelModel", "HTMLModel") and text]
    choices = [text for kind, text in parts if kind == "ButtonModel" and text]
    if controls:
        words = "<b>In the notebook, a widget stands here:</b> " + ", ".join(dict.fromkeys(filter(None, controls)))
    elif said:
        words = f"<b>Your prediction?</b> {said[0]}" + (f" <i>{' · '.join(choices)}</i>" if choices else "")
    else:
        return None
    return nbformat.v4.new_output("display_data", {"text/html": f'<div class="dl-card">{words}</div>'})


def inside(model, widgets):
    """A widget and all those within it: (name of its model, its label or what it says)."""
    entry = widgets.get(model.removeprefix("IPY_MODEL_"), {})
    state = entry.get("state", {})
    yield entry.get("model_name", ""), html.escape(plain(state.get("description") or state.get("value") or ""))
    for child in state.get("children", []):
        yield from inside(child, widgets)


def plain(text):
    """Text without HTML's tags."""
    return " ".join(re.sub("<[^>]+>", " ", str(text)).split())


# What is said once, elsewhere

def sections(notebook):
    """The sections of an executed notebook, in order: (title, seconds that its cells took)."""
    found = []
    for cell in notebook.cells:
        for title in re.findall(r"^#{1,2} (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []:
            found.append([title, 0.0])
        ran = cell.metadata.get("execution", {})
        if {"iopub.execute_input", "shell.execute_reply"} <= ran.keys() and found:
            began, ended = (datetime.fromisoformat(ran[key].replace("Z", "+00:00"))
                            for key in ("iopub.execute_input", "shell.execute_reply"))
            found[-1][1] += (ended - began).total_seconds()
    return [tuple(entry) for entry in found]


def section_seconds(executed):
    """{"02/1": ("Adding ...", seconds)} of all lessons: each section's share of the time in minutes.json.

    executed: {"02": notebook}.  The time of the copies themselves depends on what else ran; minutes.json's does not.
    """
    measured, found = json.loads(minutes.FILE.read_text())["seconds"], {}
    for lesson, notebook in executed.items():
        parts = sections(notebook)
        scale = measured[lesson] / max(1e-9, sum(seconds for _, seconds in parts)) if lesson in measured else 1.0
        for title, seconds in parts:
            if numbered := re.match(r"(\d+) · (.+)", title):
                found[f"{lesson}/{numbered[1]}"] = (numbered[2], scale * seconds)
    return found


def in_words(seconds):
    """Seconds, rounded up for a lecturer who has to wait."""
    if seconds < 3:
        return "at once"
    return f"{5 * -(-seconds // 5):.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def times_table():
    """How long each lesson takes: to work through, by its own first cell; to run, by minutes.json."""
    seconds = json.loads(minutes.FILE.read_text())["seconds"]
    rows = ["| lesson | to work through | Run All |", "|---|---|---|"]
    for path in lessons():
        first = read(path).cells[0].source
        work = re.search(r"[Aa]bout (\d+ minutes) to work through", first)
        run = in_words(seconds[number(path)]) if number(path) in seconds else "not measured yet"
        rows.append(f"| [{title(first)}](lessons/{path.name}) | {work[1] if work else '–'} | {run} |")
    return "\n".join(rows)


def title(source):
    return source.split("\n")[0].lstrip("# ").strip()


def map_table():
    """The table video -> lesson -> function of lesson 00."""
    for cell in read(lessons()[0]).cells:
        if cell.source.startswith("## The map"):
            table = "\n".join(line for line in cell.source.splitlines() if line.startswith("|"))
            table = re.sub(r"\]\((\w+\.ipynb)\)", r"](lessons/\1)", with_links(table))
            return table.replace("| here |", f"| [00](lessons/{lessons()[0].name}) |")
    raise ValueError("lesson 00 has no section \"The map\"")


def start():
    """How to install the course: the README's section."""
    readme = (FOLDER / "README.md").read_text("utf-8")
    return re.search(r"^## Start\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)[1].strip()


def exercises_table():
    """What each exercise measures: the table of docs/instructors.md, lesson by lesson."""
    instructors = (FOLDER / "docs/instructors.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+)\.(\d+) \| (.+) \|$", instructors, re.MULTILINE)
    out = []
    for path in lessons():
        there = set(re.findall(r"check\(\"(\d+\.\d+)\"", "\n".join(cell.source for cell in read(path).cells)))
        if mine := [(lesson, k, what) for lesson, k, what in rows if f"{lesson}.{k}" in there]:
            out += [f"## [{title(read(path).cells[0].source)}](lessons/{path.name})", "",
                    "| exercise | whoever solves it can |", "|---|---|"]
            out += [f"| {lesson}.{k} | {what} |" for lesson, k, what in mine] + [""]
    return "\n".join(out)


def glossary_terms():
    """site/glossary.toml: [{"term", "says", "also"?}], in the order of the alphabet."""
    terms = tomllib.loads((FOLDER / "site/glossary.toml").read_text("utf-8"))["term"]
    return sorted(terms, key=lambda entry: entry["term"].casefold())


def first_met(entry):
    """Where a term is explained: in bold where it is, else where it is first used.

    -> (the notebook's path, its section, the path of the first notebook that uses the term, whether it is explained)

    Raises ValueError when no notebook has it.
    """
    words = "|".join(re.escape(word) for word in [entry["term"].split(" (")[0], *entry.get("also", [])])
    term = re.compile(rf"(?:{words})(?:e?s)?(?: \(.*\))?", re.IGNORECASE)
    used = re.compile(rf"(?<![\w-])(?:{words})(?:e?s)?(?![\w-])", re.IGNORECASE)
    places = []
    for path in lessons():
        for line, section, is_code in lines(path):
            if used.search(line):
                bold = any(term.fullmatch(text.rstrip(".:")) for text in re.findall(r"\*\*(.+?)\*\*", line))
                introduced = bold and not is_code and section != "Recap"
                places.append((not introduced, is_code, len(places), path, section))
    if not places:
        raise ValueError(f"no notebook has the glossary's term {entry['term']!r}")
    only_used, _, _, path, section = min(places)
    return path, section, min(places, key=lambda place: place[1:])[3], not only_used


@functools.cache
def lines(path):
    """All lines of a notebook: (line, the section that it is in, whether it is code)."""
    found, section = [], ""
    for cell in read(path).cells:
        is_code = cell.cell_type == "code"
        for line in cell.source.splitlines():
            section = line[3:] if line.startswith("## ") and not is_code else section
            found.append((line, section, is_code))
    return found


def glossary():
    """The glossary's entries as a definition list, each with the lesson and the section where it is met."""
    out = []
    for entry in glossary_terms():
        path, section, earliest, explained = first_met(entry)
        where = f"[{number(path)}](lessons/{path.name})" + (f", “{section}”" if section else "")
        how = "Explained" if explained else "First used"
        if earliest != path:
            how = f"First used in [{number(earliest)}](lessons/{earliest.name}), explained"
        says = f"{entry['says'].strip()} <span class=\"dl-where\">{how} in {where}.</span>"
        out.append(f"{entry['term']}\n: {says}\n")
    return "\n".join(out)


def fill(text, pieces, seconds):
    """A page with its `{{ name }}` filled in.

    `{{ 02/1 }}` is a section of a lesson, with the time that it runs; `{{ wait/02/1 }}` is that time alone.
    Raises ValueError when there is nothing of that name.
    """
    def piece(match):
        name = match[1]
        if name.removeprefix("wait/") in seconds and name.startswith("wait/"):
            return in_words(seconds[name.removeprefix("wait/")][1])
        if name in seconds:
            says, ran = seconds[name]
            path = next(path for path in lessons() if number(path) == name.split("/")[0])
            return f"[{name.replace('/', ' §')}](lessons/{path.name}) {says} ({in_words(ran)})"
        if name not in pieces:
            raise ValueError(f"a page asks for {{{{ {name} }}}}, which is no piece and no section of a lesson")
        return pieces[name]()

    return re.sub(r"\{\{ ([\w/]+) \}\}", piece, text)


PIECES = {"times": times_table, "map": map_table, "exercises": exercises_table, "glossary": glossary,
          "start": start}


# The API

def modules():
    """The names of the package's modules that a learner may want to read about, below diffusion_lessons."""
    names = (module.name.removeprefix("diffusion_lessons.")
             for module in pkgutil.walk_packages(diffusion_lessons.__path__, "diffusion_lessons."))
    return [name for name in names if not name.startswith(NOT_FOR_LEARNERS) and not name.split(".")[-1].startswith("_")]


def write_api(folder):
    """A page a module, and an index with a sentence on each."""
    folder.mkdir(parents=True)
    rooms = {}
    for name in modules():
        module = importlib.import_module(f"diffusion_lessons.{name}")
        if not list(members(module)):
            continue
        says = (module.__doc__ or "").split("\n")[0]
        rooms.setdefault(name.rpartition(".")[0] or "The ideas, and what all modules use", []).append((name, says))
        line = "=" * len(name)
        (folder / f"{name}.rst").write_text(
            f"{name}\n{line}\n\n.. automodule:: diffusion_lessons.{name}\n   :members:\n", encoding="utf-8")
    index = ["# API", "", "The package, module by module, from its own docstrings.", ""]
    for room, entries in rooms.items():
        index += [f"## {room}", "", "| module | |", "|---|---|"]
        index += [f"| [`{name}`]({name}.rst) | {says} |" for name, says in entries]
        index += ["", "```{toctree}", ":hidden:", "", *(name for name, _ in entries), "```", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def members(module):
    """The public functions and classes that a module defines itself."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and (
                inspect.isclass(value) or inspect.isfunction(value)):
            yield name


# Building

def prepare(executed, source):
    """Write everything that Sphinx reads. executed: {path of a notebook: its executed copy}."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(FOLDER / "site", source, ignore=shutil.ignore_patterns("slides", "*.md", "*.toml", "__pycache__"))
    (source / "lessons").mkdir()
    for path, notebook in executed.items():
        nbformat.write(lesson_page(read(path), notebook), source / "lessons" / path.name)
    seconds = section_seconds({number(path): notebook for path, notebook in executed.items()})
    for page in (FOLDER / "site").glob("*.md"):
        (source / page.name).write_text(fill(page.read_text("utf-8"), PIECES, seconds), encoding="utf-8")
    for page in ("instructors", "reliability", "scaling"):
        text = (FOLDER / "docs" / f"{page}.md").read_text("utf-8")
        (source / f"{page}.md").write_text(with_links(text) if page == "scaling" else text, encoding="utf-8")
    for picture in ("lessons.png", "results.png"):
        shutil.copy(FOLDER / "docs" / picture, source / "_static")
    write_api(source / "api")


def mathjax(source, cache):
    """Put MathJax among the pages' files. npm fetches it once.  Raises OSError when it cannot."""
    kept = cache / "tex-svg.js"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            raise OSError("make site needs npm once, to fetch MathJax: install Node.js (https://nodejs.org), try again")
        said = subprocess.run([npm, "pack", "--silent", MATHJAX], cwd=cache, capture_output=True, text=True)
        if said.returncode:
            raise OSError(f"npm could not fetch {MATHJAX}: is there a network?\n{said.stderr[-500:]}")
        with tarfile.open(cache / said.stdout.strip().splitlines()[-1]) as archive:
            kept.write_bytes(archive.extractfile("package/es5/tex-svg.js").read())
    (source / "_static" / "mathjax").mkdir(parents=True)
    shutil.copy(kept, source / "_static" / "mathjax")


def executed_copies(folder):
    """{path of a notebook: executed copy}; folder: where they are, or None to run what has not been run."""
    if folder is None:
        ran = subprocess.run([sys.executable, str(FOLDER / "tools/solutions.py")])
        if ran.returncode:
            raise OSError("a notebook fails (see above), so there are no pages of it")
        folder = FOLDER / "build" / "solutions"
    missing = [path.name for path in lessons() if not (folder / path.name).exists()]
    if missing:
        raise OSError(f"no executed copy of {', '.join(missing)} in {folder}: make solutions makes them")
    return {path: read(folder / path.name) for path in lessons()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executed", type=Path, help="a folder of executed notebooks (default: run what is needed)")
    parser.add_argument("--out", type=Path, default=BUILD, help="default: build/site")
    args = parser.parse_args(arguments)
    source, pages = args.out / "source", args.out / "html"
    try:
        prepare(executed_copies(args.executed), source)
        mathjax(source, args.out.parent / "npm")
    except (OSError, ValueError) as error:
        print(f"pages: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(pages, ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html"]
    ran = subprocess.run([*sphinx, "-d", str(args.out / "doctrees"), str(source), str(pages)])
    if ran.returncode == 0:
        size = sum(file.stat().st_size for file in pages.rglob("*") if file.is_file()) / 2**20
        print(f"{pages / 'index.html'} ({size:.0f} MB); open it in a browser, no server is needed")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
