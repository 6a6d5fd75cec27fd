"""Training: what is drawn, what is learned, and that nothing is lost when it is broken off."""

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import killable_run
import pytest
import torch
from killable_run import denoiser, pictures, trainer
from torch import nn

from diffusion_lessons import samplers, training
from diffusion_lessons.datasets import to_float
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.models.classifiers import Classifier
from diffusion_lessons.models.unet import time_embedding
from diffusion_lessons.runtime import atomic_write
from diffusion_lessons.samplers import PerSampleNoise, sample
from diffusion_lessons.schedules import make_schedule
from diffusion_lessons.training import Trainer, load_checkpoint, run, save_checkpoint
from diffusion_lessons.training.base import lr_factor
from diffusion_lessons.training.classifier import ClassifierTrainer, fresh_critters, shifted_digits


def everything(run):
    """All that a run has learned or keeps, as one flat dict of tensors."""
    found = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, v in value.items():
                walk(f"{name}.{key}", v)
        elif isinstance(value, list):
            walk(name, dict(enumerate(value)))
        elif isinstance(value, torch.Tensor):
            found[name] = value.detach().clone()
        elif isinstance(value, int | float):
            found[name] = torch.tensor(value, dtype=torch.float64)

    walk("", run.state_dict() if isinstance(run, Trainer) else run)
    return found


def same(a, b):
    """Equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def weights(denoiser):
    return {k: v.clone() for k, v in denoiser.state_dict().items()}


# ---- the same and another seed


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    one, other = trainer(8), trainer(8)
    torch.manual_seed(99)   # the world's own random numbers do not matter
    losses, losses_again = [], []
    for a, b in zip(one, other, strict=True):   # nor does another run at the same time
        torch.rand(3)
        losses.append(a.loss)
        losses_again.append(b.loss)
    assert losses == losses_again
    assert same(everything(one), everything(other))


def test_another_seed_gives_other_weights():
    one, other = trainer(3), trainer(3, seed=1)
    assert same(weights(one.denoiser), weights(other.denoiser))   # both begin alike
    run(one)
    run(other)
    for a, b in zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True):
        assert not torch.equal(a, b)


# ---- what is drawn


def drawn(count=300, batch=32, **settings):
    t = trainer(batch=batch, **settings)
    batches = (t.sample_batch(t.step_generator(k)) for k in range(count))
    x0, at, eps, y = (torch.cat(part) for part in zip(*batches, strict=True))
    return t, x0, at, eps, y


def chi_square(counts, p):
    """The usual statistic; its mean is the number of cells less 1, its variance twice that."""
    expected = counts.sum() * p
    return ((counts - expected) ** 2 / expected).sum().item()


def test_t_covers_all_of_1_to_T_evenly_with_both_ends():
    _, _, at, _, _ = drawn(count=600)
    counts = at.bincount(minlength=101)
    assert len(counts) == 101
    assert counts[0] == 0
    assert counts[1:].min() > 100   # 192 +- 14 expected
    assert abs(chi_square(counts[1:].double(), 1 / 100) - 99) < 4.5 * math.sqrt(2 * 99)


def test_times_can_be_narrowed():
    _, _, at, _, _ = drawn(count=20, t_range=(99, 100))
    assert at.unique().tolist() == [99, 100]


def test_pictures_are_drawn_evenly_with_their_own_labels():
    x, y = pictures()
    _, x0, _, _, labels = drawn(cond_drop_prob=0.0)
    assert x0.dtype == torch.float32
    which = torch.cdist(x0.flatten(1), to_float(x).flatten(1)).argmin(1)
    assert torch.equal(x0, to_float(x)[which])
    assert torch.equal(labels, y[which])
    counts = which.bincount(minlength=40).double()
    assert abs(chi_square(counts, 1 / 40) - 39) < 4.5 * math.sqrt(2 * 39)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_hidden_at_the_asked_rate(rate):
    _, _, _, _, y = drawn(cond_drop_prob=rate)
    hidden = (y == 2).double().mean().item()   # "no label" of a network of two classes
    assert abs(hidden - rate) <= 4.5 * math.sqrt(rate * (1 - rate) / len(y))


def test_the_noise_is_standard_and_new_at_each_step():
    _, _, at, eps, _ = drawn()
    z = eps.flatten(1).double()
    assert abs(z.mean().item()) < 4.5 / math.sqrt(z.numel())
    assert abs(z.var().item() - 1) < 4.5 * math.sqrt(2 / z.numel())
    assert len(z[:, 0].unique()) > 0.999 * len(z)
    late = at > 50   # as loud at late as at early times: it knows nothing of t
    assert abs(z[late].var() - z[~late].var()).item() < 4.5 * 2 / math.sqrt(z.numel())


# ---- the step itself


def test_the_ema_follows_its_formula():
    t = trainer(6, ema_decay=0.3)   # low enough that both branches of min() come up
    ema = {k: v.double() for k, v in weights(t.ema).items()}
    for step in t:
        d = min(0.3, (1 + step.step) / (10 + step.step))
        for name, now in t.denoiser.state_dict().items():
            ema[name] = d * ema[name] + (1 - d) * now.double()
            torch.testing.assert_close(t.ema.state_dict()[name].double(), ema[name], rtol=1e-5, atol=1e-7)
    assert not any(p.requires_grad for p in t.ema.parameters())


def test_the_learning_rate_goes_up_and_then_down_to_nothing():
    t = trainer(100, lr=0.01)
    rates = t.lr_scheduler.get_last_lr()
    for step in t:
        rates += t.lr_scheduler.get_last_lr()    # of the next step
        if step.step == 12:
            break
    assert rates == pytest.approx([0.01 * min(1, (k + 1) / 10) * (1 + math.cos(math.pi * k / 100)) / 2
                                   for k in range(13)])
    assert lr_factor(99, 100) < 0.001
    assert [lr_factor(k, 100, "constant") for k in (0, 9, 50, 99)] == pytest.approx([0.1, 1, 1, 1])
    assert [lr_factor(k, 10_000, "constant") for k in (0, 199, 200)] == pytest.approx([0.005, 1, 1])
    assert [lr_factor(k, 100, "wsd") for k in (0, 9, 80, 90, 99)] == pytest.approx([0.1, 1, 1, 0.5, 0.05])
    with pytest.raises(ValueError, match="known are cosine, constant, wsd, one_cycle"):
        trainer(1, lr_schedule="linear")


def test_the_first_step_is_one_of_adamw_on_the_cut_gradient():
    """AdamW's first step moves each weight by lr in the direction of its gradient's sign, however long it is."""
    t = trainer(100, lr=0.01)
    before = weights(t.denoiser)
    x0, at, eps, y = t.sample_batch(t.step_generator(0))
    loss = t.denoiser.loss(x0, at, eps, y).mean()
    said = next(iter(t))
    assert said.step == 1
    assert said.loss == pytest.approx(loss.item(), rel=1e-5)
    gradients = [p.grad for p in t.denoiser.parameters()]
    assert torch.cat([g.flatten() for g in gradients]).norm() <= 1.0001   # cut to length 1
    for (name, p), g in zip(t.denoiser.named_parameters(), gradients, strict=True):
        clear = g.abs() > 1e-5
        torch.testing.assert_close((p - before[name])[clear], -0.01 * lr_factor(0, 100) * g.sign()[clear],
                                   rtol=0.01, atol=1e-7)


def test_a_long_gradient_is_cut_to_length_1_and_keeps_its_direction():
    """Pictures a hundred times too bright make a gradient much longer than 1."""
    bright = pictures()[0].float()
    t = training.Trainer(denoiser(), bright, steps=1, batch=8, check_range=False)
    x0, at, eps, _ = t.sample_batch(t.step_generator(0))
    loss = t.denoiser.loss(x0, at, eps).mean()
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(t.denoiser.parameters()))])
    assert whole.norm() > 10
    t.train_step()
    cut = torch.cat([p.grad.flatten() for p in t.denoiser.parameters()])
    torch.testing.assert_close(cut, whole / whole.norm(), rtol=1e-3, atol=1e-6)


# ---- it learns


class TwoNumbersNet(nn.Module):
    """A small network for points in the plane."""

    classes = None

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 + 32, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x, t, y=None):
        return self.layers(torch.cat([x, time_embedding(t, 32, 1000)], 1))


def test_it_reaches_the_best_loss_there_can_be_on_gaussian_data(g):
    """Data N(mu, c): no guess at v errs by less than its posterior variance, c / (alpha_bar c + 1 - alpha_bar)."""
    torch.manual_seed(0)
    s, mu, c = make_schedule("cosine", 1000), torch.tensor([0.5, -0.3]), torch.tensor([0.5, 0.05])
    data = mu + c.sqrt() * torch.randn(20_000, 2, generator=g)
    ab = s.alpha_bar[1:, None]
    best = (c / (ab * c + 1 - ab)).mean().item()

    average = run(Trainer(Denoiser(TwoNumbersNet(), s), data, steps=800, batch=256, lr=5e-3, ema_decay=0.99))
    n = 40_000
    x0 = mu + c.sqrt() * torch.randn(n, 2, generator=g)
    t, eps = torch.randint(1, 1001, (n,), generator=g), torch.randn(n, 2, generator=g)
    with torch.no_grad():
        loss = average.loss(x0, t, eps).mean().item()
    assert 0.97 * best < loss < 1.06 * best   # the lower bound: it cannot know more than there is to know

    made = samplers.run(sample(average, PerSampleNoise(0, 2000)((2,)), s, 50))
    assert (made.mean(0) - mu).abs().max() < 0.06
    assert (made.std(0) / c.sqrt() - 1).abs().max() < 0.12


def test_it_learns_which_label_is_which():
    average = run(trainer(150, lr=5e-3, batch=32, ema_decay=0.95))
    y = torch.arange(40) % 2
    made = samplers.run(sample(CFGDenoiser(average, y, 1.5), PerSampleNoise(0, 40)((1, 8, 8)), average.schedule, 20))
    top, bottom = made[:, 0, :4].mean((1, 2)), made[:, 0, 4:].mean((1, 2))
    assert torch.equal(top > bottom, y == 0)


# ---- wrapped, in several processes, and without waiting for the device


class Wrapped(nn.Module):
    """What DistributedDataParallel looks like from outside: only its forward may be called."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args):
        self.calls += 1
        return self.module(*args)


def test_a_wrapped_denoiser_trains_like_the_bare_one_and_only_its_forward_is_called():
    bare, inner = trainer(5), denoiser()
    wrapped = Trainer(inner, *pictures(), steps=5, batch=8, model=Wrapped(inner))
    inner.forward_calls = 0
    inner.register_forward_hook(lambda module, *_: setattr(module, "forward_calls", module.forward_calls + 1))
    run(bare)
    run(wrapped)
    assert wrapped.model.calls == inner.forward_calls == 5
    assert same(everything(wrapped), everything(bare))    # so a checkpoint of one fits the other


def test_of_several_ranks_the_first_alone_writes_the_checkpoint_and_all_resume(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    monkeypatch.setattr(training.base, "rank", lambda: 1)
    run(trainer(4), path)
    assert not path.exists()
    monkeypatch.undo()
    run(trainer(4), path)
    monkeypatch.setattr(training.base, "rank", lambda: 1)
    other = trainer(4)
    run(other, path)
    assert same(everything(other), everything(torch.load(path, weights_only=True)))


def test_the_losses_that_are_read_late_are_the_same():
    late, early = trainer(25), trainer(25)
    late.read_every = 10
    assert [step.loss for step in late] == [step.loss for step in early]
    assert same(everything(late), everything(early))


@pytest.mark.parametrize("read_every", [1, 10])
def test_no_gradient_that_is_not_finite_reaches_the_weights(read_every, tmp_path):
    """With late readings the bad gradient becomes 0, the error follows, and no checkpoint is written after it."""
    x, y = pictures()
    t, seen = Trainer(denoiser(), to_float(x), y, steps=200, batch=8), []
    t.read_every = read_every
    for _ in range(12):
        t.train_step()
    t.x[:] = math.nan
    with pytest.raises(FloatingPointError, match="the loss of step 13 is nan") as caught:
        run(t, tmp_path / "run.pt", every=4, callback=lambda step: seen.append(step.step))
    assert len(seen) < read_every
    assert all(w.isfinite().all() for w in t.denoiser.parameters())
    assert not (tmp_path / "run.pt").exists()
    assert ("was left out" in str(caught.value)) == (read_every > 1)


# ---- broken off and continued


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole, first = trainer(12), trainer(12)
    losses = [step.loss for step in whole]
    kept = [next(steps).loss for steps in [iter(first)] for _ in range(5)]
    save_checkpoint(tmp_path / "run.pt", first)
    second = trainer(12, init=7)   # another beginning, which the checkpoint must overwrite
    load_checkpoint(tmp_path / "run.pt", second)
    assert second.step == 5
    kept += [step.loss for step in second]
    assert kept == losses
    assert same(everything(second), everything(whole))


def start(checkpoint, out, pause):
    root = Path(__file__).parents[1]
    command = [sys.executable, killable_run.__file__, str(checkpoint), str(out), str(pause)]
    env = {**os.environ, "PYTHONPATH": str(root)}    # with as many threads as here, or the last bits would differ
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture(scope="module")
def uninterrupted():
    whole = trainer()
    run(whole)
    return everything(whole)


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_been(how, tmp_path, uninterrupted):
    checkpoint, out = tmp_path / "run.pt", tmp_path / "weights.pt"
    first = start(checkpoint, out, 0.02)
    for line in first.stdout:
        if int(line) == 15:
            first.send_signal(how)
            break
    said, words = first.communicate(timeout=600)
    last = max([15, *map(int, said.split())])
    assert not out.exists()
    assert 15 <= last < 40
    half_way = trainer()
    load_checkpoint(checkpoint, half_way)
    if how == signal.SIGINT:   # the step in hand was finished and kept
        assert first.returncode != 0
        assert f"stopped after step {last}" in words
        assert half_way.step == last
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.previous.pt", "run.pt"]
    else:   # at most the steps since the last checkpoint are lost
        assert first.returncode == -signal.SIGKILL
        assert last - 4 <= half_way.step <= last

    second = start(checkpoint, out, 0)
    said, words = second.communicate(timeout=600)
    assert second.returncode == 0, words
    assert [int(n) for n in said.split()] == list(range(half_way.step + 1, 41))
    assert same(everything(torch.load(out, weights_only=True)), uninterrupted)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as at a terminal; a job in the background has it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_at(step, times=1):
    """A watcher that presses Ctrl-C."""
    def watch(seen):
        if seen.step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
    return watch


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_after_the_step_in_hand_and_keeps_it(tmp_path):
    t, checkpoint = trainer(20), tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt, match="step 7"):
        run(t, checkpoint, every=5, callback=stop_at(7))
    assert t.step == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler   # put back
    again = trainer(20)
    load_checkpoint(checkpoint, again)
    assert same(everything(again), everything(t))
    with pytest.raises(KeyboardInterrupt):   # without a checkpoint the trainer still has it all
        run(t, callback=stop_at(9))
    assert t.step == 9
    run(t)
    run(again)
    assert same(everything(again), everything(t))


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_interrupts_at_once():
    t = trainer(20)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(t, callback=stop_at(3, times=2))
    assert "stopped after" not in str(caught.value)


def test_ctrl_c_never_slips_between_asking_and_saving(tmp_path, monkeypatch):
    """The worst moment: just after run() has looked for the first time in a step."""
    answers = iter([False, True, True])
    inner = training.base.stop_between_steps

    class Patched:
        def __enter__(self):
            self.context = inner()
            self.context.__enter__()
            return lambda: next(answers)

        def __exit__(self, *args):
            return self.context.__exit__(*args)

    monkeypatch.setattr(training.base, "stop_between_steps", Patched)
    t = trainer(20)
    with pytest.raises(KeyboardInterrupt):
        run(t, tmp_path / "run.pt", every=1000)
    kept = trainer(20)
    load_checkpoint(tmp_path / "run.pt", kept)
    assert kept.step == t.step


def test_run_saves_as_often_as_asked_and_shows_every_step(tmp_path):
    t, seen, saved = trainer(7), [], []
    checkpoint = tmp_path / "folder" / "run.pt"

    def watch(step):
        seen.append(step.step)
        saved.append(torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0)

    assert run(t, checkpoint, every=3, callback=watch) is t.ema
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert saved == [0, 0, 0, 3, 3, 3, 6]
    assert torch.load(checkpoint, weights_only=True)["step"] == 7
    done = trainer(7)   # a finished run is not trained any further
    run(done, checkpoint, callback=watch)
    assert seen[-1] == 7
    assert len(seen) == 7
    assert same(everything(done), everything(t))


def test_run_works_outside_the_main_thread():
    t = trainer(3)
    thread = threading.Thread(target=run, args=(t,))
    thread.start()
    thread.join()
    assert t.step == 3


# ---- when it goes wrong


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_weights(tmp_path):
    x, y = pictures()
    t, state, step = Trainer(denoiser(), to_float(x), y, steps=200, batch=2, seed=1), None, 0
    t.x[3] = math.nan   # a fault of the machine, which comes up sooner or later

    def watch(seen):
        nonlocal state, step
        state, step = everything(t), seen.step

    with pytest.raises(FloatingPointError, match="lower learning rate") as caught:
        run(t, tmp_path / "run.pt", every=1, callback=watch)
    assert f"the loss of step {step + 1} is nan" in str(caught.value)
    assert f"those of step {step}" in str(caught.value)
    assert step >= 1
    assert same(everything(t), state)
    assert all(v.isfinite().all() for v in everything(t).values())
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == step


class Bent(nn.Module):
    """Its output is fine, but sqrt has no slope at 0."""

    classes = None

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x, t, y=None):
        return self.a * x + (self.b**2).sqrt()


def test_a_gradient_that_is_no_number_stops_the_run_too():
    t = Trainer(Denoiser(Bent(), make_schedule("cosine", 10)), torch.zeros(4, 2), steps=5)
    with pytest.raises(FloatingPointError, match="gradient nan"):
        next(iter(t))
    assert [p.item() for p in t.denoiser.parameters()] == [1.0, 0.0]


OTHERS = {"steps": 21, "seed": 5, "batch": 4, "lr": 1e-3, "ema_decay": 0.9, "cond_drop_prob": 0.2, "weighting": "eps",
          "t_range": (1, 50), "lr_schedule": "constant"}


@pytest.mark.parametrize("name", OTHERS)
def test_the_checkpoint_of_another_run_is_refused(name, tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, trainer(20))
    kept = path.read_bytes()
    other = trainer(**{"steps": 20, "init": 3, name: OTHERS[name]})
    before = everything(other)
    with pytest.raises(ValueError, match=f"run with {name}="):
        run(other, path)
    assert path.read_bytes() == kept
    assert same(everything(other), before)


def test_the_checkpoint_of_another_network_is_refused(tmp_path):
    path, (x, y) = tmp_path / "run.pt", pictures()
    save_checkpoint(path, trainer(20))
    kept = path.read_bytes()
    for other in (denoiser(channels=(8, 24)), denoiser(blocks=2), denoiser(T=50), denoiser(prediction_type="eps")):
        with pytest.raises(ValueError):
            run(Trainer(other, x, y, steps=20, batch=8), path)
    with pytest.raises(ValueError, match="pictures=40, not 39"):
        run(Trainer(denoiser(), x[1:], y[1:], steps=20, batch=8), path)
    assert path.read_bytes() == kept


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, trainer(20))
    whole = path.read_bytes()
    torch.save({"a": 1}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    damaged = [b"", b"hello, I am no checkpoint\n", whole[:100], whole[: len(whole) // 2], whole[:-20], whole[1000:],
               (tmp_path / "other.pt").read_bytes(), (tmp_path / "list.pt").read_bytes()]
    for content in damaged:
        path.write_bytes(content)
        t = trainer(20)
        before = everything(t)
        with pytest.raises(ValueError, match="damaged or not a checkpoint; move it away to start afresh"):
            run(t, path)
        assert path.read_bytes() == content
        assert same(everything(t), before)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "nowhere.pt", trainer(20))


def test_pictures_and_labels_that_do_not_fit_are_refused():
    x, y = pictures()
    for wrong, words in (((x, y[1:]), "40 pictures but 39 labels"), ((x.long(), y), "uint8 or float"),
                         ((x, y + 1), "classes=2"), ((x, y - 1), "classes=2"), ((x[:0], y[:0]), "no pictures")):
        with pytest.raises(ValueError, match=words):
            Trainer(denoiser(), *wrong, steps=1)
    with pytest.raises(ValueError, match="classes=None"):
        Trainer(denoiser(classes=None), x, y, steps=1)
    with pytest.raises(ValueError, match="weighting"):
        next(iter(trainer(1, weighting="snr")))


# ---- classifiers


def classifier_trainer(steps=16, classes=2, **settings):
    x, y = pictures(size=28)
    torch.manual_seed(0)
    return ClassifierTrainer(Classifier(classes=classes, width=8), shifted_digits(x, y, batch=8), steps=steps,
                             **settings)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_a_resumed_classifier_is_the_uninterrupted_one_bit_for_bit(schedule, tmp_path):
    whole, first = (classifier_trainer(lr_schedule=schedule) for _ in range(2))
    run(whole)
    for step in first:
        if step.step == 7:
            break
    save_checkpoint(tmp_path / "run.pt", first)
    second = classifier_trainer(lr_schedule=schedule)
    run(second, tmp_path / "run.pt")
    assert same(everything(second.state_dict()), everything(whole.state_dict()))
    ema = whole.ema.state_dict()    # no averaging, and batch norm's statistics come along
    assert all(torch.equal(ema[name], trained) for name, trained in whole.classifier.state_dict().items())
    assert not whole.ema.training


def test_a_classifier_learns():
    trained = run(classifier_trainer(steps=60, lr=1e-2))
    x, y = pictures(size=28)
    assert (trained(to_float(x)).argmax(1) == y).float().mean() > 0.95


def test_digits_are_shifted_by_up_to_two_pixels():
    x = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    x[..., 14, 14] = 255
    batch = shifted_digits(x, torch.tensor([3]), batch=2)
    shifts = set()
    for k in range(300):
        pictures_, labels = batch(k, torch.Generator().manual_seed(k))
        assert labels.tolist() == [3, 3]
        shifts.add(tuple((pictures_[0, 0] > 0).nonzero()[0].tolist()))
    assert shifts == {(row, column) for row in range(12, 17) for column in range(12, 17)}


def test_critters_are_fresh_and_a_resumed_run_sees_the_same():
    batches = fresh_critters(seed=5, batch=4, every=3)
    x = [batches(k, torch.Generator().manual_seed(k)) for k in range(6)]
    assert len({pictures_.sum().item() for pictures_, _ in x}) == 6
    again = fresh_critters(seed=5, batch=4, every=3)(4, torch.Generator().manual_seed(4))    # within a block
    assert torch.equal(again[0], x[4][0])
    assert torch.equal(again[1], x[4][1])


# ---- files that are whole or not there


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_atomic_write_leaves_the_old_file_when_the_block_raises(error, tmp_path):
    path = tmp_path / "a.txt"
    for before in (None, "old"):
        if before:
            path.write_text(before)

        def write():
            with atomic_write(path) as scratch:
                scratch.write_text("new, but only ha")
                raise error

        with pytest.raises(error):
            write()
        assert (path.read_text() if path.exists() else None) == before
        assert list(tmp_path.iterdir()) == ([path] if before else [])


def test_atomic_write_puts_the_new_file_there_at_the_end_only(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with atomic_write(path) as scratch:
        assert scratch.parent == path.parent   # the same disk, or the move would be a copy
        assert scratch.suffix == ".txt"
        scratch.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o644   # readable by others, as any file is
