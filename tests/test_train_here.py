"""Training inside a notebook: it says how long, can be stopped, and resumes where it was."""

import signal

import pytest
import torch

from diffusion_lessons import training
from diffusion_lessons.classroom.train_here import train_here
from diffusion_lessons.datasets import ring
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.mlp import ToyMLP
from diffusion_lessons.schedules import cosine
from diffusion_lessons.training import recipes


def trainer(steps=30):
    torch.manual_seed(0)
    return training.Trainer(Denoiser(ToyMLP(), cosine(100)), ring(500), steps=steps, batch=16)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_gives_what_a_training_gives_and_says_how_long(tmp_path, capsys):
    made = train_here(trainer(), "points", tmp_path)
    assert same(made, training.run(trainer()))
    said = "".join(capsys.readouterr())
    assert "points: started, and will take about 0.0 minutes" in said
    assert (tmp_path / "points-30.pt").exists()
    again = trainer()
    assert same(train_here(again, "points", tmp_path), made)        # at once: it is all there
    assert again.step == 30


def test_the_stop_button_loses_nothing(tmp_path, capsys, monkeypatch):
    stopped, run = trainer(), training.run

    def run_and_stop(one, path, callback):
        def stop_at_12(step):
            callback(step)
            if step.step == 12:
                signal.raise_signal(signal.SIGINT)
        return run(one, path, callback=stop_at_12)

    monkeypatch.setattr(training, "run", run_and_stop)
    half = train_here(stopped, "points", tmp_path)
    assert stopped.step == 12
    assert same(half, stopped.ema)
    assert "stopped after 12 of 30 steps" in capsys.readouterr().out
    monkeypatch.setattr(training, "run", run)
    on = trainer()
    whole = train_here(on, "points", tmp_path)
    assert "points: resumed" in "".join(capsys.readouterr())
    assert on.step == 30
    assert same(whole, training.run(trainer()))


def test_another_training_of_that_name_is_not_mixed_in(tmp_path):
    train_here(trainer(), "points", tmp_path)
    other = training.Trainer(Denoiser(ToyMLP(), cosine(100)), ring(500), steps=30, batch=32)
    with pytest.raises(ValueError, match="batch"):
        train_here(other, "points", tmp_path)


def test_a_gan_is_trained_alike(tmp_path):
    recipe = recipes.replace(recipes.POINT_GANS["healthy"], steps=8)
    made = train_here(recipes.gan(recipe, ring(500)), "gan", tmp_path)
    assert same(made, training.run(recipes.gan(recipe, ring(500))))
