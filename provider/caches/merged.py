"""The KV caches of several rows in mlx-lm's batched classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "MergedCaches",
]


class MergedCaches:
    """The KV caches of several rows in mlx-lm's batched classes; a RowCaches."""

    def __init__(self, rows: Sequence[list[Any]]):
        self.layers = [of_layer[0].merge(list(of_layer)) for of_layer in zip(*rows, strict=True)]
        self._rows = len(rows)
        self._ragged = False

    def __len__(self) -> int:
        return self._rows

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Tell the layers which tokens of the next forward pass are padding, if any are."""
        self._ragged = width > 1 and min(counts) < width
        if self._ragged:
            padding = [width - count for count in counts]
            for layer in self.layers:
                layer.prepare(lengths=list(counts), right_padding=padding)

    def end(self) -> None:
        """Move the padding to the left end of each row."""
        if self._ragged:
            for layer in self.layers:
                layer.finalize()

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows and drop all others."""
        for layer in self.layers:
            layer.filter(list(rows))
        self._rows = len(rows)

    def join(self, other: MergedCaches) -> list[int]:
        """Append the rows of `other`; return their indexes."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.extend(theirs)
        self._rows += len(other)
        return list(range(self._rows - len(other), self._rows))

    def extract(self, row: int) -> list[Any]:
        """Return copies of one row's caches."""
        return [layer.extract(row) for layer in self.layers]
