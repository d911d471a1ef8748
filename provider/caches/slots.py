"""The KV caches of a batch in slots: rows join and leave without copying the other rows.

mlx-lm's batched caches keep all rows right-justified at one common position, so a row that joins or
leaves moves the keys and values of every other row. `SlotCaches` keeps each row left-justified in a
slot of its own: a row that leaves frees its slot, a row that joins is written into a free slot, and
the other rows are copied only when the batch grows. Models with other cache classes use mlx-lm's
batched caches (`MergedCaches`), or run one row at a time (`SingleRowCaches`).

All three classes are RowCaches: `begin` must be called before a forward pass and `end` after it.
Rule: they must only be used on the MLX thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provider.caches.kinds import slot_layer
from provider.caches.slot_layers import Places
from provider.runtime.mlx import mx

__all__ = [
    "SlotCaches",
]


class SlotCaches:
    """The KV caches of several rows in slots, for models whose caches all support slots."""

    def __init__(self, rows: Sequence[list[Any]]):
        lengths = [max((cache.size() for cache in row), default=0) for row in rows]
        self._places = Places(lengths)
        self.layers = [slot_layer(list(layer), self._places) for layer in zip(*rows, strict=True)]
        self._ragged = False

    def __len__(self) -> int:
        return len(self._places.lengths)

    @property
    def lengths(self) -> list[int]:
        """How many tokens each slot holds."""
        return self._places.lengths

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Compute the positions that each row writes to, and prepare the layers."""
        self._places.begin(counts, width)
        self._ragged = width > 1 and min(counts) < width
        for layer in self.layers:
            layer.begin(counts, ragged=self._ragged)

    def end(self) -> None:
        """Forget the padding, which later tokens overwrite."""
        if self._ragged:
            for layer in self.layers:
                layer.end()

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and drop all others."""
        kept = mx.array(list(rows))
        self._places.lengths = [self._places.lengths[row] for row in rows]
        for layer in self.layers:
            layer.keep(kept)

    def join(self, other: SlotCaches, free: Sequence[int]) -> list[int]:
        """Write the rows of `other` into free slots, or append them all; return their slots."""
        if len(free) < len(other):
            return self._append(other)
        slots, lengths = list(free[: len(other)]), list(self._places.lengths)
        for slot, n in zip(slots, other._places.lengths, strict=True):
            lengths[slot] = n
        self._places.lengths = lengths
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.put(slots, theirs)
        return slots

    def _append(self, other: SlotCaches) -> list[int]:
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.append(theirs)
        self._places.lengths = self._places.lengths + other._places.lengths
        return list(range(len(self) - len(other), len(self)))

    def free(self, row: int) -> None:
        """Free a row's slot, so that another row can be written into it."""
        self._places.lengths[row] = 0

    def extract(self, row: int) -> list[Any]:
        """Return copies of one row's caches."""
        return [layer.extract(row) for layer in self.layers]
