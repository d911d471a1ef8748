"""The bytes of conversations that are kept for clients, of all languages together.

Rule 1: what a connection can't do without is refused beyond its client's share, which is half of
what others have of that.
Rule 2: what a client can do without is forgotten when all of them hold too much.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

__all__ = ["KeptBytes"]


class KeptBytes:
    """At most `most` bytes."""

    def __init__(self, most: int):
        self._most = most
        self._needed = 0
        self._needed_by: Counter[str | None] = Counter()
        self._forget: list[Callable[[], bool]] = []
        self.held = 0

    def on_excess(self, forget: Callable[[], bool]) -> None:
        """Call `forget` when too much is held; it returns False if it has nothing to forget."""
        self._forget.append(forget)

    def fits(self, client: str | None, size: int) -> bool:
        """Return whether a client may need so many bytes more.

        Those that can't be told apart share all that is left.
        """
        own = self._needed_by[client]
        left = self._most - self._needed + own
        return size <= 0 or own + size <= (left if client is None else left // 2)

    def need(self, client: str | None, size: int) -> None:
        """Add to the bytes that a client needs; a negative size takes from them."""
        self._needed += size
        self._needed_by[client] += size
        if not self._needed_by[client]:
            del self._needed_by[client]
        self.keep(size)

    def keep(self, size: int) -> None:
        """Add to the bytes that can be forgotten; a negative size takes from them."""
        self.held += size

    def reduce(self) -> None:
        """Let as much be forgotten as is held too much."""
        while self.held > self._most and any(forget() for forget in self._forget):
            pass
