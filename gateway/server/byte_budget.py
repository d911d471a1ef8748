"""Numbers of bytes that all connections share, of which each client may have a part.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.server.rates import Counts

__all__ = ["ByteBudget", "Claim", "Held", "SharedBuffer"]

PART = 4  # what each may have of a shared buffer is one in PART of what is left of it


@dataclass(eq=False)
class Claim:
    """Bytes that a client waits for, or has; `granted` is called when it gets them."""

    client: str | None  # None for one that can't be told from others, and has no share of its own
    size: int
    granted: Callable[[], None]
    waits: bool = False


class ByteBudget:
    """At most `limit` bytes, and of those that others leave, the part `share` for one client."""

    def __init__(self, limit: int, share: float):
        self.limit = limit
        self.held = 0
        self._share = share
        self._by_client = Counts()
        self._waiting: deque[Claim] = deque()

    @property
    def contended(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def of_client(self, client: str | None) -> int:
        """Return how many bytes a client has."""
        return self._by_client[client]

    def fits(self, client: str | None, size: int) -> bool:
        """Return whether a client may have so many bytes more.

        Its first ones need no share, and where nobody has any, there may be more than the limit.
        """
        own = self._by_client[client]
        if self.held and self.held + size > self.limit:
            return False
        share = self._share * (self.limit - self.held + own)
        return client is None or not own or own + size <= share

    def claim(self, client: str | None, size: int, granted: Callable[[], None]) -> Claim:
        """Take bytes, or wait for them: then `granted` is called once they are taken."""
        claim = Claim(client, size, granted)
        first = not any(self.held + one.size > self.limit for one in self._waiting)
        if first and self.fits(client, size):
            self.add(client, size)
        else:
            claim.waits = True
            self._waiting.append(claim)
        return claim

    def withdraw(self, claim: Claim) -> None:
        """Give back what was claimed, or stop waiting for it."""
        if claim.waits:
            claim.waits = False
            self._waiting.remove(claim)
            self._serve()
        else:
            self.add(claim.client, -claim.size)

    def add(self, client: str | None, size: int) -> None:
        """Take bytes, beyond the limit too, or with a negative size give some back."""
        if size:
            self.held += size
            self._by_client.add(client, size)
            if size < 0:
                self._by_client.remove(client, 0)  # so that no entry of 0 stays
                self._serve()

    def _serve(self) -> None:
        """Grant what fits, in order; clients whose share is used up let others go past."""
        for claim in list(self._waiting):
            if self.held and self.held + claim.size > self.limit:
                return
            if claim.waits and self.fits(claim.client, claim.size):
                claim.waits = False
                self._waiting.remove(claim)
                self.add(claim.client, claim.size)
                claim.granted()


class SharedBuffer(ByteBudget):
    """Bytes that wait for all clients, of which each may have less, the fewer are left.

    So those that come late have as much as those that came early, and all together have no more
    than `limit`, but for the last piece of each.
    """

    def share(self, most: int) -> int:
        """Return how many bytes one may have now, `most` at most."""
        return min(most, (self.limit - self.held) // PART)


class Held:
    """What is held for the client of one generation, in the sum that it counts in."""

    __slots__ = ("_client", "_sum", "leaving", "size")

    def __init__(self, client: str | None):
        self._client = client
        self._sum: ByteBudget | None = None
        self.size = 0  # bytes that are counted
        self.leaving = 0  # those of them that no longer wait, and are on their way to the socket

    def join(self, of: ByteBudget | None, waiting: int = 0) -> None:
        """Count what waits in another sum, or in none."""
        self.leaving = 0
        self.settle(0)
        self._sum = of
        self.settle(waiting)

    def leave(self, waiting: int) -> None:
        """Note that something leaves, after which so much still waits; it counts until `left`."""
        self.leaving = max(0, self.size - waiting)

    def left(self, waiting: int) -> None:
        """Note that what was leaving has arrived, and how much waits now."""
        self.leaving = 0
        self.settle(waiting)

    def settle(self, waiting: int) -> None:
        """Count what waits now, beside what is leaving."""
        size = waiting + self.leaving
        if self._sum is not None:
            self._sum.add(self._client, size - self.size)
        self.size = size
