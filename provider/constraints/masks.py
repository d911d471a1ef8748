"""The token masks of one decode step: one bit per token and row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from provider.runtime.mlx import mx

__all__ = ["Masks", "allow", "allow_only"]


class Masks:
    """The masks of the rows of one step, one bit per token; at first every token is allowed."""

    def __init__(self, rows: int, vocabulary: int):
        self._bits = np.full((rows, (vocabulary + 31) // 32), 0xFFFFFFFF, dtype=np.uint32)

    def row(self, index: int) -> Any:
        """Return one row's mask, a writable array of 32-bit numbers."""
        return self._bits[index]

    def apply(self, logits: mx.array) -> mx.array:
        """Return `logits`, `(rows, vocabulary)`, with minus infinity for every forbidden token."""
        # llguidance writes the lowest bit first.
        truths = np.unpackbits(self._bits.view(np.uint8), axis=1, bitorder="little")
        allowed = mx.array(truths[:, : logits.shape[1]].view(np.bool_))
        return mx.where(allowed, logits, -mx.inf)


def allow_only(mask: Any, tokens: Iterable[int]) -> None:
    """Allow only these tokens: clear all other bits of a row's mask."""
    mask[:] = 0
    allow(mask, *tokens)


def allow(mask: Any, *tokens: int) -> None:
    """Allow these tokens too: set their bits in a row's mask."""
    for token in tokens:
        mask[token // 32] |= np.uint32(1 << (token % 32))
