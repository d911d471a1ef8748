"""What all models of a process may take together: weights, and KV caches in their rooms.

Pure policy, for the MLX thread; sizes in bytes. Who has the models says by `unload` how one that
nobody uses is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from provider.interface import MemoryExceededError, ResourceExceededError

__all__ = ["RETRY_AFTER_S", "MemoryPool", "PoolMember"]

RETRY_AFTER_S = 5.0  # somebody's answer will have ended


class PoolMember(Protocol):
    """One model's part."""

    @property
    def held(self) -> int:
        """Weights, what runs may come to need, and what parked ones hold."""

    @property
    def promised(self) -> int:
        """Of these, what is promised to runs that will come to their ends."""

    def forget(self, nbytes: int) -> int:
        """Free up to so much, or a little more, of what is only kept for later; return how much."""


class MemoryPool:
    """A limit, and who is under it."""

    def __init__(self, limit: int):
        self.limit = limit
        self.unload: Callable[[], bool] = lambda: False  # the least recently used idle model
        self._members: list[PoolMember] = []

    def enter(self, member: PoolMember) -> None:
        """Let a tenant count."""
        if member not in self._members:
            self._members.append(member)

    def leave(self, member: PoolMember) -> None:
        """Let a tenant count no more."""
        if member in self._members:
            self._members.remove(member)

    def held_by_others(self, member: PoolMember | None) -> int:
        """Return what all but one hold."""
        return sum(other.held for other in self._members if other is not member)

    @property
    def promised(self) -> int:
        """What is promised to runs of all models."""
        return sum(member.promised for member in self._members)

    def make_room(self, lacking: int, member: PoolMember | None = None) -> bool:
        """Free something of the others'; return False if nothing can be freed."""
        for other in self._members:
            if other is not member and other.forget(lacking):
                return True
        return self.unload()

    def reserve(self, name: str, nbytes: int) -> None:
        """Make room for the weights of a model.

        Raises MemoryExceededError if they could never fit, ResourceExceededError if others are in
        use and must end first.
        """
        if nbytes > self.limit:
            raise MemoryExceededError(
                f"`{name}` takes {nbytes >> 20} MiB, and there are {self.limit >> 20} MiB",
                required_memory=nbytes,
                available_memory=self.limit,
            )
        while (lacking := self.held_by_others(None) + nbytes - self.limit) > 0:
            if not self.make_room(lacking):
                raise ResourceExceededError(
                    f"`{name}` does not fit beside the models that are in use; try again later",
                    details={"retry_after": RETRY_AFTER_S},
                )
