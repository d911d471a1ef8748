"""One row in the model's own KV caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "SingleRowCaches",
]


class SingleRowCaches:
    """One row in the model's own caches, whatever they are."""

    def __init__(self, layers: list[Any]):
        self.layers = layers

    def __len__(self) -> int:
        return 1

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Do nothing: a single sequence has no padding."""

    def end(self) -> None:
        """Do nothing."""

    def take(self, rows: Sequence[int]) -> None:
        """Keep the row; there is no other."""

    def extract(self, row: int) -> list[Any]:
        """Return the caches themselves."""
        return self.layers
