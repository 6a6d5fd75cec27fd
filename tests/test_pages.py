"""The course's pages: what is written for them fits the notebooks and the package. (tests/browser opens them.)"""

import importlib
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "site")]
import docstrings  # noqa: E402
import pages  # noqa: E402

PLAN = re.compile(r"^\| (?:(\d:\d\d) \| )?(\d+) \| ", re.MULTILINE)


@pytest.mark.parametrize(("ascii", "latex"), [
    ("x_t = sqrt(1 - beta_t) x_{t-1}", r"x_{t} =\sqrt{1-\beta_{t} } x_{t-1}"),
    ("x0_hat = (x_t - sqrt(1 - ab_t) eps) / sqrt(ab_t)",
     r"\hat{x}_0 =(x_{t} -\sqrt{1-\bar\alpha_{t} } \epsilon )/\sqrt{\bar\alpha_{t} }"),
    ("eps = eps_uncond + w (eps_cond - eps_uncond)",
     r"\epsilon =\epsilon_{\text{uncond}} +w (\epsilon_{\text{cond}} -\epsilon_{\text{uncond}} )"),
    ("weights = softmax(q k^T / sqrt(head_width))", None),      # a name that is no letter
    ("sqrt(ab_t", None),
])
def test_formulas_become_mathematics_or_stay_text(ascii, latex):
    assert docstrings.latex(ascii) == latex


def test_a_docstring_keeps_formula_source_shapes_and_signs_apart():
    said = docstrings.to_rst(
        "Jump to `t`s *at once*.\n\nx_t = sqrt(alpha_bar_t) x0          (Ho et al. 2020, eq. 4)\n\n"
        "x0: (B, C) in 0..1;  t_: (B,)  ->  (B, C)\nRaises ValueError when |x0| > 1.\n\n    add(x_t)\n")
    assert "\\ ``t``\\ s \\*at once\\*." in said
    assert ".. math:: x_{t} =\\sqrt{\\bar\\alpha_{t} } x_0\n\n(Ho et al. 2020, eq. 4)" in said
    assert "| x0: (B, C) in 0..1;  t\\_: (B,)  -\\>  (B, C)\n| Raises ValueError when \\|x0\\| \\> 1." in said
    assert ".. code-block:: python\n\n    add(x_t)" in said


def notebook(*cells):
    found = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for k, (source, *outputs) in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source, id=f"c{k}")
        cell.outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
        found.cells.append(cell)
    return found


def test_a_page_shows_results_and_stills_but_no_answers():
    view = {pages.WIDGET: {"model_id": "w"}}
    source = notebook(("plot()",), ("def f(): ...\ncheck('1.1', f)",), ("predict('1.a', '...')",), ("train()",))
    run = notebook(("plot()", {"text/html": "It was 2. You made no prediction; that is fine. Next time, guess first."}),
                   ("def f(): return 42\ncheck('1.1', f)", {"text/plain": "right: 42"}),
                   ("predict('1.a', '...')", view), ("train()", {pages.WIDGET: {"model_id": "bar"}}))
    state = {"w": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_q", "IPY_MODEL_a", "IPY_MODEL_b"]}},
             "q": {"model_name": "HTMLModel", "state": {"value": "<b>Which is</b> larger?"}},
             "a": {"model_name": "ButtonModel", "state": {"description": "a < b"}},
             "b": {"model_name": "ButtonModel", "state": {"description": "b"}},
             "bar": {"model_name": "HBoxModel", "state": {"children": ["IPY_MODEL_percent", "IPY_MODEL_p"]}},
             "percent": {"model_name": "HTMLModel", "state": {"value": "100%"}},
             "slider": {"model_name": "IntSliderModel", "state": {"description": "step", "value": 3}},
             "p": {"model_name": "FloatProgressModel", "state": {"description": "half"}}}
    run.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    page = pages.lesson_page(source, run)
    assert page.cells[0].outputs[0].data["text/html"] == "It was 2."
    assert (page.cells[1].source, page.cells[1].outputs) == (source.cells[1].source, [])
    card = page.cells[2].outputs[0].data["text/html"]
    assert "Your prediction?</b> Which is larger? <i>a &lt; b · b</i>" in card
    assert page.cells[3].outputs == []
    slider = nbformat.v4.new_output("display_data", {pages.WIDGET: {"model_id": "slider"}})
    assert "a widget stands here:</b> step<" in pages.still(slider, state).data["text/html"]
    said = nbformat.v4.new_output("stream", text="Weights in /home/ann/my lessons/diffusion_lessons/pretrained, a/b")
    assert pages.still(said, {}).text == "Weights in …/diffusion_lessons/pretrained, a/b"
    took = nbformat.v4.new_output("stream", text=f"Device: cpu\n{pages.minutes.sentence(100, 2)}\n")
    assert "this machine" not in pages.still(took, {}).text      # the reader's is another
    assert "with the weights that are included." in took.text
    with pytest.raises(ValueError, match="other cells"):
        pages.lesson_page(notebook(("a",)), run)


def test_sections_share_the_measured_time(monkeypatch, tmp_path):
    lesson = notebook(("x",), ("y",))
    for cell, (began, ended) in zip(lesson.cells, [("00:00:00", "00:00:01"), ("00:00:01", "00:00:04")]):
        cell.metadata["execution"] = {"iopub.execute_input": f"2026-01-01T{began}.0Z",
                                      "shell.execute_reply": f"2026-01-01T{ended}.0Z"}
    lesson.cells.insert(0, nbformat.v4.new_markdown_cell("# 02\n## 1 · One"))
    lesson.cells.insert(2, nbformat.v4.new_markdown_cell("## 2 · Two"))
    (tmp_path / "minutes.json").write_text('{"seconds": {"02": 40}}')
    monkeypatch.setattr(pages.minutes, "FILE", tmp_path / "minutes.json")
    assert pages.section_seconds({"02": lesson}) == {"02/1": ("One", 10.0), "02/2": ("Two", 30.0)}


def test_every_term_of_the_glossary_is_in_a_notebook_where_it_says():
    names = [entry["term"].casefold() for entry in pages.glossary_terms()]
    assert len(names) == len(set(names)) > 70
    where = {}
    for entry in pages.glossary_terms():
        assert entry["says"].strip().endswith("."), entry["term"]
        path, section, earliest, explained = pages.first_met(entry)      # raises when no notebook has it
        text = "\n".join(cell.source for cell in pages.read(path).cells)
        assert not section or f"## {section}\n" in text + "\n"
        assert pages.lessons().index(earliest) <= pages.lessons().index(path), entry["term"]
        assert explained or path == earliest, entry["term"]
        where[entry["term"]] = (pages.number(path), section, pages.number(earliest))
    assert where["mode collapse"] == ("01", "3 · Mode collapse", "00")    # lesson 00 names it on its map
    assert where["cross-attention"][0] == "05"
    page = pages.glossary()
    assert re.search(r"^mode collapse\n: .*>First used in \[00\].*, explained in \[01\]", page, re.MULTILINE)
    assert re.search(r"^token\n: .*>Explained in \[05\]", page, re.MULTILINE)
    assert re.search(r"^batch\n: .*>First used in \[01\]", page, re.MULTILINE)
    assert where["schedule"][0] == "00"      # the map has the word first
    assert where["prediction type"][0] == "03"
    assert where["autoencoder"][:2] == ("07", "2 · The autoencoder")
    assert where["self-attention"][0] == "05"    # lesson 07 has it in bold again
    with pytest.raises(ValueError, match="no notebook has"):
        pages.first_met({"term": "flux capacitor"})


def test_the_standard_terms_are_in_the_glossary():
    known = {word.casefold() for entry in pages.glossary_terms()
             for word in (entry["term"], entry["term"].split(" (")[0], *entry.get("also", []))}
    assert known >= {
        "token", "x_t", "x_0", "eps", "embedding", "sample", "step", "batch", "loss", "mnist",
        "prediction_type", "timesteps", "cfgdenoiser", "unconditional", "ema", "conditioning dropout", "prompt",
        "minibatch standard deviation", "attribute accuracy", "nearest neighbours", "skip connections", "vocab", "bos",
        "token embedding", "position embedding", "attention weights", "eos", "pooled", "null condition", "tokenizer",
        "cross-attention", "time embedding", "label embedding", "mode", "classifier", "slerp",
        "latents", "latent diffusion", "autoencoder", "vae", "scale factor", "clip", "byte-pair encoding", "img2img",
    }


def test_labels_of_claims_are_explained_where_they_are_first_met():
    said = "\n".join(cell.source for path in pages.lessons() for cell in pages.read(path).cells)
    groups = re.findall(r"(?:\(|# )((?:[A-Z]\d(?:, | and |\b))+)[,):.]", said)
    used = set(re.findall(r"[A-Z](?=\d)", " ".join(groups)))
    first = pages.read(pages.lessons()[0])
    explained = next(cell.source for cell in first.cells if cell.source.startswith("## The map"))
    subjects = re.search(r"such as \(D2\): .*?\((.*?)\)", explained)[1]
    assert len(used) > 5
    assert used <= {subject[0] for subject in subjects.split(", ")}


def test_every_page_leads_to_how_to_install():
    index = (ROOT / "site/index.md").read_text("utf-8")
    assert re.search(r"^```{toctree}[^`]*^install$", index, re.MULTILINE)      # the navigation of all pages
    assert "make lab" in pages.start()
    assert "conda env create" in pages.start()


def test_the_map_leads_to_functions_and_lessons_that_exist():
    table = pages.map_table()
    targets = re.findall(r"\{py:obj\}`[^`]+ <([\w.]+)>`", table)
    assert len(targets) > 8
    for target in targets:
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name), target
        assert module.removeprefix("diffusion_lessons.") in pages.modules()
    linked = re.findall(r"\(lessons/(\w+\.ipynb)\)", table)
    assert len(linked) == len(table.splitlines()) - 2
    assert all((pages.NOTEBOOKS / name).exists() for name in linked)


def test_pages_ask_only_for_what_there_is_and_mention_every_lesson():
    seconds = {f"{pages.number(path)}/{title.split(' · ')[0]}": (title, 1.0) for path in pages.lessons()
               for title, _ in pages.sections(pages.read(path)) if " · " in title}
    for page in sorted((ROOT / "site").glob("*.md")):
        text = pages.fill(page.read_text("utf-8"), pages.PIECES, seconds)
        assert "{{" not in text, page.name
        for name in re.findall(r"\(lessons/([\w.]+)\)", text):
            assert (pages.NOTEBOOKS / name).exists(), name
        if page.stem in ("index", "exercises"):
            assert all(path.name in text or pages.number(path) == "00" for path in pages.lessons()), page.name
    with pytest.raises(ValueError, match="no piece and no section"):
        pages.fill("{{ 02/99 }}", pages.PIECES, seconds)
    assert pages.fill("{{ wait/02/1 }}", {}, {"02/1": ("x", 7.0)}) == "10 s"


def test_the_lecturers_plans_fit_their_time():
    text = (ROOT / "site/lecturer.md").read_text("utf-8")
    lectures = re.split(r"^### (?:Lecture \d|An eighth hour)", text.split("## A workshop")[0], flags=re.MULTILINE)[1:]
    assert len(lectures) == 7 + 1
    for lecture in lectures:
        assert 43 <= sum(int(minutes) for _, minutes in PLAN.findall(lecture)) <= 45    # and five for questions
    workshop = PLAN.findall(text.split("## A workshop")[1].split("## A guest")[0])
    clock = 0
    for at, minutes in workshop:
        assert at == f"{clock // 60}:{clock % 60:02}"
        clock += int(minutes)
    assert clock == 180
    guest = PLAN.findall(text.split("## A guest")[1].split("## Live")[0])
    assert sum(int(minutes) for _, minutes in guest) == 90


def test_the_plan_and_the_speakers_notes_agree_about_minutes():
    plan = (ROOT / "site/lecturer.md").read_text("utf-8").split("## A workshop")[0]
    rows = re.findall(r"^\| (\d+) \| {{ (\w+)/(\d+) }} \|", plan, re.MULTILINE)
    assert len(rows) > 40
    for minutes, lesson, section in rows:
        notes = (ROOT / f"docs/notes/{lesson}.md").read_text("utf-8")
        alone = re.search(rf"^## {section} · .*\n\n\*\*(\d+) min", notes, re.MULTILINE)[1]
        assert abs(int(minutes) - int(alone)) <= 2, f"lesson {lesson}, section {section}"


def test_workflows_run_what_the_course_has():
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    matrix = tests["jobs"]["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    assert matrix["python"][0] == oldest
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for name in ("tests", "pages"):
        workflow = (ROOT / f".github/workflows/{name}.yml").read_text("utf-8")
        for target in re.findall(r"run: make ([\w-]+)", workflow):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "path: build/site/html" in (ROOT / ".github/workflows/pages.yml").read_text("utf-8")
