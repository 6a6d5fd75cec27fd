"""GANs: who learns from which loss, what a perfect classifier would say, and that a run repeats itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_training import everything, same
from torch import nn

from diffusion_lessons.datasets import ring, toy
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.models.gan import (
    DigitDiscriminator,
    DigitGenerator,
    PointDiscriminator,
    PointGenerator,
    latent_sphere,
    slerp,
)
from diffusion_lessons.training import load_checkpoint, recipes, run, save_checkpoint
from diffusion_lessons.training.gan import GanTrainer, discriminator_loss, generator_loss

RING = toy.ring_centres(), toy.RING_SIGMA


def points(seed=0, steps=6, **settings):
    torch.manual_seed(seed)
    return GanTrainer(PointGenerator(width=16), PointDiscriminator(width=16), ring(200), steps=steps, batch=32,
                      seed=seed, **settings)


def batch_of(trainer, k):
    return trainer.sample_batch(trainer.step_generator(k))


def weights_of(network):
    return {name: w.detach().clone() for name, w in network.named_parameters()}


# ---- the losses


def test_the_losses_are_those_of_the_paper(g):
    real, fake = 3 * torch.randn(50, generator=g), 3 * torch.randn(50, generator=g)
    log = torch.log
    d = -log(real.double().sigmoid()).mean() - log(1 - fake.double().sigmoid()).mean()
    assert discriminator_loss(real, fake).item() == pytest.approx(d.item(), rel=1e-5)
    assert generator_loss(fake).item() == pytest.approx(-log(fake.double().sigmoid()).mean().item(), rel=1e-5)
    clueless = torch.zeros(8)
    assert discriminator_loss(clueless, clueless).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(clueless).item() == pytest.approx(math.log(2))
    assert torch.isfinite(discriminator_loss(torch.tensor([-200.0]), torch.tensor([200.0])))


def test_the_generators_loss_pulls_hardest_where_it_fails():
    fake = torch.tensor([-6.0, 0.0, 6.0], requires_grad=True)
    generator_loss(fake).backward()
    pull = -3 * fake.grad
    assert pull[0] > 0.99 > 0.51 > pull[1] > 0.49 > 0.01 > pull[2] > 0


# ---- who moves


@pytest.mark.parametrize("r1", [0.0, 1.0])
def test_each_loss_moves_its_own_network_and_leaves_the_other_alone(r1):
    trainer = points(r1=r1)
    real, z_d, z_g = batch_of(trainer, 0)
    g_before, d_before = weights_of(trainer.generator), weights_of(trainer.discriminator)

    trainer.discriminator_step(real, z_d)
    assert same(g_before, weights_of(trainer.generator))
    assert all(p.grad is None for p in trainer.generator.parameters())
    d_after = weights_of(trainer.discriminator)
    assert not any(torch.equal(d_before[name], d_after[name]) for name in d_before if "weight" in name)

    trainer.discriminator.zero_grad(set_to_none=True)
    trainer.generator_step(z_g)
    assert same(d_after, weights_of(trainer.discriminator))
    assert all(p.grad is None for p in trainer.discriminator.parameters())
    assert all(p.requires_grad for p in trainer.discriminator.parameters())
    g_after = weights_of(trainer.generator)
    assert not any(torch.equal(g_before[name], g_after[name]) for name in g_before)


def test_each_network_goes_down_the_slope_of_its_own_loss():
    """A small step makes each loss smaller on the same examples."""
    trainer = points(lr_g=1e-4, lr_d=1e-4)
    real, z_d, z_g = batch_of(trainer, 0)
    G, D = trainer.generator, trainer.discriminator

    def losses():
        with torch.no_grad():
            return discriminator_loss(D(real), D(G(z_d))).item(), generator_loss(D(G(z_g))).item()

    before = losses()[0]
    trainer.discriminator_step(real.clone(), z_d)
    assert losses()[0] < before
    before = losses()[1]
    trainer.generator_step(z_g)
    assert losses()[1] < before


class Shift(nn.Module):
    """A generator that can only move a Gaussian about."""

    latent = 2

    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z):
        return z + self.shift


def test_the_discriminator_learns_the_log_of_the_ratio():
    """The best D says log p_data(x) - log p_G(x)  (Goodfellow et al. 2014, prop. 1); for two Gaussians a line."""
    torch.manual_seed(0)
    shift = torch.tensor([1.0, -0.5])
    trainer = GanTrainer(Shift(shift.tolist()), PointDiscriminator(width=32, minibatch_std=False),
                         torch.randn(50_000, 2), steps=500, batch=512, lr_d=1e-3)
    for k in range(trainer.steps):                               # D alone
        trainer.discriminator_step(*batch_of(trainer, k)[:2])
    x = torch.randn(2000, 2)
    with torch.no_grad():
        says = trainer.discriminator(x)
    right = -x @ shift + shift.square().sum() / 2
    assert (says - right).square().mean().sqrt() < 0.25          # 0.09 to 0.11 in three seeds
    assert right.std() > 1


def test_the_generator_finds_the_data():
    torch.manual_seed(0)
    trainer = GanTrainer(Shift([2.0, -1.0]), PointDiscriminator(width=32, minibatch_std=False), torch.randn(20_000, 2),
                         steps=600, batch=256, lr_g=1e-2, lr_d=2e-3, r1=0.1, ema_decay=0.98)
    run(trainer)
    assert trainer.ema.shift.abs().max() < 0.15


def test_the_penalty_is_the_squared_slope_at_the_real_examples():
    """For D(x) = w.x + b the slope is w, whatever x: the penalty adds r1 w to the gradient."""
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(2, 1)

        def forward(self, x):
            return self.w(x).squeeze(1)

    grads = {}
    for r1 in (0.0, 0.7):
        torch.manual_seed(1)
        trainer = GanTrainer(PointGenerator(width=8), Line(), ring(100), steps=1, batch=16, r1=r1)
        w = trainer.discriminator.w.weight.detach().clone()
        real, z, _ = batch_of(trainer, 0)
        trainer.discriminator_step(real, z)
        grads[r1] = trainer.discriminator.w.weight.grad.clone()
    torch.testing.assert_close(grads[0.7] - grads[0.0], 0.7 * w)


# ---- what is drawn and reported


def test_batches_are_fresh_standard_noise_and_examples_of_the_data():
    trainer = points(steps=100)
    drawn = [batch_of(trainer, k) for k in range(100)]
    z = torch.cat([torch.cat(d[1:]) for d in drawn]).double()
    assert abs(z.mean()) < 4.5 / z.numel() ** 0.5
    assert abs(z.var() - 1) < 4.5 * (2 / z.numel()) ** 0.5
    assert len(z[:, 0].unique()) > 0.999 * len(z)
    real = torch.cat([d[0] for d in drawn])
    assert {tuple(row) for row in real.tolist()} <= {tuple(row) for row in trainer.x.tolist()}
    assert len(real.unique(dim=0)) > 190                        # of 200
    assert not batch_of(points(noise=0.0), 3)[1].any()
    assert batch_of(points(noise=0.5), 3)[1].std() == pytest.approx(0.5, rel=0.1)


def test_bytes_become_numbers_around_zero():
    x = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8)
    trainer = GanTrainer(DigitGenerator(8, 8), DigitDiscriminator(8), x, steps=1, batch=8)
    real = batch_of(trainer, 0)[0]
    assert real.min() >= -1
    assert real.max() <= 1
    assert real.min() < -0.98
    assert real.max() > 0.98
    trainer.train_step()


def test_a_step_says_what_share_was_judged_rightly():
    class Sure(nn.Module):
        """Says real to all that lies on the right, and cannot learn."""

        def __init__(self):
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return 9 * x[:, 0].sign() + self.nothing

    data = torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]])                   # three quarters on the right
    trainer = GanTrainer(Shift([-50.0, 0.0]), Sure(), data, steps=1, batch=400, lr_g=0.0, lr_d=0.0)
    step = trainer.train_step()
    assert step.real_accuracy == pytest.approx(0.75, abs=0.1)
    assert step.fake_accuracy == 1
    assert step.loss_g == pytest.approx(9, abs=0.01)
    assert step.loss_d == pytest.approx(9 * (1 - step.real_accuracy), abs=0.01)


# ---- the networks


def test_without_statistics_every_example_is_judged_alone_and_with_them_together(g):
    torch.manual_seed(0)
    for statistics in (False, True):
        D = PointDiscriminator(16, statistics).eval()
        batch, others = torch.randn(8, 2, generator=g), torch.randn(8, 2, generator=g)
        here, there = D(batch)[0], D(torch.cat([batch[:1], others[1:]]))[0]
        assert (abs(here - there) < 1e-6) == (not statistics)
        among_look_alikes = D(batch[:1].expand(8, 2))[0]
        assert (abs(here - among_look_alikes) < 1e-6) == (not statistics)


def test_a_batch_of_look_alikes_has_a_slope():
    """The root in the spread must not be infinitely steep where all examples are the same."""
    x = torch.zeros(6, 2, requires_grad=True)
    PointDiscriminator(16, True)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_pictures_lie_between_black_and_white_and_depend_on_their_own_noise_alone(g):
    G = DigitGenerator(16, 8)
    z = 5 * torch.randn(6, 16, generator=g)
    x = G(z)
    assert x.shape == (6, 1, 28, 28)
    assert x.abs().max() <= 1
    torch.testing.assert_close(G(z[2:3]), x[2:3], rtol=1e-4, atol=1e-6)
    assert metrics.mean_pairwise_distance(x.detach()) > 0
    assert metrics.mean_pairwise_distance(G(z[:1].expand(6, 16)).detach()) < 1e-6


def test_the_great_circle_keeps_the_length_and_reaches_both_ends(g):
    a, b = 32**0.5 * F.normalize(torch.randn(2, 5, 32, generator=g, dtype=torch.float64), dim=2)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    turned = []
    for u in (0.2, 0.5, 0.9):
        c = slerp(a, b, u)
        torch.testing.assert_close(c.norm(dim=1), torch.full((5,), 32**0.5, dtype=torch.float64))
        turned.append(torch.acos((a * c).sum(1) / 32) / torch.acos((a * b).sum(1) / 32))
    torch.testing.assert_close(torch.stack(turned), torch.tensor([[0.2], [0.5], [0.9]]).double().expand(3, 5))


def test_the_globe_is_a_sphere():
    longitude, latitude = torch.tensor([0.0, 90, 360, 17, 17, 200]), torch.tensor([0.0, 0, 0, 90, -90, 30])
    z = latent_sphere(40, longitude, latitude, seed=3)
    torch.testing.assert_close(z.norm(dim=1), torch.full((6,), 40**0.5))
    torch.testing.assert_close(z[0], z[2], rtol=1e-4, atol=1e-4)         # once around
    torch.testing.assert_close(z[3], -z[4], rtol=1e-4, atol=1e-4)        # the poles
    assert abs(torch.cosine_similarity(z[0], z[1], dim=0)) < 1e-5
    assert not torch.allclose(latent_sphere(40, longitude, latitude, seed=4), z, atol=0.1)


# ---- the same again


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    one, two, other = points(), points(), points(seed=1)
    for t in (one, two, other):
        run(t)
    assert same(everything(one.state_dict()), everything(two.state_dict()))
    assert not same(weights_of(one.generator), weights_of(other.generator))
    assert not torch.equal(batch_of(one, 0)[1], batch_of(other, 0)[1])            # not the first weights alone


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole, half = points(), points()
    run(whole)
    for step in half:
        if step.step == 3:
            break
    save_checkpoint(tmp_path / "half.pt", half)
    rest = points(seed=0)
    load_checkpoint(tmp_path / "half.pt", rest)
    assert rest.step == 3
    run(rest)
    assert same(everything(whole.state_dict()), everything(rest.state_dict()))
    with pytest.raises(ValueError, match="lr_g"):
        load_checkpoint(tmp_path / "half.pt", points(lr_g=0.5))


def test_the_ema_follows_the_generator():
    trainer = points(ema_decay=0.2)                   # low enough that both branches of min() come up
    ema = {name: w.double() for name, w in weights_of(trainer.ema).items()}
    for step in trainer:
        d = min(0.2, (1 + step.step) / (10 + step.step))
        for name, w in weights_of(trainer.generator).items():
            ema[name] = d * ema[name] + (1 - d) * w.double()
    for name, w in weights_of(trainer.ema).items():
        torch.testing.assert_close(w.double(), ema[name], rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_no_number_stops_the_run_before_it_spoils_the_weights():
    trainer = points()
    trainer.x[:] = torch.nan
    before = weights_of(trainer.discriminator)
    with pytest.raises(FloatingPointError, match=r"step 1 is nan.*lr_g=0\.001"):
        trainer.train_step()
    assert same(before, weights_of(trainer.discriminator))


class Cliff(nn.Module):
    """A finite answer with a slope that is none: the root at 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.w.sqrt() + 0 * x[:, 0]


def test_a_gradient_that_is_no_number_stops_it_too():
    trainer = GanTrainer(PointGenerator(width=8), Cliff(), ring(50), steps=1, batch=8)
    with pytest.raises(FloatingPointError, match="gradient (nan|inf)"):
        trainer.train_step()
    assert trainer.discriminator.w == 0


def test_the_generators_turn_is_watched_as_well():
    trainer = points()
    before, z = weights_of(trainer.generator), torch.full((32, 16), torch.nan)
    with pytest.raises(FloatingPointError, match="step 1 is nan"):
        trainer.generator_step(z)
    assert same(before, weights_of(trainer.generator))


def test_a_run_whose_losses_are_read_late_is_the_same_and_stops_before_it_is_saved(tmp_path):
    late, early = points(steps=12), points(steps=12)
    late.read_every = 8    # as on a GPU, where each reading waits
    assert [(s.loss_d, s.loss_g, s.real_accuracy, s.fake_accuracy) for s in late] == [
        (s.loss_d, s.loss_g, s.real_accuracy, s.fake_accuracy) for s in early]
    assert same(everything(late.state_dict()), everything(early.state_dict()))
    broken = points(steps=50)
    broken.read_every, broken.x[:] = 8, torch.nan
    with pytest.raises(FloatingPointError, match=r"step 1 is nan.*was left out"):
        run(broken, tmp_path / "run.pt", every=2)
    assert broken.step < 8
    assert all(w.isfinite().all() for w in [*broken.generator.parameters(), *broken.discriminator.parameters()])
    assert not (tmp_path / "run.pt").exists()


def test_bad_input_is_refused_in_words():
    G, D = PointGenerator(width=8), PointDiscriminator(width=8)
    with pytest.raises(ValueError, match="no pictures"):
        GanTrainer(G, D, torch.empty(0, 2), steps=1)
    with pytest.raises(ValueError, match="at least one"):
        GanTrainer(G, D, ring(10), steps=1, batch=0)
    with pytest.raises(ValueError, match="uint8 or float"):
        GanTrainer(G, D, ring(10).long(), steps=1)
    with pytest.raises(ValueError, match="parallel"):
        slerp(torch.ones(4), 2 * torch.ones(4), 0.5)
    with pytest.raises(ValueError, match="at least 3"):
        latent_sphere(2, torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"digits \(N, 1, 28, 28\)"):
        recipes.gan(recipes.DIGIT_GANS["healthy"], torch.zeros(5, 3, 32, 32))


# ---- health and collapse


def settled(name, seed=0):
    """Where a game on the ring settles: means over ten looks at its running average, in the last 500 of 2000 steps."""
    trainer, looks = recipes.gan(recipes.replace(recipes.POINT_GANS[name], steps=2000), ring(20_000), seed), []
    z = torch.randn(2000, trainer.generator.latent, generator=torch.Generator().manual_seed(0)).to(trainer.device)
    for step in trainer:
        if step.step > 1500 and step.step % 50 == 0:
            looks.append(metrics.modes(trainer.ema(z).cpu(), *RING))
    figures = "covered", "precision", "mode_balance"
    return [sum(getattr(look, figure) for look in looks) / len(looks) for figure in figures]


@pytest.mark.long    # lesson 01 holds it, too
def test_the_recipes_are_as_healthy_and_as_ill_as_the_lesson_says():
    """Not at one step: G stumbles now and then, and when it does depends on rounding.

    Healthy: 8 modes and 83% to 85% of the points on them, in five seeds and with two kinds of kernels.
    """
    covered, precision, balance = settled("healthy")
    assert covered > 7.5
    assert precision > 0.7
    assert balance > 0.65
    covered, precision, balance = settled("collapsed")
    assert 1 <= covered <= 5
    assert precision >= 0.5
    assert balance < 0.5
