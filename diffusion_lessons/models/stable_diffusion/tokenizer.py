"""CLIP's byte-pair encoding: text to numbers by vocab.json and merges.txt, so that any text at all can be read.

A text is composed (NFC), put in lower case and split into runs of letters, single digits and runs of other signs. Each
piece becomes its bytes in UTF-8, and neighbours are merged, the pair that was most frequent in the training texts
first, until no known pair is left. (Sennrich et al. 2016, algorithm 1; on bytes: Radford et al. 2019, section 2.2)
"""

import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BOS, EOS, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"    # Unicode's White_Space
SUFFIX = re.compile("'(?:s|t|re|ve|m|ll|d)")


def byte_signs() -> list[str]:
    """A printable character for each of the 256 bytes; those that are printable stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in plain)
    signs = {byte: chr(byte) for byte in plain} | {byte: chr(256 + k) for k, byte in enumerate(others)}
    return [signs[byte] for byte in range(256)]


SIGNS = byte_signs()


def normalize(text: str) -> str:
    """Composed, single spaces, lower case letter by letter (so that no context counts)."""
    return "".join(c.lower() for c in re.sub(f"[{SPACES}]+", " ", unicodedata.normalize("NFC", text)))


def pieces(text: str) -> list[str]:
    """'it's 42!' -> it 's 4 2 !   The word-like pieces of a normalized text; spaces vanish."""
    found, i = [], 0
    while i < len(text):
        suffix, kind, end = SUFFIX.match(text, i), kind_of(text[i]), i + 1
        if suffix:
            end = suffix.end()
        elif kind in "LO":     # letters, or other signs: as far as they go
            while end < len(text) and kind_of(text[end]) == kind:
                end += 1
        if kind != " ":
            found.append(text[i:end])
        i = end
    return found


def kind_of(c: str) -> str:
    """L for a letter, N for a digit or other number, " " for a space, O for all others."""
    category = unicodedata.category(c)[0]
    return category if category in "LN" else " " if re.match(f"[{SPACES}]", c) else "O"


def symbols(piece: str) -> tuple[str, ...]:
    """A piece as one sign a byte, the last marked as the end: 'owl' -> ('o', 'w', 'l</w>')."""
    signs = [SIGNS[byte] for byte in piece.encode("utf-8", errors="replace")]
    return (*signs[:-1], signs[-1] + END_OF_WORD)


def merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with each occurrence of the pair joined, from left to right."""
    joined, i = [], 0
    while i < len(word):
        here = word[i:i + 2] == pair
        joined.append(word[i] + word[i + 1] if here else word[i])
        i += 1 + here
    return tuple(joined)


def train_bpe(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """Learn the pairs to merge: each time the most frequent pair of neighbours in the texts.

    texts: an iterable of strings  ->  up to `merges` pairs, in the order in which they are to be merged
    """
    words = Counter(symbols(piece) for text in texts for piece in pieces(normalize(text)))
    learned: list[tuple[str, str]] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))    # on equal counts the alphabet decides
        words = Counter({merge(word, best): count for word, count in words.items()})
        learned.append(best)
    return learned


class Tokenizer:
    """Texts to rows of tokens: BOS, the pieces, EOS, then padding up to the length.

    merges: pairs of signs in the order in which they merge;  vocab: {piece: its number}; built from the merges if left
    out: all bytes, all bytes that end a word, the merges, BOS, EOS
    length: tokens in a row, BOS and EOS included (77 in CLIP);  pad: the token that fills up: EOS in Stable Diffusion
    1.5, "!" in 2.x and SD-Turbo. The text encoder sees the padding, so it is no matter of taste.
    """

    def __init__(self, merges: Iterable[Sequence[str]], vocab: dict[str, int] | None = None, length: int = 77,
                 pad: str = EOS) -> None:
        if vocab is None:
            known = [*SIGNS, *(sign + END_OF_WORD for sign in SIGNS), *map("".join, merges), BOS, EOS]
            vocab = {piece: i for i, piece in enumerate(dict.fromkeys(known))}
        for token in (BOS, EOS, pad):
            if token not in vocab:
                raise ValueError(f"the vocabulary has no token {token!r}")
        self.merges, self.vocab, self.length, self.pad = list(map(tuple, merges)), dict(vocab), length, pad
        self.rank = {pair: i for i, pair in enumerate(self.merges)}

    def __call__(self, texts: str | Iterable[str]) -> Tensor:
        """A string or a list of B strings -> (B, length) int64. What is too long is cut off, with a warning."""
        return torch.tensor([self.encode(text) for text in ([texts] if isinstance(texts, str) else texts)],
                            dtype=torch.int64).reshape(-1, self.length)

    def encode(self, text: str) -> list[int]:
        """One row of tokens."""
        inside, room = [self.token_to_id(piece) for piece in self.tokenize(text)], self.length - 2
        if len(inside) > room:
            warnings.warn(f"only the first {room} tokens of the text are read; this is cut off: "
                          f"{self.decode(inside[room:])!r}", stacklevel=3)
        row = [self.vocab[BOS], *inside[:room], self.vocab[EOS]]
        return row + [self.vocab[self.pad]] * (self.length - len(row))

    def tokenize(self, text: str) -> list[str]:
        """The pieces of words, each as it stands in the vocabulary: 'stilts' -> ['stil', 'ts</w>'], say.

        BOS, EOS and the padding are taken as they are wherever a text has them, so in 2.x a "!" too is padding.
        """
        special = dict.fromkeys((BOS, EOS, self.pad))
        found: list[str] = []
        for part in re.split("(" + "|".join(map(re.escape, special)) + ")", text):
            found += [part] if part in special else [s for p in pieces(normalize(part)) for s in self.bpe(p)]
        return found

    def bpe(self, piece: str) -> tuple[str, ...]:
        """Merge neighbours, the pair that was learned first before all others, until none is known."""
        word = symbols(piece)
        while len(word) > 1:
            best = min(zip(word, word[1:]), key=lambda pair: self.rank.get(pair, len(self.rank)))
            if best not in self.rank:
                break
            word = merge(word, best)
        return word

    def token_to_id(self, token: str) -> int:
        """The number of a piece; an unknown one is read as EOS, as in CLIP."""
        return self.vocab[token if token in self.vocab else EOS]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text behind some tokens, without BOS, EOS and padding at the end."""
        tokens = [self.id_to_token[int(i)] for i in ids]
        while tokens and tokens[-1] in (self.pad, EOS):
            tokens.pop()
        signs = "".join(token for token in tokens if token not in (BOS, EOS)).replace(END_OF_WORD, " ")
        number = {sign: byte for byte, sign in enumerate(SIGNS)} | {" ": ord(" ")}
        return bytes(number[sign] for sign in signs).decode("utf-8", errors="replace").strip(" ")

    @cached_property
    def id_to_token(self) -> dict[int, str]:
        """The vocabulary the other way round."""
        return {i: token for token, i in self.vocab.items()}

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """From a folder with vocab.json, merges.txt and (for the length and the padding) tokenizer_config.json."""
        folder = Path(folder)
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).exists():
                settings |= json.loads((folder / name).read_text(encoding="utf-8"))
        pad = settings.get("pad_token", EOS)
        return cls(merges, json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
                   settings.get("model_max_length", 77), pad["content"] if isinstance(pad, dict) else pad)

    def save(self, folder: str | Path) -> None:
        """Write the folder that `load` and transformers' CLIPTokenizer read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self.vocab, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *map(" ".join, self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": self.pad}
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length, "do_lower_case": True, **special}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
