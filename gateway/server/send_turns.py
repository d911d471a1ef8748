"""Lets connections take turns to send many frames, which are sent again mostly.

A frame takes some 30 microseconds. Many connections may have thousands to send at one time, in one
turn of the event loop if nothing held them back.

Rule 1: all connections together send at most `most` such frames in a turn of the event loop.
Rule 2: while others wait, a connection sends at most `slice_` of them before it waits too. Those
that have waited longest go first.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["MAX_AT_ONCE", "SendTurns"]

MAX_AT_ONCE = 256  # frames, in some 8 ms
SLICE = 64


class SendTurns:
    """The frames that may still be sent in this turn of the event loop, and who waits to send."""

    def __init__(self, most: int = MAX_AT_ONCE, slice_: int = SLICE):
        self._most, self._slice = most, slice_
        self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False  # whether the next turn is about to begin anew

    @property
    def is_full(self) -> bool:
        """Whether no more are to be sent in this turn."""
        return self._left <= 0

    def must_wait(self, sent: int) -> bool:
        """Return whether one is to wait that has sent so many since it waited last."""
        return self._left <= 0 or (sent >= self._slice and bool(self._waiting))

    def spend(self, frames: int) -> None:
        """Note that frames are sent."""
        self._left -= frames
        self._begin_soon()

    async def wait(self) -> None:
        """Wait for a turn of the event loop in which more may be sent."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._begin_soon()
        await waiter

    def _begin_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        self._left = self._most
        going = 0
        while self._waiting and going < max(1, self._most // self._slice):
            waiter = self._waiting.popleft()
            if not waiter.done():  # else its connection has ended
                waiter.set_result(None)
                going += 1
        if self._waiting:
            self._begin_soon()
