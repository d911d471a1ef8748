"""Which run may begin next while one waits for memory.

Rule 1: the first run that does not fit is waited for. Runs that fit begin before it until
MAX_PASSED have done so, or MAX_PASSED_S seconds are over.
Rule 2: from then on memory is reserved for it as others end. Runs that begin meanwhile have no more
than will be left beside it, all together.
Rule 3: when it has begun, or was cancelled, the next run that does not fit is waited for.

So a run waits for those that were in the batch when its memory was reserved, and for no later one;
of those, `memory_share.py` says which give their memory back.

Pure policy: the clock is an argument; sizes are in bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

__all__ = ["MemoryTurn"]

MAX_PASSED = 32  # runs, as many as a batch has
MAX_PASSED_S = 10.0  # seconds, in which short answers end; a run this large takes far longer


@dataclass
class _Awaited:
    """The run that is waited for."""

    key: Hashable
    need: int
    client: str
    since: float
    passed: int = 0  # runs that began before it
    beside: dict[Hashable, int] = field(default_factory=dict)  # needs of runs begun since reserved


class MemoryTurn:
    """The run that waits for memory, of all models; keys must differ between models."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock  # returns seconds
        self._awaited: _Awaited | None = None

    @property
    def awaited(self) -> Hashable | None:
        """The run that is waited for, None if every run has fitted so far."""
        return None if self._awaited is None else self._awaited.key

    @property
    def reserved(self) -> bool:
        """Whether memory is kept free for the run that is waited for."""
        one = self._awaited
        return one is not None and (
            one.passed >= MAX_PASSED or self._clock() - one.since >= MAX_PASSED_S
        )

    @property
    def client(self) -> str:
        """The client of the run that is waited for, "" if there is none."""
        return "" if self._awaited is None else self._awaited.client

    @property
    def waited(self) -> float:
        """For how many seconds a run has been waited for."""
        return 0.0 if self._awaited is None else self._clock() - self._awaited.since

    def reserve(self) -> None:
        """Reserve memory from now on, because a run has given its own back."""
        if self._awaited is not None:
            self._awaited.passed = MAX_PASSED

    def allows(self, key: Hashable, need: int, room: int) -> bool:
        """Return whether a run may begin if it fits; `room` is the memory that runs can have."""
        one = self._awaited
        if one is None or one.key == key or not self.reserved:
            return True
        return sum(one.beside.values()) + need <= room - one.need

    def wait(self, key: Hashable, need: int, client: str = "") -> None:
        """Note that a run does not fit."""
        if self._awaited is None:
            self._awaited = _Awaited(key, need, client, self._clock())

    def begin(self, key: Hashable, need: int) -> None:
        """Note that a run begins."""
        one = self._awaited
        if one is None:
            return
        if one.key == key:
            self._awaited = None
            return
        if self.reserved:
            one.beside[key] = need
        one.passed += 1

    def end(self, key: Hashable) -> None:
        """Note that a run has ended, wherever it was, or has left the batch."""
        one = self._awaited
        if one is None:
            return
        if one.key == key:
            self._awaited = None
        one.beside.pop(key, None)
