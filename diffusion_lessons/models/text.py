"""From a sentence to vectors: a word tokenizer, a small GPT-style text encoder, and cross-attention to its output."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lessons.condition import AnyCondition, Condition

PAD, BOS, EOS = 0, 1, 2    # the special tokens: padding, beginning and end of the sentence; the words follow
SPECIAL = ("<pad>", "<bos>", "<eos>")
# What can stand within a word besides letters and digits: combining marks (Hindi and Tamil vowels, Hebrew points,
# accents) and the two joiners of Indic and Persian writing; for a regular expression's [...]
MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M") + "\u200c\u200d"


def normalize(text: object) -> str:
    """The same spelling for texts that read alike: composed (NFC), lower case, single spaces.

    "CAFE\u0301" and "caf\u00e9" become the same string.     (Unicode 15, section 3.13, D145: caseless matching)
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", str(text)).casefold())
    return " ".join(folded.split())


class Tokenizer:
    """Words to numbers by a fixed vocabulary: vocab[i] has the id i + 3.

    A sentence becomes BOS, its words, EOS, then PAD up to the length. "No text" is the empty sentence: BOS, EOS.

    vocab: words of any script, such as "owl", "top-hat", "don't", that differ by more than capital letters
    longest: the most words in a sentence
    Raises ValueError for an empty word, and for two words that differ in capitals alone.
    """

    def __init__(self, vocab: Iterable[str], longest: int = 16) -> None:
        self.vocab, self.length = tuple(vocab), longest + 2
        self.vocab_size = len(self.vocab) + len(SPECIAL)
        self.token_to_id = {normalize(word): i + 3 for i, word in enumerate(self.vocab)}
        if "" in self.token_to_id or len(self.token_to_id) < len(self.vocab):
            twice = [word for i, word in enumerate(self.vocab) if self.token_to_id[normalize(word)] != i + 3]
            raise ValueError("each word of the vocabulary must be there once, capitals aside, and none may be empty: "
                             + (f"these come again: {', '.join(twice)}" if twice else "one is empty"))
        # A word is a run of letters, digits and marks, or one of the vocabulary that has more in it, such as "top-hat"
        inner = rf"(?:[^\W_]|[{MARKS}])"
        run = rf"[^\W_]{inner}*"
        more = sorted((word for word in self.token_to_id if not re.fullmatch(run, word)), key=len, reverse=True)
        self.pattern = re.compile("|".join([*(rf"(?<!{inner}){re.escape(word)}(?!{inner})" for word in more), run]))

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Sentences to tokens.  one string or a list of B strings -> (B, length) int64

        Capitals and punctuation are ignored. Raises ValueError for words outside the vocabulary, with the nearest ones
        in it, for sentences that are too long, and for texts without any word, such as "!?" or emoji; only the empty
        text stands for no text.
        """
        rows = [self.encode(text) for text in ([texts] if isinstance(texts, str) else texts)]
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, self.length)

    def encode(self, text: str) -> list[int]:
        """One sentence to its tokens; raises as `__call__`.  -> a list of `length` integers"""
        words = self.tokenize(text)
        if not words and normalize(text):
            raise ValueError(f"there is no word in {str(text)!r}, and this model reads only words: "
                             f"{', '.join(self.vocab)}. For no prompt at all, leave the text empty")
        unknown = [word for word in dict.fromkeys(words) if word not in self.token_to_id]
        if unknown:
            raise ValueError(f"the model has never seen {self._suggest(unknown)}. It knows {len(self.vocab)} words: "
                             f"{', '.join(self.vocab)}")
        if len(words) > self.length - 2:
            raise ValueError(f"the sentence has {len(words)} words; this model reads at most {self.length - 2}: "
                             "shorten it")
        return [BOS, *(self.token_to_id[word] for word in words), EOS] + [PAD] * (self.length - 2 - len(words))

    def tokenize(self, text: str) -> list[str]:
        """The words of a sentence, in lower case."""
        return self.pattern.findall(normalize(text))

    def decode(self, tokens: Iterable[int] | Tensor, skip_special_tokens: bool = True) -> str:
        """The words behind the tokens of one sentence.  skip_special_tokens: without <bos>, <eos> and <pad>"""
        names = (*SPECIAL, *self.vocab)
        return " ".join(names[int(token)] for token in tokens if not skip_special_tokens or int(token) > EOS)

    def _suggest(self, unknown: Sequence[str]) -> str:
        """'"stiltz" (did you mean "stilts"?)' for every unknown word."""
        near = {word: difflib.get_close_matches(word, self.vocab, n=2, cutoff=0.6) for word in unknown}
        return " and ".join(
            f'"{word}"' + (" (did you mean " + " or ".join(f'"{known}"' for known in found) + "?)" if found else "")
            for word, found in near.items())


class CausalBlock(nn.Module):
    """Causal self-attention followed by an MLP.  (B, L, D) -> (B, L, D)"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        qkv = self.to_qkv(self.norm1(x)).reshape(B, L, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                  # (B, heads, L, head_width) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)       # no token sees a later one
        x = x + self.to_out(mixed.transpose(1, 2).reshape(B, L, D))
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """A small GPT (Radford et al. 2019) without the output layer that would predict the next token.

    vocab_size: of the tokenizer, special tokens included;  length: the most tokens in a sentence
    tokens: (B, L) int64  ->  Condition with hidden_states (B, L, D), mask (B, L), and pooled (B, D), the mean over all
    tokens from BOS to EOS. Padding follows EOS, so causal attention hides it from all others.
    `null_tokens`, (L,), is the empty sentence.
    """

    null_tokens: Tensor

    def __init__(self, vocab_size: int, length: int, width: int = 128, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.config = dict(vocab_size=vocab_size, length=length, width=width, layers=layers, heads=heads)
        self.width, self.length = width, length
        self.token_embedding, self.position_embedding = nn.Embedding(vocab_size, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(CausalBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.position_embedding.weight, std=0.1)    # small beside the words' vectors, which have std 1
        self.register_buffer("null_tokens", torch.tensor([BOS, EOS] + [PAD] * (length - 2)), persistent=False)

    def forward(self, tokens: Tensor) -> Condition:
        x = self.token_embedding(tokens) + self.position_embedding.weight[:tokens.shape[1]]
        x = self.norm(self.blocks(x))                                            # (B, L, D)
        mask = tokens != PAD                                                     # (B, L)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)        # (B, D)
        return Condition(pooled, x, mask)


class CrossAttention(nn.Module):
    """Each position of the picture queries the text tokens and adds what it gets.

    weights = softmax(q k^T / sqrt(head_width)),  x + weights v     (Vaswani et al. 2017, eq. 1; Rombach et al. 2022)

    x: (B, C, H, W), condition: with hidden_states (B, L, D) and mask (B, L)  ->  (B, C, H, W)
    """

    def __init__(self, channels: int, width: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.norm, self.to_q = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 1)
        self.to_kv, self.to_out = nn.Linear(width, 2 * channels), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def queries_keys_values(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q: (B, heads, N, head_width), N = H W positions;  k, v: (B, heads, L, head_width);  mask: (B, 1, 1, L)"""
        if condition.hidden_states is None or condition.mask is None:
            raise ValueError("cross-attention needs a condition with hidden_states and a mask, as encode_text gives")
        B, C, H, W = x.shape
        q = self.to_q(self.norm(x)).reshape(B, self.heads, C // self.heads, H * W).transpose(-1, -2)
        k, v = self.to_kv(condition.hidden_states).reshape(B, -1, 2, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v, condition.mask[:, None, None]

    def attention_weights(self, x: Tensor, condition: Condition) -> Tensor:
        """How much each position attends to each token, the mean of the heads.  -> (B, L, H, W), sum over L = 1"""
        q, k, _, mask = self.queries_keys_values(x, condition)
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).mean(1).transpose(-1, -2).unflatten(-1, x.shape[-2:])

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        q, k, v, mask = self.queries_keys_values(x, condition)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.to_out(mixed.transpose(-1, -2).reshape(x.shape))


@torch.no_grad()
def attention_maps(net: nn.Module, x_t: Tensor, t: Tensor, condition: AnyCondition) -> Tensor:
    """Where a network attends to each token: the cross-attention of its largest maps, averaged over those layers.

    net: a UNet with text, called as net(x_t, t, condition)  ->  (B, L, h, w), sum over L = 1
    """
    layers = [layer for layer in net.modules() if isinstance(layer, CrossAttention)]
    if not layers:
        raise ValueError("this network has no cross-attention: build it with text=...")
    maps: list[Tensor] = []

    def record(layer: nn.Module, inputs: tuple) -> None:
        assert isinstance(layer, CrossAttention)
        maps.append(layer.attention_weights(*inputs))

    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        net(x_t, t, condition)
    finally:
        for hook in hooks:
            hook.remove()
    largest = max(m.shape[-1] for m in maps)
    return torch.stack([m for m in maps if m.shape[-1] == largest]).mean(0)
