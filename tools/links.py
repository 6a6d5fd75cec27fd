"""Write what depends on the course's place on the web: links to Colab, and the first cell of every notebook.

    make links REPO=owner/name                 the same as  python tools/links.py --repo owner/name
    make links REPO=owner/name BRANCH=trunk    where the branch is not main
    make links                                 again as it was: for new notebooks
    make links REPO=                           back to the state where no repository is named

Writes REPO and BRANCH into diffusion_lessons/classroom/colab.py, and from them the notebooks and the README.
Calling it twice changes nothing. Needs nothing but Python.
"""

import argparse
import json
import re
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = "[Open in Colab](https://colab.research.google.com/"
BEGIN, END = "<!-- links to Colab: make links writes them -->", "<!-- end of the links -->"
UNSET = """\
Upload a notebook and run its first cell, which tells you what to fill in. `make links REPO=owner/name` fills it in for
good, and adds a link for each notebook, here and in the notebook itself."""


def rewritten(root, repo=None, branch=None):
    """All files that would change, {path: new text}. repo, branch: None for what colab.py says now

    Raises ValueError when a name or a file is not as it should be.
    """
    home = root / "diffusion_lessons" / "classroom" / "colab.py"
    colab = runpy.run_path(str(home))
    repo = colab["REPO"] if repo is None else repo
    branch = branch or colab["BRANCH"]
    check(repo, branch)

    paths = sorted((root / "notebooks").glob("*.ipynb"))
    links = {path.name: colab["link"](repo, branch, path.name) if repo else "" for path in paths}
    cell = colab["first_cell"](colab["address"](repo, branch))
    texts = {path: notebook(path.read_text(encoding="utf-8"), links[path.name], cell, path) for path in paths}
    texts[home] = settings(home.read_text(encoding="utf-8"), repo, branch)
    texts[root / "README.md"] = readme((root / "README.md").read_text(encoding="utf-8"), links)
    return {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}


def check(repo, branch):
    """Raise ValueError unless repo is empty or owner/name, and branch the name of a branch."""
    if repo and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", repo):
        raise ValueError(f"REPO must be owner/name, as in the address github.com/owner/name; {repo!r} is not")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", branch):
        raise ValueError(f"BRANCH must be the name of a branch, like main; {branch!r} is not")


def notebook(text, link, cell, path):
    """A notebook with the link under its title, or without one if link is "", and with this first code cell."""
    nb = json.loads(text)
    title = nb["cells"][0]
    first = next(c for c in nb["cells"] if c["cell_type"] == "code")
    if title["cell_type"] != "markdown" or not title["source"][0].startswith("# "):
        raise ValueError(f"{path}: its first cell must be text that begins with the title, '# ...'")
    title["source"] = linked(title["source"], link)
    first["source"] = cell.rstrip("\n").splitlines(keepends=True)
    return json.dumps(nb, indent=1, ensure_ascii=False) + "\n"


def linked(lines, link):
    """The lines of the title's cell with the link as the third, and an empty line after it."""
    if lines[2:3] and lines[2].startswith(LINK):
        lines = lines[:2] + lines[4:]
    return [*lines[:2], f"[Open in Colab]({link})\n", "\n", *lines[2:]] if link else lines


def settings(text, repo, branch):
    """The text of colab.py with these two values."""
    for name, value in (("REPO", repo), ("BRANCH", branch)):
        text, count = re.subn(rf'^{name} = "[^"]*"', f'{name} = "{value}"', text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f'colab.py must have one line {name} = "..."; it has {count}')
    return text


def readme(text, links):
    """The README with the links of all notebooks between the two marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must have these two lines once: {BEGIN} and {END}")
    rows = [f"- [{name.removesuffix('.ipynb')}]({link})" for name, link in links.items() if link]
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return "\n".join([f"{before}{BEGIN}", *(rows or [UNSET]), f"{END}{after}"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Write the links to Colab and the notebooks' first cells.")
    parser.add_argument("--repo", help="owner/name on GitHub, or nothing to take the links out again")
    parser.add_argument("--branch", help="the branch that the links lead to")
    parser.add_argument("--root", type=Path, default=ROOT, help="the course's folder")
    options = parser.parse_args(arguments)
    try:
        texts = rewritten(options.root, options.repo, options.branch)
    except ValueError as error:
        print(f"{error}. Nothing was written.", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"written: {path.relative_to(options.root)}")
    print("All links and first cells are as they should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
