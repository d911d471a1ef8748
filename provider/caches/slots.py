"""The KV caches of rows that run together: who joins and who leaves without copying the rest.

mlx-lm's batched caches keep rows right-justified at one common position, so a row that joins or
leaves moves every other row's keys and values. `SlotCaches` keeps each row left-justified in a slot
of its own: a row that leaves frees its slot, one that joins is written into a free one, and only
the growing of the batch copies it. Models whose caches are of other kinds use mlx-lm's own batched
caches (`MergedCaches`), or, where those can't be batched at all, go alone (`SingleRowCaches`).

All three keep the same bargain: `begin` before a forward pass says how many tokens each row gets,
`end` after it. Rule: only the MLX thread calls them.
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
    """Rows in slots, for models each of whose caches has a layer with slots."""

    def __init__(self, rows: Sequence[list[Any]]):
        lengths = [max((cache.size() for cache in row), default=0) for row in rows]
        self._places = Places(lengths)
        self.layers = [slot_layer(list(layer), self._places) for layer in zip(*rows, strict=True)]
        self._ragged = False

    def __len__(self) -> int:
        return len(self._places.lengths)

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Work out where each row writes and what it may see."""
        self._places.begin(counts, width)
        self._ragged = width > 1 and min(counts) < width
        for layer in self.layers:
            layer.begin(counts, ragged=self._ragged)

    def end(self) -> None:
        """Forget the padding; the next tokens are written over it."""
        if self._ragged:
            for layer in self.layers:
                layer.end()

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        keep = mx.array(list(rows))
        self._places.lengths = [self._places.lengths[row] for row in rows]
        for layer in self.layers:
            layer.take(keep)

    def join(self, other: SlotCaches, free: Sequence[int]) -> list[int]:
        """Write the rows of another into free slots, or append them; return where they are."""
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
        """Give up a row: it sees next to nothing, and its slot may be written over."""
        self._places.lengths[row] = 0

    def extract(self, row: int) -> list[Any]:
        """Return copies of one row."""
        return [layer.extract(row) for layer in self.layers]
