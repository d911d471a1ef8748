"""What a batch asks of the KV caches of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = [
    "RowCaches",
]


class RowCaches(Protocol):
    """The caches of some rows, layer by layer; `layers` is what the model gets."""

    layers: list[Any]

    def __len__(self) -> int:
        """Return how many rows there are, the dead among them."""

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Announce a forward pass of `width` tokens a row, the first `counts` of them real."""

    def end(self) -> None:
        """Settle the rows after a forward pass."""

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and no others."""

    def extract(self, row: int) -> list[Any]:
        """Return one row's caches as the model makes them for a single sequence, not evaluated."""
