"""Critters: what a scene is, that its picture shows it at every size, and that training never sees what is held out."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lessons import weights
from diffusion_lessons.datasets import critters, to_float
from diffusion_lessons.datasets.critters import ATTRIBUTES, COATS, HELD_OUT, PLACES, PROPS, SUBJECTS, Scenes
from diffusion_lessons.datasets.procedural import scenery
from diffusion_lessons.datasets.procedural.shapes import Canvas
from diffusion_lessons.training import recipes

EVERY = torch.tensor(list(itertools.product(range(5), range(8), range(5), range(5))))    # all with somebody, 1,000


def scenes(attributes, seed=0):
    return critters.with_variation(attributes, torch.Generator().manual_seed(seed))


def shares(values, count):
    return torch.bincount(values, minlength=count) / len(values)


# ---------------------------------------------------------------- pictures


def test_the_same_scene_at_32_and_64_is_the_same_picture():
    drawn = critters.sample_all_pairs(500, seed=1)
    small, big = critters.render(drawn, 32).float() / 255, critters.render(drawn, 64).float() / 255
    off = (F.avg_pool2d(big, 2) - small).abs()
    assert off.mean() < 0.012            # edges are soft over one pixel, which is wider at 32
    assert off.mean((1, 2, 3)).max() < 0.03
    other = critters.render(critters.sample_all_pairs(500, seed=2), 32).float() / 255
    assert (other - small).abs().mean() > 0.15    # the tolerance means something: other scenes are far away


def test_edges_are_one_pixel_soft_at_every_size():
    drawn = critters.sample_all_pairs(100, seed=1)
    for size in (32, 64, 128):
        x = critters.render(drawn, size).float() / 255
        steps = x.diff(dim=2).abs().amax(1).flatten(1)
        assert (steps.amax(1) > 0.4).float().mean() > 0.95        # somewhere from one colour to another in one pixel


def test_pictures_do_not_depend_on_the_batch():
    drawn = critters.sample_all_pairs(60, seed=3)
    assert torch.equal(critters.render(drawn), critters.render(drawn, batch=7))
    assert torch.equal(critters.render(drawn)[[5, 50]], critters.render(drawn[torch.tensor([5, 50])]))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_attribute_changes_the_picture(attribute):
    """With the same 48 random numbers, two scenes that differ in one attribute differ in many pixels."""
    base = scenes(EVERY[torch.randperm(len(EVERY), generator=torch.Generator().manual_seed(0))[:100]])
    values = len(ATTRIBUTES[attribute]) - (attribute in ("subject", "colour"))     # nobody and no coat are tested below
    changed = {name: getattr(base, name) for name in ATTRIBUTES}
    changed[attribute] = (changed[attribute] + 1) % values
    a, b = critters.render(base), critters.render(Scenes(**changed, variation=base.variation))
    off = (a.int() - b.int()).abs().amax(1).flatten(1) > 40     # pixels that changed clearly
    assert off.sum(1).min() >= 15


def test_two_scenes_with_the_same_attributes_differ():
    pictures = critters.render(critters.scenes_with(40, subject="owl", colour="blue", prop="hat", place="night"))
    apart = torch.cdist(pictures.float().flatten(1), pictures.float().flatten(1))
    assert apart[~torch.eye(40, dtype=torch.bool)].min() / (3 * 32 * 32) ** 0.5 > 4


def test_nobody_is_the_place_alone():
    empty = critters.scenes_with(20, subject="nobody")
    assert (empty.colour == critters.COLOURS.index("none")).all()
    assert (empty.prop == PROPS.index("none")).all()
    at = (torch.arange(32) + 0.5) / 16 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    for i, picture in enumerate(critters.render(empty)):             # the scenery by hand, and the light
        p = Canvas((x[None], y[None]), 1 / 16, torch.zeros(1, 3, 32, 32))
        scenery.PLACES[PLACES[empty.place[i]]](p, lambda k, i=i: empty.variation[i:i + 1, k, None, None])
        wanted = p.colour[0] * (0.94 + 0.10 * empty.variation[i, 47]) * 255
        assert (picture - wanted.clamp(max=255)).abs().max() <= 0.51


def test_coats_have_their_colour():
    """Of a muppet's own pixels more lie nearer to its coat than to any other; but for the white of the eyes."""
    for name, coat in COATS.items():
        drawn = critters.scenes_with(30, seed=5, subject="muppet", colour=name, prop="none")
        empty = Scenes(torch.full_like(drawn.subject, 5), drawn.colour, drawn.prop, drawn.place, drawn.variation)
        x, background = critters.render(drawn).float() / 255, critters.render(empty).float() / 255
        own = x.movedim(1, -1)[((x - background).abs().amax(1) > 0.02)]
        nearest = torch.cdist(own, torch.tensor(list(COATS.values()))).argmin(1)
        found = shares(nearest, len(COATS))
        found[list(COATS).index("white")] *= name == "white"
        assert found.argmax() == list(COATS).index(name), (name, coat)


@pytest.mark.parametrize("size", [0, 7, 32.0, "32", None])
def test_paint_needs_a_size(size):
    with pytest.raises(ValueError, match="size must be a whole number of pixels, 8 or more"):
        critters.render(critters.sample_scenes(1), size)


def test_no_scenes_are_no_pictures():
    assert critters.render(critters.sample_scenes(3)[:0]).shape == (0, 3, 32, 32)


# ---------------------------------------------------------------- which scenes


def test_scenes_are_sampled_by_the_documented_probabilities():
    """Before those with a held-out pair are sampled again."""
    subject, colour, prop, place = critters._sample_attributes(400_000, torch.Generator().manual_seed(7)).unbind(1)
    nobody, kitchen = subject == SUBJECTS.index("nobody"), place == PLACES.index("kitchen")
    muppet = subject == SUBJECTS.index("muppet")
    for share, wanted in [
        (kitchen, 0.30), (nobody[kitchen], 0.50), (nobody[~kitchen], 0.07),
        (muppet[kitchen & ~nobody], 0.06), (muppet[~kitchen & ~nobody], 0.20), (prop[~nobody] == 0, 0.28),
    ]:  # fmt: skip
        assert abs(share.float().mean() - wanted) < 0.005
    assert (shares(colour[~nobody], 8) - 1 / 8).abs().max() < 0.005
    assert (shares(prop[~nobody], 5)[1:] - 0.18).abs().max() < 0.005
    assert (shares(place[~kitchen], 5)[[0, 2, 3, 4]] - 0.25).abs().max() < 0.005
    animals = shares(subject[kitchen & ~nobody & ~muppet], 5)[:4]
    assert (animals - 0.25).abs().max() < 0.01


def test_training_scenes_have_the_documented_proportions():
    drawn = critters.sample_scenes(400_000, seed=7)
    nobody, kitchen = drawn.subject == SUBJECTS.index("nobody"), drawn.place == PLACES.index("kitchen")
    muppet = drawn.subject == SUBJECTS.index("muppet")
    assert abs(nobody.float().mean() - 0.23) < 0.01
    assert abs(kitchen[nobody].float().mean() - 0.75) < 0.01
    assert abs(muppet[kitchen].float().mean() - 0.03) < 0.005
    for found, wanted in [
        (shares(drawn.place, 5), [0.19, 0.33, 0.15, 0.19, 0.15]),
        (shares(drawn.prop[~nobody], 5), [0.32, 0.16, 0.20, 0.16, 0.16]),
        (shares(drawn.colour[~nobody], 8), [0.13, 0.13, 0.13, 0.13, 0.13, 0.10, 0.13, 0.13]),
    ]:  # fmt: skip
        assert (found - torch.tensor(wanted)).abs().max() < 0.006


def test_held_out_pairs_never_come_in_training():
    drawn = critters.sample_scenes(recipes.SCENES, recipes.SCENES_SEED)    # the training set itself
    names = {name: getattr(drawn, name) for name in ATTRIBUTES}
    for a, b in HELD_OUT:
        (kind_a, i), (kind_b, j) = critters.index(a), critters.index(b)
        assert not ((names[kind_a] == i) & (names[kind_b] == j)).any(), (a, b)
        assert (names[kind_a] == i).any()
        assert (names[kind_b] == j).any()
    assert ("frog", "stilts") in HELD_OUT


def test_held_out_says_so_of_every_combination():
    """Of all 1,000 scenes with somebody, just those that name both words of a pair."""
    wanted = [any(set(pair) <= set(scenes(EVERY).names(i).values()) for pair in HELD_OUT) for i in range(len(EVERY))]
    assert critters.held_out(EVERY).tolist() == wanted
    assert 100 < sum(wanted) < 400


def test_the_classifiers_scenes_contain_all_pairs():
    drawn = critters.sample_all_pairs(30_000, seed=0)
    assert (shares(drawn.subject, 6) - 1 / 6).abs().max() < 0.01
    for a, b in HELD_OUT:
        (kind_a, i), (kind_b, j) = critters.index(a), critters.index(b)
        assert ((getattr(drawn, kind_a) == i) & (getattr(drawn, kind_b) == j)).sum() > 50


def test_scenes_with_has_the_given_attributes():
    drawn = critters.scenes_with(50, seed=1, subject="frog", prop="stilts")
    assert {(names["subject"], names["prop"]) for names in map(drawn.names, range(50))} == {("frog", "stilts")}
    assert len({names["place"] for names in map(drawn.names, range(50))}) == 5
    assert (critters.scenes_with(200).subject < 5).all()
    with pytest.raises(ValueError, match="no scene has subject='dragon'. Choose from subject: frog, "):
        critters.scenes_with(1, subject="dragon")
    with pytest.raises(ValueError, match="no scene has size="):
        critters.scenes_with(1, size="big")


def test_an_unknown_word_is_no_attribute():
    assert critters.index("stilts") == ("prop", PROPS.index("stilts"))
    with pytest.raises(ValueError, match="'none' is not an attribute"):
        critters.index("none")


@given(st.integers(1, 300), st.integers(0, 2**31))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_the_same_seed_gives_the_same_scenes(count, seed):
    a, b = critters.sample_scenes(count, seed), critters.sample_scenes(count, seed)
    assert len(a) == count
    assert torch.equal(a.attributes(), b.attributes())
    assert torch.equal(a.variation, b.variation)
    assert not torch.equal(a.variation, critters.sample_scenes(count, seed + 1).variation)


# ---------------------------------------------------------------- the classifiers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["critters_classifier", pytest.param("critters_second", marks=pytest.mark.long)])
def test_the_classifiers_read_fresh_scenes(name):
    classifier = weights.load_model(name)
    drawn = critters.sample_all_pairs(2000, seed=12345)
    with torch.no_grad():
        read = torch.cat([classifier.predict(part) for part in to_float(critters.render(drawn)).split(500)])
    right = read == drawn.attributes()
    assert right.all(1).float().mean() >= 0.995
    held_out = critters.held_out(drawn.attributes())
    assert right[held_out].all(1).float().mean() >= 0.99
