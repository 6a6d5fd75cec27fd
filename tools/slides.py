"""Slides: one reveal.js deck a lesson, made from the executed notebooks. They need no network.

    python tools/slides.py                      all lessons, into build/slides; open index.html there. And guest.html,
                                                the guest lecture that is planned in site/lecturer.md
    python tools/slides.py notebooks/02*.ipynb  this one
    python tools/slides.py --pdf                and a PDF handout of each, one page a slide (needs Chromium)

Executed copies are taken from build/solutions, where `make test-notebooks` and `make solutions` leave them. What is
missing there, or older than the notebook or the package, is executed first. What a lecturer says comes from docs/notes;
the look from site/slides. reveal.js, MathJax and the fonts are fetched once by npm, into build/slides-npm.

Cells marked `skip` stay off the slides, and so does code that only draws or measures. A `predict` becomes a poll. The
browser lays the rest out (site/slides/deck.js): whatever does not fit on a slide goes on to the next.
"""

import argparse
import ast
import base64
import html
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
from pages import OUR_FOLDERS

from diffusion_lessons.classroom.style import GREY, PALETTE, legible

FOLDER = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(FOLDER / "tests"), str(FOLDER / "tools")]
LOOK, NOTES, NPM = FOLDER / "site" / "slides", FOLDER / "docs" / "notes", FOLDER / "build" / "slides-npm"
# What a deck loads: file -> where npm puts it.
ASSETS = {"reveal.css": "reveal.js/dist/reveal.css", "reveal.js": "reveal.js/dist/reveal.js",
          "notes.js": "reveal.js/plugin/notes/notes.js", "mathjax.js": "mathjax/es5/tex-svg-full.js"}
FONTS = {"Source Sans 3": ("source-sans-3", ("latin", "greek"), ("400-normal", "400-italic", "700-normal")),
         "Source Code Pro": ("source-code-pro", ("latin", "greek"), ("400-normal", "700-normal"))}
DETAILS = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", re.S)
PREDICT = re.compile(r"\*\*Predict\.\*\*(?:(?!\n\n).)*", re.S)                  # to the end of its paragraph
SOURCE = re.compile(r"^\w+ \((train|test)\): .*\n?", re.M)                       # what load_digits says of its data
HEADING = re.compile(r"^(##?) (.+)$", re.M)
WIDE, LONG = 100, 20                                   # characters in a line of code, lines that one cell may print


def number(path):
    """02_adding_noise.ipynb -> "02"."""
    return Path(path).name.partition("_")[0]


def sections(notebook):
    """The lesson's parts that are on slides: [(title, its cells)], in order. A heading of level 1 or 2 begins one."""
    parts, before = [], None
    for cell in notebook.cells:
        heading = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            parts.append((heading[2].strip(), []))
        if parts and (slide_type(cell) not in ("skip", "notes") or answers(cell) or is_still(cell, before)):
            parts[-1][1].append(cell)
        before = cell
    return [(title, cells) for title, cells in parts if cells]


def is_still(cell, before):
    """Whether a cell that is skipped in class draws what the widget in the cell before it shows."""
    return (slide_type(cell) == "skip" and before is not None and before.cell_type == "code"
            and LIVE in outputs(before, False) and "<img" in outputs(cell, False))


def slide_type(cell):
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def speaker_notes(path):
    """docs/notes/02.md as {section's title: what the lecturer says there, in Markdown}."""
    pieces = HEADING.split(Path(path).read_text(encoding="utf-8"))
    return {title.strip(): text.strip() for title, text in zip(pieces[2::3], pieces[3::3])}


def polls(cell, widgets):
    """The predictions that a cell asks for: [(question, its choices or None, its unit)].

    widgets: the state of the notebook's widgets, as saved when it was run
    """
    calls = [node for node in ast.walk(ast.parse(as_python(cell.source)))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "predict"]
    boxes = [output.data["application/vnd.jupyter.widget-view+json"]["model_id"] for output in cell.outputs
             if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    found = []
    for call, box in zip(calls, boxes):
        options = {k.arg: k.value for k in call.keywords}
        labels = [state for state in inside(box, widgets) if "_options_labels" in state] if "choices" in options else []
        unit = ast.literal_eval(options["unit"]) if "unit" in options else ""
        found.append((ast.literal_eval(call.args[1]), labels[0]["_options_labels"] if labels else None, unit))
    return found


def inside(model, widgets):
    """The saved states of a widget and of all that it holds."""
    state = widgets[model]["state"]
    yield state
    for child in state.get("children", []):
        yield from inside(child.removeprefix("IPY_MODEL_"), widgets)


def as_python(source):
    """The cell without the lines that only IPython understands."""
    return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines())


def is_plumbing(source, drawing, shows):
    """Whether a cell's code stays off the slides: it only draws, or it only measures what the next figure shows.

    drawing: the names of functions that draw;  shows: whether the cell has outputs that will be on the slides
    """
    body = [node for node in ast.parse(as_python(source)).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    calls = [called(node) for node in body]
    lines = sum(bool(line.strip()) for line in source.splitlines())
    if not shows:
        return lines <= 2
    prepared = [node for node, name in zip(body, calls) if name not in drawing and name not in ("outcome", "display")]
    draws = calls[-1] in drawing and len(prepared) <= 3 and all(isinstance(node, ast.Assign) for node in prepared)
    measures = re.search(r"\b(print|outcome)\(", source) and lines > 7
    return draws or bool(measures) and not re.search(r"\bloop\b|\boptimizer\b", source)


def called(node):
    """The name of the function that a statement calls; None if it is no call."""
    call = node.value if isinstance(node, ast.Expr) else None
    return call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None


def shown(source):
    """The cell's code without its checks and without `outcome`, which would give the answer away.

    Where a line is too long, the comments at the ends of lines move up to their code.
    """
    lines, gone = source.splitlines(), []
    for parent in ast.walk(ast.parse(as_python(source))):
        body = parent.body if isinstance(getattr(parent, "body", None), list) else []
        silent = [node for node in body if isinstance(node, ast.Assert) or called(node) == "outcome"]
        gone += silent if isinstance(parent, ast.Module) or len(silent) < len(body) else []
    for node in sorted(gone, key=lambda node: -node.lineno):
        del lines[node.lineno - 1:node.end_lineno]
    if any(len(line) > WIDE for line in lines):
        lines = [re.sub(r"(?<=\S) {3,}(?=# )", "  ", line) for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def code_on_slide(cell, drawing, results):
    """The code of a cell that a slide shows; empty where it only draws, measures or opens a widget.

    results: what `outputs` makes of the cell
    """
    return "" if results == LIVE or is_plumbing(cell.source, drawing, bool(results)) else shown(cell.source).strip()


def drawing_names(notebook):
    """The names that the notebook imports from the classroom."""
    return {alias.asname or alias.name for cell in notebook.cells if cell.cell_type == "code"
            for node in ast.walk(ast.parse(as_python(cell.source))) if isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("diffusion_lessons.classroom") for alias in node.names}


def markdown(text):
    """Markdown with formulas, as HTML. A link to a notebook leads to its deck; one to a file becomes plain text."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    page = MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True)).render(text)
    page = re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', page)
    return re.sub(r'<a href="\.\./[^"]*">(.*?)</a>', r"\1", page, flags=re.S)


def block(kind, content, **data):
    attributes = "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in data.items())
    return f'<div class="block {kind}"{attributes}>{content}</div>\n'


LIVE = block("live", "Live in the notebook: try it there.")


def prose(text, start):
    """A Markdown cell. What is hidden under "Reveal" in the notebook comes last, on a slide of its own."""
    hidden = DETAILS.findall(text)
    page = block("prose", markdown(DETAILS.sub("", text)), start=start) if DETAILS.sub("", text).strip() else ""
    for summary, body in hidden:
        page += block("prose", f"<h3>{summary}</h3>" + markdown(body.strip()), start="reveal")
    return page


def poll(question, predictions):
    """The slide on which the class votes, before it sees the result."""
    page, start = (block("prose", markdown(question), start="poll"), "") if question else ("", "poll")
    for label, choices, unit in predictions:
        if choices:
            options = "".join(f"<li>{html.escape(str(choice))}</li>" for choice in choices)
            short = ' class="short"' if len(choices) > 4 and max(len(str(choice)) for choice in choices) <= 8 else ""
            ask = f'<p>{html.escape(label)}</p><ol type="A"{short}>{options}</ol>'
        else:
            ask = (f'<p>{html.escape(label)} <span class="blank">?</span> {html.escape(unit)}</p>'
                   "<p>Write down a number.</p>")
        page += block("poll", ask, label=label.rstrip(": "), start=start)
        start = ""
    return page


def code(source):
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    lines = highlight(source.strip(), PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    return block("code", lines_of(lines))


def lines_of(lines):
    """Lines of code or of printed text. One that is too long is wrapped, four characters deeper than it begins."""
    rows = []
    for line in lines:
        text = re.sub(r"<[^>]*>", "", line)
        rows.append(f'<div class="line" style="--in:{len(text) - len(text.lstrip(" "))}">{line or " "}</div>')
    return f'<div class="lines no-math">{"".join(rows)}</div>'


def shortened(lines):
    """Printed text as far as it is worth a slide, without the folders of the machine that printed it."""
    if len(lines) > LONG:
        lines = [*lines[:8], f"  ... {len(lines) - 10} more lines in the notebook ...", *lines[-2:]]
    return [OUR_FOLDERS.sub("…/", line) for line in lines]


def outputs(cell, source_is_poll):
    """What a cell printed and drew. Widgets need a kernel: they are left out, and stills stand beside them."""
    page, printed = "", ""
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            printed += SOURCE.sub("", output.text)
    if printed.strip():
        page += block("printed", lines_of(shortened(html.escape(printed.rstrip(), quote=False).split("\n"))))
    for output in cell.outputs:
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            if output.output_type == "execute_result" and not source_is_poll:
                page += LIVE
        elif "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt", "")
            picture = "data:image/png;base64," + "".join(data["image/png"].split())
            page += block("figure", f'<img alt="{html.escape(alt)}" src="{picture}">')
        elif "text/html" in data:
            kind = "player" if "dl-player" in data["text/html"] else "html no-math"
            page += answer(data) or block(kind, data["text/html"])
        elif "text/plain" in data:
            page += block("printed", lines_of(html.escape(data["text/plain"], quote=False).split("\n")))
    return page


def answers(cell):
    """What the cell's `outcome` calls say. A cell that is skipped still shows these, or a poll would have no answer."""
    return "".join(answer(output.get("data", {})) for output in cell.get("outputs", []))


def answer(data):
    """What `outcome` says, without "you made no prediction"; empty for anything else."""
    found = re.match(r"… (\d\w*\.\w+): (.*)\nIt was (.*?)\. You made no prediction", data.get("text/plain", ""), re.S)
    if not found:
        return ""
    label, value = found[2].rstrip(": "), found[3].strip('"')
    colon = "" if label.endswith(("=", "?", ",")) else ":"
    text = f'{html.escape(label)}{colon} <strong class="fragment">{html.escape(value)}</strong>'
    return block("answer", text, label=label)


def part(title, cells, notes, drawing, widgets):
    """One section of the lesson, as blocks for the browser to lay out."""
    page = f'<section class="part" data-title="{html.escape(title)}">\n<aside class="notes">{markdown(notes)}</aside>\n'
    question = ""
    for cell in cells:
        start = {"slide": "page", "subslide": "page"}.get(slide_type(cell), "")
        if cell.cell_type == "markdown":
            found = PREDICT.search(cell.source)
            question = found[0] if found else ""
            page += prose(PREDICT.sub("", cell.source), start)
        elif slide_type(cell) == "skip":
            page += answers(cell) or outputs(cell, False)
        elif cell.cell_type == "code":
            predictions = polls(cell, widgets)
            if predictions:
                page += poll(question, predictions)
                question, start = "", "page"
            results = outputs(cell, predictions)
            if not predictions and (source := code_on_slide(cell, drawing, results)):
                results = code(source) + results
            page += results if results == LIVE else f'<div class="block begin" data-start="{start}"></div>' + results
    return page + "</section>\n"


def deck(notebook, notes):
    """A lesson's whole page. Raises KeyError when a section has no notes."""
    parts, drawing, widgets = sections(notebook), drawing_names(notebook), widgets_of(notebook)
    return page_of(parts[0][0], "".join(part(name, cells, notes[name], drawing, widgets) for name, cells in parts))


def guest_plan():
    """The guest lecture on the lecturer's desk: [(minutes, lesson, number of its section or "", what happens)]."""
    desk = (FOLDER / "site" / "lecturer.md").read_text(encoding="utf-8")
    table = desk.split("## A guest lecture", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (?:{{ (\w+)/(\d+) }}|\[(\w+)\]\(lessons/[^|]*) \| (.*) \|$", table, re.M)
    return [(int(minutes), lesson or opening, section, what) for minutes, lesson, section, opening, what in rows]


def guest_deck(notebooks):
    """The sections that the guest lecture's plan names, as one deck.  notebooks: {"02": its executed copy}

    Where the plan names no section, it is the lesson's opening, without its title. Raises KeyError or StopIteration
    when there is no such lesson or section.
    """
    title = "How AI image generators work"
    opening = nbformat.v4.new_markdown_cell(f"# {title}\n\nFrom pure noise to a picture, and how a sentence gets in.")
    body = part(title, [opening], "Open the notebooks that you show live before you begin.", set(), {})
    for minutes, lesson, section, what in guest_plan():
        notebook, notes = notebooks[lesson], speaker_notes(NOTES / f"{lesson}.md")
        parts = sections(notebook)
        name, cells = next(one for one in parts if one[0].startswith(f"{section} · ")) if section else parts[0]
        said = f"**{minutes} min in this lecture:** {what}.\n\n{notes[name]}"
        body += part(name, cells if section else cells[1:], said, drawing_names(notebook), widgets_of(notebook))
    return page_of(title, body)


def widgets_of(notebook):
    """The state of its widgets, as saved when it was run."""
    saved = notebook.metadata.get("widgets", {})
    return saved.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})


def page_of(title, body):
    page = (LOOK / "deck.html").read_text(encoding="utf-8")
    return page.replace("TITLE", html.escape(title)).replace("SLIDES", body)


def fetch_assets(out):
    """Put what the decks load into out/assets."""
    npm = shutil.which("npm")
    if not all((NPM / "node_modules" / path).exists() for path in ASSETS.values()):
        if not npm:
            raise SystemExit("make slides fetches reveal.js, MathJax and the fonts with npm, which was not found.\n"
                             "Install Node.js (on Debian or Ubuntu: sudo apt install npm) and call make slides again.")
        NPM.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(LOOK / name, NPM)
        subprocess.run([npm, "ci"], cwd=NPM, check=True)
    assets = out / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    for name, path in ASSETS.items():
        shutil.copy(NPM / "node_modules" / path, assets / name)
    shutil.copy(LOOK / "deck.js", assets)
    style = (LOOK / "deck.css").read_text(encoding="utf-8")
    (assets / "deck.css").write_text(colours() + fonts() + style, encoding="utf-8")


def colours():
    """The palette of the figures as CSS variables; `--blue-text` and so on are dark enough for text on white."""
    rows = [f"--{name}: {colour}; --{name}-text: {legible(colour)};" for name, colour in PALETTE.items()]
    return ":root { " + " ".join(rows) + f" --grey: {GREY}; }}\n"


def fonts():
    """The fonts, inside the style sheet: a browser may refuse to load font files from a USB stick."""
    ranges = {"latin": "U+0000-00FF, U+0131, U+0152-0153, U+02C6, U+02DA, U+02DC, U+2000-206F, U+20AC, U+2122, U+2212",
              "greek": "U+0370-03FF"}
    rules = ""
    for family, (package, alphabets, styles) in FONTS.items():
        for alphabet in alphabets:
            for style in styles:
                weight, slant = style.split("-")
                file = NPM / "node_modules" / "@fontsource" / package / "files" / f"{package}-{alphabet}-{style}.woff2"
                data = base64.b64encode(file.read_bytes()).decode()
                rules += (f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: {slant}; '
                          f'unicode-range: {ranges[alphabet]}; src: url(data:font/woff2;base64,{data}); }}\n')
    return rules


def executed_copy(path, folder):
    """The notebook as it was run. Runs it first where build/solutions has no copy of this notebook and package."""
    from notebook_runner import is_fresh
    target = folder / "solutions" / path.name
    if not is_fresh(target, path):
        import solutions
        print(f"{path.name}: running it ...", flush=True)
        report, _, _ = solutions.run(path, folder)
        if report.errors:
            raise SystemExit("\n\n".join([f"{path.name} failed:", *report.errors]))
    return nbformat.read(target, as_version=4)


def index(decks):
    rows = "".join(f'<li><a href="{name}.html">{html.escape(title)}</a></li>' for name, title in decks.items())
    page = (LOOK / "index.html").read_text(encoding="utf-8")
    return page.replace("DECKS", rows)


def print_pdf(browser, deck_file):
    """A handout beside the deck, printed by Chromium: one page a slide."""
    page = browser.new_page()
    page.goto(deck_file.as_uri() + "?print-pdf")
    page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=120_000)
    page.wait_for_selector(".pdf-page", timeout=60_000)
    page.pdf(path=deck_file.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)
    page.close()


@contextmanager
def chromium():
    sys.path.insert(0, str(FOLDER / "tests" / "browser"))
    from lab import find_chromium
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all lessons that have notes in docs/notes")
    parser.add_argument("--out", type=Path, default=FOLDER / "build" / "slides", help="default: build/slides")
    parser.add_argument("--executed", type=Path, help="a folder of executed copies to take as they are")
    parser.add_argument("--pdf", action="store_true", help="write handouts, too")
    args = parser.parse_args(arguments)
    lessons = args.notebooks or [path for path in sorted((FOLDER / "notebooks").glob("*.ipynb"))
                                 if (NOTES / f"{number(path)}.md").exists()]
    fetch_assets(args.out)

    def write(name, page):
        target = args.out / f"{name}.html"
        target.write_text(page, encoding="utf-8")
        print(target, f"{target.stat().st_size / 2**20:.1f} MiB", flush=True)
        if args.pdf:
            with chromium() as browser:
                print_pdf(browser, target)
            print(target.with_suffix(".pdf"), flush=True)

    copies = {}
    for path in lessons:
        copies[number(path)] = notebook = (nbformat.read(args.executed / path.name, as_version=4) if args.executed
                                           else executed_copy(path, FOLDER / "build"))
        write(path.stem, deck(notebook, speaker_notes(NOTES / f"{number(path)}.md")))
    if not args.notebooks:
        write("guest", guest_deck(copies))
    titles = {path.stem: re.search(r"<title>(.*?)</title>", path.read_text(encoding="utf-8"))[1]
              for path in [*sorted(args.out.glob("[0-9]*.html")), *args.out.glob("guest.html")]}
    if "guest" in titles:
        titles["guest"] = f"Guest lecture: {titles['guest']}"
    (args.out / "index.html").write_text(index(titles), encoding="utf-8")
    print(f"Open {args.out / 'index.html'} in a browser. To take it along, copy the whole folder.")


if __name__ == "__main__":
    main()
