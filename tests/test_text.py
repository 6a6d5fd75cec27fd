"""The tokenizer, the text encoder, and how its output conditions the U-Net."""

import random
import re
import unicodedata
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffusion_lessons import schedules, training
from diffusion_lessons.condition import Condition
from diffusion_lessons.denoiser import Denoiser
from diffusion_lessons.models.text import (
    BOS,
    EOS,
    PAD,
    CrossAttention,
    TextEncoder,
    Tokenizer,
    attention_maps,
    normalize,
)
from diffusion_lessons.models.unet import UNet
from diffusion_lessons.training import recipes

TOKENS = Tokenizer(["a", "cat", "frog", "green", "in", "on", "snow", "stilts", "the"], longest=6)
PROMPTS = ["a green frog on stilts", "frog", "the snow", ""]


def encoder(**settings):
    torch.manual_seed(0)
    net = TextEncoder(**{"vocab_size": 12, "length": 8, "width": 32, "layers": 2, "heads": 2, **settings})
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.2)
    return net.eval()


@pytest.fixture
def net():
    """A small U-Net with text, without the zeros of its initialisation."""
    torch.manual_seed(0)
    text = dict(vocab_size=12, length=8, width=32, layers=1, heads=2)
    net = UNet(in_channels=1, channels=(16, 32, 32), blocks=1, text=text)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return net.eval()


X = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
T = torch.tensor([10, 200, 500, 900])


# ---------------------------------------------------------------- the tokenizer


def test_a_sentence_becomes_bos_words_eos_and_padding():
    assert TOKENS("A green, FROG!").tolist() == [[BOS, 3, 6, 5, EOS, PAD, PAD, PAD]]
    assert TOKENS("").tolist() == [[BOS, EOS] + [PAD] * 6]
    assert TOKENS(["frog", "a cat"]).shape == (2, 8)
    assert TOKENS.decode(TOKENS("On stilts!")[0]) == "on stilts"
    assert TOKENS.decode(TOKENS("on stilts")[0], skip_special_tokens=False) == "<bos> on stilts <eos>" + " <pad>" * 4


@given(st.lists(st.sampled_from(TOKENS.vocab), max_size=6))
@settings(deadline=None, derandomize=True)
def test_tokens_give_the_words_back(words):
    row = TOKENS(" ".join(words))[0]
    assert TOKENS.decode(row).split() == TOKENS.tokenize(" ".join(words)) == words
    assert row.tolist() == TOKENS.encode(" ".join(words))
    assert len({TOKENS.decode([n], skip_special_tokens=False) for n in range(TOKENS.vocab_size)}) == 12


def test_unknown_words_get_the_nearest_known_ones():
    with pytest.raises(ValueError, match=re.escape('"stiltz" (did you mean "stilts"?) and "quux"')):
        TOKENS("a frog on stiltz quux stiltz")
    with pytest.raises(ValueError, match="It knows 9 words: a, cat, frog, green"):
        TOKENS("dog")
    with pytest.raises(ValueError, match="has 7 words; this model reads at most 6: shorten it"):
        TOKENS("a a a a a a frog")


# Words as people write them: letters of every script with combining marks, hyphens and apostrophes in and around them
LETTERS = st.characters(categories=["L", "M", "Nd"])
WORD = st.text(st.one_of(LETTERS, st.sampled_from("aé\u0301\u093f\u05b8ßİς-'’.·&+\u200d")), min_size=1, max_size=8)
VOCABULARY = st.lists(WORD.filter(normalize), min_size=1, max_size=6, unique_by=normalize)
CHANGES = (str, str.upper, str.lower, str.title, *(partial(unicodedata.normalize, form) for form in ("NFC", "NFD")))


@given(VOCABULARY, st.sampled_from(CHANGES[:1] + CHANGES[4:]))
@example(["हिन्दी", "தமிழ்", "שָׁלוֹם", "top", "top-hat", "don't", "don", "Café", "C++", "🐸", "'tis", "dogs'"], str)
def test_every_word_of_a_vocabulary_is_accepted(words, change):
    tokens = Tokenizer(words, longest=12)
    assert tokens(change(" ".join(words)))[0, 1:len(words) + 1].tolist() == list(range(3, len(words) + 3))
    assert tokens.decode(tokens(words[-1])[0]) == words[-1]


@pytest.mark.parametrize("word", ["हिन्दी", "தமிழ்", "שָׁלוֹם", "Łódź", "top-hat", "don't", "l'été", "Straße", "ΑΣΣΟΣ"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_word_is_known_in_capitals_decomposed_and_among_punctuation(word, change):
    tokens = Tokenizer(["a", word, "frog"], longest=8)
    said = f"A {change(word)}, ({change(word)}) “{change(word)}”! {change(word)}_frog…"
    assert tokens(said)[0].tolist() == [BOS, 3, 4, 4, 4, 4, 5, EOS, PAD, PAD]


def test_a_known_word_within_a_longer_one_is_not_taken_for_it():
    tokens = Tokenizer(["top-hat", "hat", "s", "c", "sari", "सा", "ड़ी"])
    for text in ("top-hats", "chat", "saris", "साड़ी"):
        with pytest.raises(ValueError, match="never seen"):
            tokens(text)


@pytest.mark.parametrize("text", ["🐸", "🐸 🌧️ ❤️", "...", "!?", "- – —", "\u200b"])
def test_a_prompt_without_any_word_is_refused(text):
    with pytest.raises(ValueError, match="there is no word in .* leave the text empty"):
        TOKENS(text)
    with pytest.raises(ValueError, match="there is no word"):
        TOKENS(["a frog", text])


def test_white_space_is_the_empty_sentence():
    assert torch.equal(TOKENS([" ", "\n\t"]), TOKENS(["", ""]))
    assert torch.equal(TOKENS("a frog 🐸"), TOKENS("a frog"))


@pytest.mark.parametrize(("words", "named"), [(["cat", "Cat"], "again: cat"), (["owl", ""], "empty"),
                                              (["cafe\u0301", "Café"], "again: cafe\u0301"), (["owl", " "], "empty")])
def test_a_vocabulary_with_the_same_word_twice_or_an_empty_one_is_refused(words, named):
    with pytest.raises(ValueError, match=named):
        Tokenizer(words)


# ---------------------------------------------------------------- the text encoder


@torch.no_grad()
def test_no_token_attends_to_a_later_one():
    net, g = encoder(), torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 12, (3, 8), generator=g)
    states = net(tokens).hidden_states
    for k in range(8):
        other = tokens.clone()
        other[:, k] = (tokens[:, k] + 1) % 9 + 3
        off = (net(other).hidden_states - states).abs().amax(-1)      # (3, 8)
        assert (off[:, :k] == 0).all()
        assert (off[:, k:] > 1e-4).all()                     # and every later one does change


def test_the_gradient_of_a_token_reaches_itself_and_earlier_ones_only():
    net, tokens = encoder(), TOKENS("a green frog in the snow")
    for last in range(8):
        net.zero_grad()
        net(tokens).hidden_states[0, last].square().sum().backward()
        reached = net.position_embedding.weight.grad.abs().sum(1) > 0       # (8,)
        assert reached.tolist() == [k <= last for k in range(8)]


@torch.no_grad()
def test_padding_changes_nothing_in_the_text_encoder():
    net, tokens = encoder(), TOKENS(PROMPTS)
    long, short = net(tokens), net(tokens[:, :7])            # the longest has 5 words, so position 8 is padding
    torch.testing.assert_close(long.hidden_states[:, :7], short.hidden_states, rtol=0, atol=1e-6)
    torch.testing.assert_close(long.pooled, short.pooled, rtol=0, atol=1e-6)
    assert long.mask.sum(1).tolist() == [7, 3, 4, 2]


@torch.no_grad()
def test_the_pooled_vector_is_the_mean_of_the_tokens():
    net, tokens = encoder(), TOKENS(PROMPTS)
    text = net(tokens)
    for row, length in enumerate((7, 3, 4, 2)):
        torch.testing.assert_close(text.pooled[row], text.hidden_states[row, :length].mean(0), rtol=0, atol=1e-6)
    assert (torch.cdist(text.pooled, text.pooled) + 9 * torch.eye(4)).min() > 0.1     # four sentences, four vectors


@torch.no_grad()
def test_the_order_of_the_words_counts():
    net = encoder()
    a, b = net(TOKENS(["green frog cat", "frog green cat"])).pooled
    assert (a - b).abs().max() > 1e-3


# ---------------------------------------------------------------- cross-attention


@torch.no_grad()
def test_the_weights_are_those_that_the_layer_mixes_by():
    torch.manual_seed(0)
    layer = CrossAttention(64, 32, head_width=64)            # one head, so the mean of the heads is that head
    torch.nn.init.normal_(layer.to_out.weight, std=0.1)
    x, text = torch.randn(4, 64, 3, 5), encoder()(TOKENS(PROMPTS))
    weights = layer.attention_weights(x, text)               # (B, L, H, W)
    assert weights.shape == (4, 8, 3, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(4, 3, 5), rtol=0, atol=1e-5)
    assert (weights.movedim(1, -1)[~text.mask[:, None, None].expand(4, 3, 5, 8)] == 0).all()
    values = layer.to_kv(text.hidden_states)[..., 64:]       # (B, L, C)
    mixed = torch.einsum("blhw,blc->bchw", weights, values)
    torch.testing.assert_close(layer(x, text), x + layer.to_out(mixed), rtol=0, atol=1e-5)


@torch.no_grad()
def test_attention_maps_are_those_of_the_largest_maps_and_leave_no_trace(net):
    tokens, said = TOKENS(PROMPTS), net(X, T, TOKENS(PROMPTS))
    maps = attention_maps(net, X, T, tokens)
    assert maps.shape == (4, 8, 4, 4)                        # 16 pixels, packed 2x2, the second level
    torch.testing.assert_close(maps.sum(1), torch.ones(4, 4, 4), rtol=0, atol=1e-5)
    assert (maps[3, 2:] == 0).all()                          # the empty sentence has BOS and EOS alone
    seen = []
    for layer in net.modules():                              # by hand: what comes in, and the weights for it
        if isinstance(layer, CrossAttention):
            layer.register_forward_pre_hook(lambda layer, args: seen.append(layer.attention_weights(*args)))
    torch.testing.assert_close(net(X, T, tokens), said, rtol=0, atol=1e-6)
    assert len(seen) == 4
    largest = [weights for weights in seen if weights.shape[-1] == 4]
    torch.testing.assert_close(maps, (largest[0] + largest[1]) / 2, rtol=0, atol=1e-6)


@torch.no_grad()
def test_padding_changes_nothing_in_the_picture(net):
    """Neither how much of it there is nor what its vectors are."""
    tokens = TOKENS(PROMPTS)
    said = net(X, T, tokens)
    torch.testing.assert_close(net(X, T, tokens[:, :7]), said, rtol=0, atol=1e-5)
    text = net.encode_text(tokens)
    noise = torch.where(text.mask[..., None], text.hidden_states, 100.0)
    torch.testing.assert_close(net(X, T, replace(text, hidden_states=noise)), said, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_null_condition_is_the_empty_sentence(net):
    none = net(X, T)
    torch.testing.assert_close(net(X, T, TOKENS([""] * 4)), none, rtol=0, atol=1e-5)
    assert torch.equal(net(X, T, net.null_condition(4)), none)
    assert torch.equal(net.null_y, TOKENS("")[0])
    assert (net(X, T, TOKENS(PROMPTS)) - none).flatten(1).abs().amax(1)[:3].min() > 1e-3


def test_the_null_condition_is_learned(net):
    net(X, T).square().sum().backward()
    grad = net.text_encoder.token_embedding.weight.grad.abs().sum(1)
    assert grad[BOS] > 0
    assert grad[EOS] > 0
    assert (grad[EOS + 1:] == 0).all()


@torch.no_grad()
def test_tokens_and_the_pooled_vector_both_count(net):
    text, other = (net.encode_text(TOKENS([prompt] * 4)) for prompt in ("a green frog", "a cat frog"))
    said = net(X, T, text)
    for mixed in (replace(text, hidden_states=other.hidden_states), replace(text, pooled=other.pooled)):
        assert (net(X, T, mixed) - said).flatten(1).abs().amax(1).min() > 1e-3
    assert torch.equal(net(X, T, TOKENS(["a green frog"] * 4)), said)


@torch.no_grad()
def test_each_picture_gets_its_own_sentence(net):
    tokens = TOKENS(PROMPTS)
    together = net(X, T, tokens)
    alone = torch.cat([net(X[i:i + 1], T[i:i + 1], tokens[i:i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_network_with_text_is_built_again_from_its_config(net):
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(X, T, TOKENS(PROMPTS)), net(X, T, TOKENS(PROMPTS)))


def test_each_picture_needs_a_sentence(net):
    with pytest.raises(ValueError, match="4 pictures but 1 conditions"):
        net(X, T, TOKENS("a frog"))


def test_there_is_cross_attention_at_all_levels_but_the_first(net):
    channels = [block.cross_attention and block.cross_attention.to_q.in_channels
                for blocks in (net.down_blocks, net.up_blocks) for block in blocks]
    assert channels == [None, 32, 32, 32, 32, None]


# ---------------------------------------------------------------- training


def text_trainer(cond_drop_prob, count=400):
    text = dict(vocab_size=12, length=8, width=16, layers=1, heads=2)
    net = UNet(in_channels=1, channels=(8, 16), blocks=1, text=text)
    tokens = TOKENS(["a frog", "the snow"] * (count // 2))
    return training.Trainer(Denoiser(net, schedules.cosine(100)), torch.zeros(count, 1, 8, 8), tokens, steps=9,
                            batch=200, cond_drop_prob=cond_drop_prob)


@pytest.mark.parametrize("rate", [0.0, 0.15, 1.0])
def test_captions_are_hidden_one_by_one_at_the_asked_rate(rate):
    trainer = text_trainer(rate)
    counts = []
    for k in range(20):
        y = trainer.sample_batch(trainer.step_generator(k))[3]
        hidden = (y == TOKENS("")).all(1)
        assert ((y == TOKENS("a frog")).all(1) | (y == TOKENS("the snow")).all(1) | hidden).all()
        counts.append(hidden.float().mean().item())
    mean = sum(counts) / 20
    assert abs(mean - rate) < 0.02
    if rate == 0.15:     # in every batch some are hidden and some are not
        assert min(counts) > 0
        assert max(counts) < 0.4


def test_tokens_need_a_network_with_a_text_encoder():
    net = UNet(channels=(8, 16), blocks=1, classes=3)
    with pytest.raises(ValueError, match="which this network cannot read"):
        training.Trainer(Denoiser(net, schedules.cosine(100)), torch.zeros(2, 1, 8, 8), TOKENS(["", ""]), steps=1)
    denoiser, x = text_trainer(0.1).denoiser, torch.zeros(2, 1, 8, 8)
    for tokens in (Tokenizer(TOKENS.vocab, longest=9)(["", ""]), TOKENS(["", ""]) + 11):
        with pytest.raises(ValueError, match=r"tokens must be \(N, 8\) and below 12"):
            training.Trainer(denoiser, x, tokens, steps=1)
    with pytest.raises(ValueError, match="not on both"):
        UNet(classes=3, text=dict(vocab_size=12, length=8))
    with pytest.raises(ValueError, match="has no cross-attention"):
        attention_maps(net, torch.zeros(1, 1, 8, 8), torch.tensor([1]), None)


@pytest.mark.long
def test_it_learns_what_words_mean():
    """Frogs are bright and cats are dark, whatever the other words: this holds for sentences never seen in training."""
    rng = random.Random(0)
    kinds = [rng.choice(["frog", "cat"]) for _ in range(300)]
    texts = [" ".join(rng.sample(["a", "green", "in", "on", "snow", "stilts", "the", kind], 5)) for kind in kinds]
    texts = [text if kind in text.split() else f"{text} {kind}" for text, kind in zip(texts, kinds)]
    x = torch.tensor([0.8 if kind == "frog" else -0.8 for kind in kinds])[:, None, None, None].repeat(1, 1, 4, 4)
    torch.manual_seed(0)
    net = UNet(in_channels=1, channels=(16, 32), blocks=1, patch=1,
               text=dict(vocab_size=12, length=8, width=32, layers=1, heads=2))
    trainer = training.Trainer(Denoiser(net, schedules.cosine(100)), x[:200], TOKENS(texts[:200]), steps=250, batch=32,
                               lr=3e-3, ema_decay=0.9)
    average = training.run(trainer)
    x_t = torch.randn(100, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        guess = average(x_t, torch.full((100,), 100), TOKENS(texts[200:])).x0.flatten(1).mean(1)
    assert ((guess > 0) == (x[200:, 0, 0, 0] > 0)).float().mean() > 0.95
    assert (guess - x[200:, 0, 0, 0]).abs().median() < 0.2


def test_the_recipe_of_critters_stays_small():
    denoiser = recipes.build(recipes.RECIPES["critters"])
    assert sum(p.numel() for p in denoiser.parameters()) <= 5_000_000
    assert 0.1 <= recipes.RECIPES["critters"].cond_drop_prob <= 0.2
    text = denoiser.net.encode_text(recipes.tokenizer()("a frog"))
    assert isinstance(text, Condition)
