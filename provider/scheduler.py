"""Who runs next: first come, first served, into a batch of bounded size.

Pure policy: no thread, no clock, no tensor. The engine asks it before every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Scheduler"]

IDLE_CHUNK = 2048  # tokens; alone, a prompt is read as fast as the machine can
BUSY_CHUNK = 128  # tokens; beside running streams, each chunk is a gap in all of them

Key = TypeVar("Key", bound=Hashable)


class Scheduler(Generic[Key]):
    """A queue, and the set of those that are in the batch."""

    def __init__(self, max_batch: int):
        self.max_batch = max_batch
        self._waiting: deque[Key] = deque()
        self._prefilling: set[Key] = set()
        self._decoding: set[Key] = set()
        self._told: dict[Key, int] = {}  # the last position reported

    def __len__(self) -> int:
        return len(self._waiting) + len(self._prefilling) + len(self._decoding)

    @property
    def running(self) -> int:
        """How many are in the batch."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return len(self._waiting)

    def submit(self, key: Key) -> None:
        """Put at the end of the queue."""
        self._waiting.append(key)

    def admit(self) -> list[Key]:
        """Move into the batch as many as fit, in order, and return them."""
        free = self.max_batch - self.running
        admitted = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        self._prefilling.update(admitted)
        for key in admitted:
            self._told.pop(key, None)
        return admitted

    def decoding(self, key: Key) -> None:
        """Note that a run's prompt is read and its tokens come."""
        if key in self._prefilling:
            self._prefilling.discard(key)
            self._decoding.add(key)

    def remove(self, key: Key) -> bool:
        """Forget a run that has ended; return whether it was in the batch."""
        if key in self._waiting:
            self._waiting.remove(key)
            self._told.pop(key, None)
            return False
        was_running = key in self._prefilling or key in self._decoding
        self._prefilling.discard(key)
        self._decoding.discard(key)
        return was_running

    def moved(self) -> list[tuple[Key, int]]:
        """Return those whose place in the queue has changed, with the new one, from 1."""
        now = {key: place for place, key in enumerate(self._waiting, 1)}
        changed = [(key, place) for key, place in now.items() if self._told.get(key) != place]
        self._told.update(changed)
        return changed

    def prefill_chunk(self) -> int:
        """Return how many prompt tokens the next step may read."""
        return BUSY_CHUNK if self._decoding else IDLE_CHUNK
