"""The KV caches of a single row, for models that can't be batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "SingleRowCaches",
]


class SingleRowCaches:
    """The KV caches of a single row, of any class; a RowCaches."""

    def __init__(self, layers: list[Any]):
        self.layers = layers

    def __len__(self) -> int:
        return 1

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Do nothing, because a single sequence has no padding."""

    def end(self) -> None:
        """Do nothing."""

    def keep(self, rows: Sequence[int]) -> None:
        """Do nothing, because there is no other row to drop."""

    def extract(self, row: int) -> list[Any]:
        """Return the caches themselves."""
        return self.layers
