"""Captions: their English, how reliable they are, and that no held-out pair appears in them."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lessons.datasets import captions, critters
from diffusion_lessons.datasets.captions import RandomChoices, parse_caption, phrase
from diffusion_lessons.datasets.critters import COATS, HELD_OUT, PLACES, PROPS, SUBJECTS
from diffusion_lessons.training import recipes

PLURALS = "|".join(pair[1] for forms in captions.NAMES.values() for pair in forms) + "|hats"

COLOURS = "|".join(COATS)


@pytest.fixture(scope="module")
def written():
    """The training set itself."""
    scenes = critters.sample_scenes(recipes.SCENES, recipes.SCENES_SEED)
    return scenes, captions.sample_captions(scenes, recipes.SCENES_SEED)


said = st.fixed_dictionaries({}, optional={
    "subject": st.sampled_from(SUBJECTS[:-1]), "colour": st.sampled_from(list(COATS)),
    "prop": st.sampled_from(PROPS[1:]), "place": st.sampled_from(PLACES)})


@given(said, st.integers(0, 2**31))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_a_phrase_mentions_exactly_the_given_attributes(said, seed):
    assert parse_caption(phrase(said, RandomChoices(seed))) == said
    assert parse_caption(phrase(said)) == said


@pytest.mark.parametrize("place", PLACES)
def test_an_empty_scene_has_only_its_place_described(place):
    texts = {phrase({"subject": "nobody", "place": place}, RandomChoices(seed)) for seed in range(40)}
    assert len(texts) >= 3
    assert all(parse_caption(text) == {"subject": "nobody", "place": place} for text in texts)


def test_a_place_with_a_critter_in_it_is_not_empty():
    assert parse_caption("a frog in a kitchen") == {"subject": "frog", "place": "kitchen"}
    assert parse_caption("in a kitchen") == {"place": "kitchen"}
    assert parse_caption("A kitchen!") == {"subject": "nobody", "place": "kitchen"}
    with pytest.raises(ValueError, match="nothing but a place to describe"):
        phrase({"subject": "nobody"})


@pytest.mark.parametrize(("said", "text"), [
    (dict(subject="frog", colour="green", prop="stilts", place="snow"), "a green frog on stilts in the snow"),
    (dict(subject="muppet", prop="cooking"), "a muppet cooking"),
    (dict(subject="owl", colour="orange"), "an orange owl"),
    (dict(subject="owl"), "an owl"),
    (dict(prop="hat", place="night"), "someone in a top hat at night"),
    (dict(subject="nobody", place="kitchen"), "a kitchen"),
    ({}, "someone"),
])  # fmt: skip
def test_the_plainest_phrase(said, text):
    assert phrase(said) == text


def test_english_varies_and_agrees(written):
    texts = [caption.text for caption in written[1]]
    assert len(set(texts)) > 8_000
    assert any("frogs" in text and "hats" in text for text in texts)
    for text in texts:
        words = text.split()
        assert text == " ".join(words)
        for article, noun in zip(words, words[1:]):
            assert not (article == "a" and noun[0] in "aeiou"), text
            assert not (article == "an" and noun[0] not in "aeiou"), text
        assert not re.search(rf"\ban? (({COLOURS}) )?({PLURALS})\b", text), text
    frogs = [c for c in written[1] if c.mentions.get("subject") == "frog"]
    share = sum("frogs" in c.text.split() or "toads" in c.text.split() for c in frogs) / len(frogs)
    assert abs(share - captions.PLURAL) < 0.02


def test_all_words_are_in_the_vocabulary_and_all_of_it_is_used(written):
    used = {word for caption in written[1] for word in caption.text.split()}
    assert used == set(captions.VOCAB)
    assert list(captions.VOCAB) == sorted(captions.VOCAB)
    assert max(len(caption.text.split()) for caption in written[1]) <= captions.LONGEST


def test_captions_are_right_at_the_documented_rate(written):
    scenes, texts = written
    told = {"somebody": [], "nobody": []}
    for i, caption in enumerate(texts):
        names = scenes.names(i)
        told["nobody" if names["subject"] == "nobody" else "somebody"].append((names, caption.mentions))
    somebody, nobody = told["somebody"], told["nobody"]
    wrong = sum("subject" in said and said["subject"] != names["subject"] for names, said in somebody) / len(somebody)
    silent = sum("subject" not in said for _, said in somebody) / len(somebody)
    made_up = sum(said.get("subject") != "nobody" for _, said in nobody) / len(nobody)
    assert abs(wrong - captions.WRONG) < 0.005
    assert abs(silent - (1 - captions.WRONG) * captions.LEFT_OUT) < 0.006
    assert abs(made_up - captions.WRONG) < 0.01
    for name, rate in {"colour": captions.COLOUR, "place": captions.PLACE, "prop": captions.PROP}.items():
        rows = [(names, said) for names, said in somebody if names[name] != "none"]
        assert abs(sum(name in said for _, said in rows) / len(rows) - rate) < 0.02
        assert all(said.get(name, names[name]) == names[name] for names, said in rows)    # all but the subject is true
    assert all(said.get("prop") is None for names, said in somebody if names["prop"] == "none")


def test_mentions_are_what_the_text_says(written):
    for caption in written[1][:5000]:
        assert parse_caption(caption.text) == caption.mentions


def test_held_out_pairs_never_come_in_captions(written):
    """Neither in the words, nor when the words meet the picture: every caption of a training set, looked at."""
    scenes, texts = written
    for i, caption in enumerate(texts):
        heard = parse_caption(caption.text)
        there = scenes.names(i)
        for pair in map(set, HELD_OUT):
            assert not pair <= set(heard.values()), caption
            assert not pair <= set({**there, **heard}.values()), (caption, there)
    assert sum(caption.mentions.get("subject") == "frog" for caption in texts) > 1000
    assert sum(caption.mentions.get("prop") == "stilts" for caption in texts) > 1000


def test_report_counts_what_is_there():
    scenes = critters.Scenes(torch.tensor([0, 0, 1, 5]), torch.tensor([0, 1, 2, 8]), torch.tensor([0, 0, 1, 0]),
                             torch.tensor([0, 1, 2, 1]), torch.zeros(4, critters.VARIATIONS))
    texts = [captions.Caption("", said) for said in (
        {"subject": "frog", "colour": "green"}, {"subject": "rabbit"}, {"subject": "rabbit", "prop": "stilts"},
        {"subject": "nobody", "place": "kitchen"})]
    found = captions.report(scenes, texts)
    assert found["captions"] == 4
    assert found["mentioned"] == {"subject": 1.0, "colour": 0.25, "prop": 0.25, "place": 0.25}
    assert found["correct"] == {"subject": 0.75, "colour": 1.0, "prop": 1.0, "place": 1.0}
    assert found["subjects"]["rabbit"] == {"frog": 0.5, "rabbit": 0.5}
    assert found["subjects"]["cat"] == {}
    count, there = captions.attributes_given(scenes, texts, {"subject": "rabbit"})
    assert (count, there["subject"], there["place"]) == (1, {"frog": 1.0}, {"kitchen": 1.0})


def test_muppets_are_rare_where_captions_say_they_cook(written):
    """What lesson 06 needs: among pictures whose caption tells of a muppet in a kitchen, many show none."""
    scenes, texts = written
    there = [scenes.names(i)["subject"] for i, c in enumerate(texts)
             if c.mentions.get("subject") == "muppet" and c.mentions.get("place") == "kitchen"]
    shares = captions.shares(there)
    assert len(there) > 300
    assert 0.35 < shares["muppet"] < 0.65
    assert shares["nobody"] > 0.1


def test_the_same_seed_writes_the_same(written):
    scenes, texts = written
    assert captions.sample_captions(scenes[:500], recipes.SCENES_SEED) == texts[:500]
    assert captions.sample_captions(scenes[:500], recipes.SCENES_SEED + 1) != texts[:500]
