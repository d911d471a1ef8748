"""The memory that all models of a process share, for weights and KV caches.

Pure policy, for the MLX thread; sizes in bytes. Who has the models says by `unload` how one that
nobody uses is given up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Protocol

from provider.interface import MemoryExceededError, ResourceExceededError

__all__ = ["RETRY_AFTER_S", "MemoryPool", "PoolMember"]

RETRY_AFTER_S = 5.0  # time in which some answer will have ended
# That a model waits for the runs of others to end: as long as most clients wait for a first token.
MOST_WAIT_S = 60.0
# That a model in use stays when another waits for its memory: a multiple of what loading one takes,
# so that two models in demand spend most of the time on answers, and not on loading.
LEAST_STAY_S = 5.0


class PoolMember(Protocol):
    """One model's part."""

    @property
    def held(self) -> int:
        """Weights, what runs may come to need, and what parked ones hold."""

    @property
    def promised(self) -> int:
        """Of these, what is promised to runs that will come to their ends."""

    def forget(self, nbytes: int) -> int:
        """Free about so many bytes that are only kept for later; return how many were freed."""


class MemoryPool:
    """A memory limit and the models that share it."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic):
        self.limit = limit
        self.wait_s = MOST_WAIT_S
        self.stay_s = LEAST_STAY_S
        # Unloads the least recently used idle model.
        self.unload: Callable[[], bool] = lambda: False
        # Lets a model that is in use take no new runs, so that it can be unloaded; takes that back.
        self.make_way: Callable[[], None] = lambda: None
        self.call_off: Callable[[], None] = lambda: None
        self._clock = clock  # returns seconds
        self._waiting: deque[object] = deque()  # models whose weights have no room yet
        self._members: list[PoolMember] = []

    def enter(self, member: PoolMember) -> None:
        """Count a model."""
        if member not in self._members:
            self._members.append(member)

    def leave(self, member: PoolMember) -> None:
        """Stop counting a model."""
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
        """Free memory of other models; return False if there is none to free."""
        for other in self._members:
            if other is not member and other.forget(lacking):
                return True
        return self.unload()

    def reserve(self, name: str, nbytes: int) -> None:
        """Make room for the weights of a model.

        Raises MemoryExceededError if they could never fit, ResourceExceededError if others are in
        use and must end first.
        """
        self._refuse_if_too_large(name, nbytes)
        if not self._makes_room_for(nbytes):
            raise _in_use(name)

    def reserving(self, name: str, nbytes: int) -> Generator[None, None, None]:
        """Do what `reserve` does, but wait while others are in use; yields between looks.

        Models that wait get their room in the order in which they came, so that a small one does
        not pass a large one for ever. Meanwhile those in use make way, one after the other. Raises
        ResourceExceededError after `wait_s` seconds. Closing the generator gives the place up.
        """
        self._refuse_if_too_large(name, nbytes)
        place, latest = object(), self._clock() + self.wait_s
        self._waiting.append(place)
        try:
            while self._waiting[0] is not place or not self._makes_room_for(nbytes):
                if self._clock() >= latest:
                    raise _in_use(name)
                self.make_way()
                yield
        finally:
            self._waiting.remove(place)
            if not self._waiting:
                self.call_off()

    def _refuse_if_too_large(self, name: str, nbytes: int) -> None:
        if nbytes > self.limit:
            raise MemoryExceededError(
                f"`{name}` needs {nbytes >> 20} MiB, and the limit is {self.limit >> 20} MiB",
                required_memory=nbytes,
                available_memory=self.limit,
            )

    def _makes_room_for(self, nbytes: int) -> bool:
        while (lacking := self.held_by_others(None) + nbytes - self.limit) > 0:
            if not self.make_room(lacking):
                return False
        return True


def _in_use(name: str) -> ResourceExceededError:
    return ResourceExceededError(
        f"`{name}` does not fit beside the models that are in use; try again later",
        details={"retry_after": RETRY_AFTER_S},
    )
