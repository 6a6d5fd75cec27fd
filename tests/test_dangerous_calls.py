"""Nothing in the package runs code from a file, starts a shell or asks the network, but where it is meant to.

A call is looked up in the syntax tree, under the name that its import gives it. What is hidden on purpose is not found.
"""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults
PACKAGE = Path(__file__).resolve().parent.parent / "diffusion_lessons"

# To compile runs nothing.
CODE = {"eval", "exec", "__import__", "builtins.eval", "builtins.exec", "importlib.import_module", "runpy", "code"}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas.read_pickle"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
          "IPython.get_ipython.system"}
NETWORK = {"urllib.request", "urllib.urlopen", "http.client", "http.server", "requests", "httpx", "aiohttp", "urllib3",
           "socket", "ftplib", "smtplib", "xmlrpc", "telnetlib", "webbrowser", "torch.hub", "huggingface_hub",
           "torchvision.datasets.utils", "fsspec", "gdown", "wget"}
KINDS = {"code": CODE, "pickle": PICKLES, "shell": SHELLS, "network": NETWORK}

# {(file, function): what it may do, and does}
MEANT = {
    ("datasets/files.py", "read_url"): {"network"},                     # a time and a size for each archive
    ("datasets/files.py", "fetch"): {"network"},                        # torchvision only unpacks what read_url got
    ("datasets/files.py", "answers.ask"): {"network"},                  # reads no body
    ("pipelines/published.py", "download"): {"network"},                # what the hub has, within a time
    ("pipelines/published.py", "download.fetch"): {"network"},          # room and size are checked first; within a time
    # The learner's own code, in the sandbox's process, which holds nothing.
    ("grading/worker.py", "Worker.load"): {"code"},
    ("grading/worker.py", "Worker.run"): {"code"},
    ("grading/worker.py", "Shell.run_line_magic"): {"code"},
}


def aliases(tree):
    """{name in this file: what it was imported as}"""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                found[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def full_name(node, names):
    """ "urllib.request.urlopen" for the function that is called, "" for what has no name"""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def is_constant(call, keyword, value):
    """Is that keyword given, with this very value?"""
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def kinds_of(call, names):
    """What a call does of the kinds that are watched."""
    name = full_name(call.func, names)
    kinds = {kind for kind, known in KINDS.items() if any(name == one or name.startswith(f"{one}.") for one in known)}
    if any(k.arg == "shell" for k in call.keywords) and not is_constant(call, "shell", False):
        kinds.add("shell")
    if name == "torch.load" and not is_constant(call, "weights_only", True):
        kinds.add("pickle")
    if name == "numpy.load" and not is_constant(call, "allow_pickle", False):
        kinds.add("pickle")
    if name.endswith("from_pretrained"):
        kinds.add("network")
    if any(k.arg == "download" for k in call.keywords) and not is_constant(call, "download", False):
        kinds.add("network")
    return kinds


def findings(source):
    """{(function, kind)} of a file; "" is the function of its top level"""
    tree = ast.parse(source)
    names, found = aliases(tree), set()

    def look(node, place):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            place = f"{place}.{node.name}" if place else node.name
        if isinstance(node, ast.Call):
            found.update((place, kind) for kind in kinds_of(node, names))
        for child in ast.iter_child_nodes(node):
            look(child, place)

    look(tree, "")
    return found


def test_only_where_it_is_meant():
    found, files = {}, sorted(PACKAGE.rglob("*.py"))
    for path in files:
        for place, kind in findings(path.read_text(encoding="utf-8")):
            found.setdefault((path.relative_to(PACKAGE).as_posix(), place), set()).add(kind)
    assert len(files) > 50
    assert found == MEANT    # what is not used any more leaves the list, too


@pytest.mark.parametrize("source, kind", [
    ("eval(x)", "code"), ("exec(x)", "code"), ("import builtins as b\nb.exec(x)", "code"),
    ("from importlib import import_module as get\nget(x)", "code"),
    ("import pickle\npickle.load(f)", "pickle"), ("from pickle import loads as l\nl(x)", "pickle"),
    ("import torch\ntorch.load(f)", "pickle"), ("import torch\ntorch.load(f, weights_only=False)", "pickle"),
    ("import torch\ntorch.load(f, weights_only=safe)", "pickle"), ("from torch import load\nload(f)", "pickle"),
    ("import numpy as np\nnp.load(f)", "pickle"), ("import numpy as np\nnp.load(f, allow_pickle=True)", "pickle"),
    ("import os\nos.system(x)", "shell"), ("import subprocess\nsubprocess.run(x, shell=True)", "shell"),
    ("import subprocess as s\ns.Popen(x, shell=yes)", "shell"),
    ("import urllib.request\nurllib.request.urlopen(u)", "network"),
    ("from urllib.request import urlretrieve as get\nget(u)", "network"),
    ("import urllib.request as r\nr.urlopen(u)", "network"),
    ("from urllib import request\nrequest.urlopen(u)", "network"),
    ("import requests\nrequests.get(u)", "network"), ("import socket\nsocket.create_connection(a)", "network"),
    ("import torch\ntorch.hub.load(a, b)", "network"),
    ("from torch.hub import load_state_dict_from_url\nload_state_dict_from_url(u)", "network"),
    ("from torchvision.datasets import MNIST\nMNIST(f, download=True)", "network"),
    ("from huggingface_hub import snapshot_download\nsnapshot_download(n)", "network"),
    ("from transformers import CLIPModel\nCLIPModel.from_pretrained(n)", "network"),
])
def test_each_kind_is_seen(source, kind):
    assert findings(source) == {("", kind)}
    inside = "class A:\n    def f(self):\n" + "".join(f"        {line}\n" for line in source.splitlines())
    assert findings(inside) == {("A.f", kind)}


@pytest.mark.parametrize("source", [
    "net.eval()", "import torch\ntorch.load(f, weights_only=True)",
    "import numpy as np\nnp.load(f, allow_pickle=False)",
    "import ast\nast.literal_eval(x)", "import subprocess\nsubprocess.run([a])", "dataset(f, download=False)",
    "subprocess.run(a, shell=False)", "import re\nre.compile(x)"])
def test_what_is_safe_is_left_alone(source):
    assert findings(source) == set()
