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
    """Slow tests first, for each of two workers: they get a half of the tests each, and steal from each other."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    cut = max(0, len(items) // 2 - len(slow[::2]))
    items[:] = slow[::2] + rest[:cut] + slow[1::2] + rest[cut:]


@pytest.fixture(autouse=True)
def nobodys_progress(tmp_path, monkeypatch):
    """Tests solve exercises in nobody's name."""
    monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def g():
    """A generator that begins afresh in each test."""
    return torch.Generator().manual_seed(0)
