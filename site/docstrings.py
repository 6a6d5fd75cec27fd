"""The package's docstrings are plain text with formulas in ASCII; here they become reStructuredText and LaTeX."""

import re

GREEK = {"alpha", "beta", "eps", "eta", "sigma", "lambda", "pi", "mu"}
NAMES = {"alpha_bar": r"\bar\alpha", "ab": r"\bar\alpha", "eps": r"\epsilon", "x0": "x_0"}
FUNCTIONS = {"exp", "log", "cos", "sum", "prod", "softmax", "sigmoid", "tr", "mean"}
WORDS = {"mask", "data"}
OPERATORS = {"*": r"\cdot ", "<=": r"\le ", "-+": r"\mp ", "~": r"\sim ", "|": r"\vert ", "||": r"\Vert "}
TOKEN = re.compile(r"\s+|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*(?:_\{[^{}]*\})?|\d+(?:\.\d+)?|<=|-\+|\|\||\S")
SOURCE = re.compile(r"^(?P<formula>.*?)(?:\s{3,}(?P<source>\([^()]*(?:\d{4}|paper)[^()]*\)))?$")


def to_rst(text):
    """A docstring as reStructuredText: paragraphs, formulas by MathJax, examples as code, lines of shapes."""
    return "\n\n".join(paragraph(part) for part in re.split(r"\n\s*\n", text.strip("\n"))) + "\n"


def paragraph(part):
    """One paragraph: code if it is indented, else its lines, of which those that are formulas become displays."""
    lines = part.split("\n")
    if all(line.startswith("    ") for line in lines):
        return "\n".join([".. code-block:: python", "", *lines])
    blocks, prose = [], []
    for line in lines:
        found = SOURCE.match(line.rstrip())
        formula = latex(found["formula"]) if is_formula(found["formula"]) else None
        if formula is None:
            prose.append(line)
            continue
        blocks += [in_lines(prose)] * bool(prose) + [f".. math:: {formula}"]
        if found["source"]:
            blocks.append(escape(found["source"]))
        prose = []
    return "\n\n".join(blocks + [in_lines(prose)] * bool(prose))


def in_lines(lines):
    """Prose that may flow, or lines of shapes and errors, which stay apart."""
    if any(re.search(r"\S {2,}\S|^Raises |^\S[^.:]{0,40}: ", line) for line in lines):
        return "\n".join("| " + escape(line.strip()) for line in lines)
    return "\n".join(escape(line.strip()) for line in lines)


def escape(text):
    """Plain text, with `names` as code and nothing else that reStructuredText would read as a sign."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(rf"\ `{part}`\ " if part.startswith("`") and part.endswith("`") and len(part) > 2
                   else re.sub(r"([\\*`_|<>]|^[-+.:=\d#])", r"\\\1", part) for part in parts)


def is_formula(line):
    """Whether a line stands for itself as a formula, rather than as a part of a sentence."""
    return bool(re.match(r"\s*[\w{}^/()| -]+ [=~] |.*sqrt\(", line)) and not line.rstrip().endswith(".")


def latex(formula):
    """An ASCII formula as LaTeX, or None if it holds anything that is not surely mathematics."""
    parts, roots = [], []
    tokens = [token for token in TOKEN.findall(re.sub(r"\s{2,}", " @ ", formula.strip())) if not token.isspace()]
    for k, token in enumerate(tokens):
        following = tokens[k + 1] if k + 1 < len(tokens) else ""
        if token == "@":
            parts.append(r"\qquad ")
        elif token == "sqrt" and following == "(":
            parts.append(r"\sqrt")
        elif token == "(":
            roots.append(parts[-1:] == [r"\sqrt"])
            parts.append("{" if roots[-1] else "(")
        elif token == ")":
            if not roots:
                return None
            parts.append("} " if roots.pop() else ")")
        elif token[0].isalpha():
            name = identifier(token)
            if name is None:
                return None
            parts.append(name + " ")
        elif token == "^" and following == "-":
            return None
        else:
            parts.append(OPERATORS.get(token, token))
    return None if roots else "".join(parts).strip()


def identifier(token):
    """A name as LaTeX: alpha_bar_t, x0_hat, x_{t-1}, eps_cond; None if it is a word."""
    base, *rest = re.split(r"_(?![^{]*\})", token)
    if base == "alpha" and rest[:1] == ["bar"]:
        base, rest = "alpha_bar", rest[1:]
    hat = rest[:1] == ["hat"]
    rest = rest[hat:]
    if len(rest) > 1:
        return None
    if base in FUNCTIONS:
        name = rf"\operatorname{{{base}}}" if base not in ("exp", "log", "cos", "sum", "prod") else rf"\{base}"
    elif base in WORDS:
        name = rf"\text{{{base}}}\,"
    elif base in NAMES or base in GREEK:
        name = NAMES.get(base, rf"\{base}")
    elif len(base) == 1:
        name = base
    else:
        return None
    if hat:
        name = rf"\hat{{{name}}}" if name != "x_0" else r"\hat{x}_0"
    if not rest:
        return name
    below = rest[0].strip("{}").replace("<=", r"\le ")
    if name.endswith("_0"):
        return None
    return f"{name}_{{{below}}}" if len(below) == 1 or not below.isalpha() else rf"{name}_{{\text{{{below}}}}}"
