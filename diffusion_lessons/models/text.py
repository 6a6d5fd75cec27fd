"""From a sentence to numbers: a tokeniser of words, and a small GPT-style transformer that reads them in order."""

import difflib
import re
import unicodedata
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

PAD, START, END = 0, 1, 2    # tokens that are no words; the words follow
# What can stand within a word besides letters and digits: combining marks (Hindi and Tamil vowels, Hebrew points,
# accents) and the two joiners of Indic and Persian writing; for a regular expression's [...]
MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M") + "\u200c\u200d"


def same_form(text) -> str:
    """One spelling for texts that read alike: composed (NFC), without capitals, single spaces.

    "CAFE\u0301" and "caf\u00e9" become the same string.     (Unicode 15, section 3.13, D145: caseless matching)
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", str(text)).casefold())
    return " ".join(text.split())


class Tokenizer:
    """Words to numbers by a fixed vocabulary: words[i] has the number i + 3.

    A sentence becomes  START, its words, END, and PAD up to the length. "No text" is the sentence without words.

    words: the vocabulary, each different from the others by more than capitals: "owl", "top-hat", "don't", words of
    any script;  longest: words in a sentence
    Raises ValueError for an empty word, and for two that read alike.
    """

    def __init__(self, words, longest=16):
        self.words, self.length = tuple(words), longest + 2
        self.number = {same_form(word): i + 3 for i, word in enumerate(self.words)}
        if "" in self.number or len(self.number) < len(self.words):
            twice = [word for i, word in enumerate(self.words) if self.number[same_form(word)] != i + 3]
            raise ValueError("each word of the vocabulary must be there once, capitals aside, and none may be empty: "
                             + (f"these come again: {', '.join(twice)}" if twice else "one is empty"))
        # A word is a run of letters, digits and marks, or a known one that is more than that, such as "top-hat"
        inner = rf"(?:[^\W_]|[{MARKS}])"
        run = rf"[^\W_]{inner}*"
        more = sorted((word for word in self.number if not re.fullmatch(run, word)), key=len, reverse=True)
        self.pattern = re.compile("|".join([*(rf"(?<!{inner}){re.escape(word)}(?!{inner})" for word in more), run]))

    def __call__(self, texts):
        """Sentences to tokens.  a string or a list of B strings -> (B, length) int64

        Capitals and punctuation do not count. Raises ValueError for words outside the vocabulary, naming the nearest
        known ones, for sentences that are too long, and for texts without any word, such as "!?" or emoji; only the
        empty text means that nothing is asked.
        """
        if isinstance(texts, str):
            texts = [texts]
        return torch.tensor([self.row(text) for text in texts], dtype=torch.int64).reshape(-1, self.length)

    def row(self, text):
        words = self.split(text)
        if not words and same_form(text):
            raise ValueError(f"there is no word in {str(text)!r}, and words are all that this model reads: "
                             f"{', '.join(self.words)}. To ask for nothing, leave the text empty")
        unknown = [word for word in dict.fromkeys(words) if word not in self.number]
        if unknown:
            raise ValueError(f"the model has never seen {self.advice(unknown)}. It knows {len(self.words)} words: "
                             f"{', '.join(self.words)}")
        if len(words) > self.length - 2:
            raise ValueError(f"the sentence has {len(words)} words; this model reads {self.length - 2}: say it shorter")
        return [START, *(self.number[word] for word in words), END] + [PAD] * (self.length - 2 - len(words))

    def split(self, text):
        """The words of a sentence, in small letters and composed."""
        return self.pattern.findall(same_form(text))

    def advice(self, unknown):
        """'"stiltz" (did you mean "stilts"?)' for every unknown word."""
        near = {word: difflib.get_close_matches(word, self.words, n=2, cutoff=0.6) for word in unknown}
        return " and ".join(
            f'"{word}"' + (" (did you mean " + " or ".join(f'"{known}"' for known in found) + "?)" if found else "")
            for word, found in near.items())

    def word(self, token):
        """The word behind a token; "" for PAD, "<start>" and "<end>" for the other two."""
        return ("", "<start>", "<end>", *self.words)[int(token)]


class Reading(NamedTuple):
    """What the transformer makes of sentences: what the picture network gets to see of them.

    words: (B, L, D) one vector a token;  whole: (B, D) the sentence in one vector;  real: (B, L) bool, False at PAD
    """

    words: torch.Tensor
    whole: torch.Tensor
    real: torch.Tensor


class CausalBlock(nn.Module):
    """Each token looks at itself and at those before it, then thinks alone.  (B, L, D) -> (B, L, D)"""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        B, L, D = x.shape
        qkv = self.to_qkv(self.norm1(x)).reshape(B, L, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                  # (B, heads, L, head_width) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)       # nobody sees what comes later
        x = x + self.to_out(mixed.transpose(1, 2).reshape(B, L, D))
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """A GPT as in Radford et al. 2019, small, without the last layer that would guess the next word.

    tokens: (B, L) int64  ->  Reading with words (B, L, D); the sentence as a whole is the mean of all its tokens, from
    START to END. PAD does not count, and comes after END, so nothing real ever looks at it.
    """

    def __init__(self, vocabulary, length, width=128, layers=3, heads=4):
        super().__init__()
        self.config = dict(vocabulary=vocabulary, length=length, width=width, layers=layers, heads=heads)
        self.width, self.length = width, length
        self.token, self.place = nn.Embedding(vocabulary + 3, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(CausalBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.place.weight, std=0.1)    # small beside the words, whose vectors begin with 1

    def nothing(self, device):
        """The tokens of a sentence without words.  -> (length,)"""
        return torch.tensor([START, END] + [PAD] * (self.length - 2), device=device)

    def forward(self, tokens):
        place = self.place.weight[:tokens.shape[1]]
        x = self.norm(self.blocks(self.token(tokens) + place))                # (B, L, D)
        real = tokens != PAD                                                  # (B, L)
        whole = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)      # (B, D)
        return Reading(x, whole, real)


class CrossAttention(nn.Module):
    """Every place of the picture looks at the words and takes from them what it needs.

    weights = softmax(q k^T / sqrt(head_width)),  x + weights v     (Vaswani et al. 2017, eq. 1; Rombach et al. 2022)

    x: (B, C, H, W), reading: a Reading of width D  ->  (B, C, H, W)
    """

    def __init__(self, channels, width, head_width=32):
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm, self.to_q = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 1)
        self.to_kv, self.to_out = nn.Linear(width, 2 * channels), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def queries_keys_values(self, x, reading):
        """q: (B, heads, N, head_width), N = H W places;  k, v: (B, heads, L, head_width)"""
        B, C, H, W = x.shape
        q = self.to_q(self.norm(x)).reshape(B, self.heads, C // self.heads, H * W).transpose(-1, -2)
        k, v = self.to_kv(reading.words).reshape(B, -1, 2, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def weights(self, x, reading):
        """How much every place looks at every token, the mean of the heads.  -> (B, L, H, W), sum over L = 1"""
        q, k, _ = self.queries_keys_values(x, reading)
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~reading.real[:, None, None], -torch.inf)
        return scores.softmax(-1).mean(1).transpose(-1, -2).unflatten(-1, x.shape[-2:])

    def forward(self, x, reading):
        q, k, v = self.queries_keys_values(x, reading)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=reading.real[:, None, None])
        return x + self.to_out(mixed.transpose(-1, -2).reshape(x.shape))


@torch.no_grad()
def attention_maps(net, x_t, t, y):
    """Where a network looks for each token: the cross-attention of its largest maps, the mean of their layers.

    net: a UNet with text, called as net(x_t, t, y)  ->  (B, L, h, w), sum over L = 1
    """
    found = []
    layers = [layer for layer in net.modules() if isinstance(layer, CrossAttention)]
    if not layers:
        raise ValueError("this network looks at no words: build it with text=...")

    def note(layer, seen):
        found.append(layer.weights(*seen))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        net(x_t, t, y)
    finally:
        for hook in hooks:
            hook.remove()
    largest = max(maps.shape[-1] for maps in found)
    return torch.stack([maps for maps in found if maps.shape[-1] == largest]).mean(0)
