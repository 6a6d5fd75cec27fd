"""CLIP's byte-pair encoding against transformers' CLIPTokenizerFast, on a small vocabulary trained here."""

import json
import unicodedata

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizerFast

from diffusion_lessons.models.stable_diffusion.tokenizer import (
    BOS,
    EOS,
    SIGNS,
    Tokenizer,
    merge,
    normalize,
    pieces,
    symbols,
    train_bpe,
)

TEXTS = ["a green frog on stilts in the snow", "two owls, an owl's hat: it's 42!", "they're, we've, I'm, you'll, he'd",
         "ein Frosch auf Stelzen, café über naïve", "лягушка на ходулях", "カエル", "stilts stilts stilts frogs frog"]
MERGES = train_bpe(TEXTS, 60)


@pytest.fixture(scope="module", params=[EOS, "!"], ids=["1.5", "2.x"])
def both(request, tmp_path_factory):
    """Ours, and theirs read from the folder that ours writes, with the padding of either version."""
    ours = Tokenizer(MERGES, length=24, pad=request.param)
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder)
    return ours, CLIPTokenizerFast.from_pretrained(folder)


def theirs_of(tokenizer, texts):
    """As StableDiffusionPipeline calls it."""
    return tokenizer(texts, padding="max_length", max_length=24, truncation=True, return_tensors="pt").input_ids


# Characters that this Python's table knows; newer ones would test Unicode's versions and not the tokenizer
any_text = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=30)
english = st.lists(st.sampled_from(["frog", "Frogs", "owl's", "they're", "42", "!?", "'", "'s", "don't", "\u00a0", "\n",
                                    "é", "e\u0301", "İ", "ΣΑΣ", "ß", "<|startoftext|>", "</w>", "ﬁ",
                                    "½", "²",
                                    "\u200b", "\x1c", "_", "stilts", "Ⅷ", "٣", "กำ", "हिन्दी", "🐸", "👩‍🚀"]),
                   max_size=8).map(" ".join)
glued = st.lists(st.sampled_from(["frog", "'s", "'", "!", "1", " ", "é", "🐸", "<|endoftext|>", "S", "'RE"]),
                 max_size=8).map("".join)


@settings(max_examples=300)
@given(st.one_of(any_text, english, glued))
@example("a green frog on stilts in the snow")
@example("'s's 's!'s''s")
@example("")
@example("oh! no!! !")
def test_any_text_is_read_as_transformers_does(both, text):
    ours, theirs = both
    wanted = theirs_of(theirs, [text])[0].tolist()
    inside = [ours.token_to_id(piece) for piece in ours.tokenize(text)][:22]
    row = [ours.vocab[BOS], *inside, ours.vocab[EOS]]
    assert row + [ours.vocab[ours.pad]] * (24 - len(row)) == wanted


def test_a_batch_is_read_padded_and_cut_as_theirs(both):
    ours, theirs = both
    texts = [*TEXTS, ""]
    with pytest.warns(UserWarning, match="only the first 22 tokens"):
        found = ours(texts)
    assert found.dtype == torch.int64
    assert torch.equal(found, theirs_of(theirs, texts))
    assert torch.equal(ours(TEXTS[0]), found[:1])
    assert ours([]).shape == (0, 24)


def test_what_is_cut_off_is_named(both):
    ours = Tokenizer(train_bpe(["one two three four"], 100), length=4)
    with pytest.warns(UserWarning, match="'three four'"):
        assert ours.decode(ours.encode("One two three four")) == "one two"


@pytest.mark.parametrize("pad", [EOS, "!"])
def test_the_padding_of_either_version_survives_saving(pad, tmp_path):
    """Stable Diffusion 2 and SD-Turbo fill up with "!", token 0; their encoder sees it."""
    Tokenizer(MERGES, length=9, pad=pad).save(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), CLIPTokenizerFast.from_pretrained(tmp_path)
    wanted = theirs(["frog"], padding="max_length", max_length=theirs.model_max_length, return_tensors="pt").input_ids
    assert torch.equal(ours("frog"), wanted)
    assert ours("frog")[0, -1] == ours.vocab[pad]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["pad_token"] = {"__type": "AddedToken", "content": pad}     # as older published files say it
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path).pad == pad


@settings(max_examples=100)
@given(any_text)
def test_decoding_gives_the_normalized_pieces_back(both, text):
    ours = both[0]
    text = text.replace("!", "")      # may be padding, and vanishes then
    wanted = " ".join(pieces(normalize(text)))
    ids = [ours.token_to_id(piece) for piece in ours.tokenize(text)]
    assert ours.decode(ids) == wanted


def test_pieces_and_symbols():
    assert pieces(normalize("It's  42 Owls!?")) == ["it", "'s", "4", "2", "owls", "!?"]
    assert symbols("owl") == ("o", "w", "l</w>")
    assert merge(("a", "b", "a", "b", "a"), ("a", "b")) == ("ab", "ab", "a")
    assert len(set(SIGNS)) == 256
    assert all(unicodedata.category(sign)[0] not in "CZ" for sign in SIGNS)


def test_training_merges_the_most_frequent_pair_first():
    """Counted by hand: l o</w> 3 times, o w</w> twice; then lo, whose own neighbours are counted again."""
    assert train_bpe(["lo lo lo ow ow"], 1) == [("l", "o</w>")]
    assert train_bpe(["lo lo lo ow ow"], 5) == [("l", "o</w>"), ("o", "w</w>")]
    # a b: three times (at the end of a word b is another sign); then "ab a" and "a b</w>" both twice: the alphabet
    assert train_bpe(["abab abab abc"], 3) == [("a", "b"), ("ab", "a"), ("aba", "b</w>")]


def test_a_vocabulary_without_its_special_tokens_is_refused():
    with pytest.raises(ValueError, match="startoftext"):
        Tokenizer([], vocab={"a": 0})
    assert Tokenizer([], vocab={BOS: 0, EOS: 1, "a</w>": 2}, length=4).encode("a b") == [0, 2, 1, 1]


def test_the_pair_that_was_learned_first_merges_first():
    assert Tokenizer([("a", "b"), ("b", "c</w>")]).tokenize("abc") == ["ab", "c</w>"]
    assert Tokenizer([("b", "c</w>"), ("a", "b")]).tokenize("abc") == ["a", "bc</w>"]
