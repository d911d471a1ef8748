"""The memory that all models of a process share, for weights and KV caches.

Pure policy, for the MLX thread; sizes are in bytes. The owner of the models sets `unload`,
`make_way` and `call_off`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Protocol

from provider.engine.memory_share import MemoryShare
from provider.engine.memory_turn import MemoryTurn
from provider.interface import MemoryExceededError, ResourceExceededError

__all__ = ["RETRY_AFTER_S", "MemoryPool", "PoolMember"]

RETRY_AFTER_S = 5.0  # after this time, some run has probably ended
# Longest wait of a model for memory that other models' runs use; most clients wait that long for a
# first token.
MAX_WAIT_S = 60.0
# Least time that a model in use stays when another waits for its memory. It is several times the
# time of loading, so that two models in demand spend most of the time on answers.
MIN_STAY_S = 5.0


class PoolMember(Protocol):
    """The memory of one model."""

    @property
    def weights(self) -> int:
        """Bytes of the model's weights, a part of `held`."""

    @property
    def held(self) -> int:
        """Bytes of weights, promises to runs, parked runs' caches, and kept caches."""

    @property
    def promised(self) -> int:
        """The bytes promised to runs in the batch, a part of `held`, free again when they end."""

    def forget(self, nbytes: int) -> int:
        """Evict about `nbytes` of kept caches; return how many bytes were freed."""


class MemoryPool:
    """A memory limit and the models that share it."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic):
        self.limit = limit
        self.wait_s = MAX_WAIT_S
        self.stay_s = MIN_STAY_S
        # Unloads the least recently used idle model.
        self.unload: Callable[[], bool] = lambda: False
        # `make_way` makes a model in use refuse new runs, so that it can be unloaded soon;
        # `call_off` makes it accept them again.
        self.make_way: Callable[[], None] = lambda: None
        self.call_off: Callable[[], None] = lambda: None
        self.turn = MemoryTurn(clock)
        self.share = MemoryShare(clock)
        self._clock = clock  # returns seconds
        self._waiting: deque[object] = deque()  # models whose weights have no room yet
        self._members: list[PoolMember] = []

    def enter(self, member: PoolMember) -> None:
        """Add a model to those that share the memory."""
        if member not in self._members:
            self._members.append(member)

    def leave(self, member: PoolMember) -> None:
        """Remove a model from those that share the memory."""
        if member in self._members:
            self._members.remove(member)

    def held_by_others(self, member: PoolMember | None) -> int:
        """Return the bytes that all models but one hold."""
        return sum(other.held for other in self._members if other is not member)

    @property
    def room(self) -> int:
        """The bytes beside the weights of all models."""
        return self.limit - sum(member.weights for member in self._members)

    @property
    def promised(self) -> int:
        """The bytes promised to runs of all models."""
        return sum(member.promised for member in self._members)

    def make_room(self, lacking: int, member: PoolMember | None = None) -> bool:
        """Free memory of other models, about `lacking` bytes; return False if nothing was freed."""
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
        """Reserve memory like `reserve`, but wait while other models are in use.

        The generator yields between attempts. Waiting models are served in order, so that small
        ones can't delay a large one forever; meanwhile `make_way` is called. Raises
        ResourceExceededError after `wait_s` seconds. Closing the generator ends the wait.
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
