"""For all tests: one thread and derandomised examples, so that a test gives the same answer every time."""

import os

# Kernels and other processes that a test starts inherit it: `make test` has a worker on each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import pytest
import torch
from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("course")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Each worker begins with its share of the slow tests, the longest first, so that none is left for the end.

    xdist hands the first of n workers the first 1/n of the tests, the second the first 1/(n - 1) of the others, ...
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    sizes = [(len(items) + k) // workers for k in range(workers)]
    shares = [[] for _ in range(workers)]
    for item in sorted(items, key=seconds, reverse=True):
        free = [k for k in range(workers) if len(shares[k]) < sizes[k]]
        if seconds(item):
            shares[min(free, key=lambda k: sum(map(seconds, shares[k])))].append(item)
        else:
            shares[free[0]].append(item)
    items[:] = [item for share in shares for item in share]


def seconds(item):
    """How long a slow test takes, about: 0 for any other."""
    slow = item.get_closest_marker("slow")
    return slow.kwargs.get("seconds", 20) if slow else 0


@pytest.fixture(autouse=True)
def nobodys_progress(tmp_path, monkeypatch):
    """Tests solve exercises in nobody's name."""
    monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def g():
    """A generator that begins afresh in each test."""
    return torch.Generator().manual_seed(0)
