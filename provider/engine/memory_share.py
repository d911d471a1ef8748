"""Which run gives its memory back while one of another client waits for it.

Rule 1: a client's share is the memory that runs can have, divided by the clients that hold some
of it or wait for it.
Rule 2: of the clients that hold more than their share, the one that holds most gives memory back:
of its runs, the one that has decoded longest.
Rule 3: a run gives its memory back after `turn_s` seconds of decoding, and no sooner than after as
many as its prompt took to read, so that runs in turns get on.
Rule 4: if no run of that client has decoded so long, the one that has begun last gives its memory
back while its prompt is read. The run that has begun first keeps it, so that the client gets on.

Pure policy: the clock is an argument; sizes are in bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["MemoryShare"]


@dataclass
class _Holding:
    """A run that has its memory."""

    client: str
    need: int
    begun: float
    decodes: float | None = None  # since when


class MemoryShare:
    """The runs of all models that have their memory; keys must differ between models."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock  # returns seconds
        self._holding: dict[Hashable, _Holding] = {}

    def hold(self, key: Hashable, client: str, need: int) -> None:
        """Note that a run has its memory."""
        self._holding[key] = _Holding(client, need, self._clock())

    def decode(self, key: Hashable) -> None:
        """Note that the prompt of a run is read."""
        if key in self._holding and self._holding[key].decodes is None:
            self._holding[key].decodes = self._clock()

    def release(self, key: Hashable) -> None:
        """Note that a run has its memory no more."""
        self._holding.pop(key, None)

    def yielding(self, client: str, room: int, turn_s: float) -> Hashable | None:
        """Return the run that gives its memory back for one of this client, None for none.

        `room` is the memory that runs can have.
        """
        held: Counter[str] = Counter()
        for one in self._holding.values():
            held[one.client] += one.need
        share = room / len({client, *held})
        over = {name: size for name, size in held.items() if size > share and name != client}
        if not over:
            return None
        most, now = max(over, key=lambda name: over[name]), self._clock()
        had = {
            key: now - one.decodes
            for key, one in self._holding.items()
            if one.client == most and one.decodes is not None
            if now - one.decodes >= max(turn_s, one.decodes - one.begun)
        }
        return max(had, key=lambda key: had[key], default=self._last_read(most))

    def _last_read(self, client: str) -> Hashable | None:
        runs = [(key, one) for key, one in self._holding.items() if one.client == client]
        return next((key for key, one in reversed(runs[1:]) if one.decodes is None), None)
