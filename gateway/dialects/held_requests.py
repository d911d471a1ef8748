"""Counts what a client's requests hold in memory while they wait or run."""

from __future__ import annotations

from typing import Protocol

from gateway.dialects.base import Opening

__all__ = ["HeldRequest", "HeldRequests"]


class HeldRequest(Protocol):
    """A request that may be counted."""

    size: int  # bytes of its message, and of what the language keeps because of it


class HeldRequests:
    """The requests of one connection, counted in the budget of all."""

    def __init__(self, opening: Opening):
        self._budget, self._client = opening.waiting, opening.client

    def fits(self, size: int) -> bool:
        """Return whether there is room for so many bytes more."""
        return self._budget is None or not size or self._budget.fits(self._client, size)

    def add(self, one: HeldRequest, size: int) -> bool:
        """Count bytes of a request until it is removed; return False if there is no room."""
        if not self.fits(size):
            return False
        if self._budget is not None:
            one.size += size
            self._budget.add(self._client, size)
        return True

    def remove(self, one: HeldRequest) -> None:
        """No longer count a request; nothing happens if it is not counted."""
        if self._budget is not None and one.size:
            self._budget.add(self._client, -one.size)
            one.size = 0
