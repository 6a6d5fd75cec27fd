"""Imports only go down, from floor to floor; the folder says which floor a module stands on.

    3  classroom, exercises, grading, cli    what learners, lecturers and the command line use
    2  pipelines, evaluation, training       what is done with networks
    1  models, datasets, and services        networks, data, weights on disk; not the classroom's plots and widgets
    0  the ideas                             every other module at the root: torch, the standard library, each other
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "diffusion_lessons"
FLOORS = {"models": 1, "datasets": 1, "training": 2, "evaluation": 2, "pipelines": 2,
          "classroom": 3, "exercises": 3, "grading": 3, "cli": 3, "__main__": 3, "": 3}    # "" is __init__
SERVICES = {"checks", "distributed", "images", "runtime", "weights"}    # modules at the root that are no ideas
UPSTAIRS = {"matplotlib", "ipywidgets", "IPython"}           # belong to the classroom, the exercises
SHOWN = {"classroom", "exercises", "grading"}    # grading reads what IPython reads


def floor_of(module):
    """The floor of a module such as "models.unet"; a module at the root is an idea unless it is a service."""
    first = module.split(".")[0]
    return FLOORS.get(first, 1 if first in SERVICES else 0)


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, module, is_package=False):
    """The absolute names of what a module imports, at its top and within its functions."""
    found = set()
    package = ["diffusion_lessons", *filter(None, module.split("."))]
    if not is_package:
        package = package[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            # `from . import forward` names a module, `from .forward import add_noise` a thing in one.
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def complaints(source, module, is_package=False):
    """What this module must not import."""
    floor, bad = floor_of(module), []
    for name in sorted(imports(source, module, is_package)):
        first, _, rest = name.partition(".")
        if first == "diffusion_lessons":
            if floor_of(rest) > floor:
                bad.append(f"{name} stands on a higher floor")
        elif first in UPSTAIRS and module.split(".")[0] not in SHOWN:
            bad.append(f"{name} belongs to the classroom")
        elif floor == 0 and first != "torch" and first not in sys.stdlib_module_names:
            bad.append(f"{name}: the ground floor needs torch alone")
    return bad


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_only_go_down(path):
    found = complaints(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    assert not found, "; ".join(found)


def test_every_folder_has_a_floor():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(FLOORS) - {"__main__", ""}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("forward", "import numpy as np"),
        ("forward", "from .weights import load"),
        ("samplers", "from . import training"),
        ("samplers", "def f():\n    from diffusion_lessons.models.unet import UNet"),
        ("guidance", "import diffusion_lessons.classroom.plots"),
        ("models.unet", "from ..classroom import plots"),
        ("training.base", "import matplotlib.pyplot as plt"),
        ("training.base", "from diffusion_lessons.cli import commands"),
        ("models.unet", "from diffusion_lessons.training import Trainer"),
        ("denoiser", "from diffusion_lessons import weights"),
        ("cli.doctor", "import matplotlib"),
        ("datasets.digits", "from IPython.display import display"),
    ],
)
def test_the_rule_catches(module, source):
    assert complaints(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("forward", "import math, torch\nfrom .schedules import Schedule"),
        ("models.unet", "import numpy\nfrom ..forward import from_v\nfrom .. import denoiser"),
        ("classroom.plots", "import matplotlib\nfrom ..models import unet\nfrom . import widgets"),
    ],
)
def test_the_rule_allows(module, source):
    assert complaints(source, module) == []
