"""Several processes train and sample as one process does; alone, nothing changes. (Two processes, gloo, on the CPU.)"""

import os
import subprocess
import sys
from pathlib import Path

import killable_run
import pytest
import torch
from killable_run import trainer
from test_training import everything, same

from diffusion_lessons import cli, distributed, training, weights
from diffusion_lessons.pipelines.text_to_image import sample_images
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.training.base import previous_of

ROOT = Path(__file__).resolve().parent.parent
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
needs_gloo = pytest.mark.skipif(os.name == "nt" or not torch.distributed.is_available(), reason="needs gloo")


@pytest.fixture
def several(monkeypatch):
    """A function that makes this process one of several, as far as a trainer can see."""
    def become(rank, world):
        monkeypatch.setattr(training.base, "rank", lambda: rank)
        monkeypatch.setattr(training.base, "world", lambda: world)

    return become


@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_all_processes_are_the_batch_of_one(world, several):
    t = trainer(3)
    whole = t.sample_batch(t.step_generator(1))
    for rank in range(world):
        several(rank, world)
        t = trainer(3)
        for share, all_rows in zip(t.sample_batch(t.step_generator(1)), whole, strict=True):
            assert torch.equal(share, all_rows[rank::world])


def test_a_batch_that_cannot_be_shared_is_refused(several):
    several(0, 3)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 8 evenly: choose a multiple of 3"):
        trainer(3)


def test_alone_everything_is_as_before():
    x = torch.randn(3)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.mean(x) is x
    assert distributed.wrapped(net := torch.nn.Linear(2, 2)) is net
    assert distributed.gather(x)[0] is x
    assert (distributed.any_of(False), distributed.any_of(True), distributed.from_first(7)) == (False, True, 7)
    with distributed.joined(), distributed.first_goes_first():
        assert not distributed.together()


def test_without_accelerate_several_processes_are_told_what_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert cli.main(["train", "digits", "--steps", "1"]) == 1
    assert "several processes need the package accelerate: pip install accelerate" in capsys.readouterr().err


def predictions(weights):
    """What a network with these weights makes of some noise.

    (Weights alone are no measure: the gradient of a bias in front of a normalisation is 0 up to rounding, and Adam
    makes steps of the usual size of it, in any direction. The output does not depend on such a bias.)
    """
    denoiser, g = killable_run.denoiser(), torch.Generator().manual_seed(0)
    denoiser.load_state_dict(weights)
    x = torch.randn(20, 1, 8, 8, generator=g)
    with torch.no_grad():
        return torch.stack(denoiser.eval()(x, torch.arange(5, 105, 5), torch.arange(20) % 2))


def close(a, b):
    """Is it the same network, up to 1e-4 of noise of size 1?"""
    return (predictions(a) - predictions(b))[0].abs().max() < 1e-4


@needs_gloo
@pytest.mark.slow
def test_two_processes_continue_sample_and_stop_as_one_process_with_the_same_batch(tmp_path):
    """The batch of 16 is 8 for each of the two. Rounding is the only difference: 1e-4 of losses and outputs."""
    alone, losses, path = trainer(6, batch=16), [], tmp_path / "run.pt"
    for step in alone:
        losses.append(step.loss)
        if step.step == 2:
            training.save_checkpoint(path, alone)
    processes = [subprocess.Popen([sys.executable, killable_run.__file__, "--together", str(tmp_path), str(rank)],
                                  env=ENVIRON, stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for process in processes:
        words = process.communicate(timeout=500)[1]
        assert process.returncode == 0, words
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))

    assert one["losses"] == two["losses"]
    assert one["losses"] == pytest.approx(losses[2:], rel=1e-4)
    assert same(everything(one["state"]), everything(two["state"]))
    assert close(one["state"]["weights"], alone.state_dict()["weights"])

    assert same(everything(torch.load(path, weights_only=True)), everything(one["state"]))    # the first one wrote it
    again = trainer(6, batch=16)
    again.load_state_dict(torch.load(previous_of(path), weights_only=True))    # after step 4, by two processes
    assert again.step == 4
    training.run(again)
    assert close(again.state_dict()["weights"], alone.state_dict()["weights"])

    alone.ema.load_state_dict(one["state"]["ema"])
    samples = sample_images(alone.ema, torch.arange(10) % 2, (1, 8, 8), sampler=SamplerSettings(steps=3), seed=1)
    for found in (one, two):
        torch.testing.assert_close(found["samples"], samples, rtol=0, atol=1e-5)

    assert (one["stopped"], two["stopped"]) == (2, 2)    # Ctrl-C at the second alone stops both, after the same step
    assert torch.load(tmp_path / "stopped.pt", weights_only=True)["step"] == 2


@needs_gloo
@pytest.mark.long
def test_accelerate_launch_trains_evaluates_and_generates_as_one_process(tmp_path):
    """The whole command line, two processes against one: the same weights to 2e-3, the same digits to a grey level."""
    pytest.importorskip("accelerate")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "diffusion_lessons"]
    train = ["train", "digits", "--source", "synthetic", "--steps", "4", "--batch", "4"]

    def run(folder, *command):
        (tmp_path / folder).mkdir(exist_ok=True)
        ran = subprocess.run([sys.executable, *command], cwd=tmp_path / folder, env=ENVIRON, capture_output=True,
                             text=True, timeout=600)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    said = run("two", *launch, *train)
    run("one", "-m", "diffusion_lessons", *train)
    assert said.count("trained for 4 steps") == 1
    one, two = (weights.load(tmp_path / folder / "outputs" / "digits.safetensors")[0] for folder in ("one", "two"))
    assert all((one[name] - two[name]).abs().max() < 2e-3 for name in one)
    assert "step 4 of 4" in run("two", "-m", "diffusion_lessons", *train)    # one process resumes what two have done

    sample = ["generate", "7", "--count", "30", "--steps", "2", "--out", "sevens.npz"]
    run("two", *launch, *sample)
    run("one", "-m", "diffusion_lessons", *sample)
    import numpy as np

    x, y = (np.load(tmp_path / folder / "sevens.npz")["x"].astype(int) for folder in ("one", "two"))
    assert abs(x - y).max() <= 1
    evaluate = ["evaluate", "digits", "--count", "70", "--steps", "2"]
    assert run("two", *launch, *evaluate) == run("one", "-m", "diffusion_lessons", *evaluate)
