"""Three floors, and imports only go down.

    classroom, and the command line                    may use everything
    models, datasets, training, metrics, weights, ...  neither the classroom nor plots and widgets
    schedules, forward, samplers, guidance, ideal      torch, the standard library and each other
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "diffusion_lessons"
GROUND = {"schedules", "forward", "samplers", "guidance", "ideal"}
TOP = {"classroom", "commands", "__main__"}
UPSTAIRS = {"matplotlib", "ipywidgets", "IPython"}  # belong to the classroom


def floor_of(module):
    """0 for the ground floor, 2 for the top one, 1 for all between. module: "models.unet", say."""
    first = module.split(".")[0]
    return 0 if first in GROUND else 2 if first in TOP else 1


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
        elif floor < 2 and first in UPSTAIRS:
            bad.append(f"{name} belongs to the classroom")
        elif floor == 0 and first != "torch" and first not in sys.stdlib_module_names:
            bad.append(f"{name}: the ground floor needs torch alone")
    return bad


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_only_go_down(path):
    found = complaints(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    assert not found, "; ".join(found)


def test_the_ground_floor_is_complete():
    assert {module_name(path) for path in MODULES} >= GROUND


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("forward", "import numpy as np"),
        ("forward", "from .weights import load"),
        ("samplers", "from . import training"),
        ("samplers", "def f():\n    from diffusion_lessons.models.unet import UNet"),
        ("guidance", "import diffusion_lessons.classroom.plots"),
        ("models.unet", "from ..classroom import plots"),
        ("training", "import matplotlib.pyplot as plt"),
        ("training", "from diffusion_lessons import commands"),
        ("datasets.digits", "from IPython.display import display"),
    ],
)
def test_the_rule_catches(module, source):
    assert complaints(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("forward", "import math, torch\nfrom .schedules import Schedule"),
        ("models.unet", "import numpy\nfrom ..forward import from_v\nfrom . import denoiser"),
        ("classroom.plots", "import matplotlib\nfrom ..models import unet\nfrom . import widgets"),
    ],
)
def test_the_rule_allows(module, source):
    assert complaints(source, module) == []
