"""The interface through which a batch uses the KV caches of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = [
    "RowCaches",
]


class RowCaches(Protocol):
    """The KV caches of several rows; `layers` has one object per layer, which the model calls."""

    layers: list[Any]

    def __len__(self) -> int:
        """Return the number of rows, including those of ended runs."""

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Prepare for a forward pass of `width` tokens per row.

        Of row i only the first `counts[i]` tokens are real; the rest is padding.
        """

    def end(self) -> None:
        """Clean up after a forward pass."""

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and drop all others."""

    def extract(self, row: int) -> list[Any]:
        """Return one row as the model's own caches for a single sequence, unevaluated."""
