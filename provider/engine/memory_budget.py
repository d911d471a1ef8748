"""A budget for KV caches, from which each run is promised the most that it may need.

Pure policy: no tensor. The bytes per token are measured on the model's own caches.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["MemoryBudget"]

STEP = 256  # tokens by which caches grow

Key = TypeVar("Key", bound=Hashable)


class MemoryBudget(Generic[Key]):
    """The limit for KV caches, and the part promised to runs in the batch; all in bytes."""

    def __init__(self, limit: int):
        self.limit = limit
        self.fixed = 0  # bytes of a run of any length
        self.per_token = 0.0
        self.committed = 0
        self._commitments: dict[Key, int] = {}

    def learn(self, fixed: int, per_token: float) -> None:
        """Set the bytes that a sequence's caches take: `fixed`, and `per_token` for each token."""
        self.fixed, self.per_token = fixed, per_token

    def need(self, tokens: int) -> int:
        """Return the most bytes that a sequence of up to `tokens` tokens takes."""
        return self.fixed + int(self.per_token * -(-tokens // STEP) * STEP)

    def lacking(self, need: int, others: int) -> int:
        """Return the bytes by which `need`, the promises and `others` together exceed the limit."""
        return max(0, self.committed + others + need - self.limit)

    def commit(self, key: Key, need: int) -> None:
        """Promise memory to a run."""
        self.release(key)
        self._commitments[key] = need
        self.committed += need

    def release(self, key: Key) -> None:
        """Withdraw a promise, if there is one."""
        self.committed -= self._commitments.pop(key, 0)
