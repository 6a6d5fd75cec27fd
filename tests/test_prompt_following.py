"""The figures of critters: checked with models that are known to be right, wrong, or right in a known share."""

import json

import pytest
import torch

from diffusion_lessons import weights
from diffusion_lessons.datasets import captions, critters
from diffusion_lessons.datasets.captions import parse_caption
from diffusion_lessons.datasets.critters import ATTRIBUTES
from diffusion_lessons.evaluation import metrics, prompt_following
from diffusion_lessons.forward import from_x0
from diffusion_lessons.models.classifiers import AttributeClassifier
from diffusion_lessons.samplers import SamplerSettings
from diffusion_lessons.schedules import cosine
from diffusion_lessons.training import recipes

QUICK = SamplerSettings(steps=2)


class Painter(torch.nn.Module):
    """A perfect model: it understands its prompt and estimates a real scene that has what was asked for.

    wrong: of every ten pictures so many show another animal;  same: all pictures of a prompt are one and the same
    """

    def __init__(self, wrong=0, same=False):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.schedule, self.tokenizer = cosine(1000), recipes.tokenizer()
        self.wrong, self.same, self.known = wrong, same, {}

    def forward(self, x_t, t, y=None):
        key = (y.shape[0], int(y.sum()))
        if key not in self.known:
            said = [parse_caption(self.tokenizer.decode(row)) for row in y]
            rows = torch.tensor([[words.index(s[name]) for name, words in ATTRIBUTES.items()] for s in said])
            rows[torch.arange(len(rows)) % 10 < self.wrong, 0] += 1
            rows[:, 0] %= 5
            if self.same:
                one = torch.rand(1, critters.VARIATIONS, generator=torch.Generator().manual_seed(0))
                scenes = critters.Scenes(*rows.unbind(1), one.expand(len(rows), -1))
                self.known[key] = critters.render(scenes).float() / 127.5 - 1
            else:
                self.known[key] = prompt_following.reference_images(rows, seed=9)
        return from_x0(self.known[key], x_t, t, self.schedule)


@pytest.fixture(scope="module")
def classifiers():
    return weights.load_model("critters_classifier"), weights.load_model("critters_second")


def test_combinations_are_those_of_training_and_the_held_out_ones():
    seen, unseen = prompt_following.combinations(), prompt_following.combinations(held_out=True)
    assert len(seen) + len(unseen) == 5 * 8 * 4 * 5
    rows = {tuple(row) for row in torch.cat([seen, unseen]).tolist()}
    assert len(rows) == 800
    assert all(row[2] > 0 for row in rows)                           # each has a prop
    assert not critters.held_out(seen).any()
    assert critters.held_out(unseen).all()
    frogs = (unseen[:, 0] == 0) & (unseen[:, 2] == 1)
    assert frogs.sum() == 40                                          # every colour, every place


def test_sample_rows_takes_each_row_equally_often():
    rows = torch.arange(30)[:, None]
    some = prompt_following.sample_rows(rows, 75, seed=1).flatten()
    counts = torch.bincount(some, minlength=30)
    assert set(counts.tolist()) == {2, 3}
    assert not torch.equal(some, prompt_following.sample_rows(rows, 75, seed=2).flatten())


def test_prompts_mention_all_four_attributes():
    rows = prompt_following.sample_rows(prompt_following.combinations(), 300, seed=0)
    texts = prompt_following.prompts_for(rows, seed=0)
    assert [parse_caption(text) for text in texts] == [critters.to_names(row) for row in rows]
    assert len({text.split(" ", 1)[0] for text in texts}) > 3         # in varying words


SAID = {"subject": "muppet", "prop": "cooking", "place": "kitchen"}


def test_subject_shares_are_those_of_captioning_every_scene():
    """`subject_shares` captions only the scenes that can have such a caption; here all of them get one."""
    for said in (SAID, {"subject": "owl", "colour": "red"}, {"place": "beach"}):
        scenes = critters.sample_scenes(40_000, seed=1)
        all_found, there = captions.attributes_given(scenes, captions.sample_captions(scenes, seed=1), said)
        found, shares = prompt_following.subject_shares(said, 120_000, seed=2)
        assert abs(found - 3 * all_found) < 5 * (found + 9 * all_found) ** 0.5
        for name in critters.SUBJECTS:
            low, high = metrics.wilson_interval(there["subject"].get(name, 0), all_found, z=4)
            assert low - 0.03 <= shares.get(name, 0) <= high + 0.03, (said, name)


def test_the_shipped_subject_shares_can_be_counted_again():
    curve = json.loads((weights.FOLDER / "curves" / "guidance.json").read_text())
    assert curve["truth"]["captions"] >= 10_000
    found, shares = prompt_following.subject_shares(parse_caption(curve["prompt"]), 400_000, seed=123)
    assert parse_caption(curve["prompt"]) == SAID
    for name in ("muppet", "nobody"):
        low, high = metrics.wilson_interval(shares[name], found, z=4)
        assert low < curve["truth"][name] < high
    assert sum(curve["truth"][name] for name in ("muppet", "nobody", "another")) == pytest.approx(1)


def test_reference_images_are_classified_as_their_attributes(classifiers):
    rows = prompt_following.sample_rows(prompt_following.combinations(held_out=True), 300, seed=0)
    assert metrics.attribute_accuracy(classifiers[0], prompt_following.reference_images(rows, 1), rows)["all"] > 0.98


def test_a_perfect_model_gets_full_marks(classifiers):
    found = prompt_following.report(Painter(), recipes.tokenizer(), classifiers, w=1.0, count=80, seed=0, sampler=QUICK)
    for part in ("seen", "held_out"):
        assert found[part]["all"] >= 0.98
        assert found[part]["second"]["all"] >= 0.97
        assert found[part]["all_lower95"] == metrics.wilson_lower_bound(found[part]["all"], 80)
    assert found["frogs_on_stilts"]["count"] > 5
    assert found["frogs_on_stilts"]["all"] > 0.95
    assert found["recall"] > 0.85
    assert 0.9 < found["diversity"]["share_of_real"] < 1.1
    assert (found["steps"], found["w"]) == (2, 1.0)


def test_a_model_that_errs_in_three_of_ten_loses_three_of_ten(classifiers):
    rows = prompt_following.combinations()
    found = prompt_following.evaluate_prompts(Painter(wrong=3), recipes.tokenizer(), classifiers, rows, 100, 1.0, 0,
                                             sampler=QUICK)[0]
    assert abs(found["subject"] - 0.7) < 0.02
    assert abs(found["all"] - 0.7) < 0.02
    assert min(found[name] for name in ("colour", "prop", "place")) > 0.98
    assert found["subject_lower95"] < found["subject"] - 0.05


def test_a_model_that_repeats_itself_has_no_diversity(classifiers):
    report = prompt_following.report(Painter(same=True), recipes.tokenizer(), classifiers, w=1.0, count=80, seed=0,
                                     sampler=QUICK)
    assert report["recall"] < 0.4
    rows, how = prompt_following.combinations(), dict(prompts=3, each=8, w=1.0, seed=0, sampler=QUICK)
    assert prompt_following.diversity(Painter(same=True), recipes.tokenizer(), rows, **how) < 0.01
    assert prompt_following.diversity(Painter(), recipes.tokenizer(), rows, **how) > 0.9


def test_attribute_accuracy_counts_rows_and_attributes():
    """A classifier of fixed answers: the shares follow by hand."""
    class Fixed(AttributeClassifier):
        def predict(self, x):
            return torch.tensor([[0, 1, 2, 3], [1, 1, 2, 3], [0, 0, 2, 3], [0, 1, 2, 3]])[:len(x)]

    wanted = torch.tensor([[0, 1, 2, 3]] * 4)
    found = metrics.attribute_accuracy(Fixed(), torch.zeros(4, 3, 32, 32), wanted)
    assert [found[name] for name in ("all", *ATTRIBUTES)] == [0.5, 0.75, 0.75, 1.0, 1.0]
    assert found["all_lower95"] == metrics.wilson_lower_bound(0.5, 4)


@pytest.mark.slow
def test_the_classifiers_agree_on_noisy_pictures(classifiers):
    """On noisy pictures both classifiers must still predict the same, within one percentage point."""
    rows = prompt_following.sample_rows(prompt_following.combinations(), 2000, seed=3)
    x = prompt_following.reference_images(rows, 3)
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    first, second = (metrics.attribute_accuracy(classifier, x, rows) for classifier in classifiers)
    assert all(abs(first[name] - second[name]) < 0.01 for name in ("all", *ATTRIBUTES))
