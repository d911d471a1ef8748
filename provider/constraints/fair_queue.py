"""A bounded queue in which clients take turns, so that none waits for all items of another."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A queue with at most `most` items, and at most `most_of_one` of any one client."""

    def __init__(self, most: int, most_of_one: int):
        self._most = most
        self._most_of_one = most_of_one
        self._size = 0
        # Each client's items; the client whose turn it is comes first.
        self._clients: dict[str | None, deque[Item]] = {}

    def __len__(self) -> int:
        return self._size

    def put(self, client: str | None, item: Item) -> bool:
        """Add an item after its client's others; return False if there are too many."""
        own = self._clients.get(client, ())
        if self._size >= self._most or len(own) >= self._most_of_one:
            return False
        self._clients.setdefault(client, deque()).append(item)
        self._size += 1
        return True

    def pop(self) -> Item | None:
        """Remove and return the first item of the next client in turn; None if there is none."""
        client = next(iter(self._clients), None)
        own = self._clients.pop(client, None)
        if own is None:
            return None
        item = own.popleft()
        if own:
            self._clients[client] = own
        self._size -= 1
        return item

    def remove(self, client: str | None, item: Item) -> bool:
        """Remove an item of a client; return whether it was there."""
        own = self._clients.get(client)
        if own is None or item not in own:
            return False
        own.remove(item)
        if not own:
            del self._clients[client]
        self._size -= 1
        return True
