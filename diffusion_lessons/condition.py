"""What a network is conditioned on: one small record, whether it came from labels, a sentence or a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """The embeddings that condition a network on B pictures, one row each; at least one part is there.

    Samplers and guidance pass it on without looking inside; a network's `encode_labels` and `encode_text` make it.

    pooled: (B, E), one vector for the whole label or sentence;
    hidden_states: (B, L, D), one vector per token, with mask: (B, L) bool, False at padding;
    image: (B, C, H, W), a picture to start from, such as the low-resolution one of a cascade
    Raises ValueError when there is no part, when the parts differ in B, and for a mask that does not fit.
    """

    pooled: Tensor | None = None
    hidden_states: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None

    def __post_init__(self) -> None:
        counts = {name: len(part) for name, part in self._parts().items()}
        if not counts:
            raise ValueError("a condition needs at least one part: pooled, hidden_states or image")
        if len(set(counts.values())) > 1:
            raise ValueError(f"the parts of a condition must have one row for each picture, got {counts}")
        if self.mask is not None and (self.hidden_states is None or self.mask.shape != self.hidden_states.shape[:2]):
            raise ValueError("mask must be (B, L) for hidden_states (B, L, D)")

    def __len__(self) -> int:
        return len(next(iter(self._parts().values())))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        """Some of the rows.  rows: a slice, (N,) indices, or (B,) bool"""
        if not isinstance(rows, (slice, Tensor)) or isinstance(rows, Tensor) and rows.ndim != 1:
            raise TypeError("select rows with a slice or a vector, such as condition[2:3]")
        return self._map(lambda part: part[rows])

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on a device."""
        return self._map(lambda part: part.to(device))

    def expand(self, count: int) -> Condition:
        """One row for `count` pictures, without a copy.  Raises RuntimeError unless B is 1."""
        return self._map(lambda part: part.expand(count, *part.shape[1:]))

    def where(self, rows: Tensor, other: Condition) -> Condition:
        """These rows where True, those of another condition elsewhere (as torch.Tensor.where).  rows: (B,) bool"""
        return Condition._zip(lambda a, b: a.where(rows.reshape(-1, *[1] * (a.ndim - 1)), b), [self, other])

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """The rows of several conditions, one after the other (as torch.cat)."""
        return Condition._zip(lambda *parts: torch.cat(parts), conditions)

    @staticmethod
    def _zip(change: Callable[..., Tensor], conditions: Sequence[Condition]) -> Condition:
        """change(part of the first, part of the second, ...) for each part.  Raises ValueError if the parts differ."""
        parts = [condition._parts() for condition in conditions]
        if any(other.keys() != parts[0].keys() for other in parts):
            raise ValueError(f"the conditions must have the same parts, got {' and '.join(map(str, map(list, parts)))}")
        return Condition(**{name: change(*(other[name] for other in parts)) for name in parts[0]})

    def _parts(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def _map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: change(part) for name, part in self._parts().items()})


# What a network's `forward` takes: a Condition; labels (B,) or tokens (B, L), which it encodes itself, so that
# gradients reach its embeddings; or None, the null condition.
AnyCondition: TypeAlias = Condition | Tensor | None
