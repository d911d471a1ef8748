"""A bounded queue in which clients take turns, so that none waits for all items of another.

Rule 1: the client whose items have taken the least time so far is next. One that comes back after a
pause is even with the others; it neither makes up for the pause nor pays for earlier items.
Rule 2: of one client, the item that has taken the least time is next, so that a short one passes
long ones.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Item = TypeVar("Item")


@dataclass(order=True)
class _Waiting(Generic[Item]):
    """An item that waits: how long it has taken, its number in the order of arrival, and itself."""

    seconds: float
    number: int
    item: Item = field(compare=False)


@dataclass
class _Client(Generic[Item]):
    """One client's items that wait, as a heap, and its time."""

    seconds: float
    waiting: list[_Waiting[Item]] = field(default_factory=list)
    taken: int = 0  # items that were taken, and whose time is not counted yet


class FairQueue(Generic[Item]):
    """A queue with at most `most` items, and at most `most_of_one` of any one client.

    Whoever takes an item says by `took` how long it has taken. Must be guarded by the caller's
    lock.
    """

    def __init__(self, most: int, most_of_one: int):
        self._most = most
        self._most_of_one = most_of_one
        self._size = 0
        self._clients: dict[str | None, _Client[Item]] = {}  # those with items that wait or run
        self._now = 0.0  # the time of the client that was served last, when it was
        self._added = 0

    def __len__(self) -> int:
        return self._size

    def put(self, client: str | None, item: Item) -> bool:
        """Add an item; return False if too many wait."""
        own = self._clients.get(client)
        if self._size >= self._most or (own and len(own.waiting) >= self._most_of_one):
            return False
        self.put_back(client, item, 0.0)
        return True

    def put_back(self, client: str | None, item: Item, seconds: float) -> None:
        """Add an item, however many wait, that has taken `seconds` already."""
        self._added += 1
        own = self._clients.setdefault(client, _Client(self._now))
        heapq.heappush(own.waiting, _Waiting(seconds, self._added, item))
        self._size += 1

    def pop(self) -> Item | None:
        """Remove and return the next item, None if none waits; `took` must be called after it."""
        waiting = [own for own in self._clients.values() if own.waiting]
        if not waiting:
            return None
        own = min(waiting, key=lambda one: one.seconds)
        self._now = own.seconds
        own.taken += 1
        self._size -= 1
        return heapq.heappop(own.waiting).item

    def took(self, client: str | None, seconds: float) -> None:
        """Count the time of an item that was taken, after putting it back if it goes on."""
        own = self._clients[client]
        own.seconds += seconds
        own.taken -= 1
        self._tidy(client)

    def remove(self, client: str | None, item: Item) -> bool:
        """Remove an item of a client; return whether it waited."""
        own = self._clients.get(client)
        left = [one for one in own.waiting if one.item is not item] if own else []
        if own is None or len(left) == len(own.waiting):
            return False
        heapq.heapify(left)
        own.waiting = left
        self._size -= 1
        self._tidy(client)
        return True

    def clear(self) -> list[Item]:
        """Remove and return all items that wait."""
        items = [one.item for own in self._clients.values() for one in own.waiting]
        for client, own in list(self._clients.items()):
            own.waiting = []
            self._tidy(client)
        self._size = 0
        return items

    def _tidy(self, client: str | None) -> None:
        own = self._clients[client]
        if not own.waiting and not own.taken:
            del self._clients[client]
