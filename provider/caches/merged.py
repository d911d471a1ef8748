"""Rows in mlx-lm's batched KV caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "MergedCaches",
]


class MergedCaches:
    """Rows in mlx-lm's batched caches."""

    def __init__(self, rows: Sequence[list[Any]]):
        self.layers = [of_layer[0].merge(list(of_layer)) for of_layer in zip(*rows, strict=True)]
        self._rows = len(rows)
        self._ragged = False

    def __len__(self) -> int:
        return self._rows

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Tell the caches which tokens are padding, if any are."""
        self._ragged = width > 1 and min(counts) < width
        if self._ragged:
            padding = [width - count for count in counts]
            for layer in self.layers:
                layer.prepare(lengths=list(counts), right_padding=padding)

    def end(self) -> None:
        """Move the padding to the left."""
        if self._ragged:
            for layer in self.layers:
                layer.finalize()

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        for layer in self.layers:
            layer.filter(list(rows))
        self._rows = len(rows)

    def join(self, other: MergedCaches) -> list[int]:
        """Append the rows of another; return where they are."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.extend(theirs)
        self._rows += len(other)
        return list(range(self._rows - len(other), self._rows))

    def extract(self, row: int) -> list[Any]:
        """Return copies of one row."""
        return [layer.extract(row) for layer in self.layers]
