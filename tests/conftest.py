"""For all tests: one thread and derandomised examples, so that a test gives the same answer every time."""

import os

# Kernels and other processes that a test starts inherit it: `make test` has a worker on each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import pytest
import torch
from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("course")


def pytest_collection_modifyitems(items):
    """The slow tests first, so that no worker is left with one at the end; of the lessons, the last ones are long."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def nobodys_progress(tmp_path, monkeypatch):
    """Tests solve exercises in nobody's name."""
    monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def g():
    """A generator that begins afresh in each test."""
    return torch.Generator().manual_seed(0)
