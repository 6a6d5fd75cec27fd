"""The figures for pictures, on sets built so that the answer is known."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons import weights
from diffusion_lessons.datasets import load_digits, ring, to_float, toy
from diffusion_lessons.evaluation import metrics
from diffusion_lessons.evaluation.metrics import (
    accuracy,
    features,
    frechet_distance,
    predict,
    recall,
    sharpness,
    wilson_interval,
    wilson_lower_bound,
)


class MeanClassifier:
    """Reads the label off the first pixel; the features are the pixels themselves."""

    def features(self, x):
        return x.flatten(1)

    def head(self, features):
        return -(features[:, :1] - torch.arange(3)) ** 2

    def __call__(self, x):
        return self.head(self.features(x))


# ---- accuracy


def test_accuracy_is_the_share_read_as_asked(g):
    x = torch.randint(3, (1203, 1, 2, 2), generator=g).float()   # three batches of 500, the last not full
    read = x[:, 0, 0, 0].long()
    assert torch.equal(predict(MeanClassifier(), x).argmax(1), read)
    assert torch.equal(features(MeanClassifier(), x), x.flatten(1))
    assert accuracy(MeanClassifier(), x, read) == 1
    assert accuracy(MeanClassifier(), x, (read + 1) % 3) == 0
    asked = read.clone()
    asked[:300] = (asked[:300] + 1) % 3
    assert accuracy(MeanClassifier(), x, asked) == pytest.approx(903 / 1203)


@given(share=st.floats(0, 1), n=st.integers(1, 20_000), z=st.sampled_from([1.0, 1.645, 1.96]))
def test_the_wilson_lower_bound_is_where_the_share_would_be_z_deviations_off(share, n, z):
    p = wilson_lower_bound(share, n, z)
    assert -1e-12 <= p <= share + 1e-12
    assert share - p == pytest.approx(z * math.sqrt(max(p * (1 - p), 0) / n), abs=1e-7)


@given(share=st.floats(0, 1), n=st.integers(1, 20_000), z=st.sampled_from([1.0, 1.96, 3.5]))
def test_an_intervals_ends_mirror_each_other(share, n, z):
    """What is known of a share is known of its complement; and the upper end is z deviations off, as the lower one."""
    low, high = wilson_interval(share, n, z)
    mirrored = wilson_interval(1 - share, n, z)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)
    assert high - share == pytest.approx(z * math.sqrt(max(high * (1 - high), 0) / n), abs=1e-7)


def test_an_interval_at_known_points():
    assert wilson_interval(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)        # the textbook's 10 of 20
    assert wilson_interval(0.0, 50) == pytest.approx((0, 0.0713), abs=1e-4)              # z^2 / (50 + z^2)


@pytest.mark.parametrize(("share", "n"), [(-0.1, 10), (1.1, 10), (math.nan, 10), (0.5, 0)])
def test_an_interval_of_nothing_is_refused(share, n):
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(share, n)


def test_the_wilson_lower_bound_at_known_points():
    assert wilson_lower_bound(0.5, 20, z=1.96) == pytest.approx(0.2993, abs=1e-4)   # the textbook's 10 of 20
    assert wilson_lower_bound(1.0, 1000) == pytest.approx(0.9973, abs=1e-4)   # 1 / (1 + 1.645^2 / 1000)
    assert wilson_lower_bound(0.0, 50) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("p, n", [(0.95, 1000), (0.98, 1000), (0.9, 300)])
def test_the_wilson_lower_bound_lies_below_the_truth_19_times_in_20(p, n):
    """Summed over the binomial law. Wilson's limit keeps its promise to within 2 %, as shares come in steps of 1/n."""
    def chance(k):
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))

    kept = math.fsum(chance(k) for k in range(n + 1) if wilson_lower_bound(k / n, n) <= p)
    assert 0.93 < kept < 0.97


# ---- Frechet distance


def exactly(mean, root, n, g):
    """n samples whose mean and covariance are exactly `mean` and root root^T."""
    z = torch.randn(n, len(mean), generator=g, dtype=torch.float64)
    z = z - z.mean(0)
    z = torch.linalg.solve(torch.linalg.cholesky(z.T.cov()), z.T).T   # white
    return z @ root.T + mean


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_frechet_distance_of_gaussians_with_independent_features(g):
    """|mu - mu'|^2 + sum (sigma - sigma')^2"""
    mean, other = double(1.0, -2.0, 0.0), double(0.5, 0.0, 3.0)
    std, other_std = double(1.0, 0.1, 2.0), double(3.0, 0.1, 0.5)
    a = exactly(mean, std.diag(), 50, g)
    b = exactly(other, other_std.diag(), 80, g)
    expected = (mean - other).square().sum() + (std - other_std).square().sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_frechet_distance_of_any_gaussians(seed):
    """tr((C C')^1/2) another way: the square roots of the eigenvalues of C C', which is not symmetric."""
    g = torch.Generator().manual_seed(seed)
    root, other = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)
    shift = torch.randn(5, generator=g, dtype=torch.float64)
    a, b = exactly(torch.zeros_like(shift), root, 30, g), exactly(shift, other, 40, g)
    c, c_other = (root @ root.T).numpy(), (other @ other.T).numpy()
    cross = np.sqrt(np.linalg.eigvals(c @ c_other).real.clip(0)).sum()
    expected = (shift**2).sum().item() + np.trace(c) + np.trace(c_other) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_frechet_distance_is_a_squared_distance_of_laws(g):
    a, b = torch.randn(60, 4, generator=g), 2 * torch.rand(70, 4, generator=g)
    d = frechet_distance(a, b)
    assert d > 0.1
    assert frechet_distance(b, a) == pytest.approx(d, rel=1e-6)
    assert frechet_distance(a, a[torch.randperm(60, generator=g)]) == pytest.approx(0, abs=1e-9)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=torch.float64)).Q
    assert frechet_distance(a @ turn.float() + 7, b @ turn.float() + 7) == pytest.approx(d, rel=1e-4)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * d, rel=1e-5)
    a[:, 2], b[:, 2] = 0, 1.5   # a feature that never moves does no harm
    assert frechet_distance(a, b) > 1.5**2


def test_frechet_distance_of_one_law_falls_with_the_number_of_samples(g):
    few, many = (frechet_distance(*torch.randn(2, n, 8, generator=g)) for n in (20, 2000))
    assert 0 < many < 0.1 * few


# ---- recall


def recall_by_hand(real, fake, k):
    reach = [sorted(math.dist(f, other) for other in fake)[k] for f in fake]
    return sum(any(math.dist(r, f) <= d for f, d in zip(fake, reach, strict=True)) for r in real) / len(real)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 3, 5])
def test_recall_is_its_definition(seed, k):
    g = torch.Generator().manual_seed(seed)
    real = torch.randn(60, 3, generator=g, dtype=torch.float64)
    fake = 0.5 * torch.randn(50, 3, generator=g, dtype=torch.float64) + 0.5
    expected = recall_by_hand(real.tolist(), fake.tolist(), k)
    assert 0 < expected < 1
    assert recall(real, fake, k) == pytest.approx(expected)


def test_recall_of_the_set_itself_is_1_and_of_another_world_0(g):
    real = torch.randn(1203, 8, generator=g)
    assert recall(real, real) == 1
    assert recall(real, real[torch.randperm(1203, generator=g)]) == 1
    assert recall(real, real + 100) == 0


def test_prototypes_have_no_recall_however_perfect(g):
    """What a high w makes: ten perfect pictures, over and over."""
    real = torch.randn(1000, 8, generator=g)
    assert recall(real, real[:10].repeat(100, 1)) <= 0.02
    nearly = real[:10].repeat(100, 1) + 0.01 * torch.randn(1000, 8, generator=g)
    assert recall(real, nearly) <= 0.02


def test_recall_counts_the_modes_that_are_covered(g):
    """Four far islands, of which the fakes know one, two, three."""
    island = torch.arange(4).repeat_interleave(100)
    real = torch.randn(400, 4, generator=g) + 1000 * torch.eye(4)[island]
    for known in (1, 2, 3):
        fake = real[island < known]
        assert recall(real, fake) == known / 4
        assert recall(fake, real) == 1   # the other way round it would be precision


def test_recall_falls_as_variety_is_lost(g):
    real, fake = torch.randn(2, 800, 6, generator=g)
    full, less, little = (recall(real, s * fake) for s in (1.0, 0.6, 0.3))
    assert full > 0.8
    assert full - 0.2 > less > little + 0.2


# ---- all together, and sharpness


def test_the_report_is_about_one_set_of_samples(g):
    x = torch.randint(3, (300, 1, 2, 2), generator=g).float() + 0.1 * torch.randn(300, 1, 2, 2, generator=g)
    y = torch.randint(3, (300,), generator=g)
    real = torch.randn(200, 4, generator=g)
    assert metrics.report(MeanClassifier(), x, y, real) == {
        "count": 300,
        "accuracy": accuracy(MeanClassifier(), x, y),
        "accuracy_lower95": wilson_lower_bound(accuracy(MeanClassifier(), x, y), 300),
        "frechet": frechet_distance(x.flatten(1), real),
        "recall": recall(real, x.flatten(1)),
    }


def test_perfect_prototypes_show_as_lost_recall_not_as_lost_accuracy(g):
    y = torch.arange(300) % 3
    real = y[:, None, None, None] + 0.2 * torch.randn(300, 1, 2, 2, generator=g)
    alive = y[:, None, None, None] + 0.2 * torch.randn(300, 1, 2, 2, generator=g)
    alive[:30, 0, 0, 0] += 1   # some of them misread
    prototypes = y.float()[:, None, None, None].expand(300, 1, 2, 2)
    good, bad = (metrics.report(MeanClassifier(), x, y, real.flatten(1)) for x in (alive, prototypes))
    assert bad["accuracy"] == 1 > good["accuracy"]
    assert bad["recall"] < 0.05
    assert good["recall"] > 0.7
    assert bad["frechet"] > good["frechet"]


def test_sharpness_is_the_mean_slope(g):
    across, down = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="xy")
    ramps = torch.stack([0.3 * across, 0.4 * down, 0.3 * across + 0.4 * down, 0 * across - 0.7])[:, None]
    torch.testing.assert_close(sharpness(ramps), torch.tensor([0.3, 0.4, 0.5, 0.0]))
    x = torch.rand(3, 2, 9, 9, generator=g)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert (sharpness(blurred) < 0.6 * sharpness(x)).all()
    torch.testing.assert_close(sharpness(x.mT), sharpness(x))   # across and down count alike


def test_the_report_of_pictures_that_nothing_was_asked_for(g):
    x = torch.randint(3, (300, 1, 2, 2), generator=g).float()
    found = metrics.report(MeanClassifier(), x, None, torch.randn(200, 4, generator=g))
    assert found["class_shares"] == pytest.approx([(x[:, 0, 0, 0] == k).double().mean().item() for k in range(3)])
    assert found.keys() == {"count", "class_shares", "frechet", "recall"}


# ---- lost variety: modes, classes, distances

CENTRES = 3.0 * torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])


def test_modes_are_counted_as_they_were_laid(g):
    """600 points on mode 0, 380 on mode 1, 10 on mode 2 (1%: too few), 10 in the middle of nowhere; sigma = 0.2."""
    way = torch.nn.functional.normalize(torch.randn(1000, 2, generator=g), dim=1)
    mode = torch.tensor([0] * 600 + [1] * 380 + [2] * 10 + [3] * 10)
    points = CENTRES[mode] + 0.59 * torch.rand(1000, 1, generator=g) * way
    points[990:] = torch.tensor([1.5, 1.5])
    found = metrics.modes(points, CENTRES, 0.2)
    torch.testing.assert_close(found.shares, torch.tensor([0.6, 0.38, 0.01, 0.0], dtype=torch.float64))
    assert found.covered == 2
    assert found.precision == pytest.approx(0.99)
    assert found.mode_balance == pytest.approx(0.25 + 0.25 + 0.01)
    just_enough = torch.cat([points[:975], CENTRES[2].expand(25, 2)])
    assert metrics.modes(just_enough, CENTRES, 0.2).covered == 3
    assert metrics.modes(just_enough[1:999], CENTRES, 0.2).covered == 2      # 24 of 998


@given(st.integers(0, 10_000))
def test_modes_do_not_depend_on_order_or_place(seed):
    g = torch.Generator().manual_seed(seed)
    points = CENTRES[torch.randint(4, (200,), generator=g)] + 0.3 * torch.randn(200, 2, generator=g)
    found = metrics.modes(points, CENTRES, 0.2)
    order, shift = torch.randperm(200, generator=g), torch.tensor([64.0, -32.0])
    assert metrics.modes(points[order], CENTRES, 0.2)[1:] == pytest.approx(found[1:])
    moved = metrics.modes(2 * points + shift, 2 * CENTRES + shift, 0.4)
    assert abs(moved.precision - found.precision) <= 0.005 + 1e-9             # one point of 200 on the very edge
    assert 0 <= found.mode_balance <= found.precision + 1e-9 <= 1 + 1e-9


def test_the_ring_itself_covers_all_its_modes_evenly():
    """Of a Gaussian in the plane, 1 - exp(-9/2) = 98.9% lie within 3 sigma."""
    found = metrics.modes(ring(20_000), toy.ring_centres(), toy.RING_SIGMA)
    assert found.covered == 8
    assert found.precision == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert found.mode_balance > 0.96


def test_mean_pairwise_distance_per_pixel():
    flat = torch.tensor([0.0, 1.0, 3.0])[:, None, None, None].expand(3, 1, 4, 5)
    assert metrics.mean_pairwise_distance(flat) == pytest.approx((1 + 3 + 2) / 3)
    assert metrics.mean_pairwise_distance(flat[:1].expand(50, 1, 4, 5)) == 0
    g = torch.Generator().manual_seed(0)
    assert metrics.mean_pairwise_distance(torch.randn(400, 3, 20, 20, generator=g)) == pytest.approx(2**0.5, rel=0.01)


def test_class_shares_count_the_predicted_classes():
    x = torch.tensor([0.0, 0.1, 2.2, 1.9, 2.0])[:, None, None, None].expand(5, 1, 2, 2)
    torch.testing.assert_close(metrics.class_shares(MeanClassifier(), x), torch.tensor([0.4, 0.0, 0.6]))


def test_the_nearest_picture_is_found_whatever_the_batches(g):
    data = torch.randn(500, 1, 3, 3, generator=g)
    x = data[[7, 480, 250]] + 0.01 * torch.randn(3, 1, 3, 3, generator=g)
    for batch in (500, 64, 1):
        index, distance = metrics.nearest_neighbours(x, data, batch)
        assert index.tolist() == [7, 480, 250]
        torch.testing.assert_close(distance, (x - data[index]).square().mean((1, 2, 3)).sqrt(), rtol=1e-3, atol=1e-4)


def test_bad_input_is_refused_in_words(g):
    with pytest.raises(ValueError, match=r"points must be \(N, 2\)"):
        metrics.modes(torch.zeros(4, 3), CENTRES, 0.2)
    with pytest.raises(ValueError, match="at least two"):
        metrics.mean_pairwise_distance(torch.zeros(1, 1, 2, 2))
    a = torch.randn(20, 4, generator=g)
    for wrong in (a[:, :3], a[0], a[None]):
        with pytest.raises(ValueError, match="features must be"):
            frechet_distance(a, wrong)
    for few in (a[:4], a[:1]):   # as many samples as features do not give a covariance
        with pytest.raises(ValueError, match="too few for 4 features"):
            frechet_distance(a, few)
        with pytest.raises(ValueError, match="too few for 4 features"):
            frechet_distance(few, a)
    with pytest.raises(ValueError, match="more than k = 3"):
        recall(a, a[:3])


# ---- the classifier itself, where the real digits are


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("DIFFUSION_LESSONS_DATA"), reason="needs the real digits")
def test_the_classifier_is_as_accurate_on_the_real_test_set_as_its_card_says():
    """By the shipped features of all 10,000, of which a tenth is computed again."""
    classifier, card = weights.load_model("digits_classifier"), weights.load("digits_classifier")[1]
    test_set, kept = load_digits("test", source="mnist"), weights.load("digits_real")[0]["test"]    # float16
    again = slice(None, None, 10)
    assert (features(classifier, to_float(test_set.x[again])) - kept[again]).abs().max() < 0.01
    with torch.no_grad():
        right = (classifier.head(kept.float()).argmax(1) == test_set.y).float().mean().item()
    assert right >= 0.99
    assert right == pytest.approx(card["figures"]["test_accuracy"], abs=3e-4)
