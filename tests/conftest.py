"""For all tests: one thread and derandomised examples, so that a test gives the same answer every time."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("course")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nobodys_progress(tmp_path, monkeypatch):
    """Tests solve exercises in nobody's name."""
    monkeypatch.setenv("DIFFUSION_LESSONS_PROGRESS", str(tmp_path / "progress.json"))


@pytest.fixture
def g():
    """A generator that begins afresh in each test."""
    return torch.Generator().manual_seed(0)
