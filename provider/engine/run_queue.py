"""Runs that wait for a place in the batch, and clients that take turns.

Rule 1: the next run is of the client that has the fewest places, of those with a run that waits.
Rule 2: of clients with equally many, it is the one that got a place the longest ago; a new client
comes before all of them.
Rule 3: the runs of one client keep their order.

Pure policy: no thread, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Generic, TypeVar

__all__ = ["RunQueue"]

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Line(Generic[Key]):
    """The runs of one client that wait, and its places in the batch."""

    waiting: deque[Key] = field(default_factory=deque)
    places: int = 0
    last: int = 0  # number of the last place that it got, 0 for none


class RunQueue(Generic[Key]):
    """The runs that wait, each of a client; `take` gives a place, `give_back` frees it."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[Key]] = {}  # of clients with a run that waits or a place
        self._keys: dict[Key, Hashable] = {}  # runs that wait, with their clients
        self._taken = 0  # how many places were ever given
        self._next: Hashable | None = None  # client of the next run, while that is known

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def join(self, key: Key, client: Hashable, *, ahead: bool = False) -> None:
        """Put a run at the end of its client's line, or at its head; do nothing if it waits."""
        if key in self._keys:
            return
        self._keys[key], self._next = client, None
        waiting = self._lines.setdefault(client, _Line()).waiting
        (waiting.appendleft if ahead else waiting.append)(key)

    def leave(self, key: Key) -> None:
        """Remove a run that waits; do nothing if it does not."""
        if key in self._keys:
            client, self._next = self._keys.pop(key), None
            self._lines[client].waiting.remove(key)
            self._tidy(client)

    def first(self) -> Key | None:
        """Return the next run, None if none waits."""
        return self._lines[self._first_client()].waiting[0] if self._keys else None

    def heads(self, most: int) -> Iterator[Key]:
        """Yield the first runs of up to `most` clients, in the order of the clients' turns.

        The queue must not change meanwhile.
        """
        if not self._keys:
            return
        first = self._first_client()
        yield self._lines[first].waiting[0]
        others = (one for client, one in self._lines.items() if one.waiting and client != first)
        for line in nsmallest(most - 1, others, key=lambda line: (line.places, line.last)):
            yield line.waiting[0]

    def take(self, key: Key) -> Hashable:
        """Remove a run that waits, give its client a place for it, and return the client."""
        client = self._keys.pop(key)
        line = self._lines[client]
        line.waiting.remove(key)
        self._taken += 1
        line.places, line.last, self._next = line.places + 1, self._taken, None
        return client

    def give_back(self, client: Hashable) -> None:
        """Free a place of a client."""
        self._lines[client].places -= 1
        self._next = None
        self._tidy(client)

    def lead(self, client: Hashable, over: Key) -> int:
        """Return how many more places a client has than the client of a run that waits."""
        return self._lines[client].places - self._lines[self._keys[over]].places

    def order(self) -> list[Key]:
        """Return the runs that wait, in the order in which they get places if none is freed."""
        waiting = (line for line in self._lines.values() if line.waiting)
        joining = deque(sorted(waiting, key=lambda line: (line.places, line.last)))
        order: list[Key] = []
        turns: list[tuple[_Line[Key], int]] = []  # each with how many runs have had their turn
        places = 0
        while joining or turns:
            if len(turns) == 1 and not joining:
                line, done = turns[0]
                return order + list(line.waiting)[done:]
            places = places + 1 if turns else joining[0].places
            new: list[tuple[_Line[Key], int]] = []
            while joining and joining[0].places == places:
                new.append((joining.popleft(), 0))
            turns = new + turns
            order += [line.waiting[done] for line, done in turns]
            turns = [(line, done + 1) for line, done in turns if done + 1 < len(line.waiting)]
        return order

    def _first_client(self) -> Hashable:
        if self._next is None:
            waiting = ((line, client) for client, line in self._lines.items() if line.waiting)
            _, self._next = min(waiting, key=lambda one: (one[0].places, one[0].last))
        return self._next

    def _tidy(self, client: Hashable) -> None:
        line = self._lines[client]
        if not line.places and not line.waiting:
            del self._lines[client]
