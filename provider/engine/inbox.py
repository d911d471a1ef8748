"""Queues for the events of a run, whose reader is on an event loop or on a thread."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from provider.engine.messages import RunEvent
from provider.events import Delta

__all__ = [
    "AsyncInbox",
    "ChoiceInbox",
    "Inbox",
    "SyncInbox",
]


class Inbox(Protocol):
    """The queue of one run's events. `loop` is the reader's event loop, None for a thread.

    `taken` counts the tokens whose text the reader has taken. The engine sets `parked` while the
    run waits for the reader to catch up; the reader must then resume the run.
    """

    loop: asyncio.AbstractEventLoop | None
    taken: int
    parked: bool

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events, in order; on the loop's thread if there is a loop."""


class AsyncInbox:
    """Events for a reader on an event loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.taken = 0
        self.parked = False
        self._events: deque[RunEvent] = deque()
        self._waiting: asyncio.Future[None] | None = None  # wakes the one reader

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events and wake the reader."""
        self._events.extend(events)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> RunEvent:
        """Wait for the next event. Cancelling loses no event. Only one reader may wait."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        event = self._events.popleft()
        if isinstance(event, Delta):
            self.taken += event.tokens
        return event


class SyncInbox:
    """Events for a reader that blocks its thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.taken = 0
        self.parked = False
        self._events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events and wake the reader."""
        for event in events:
            self._events.put(event)

    def get(self) -> RunEvent:
        """Wait for the next event."""
        event = self._events.get()
        if isinstance(event, Delta):
            self.taken += event.tokens
        return event


class ChoiceInbox:
    """The inbox of one choice, where one reader reads all choices of a generation.

    Events go to the common inbox `all_of_them`, as pairs of this ChoiceInbox and the event. The
    reader must call `count_taken` for each.
    """

    def __init__(self, index: int, all_of_them: AsyncInbox | SyncInbox):
        self.index = index
        self.loop = all_of_them.loop
        self.taken = 0
        self.parked = False
        self._put: Callable[[Any], None] = all_of_them.put

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events to the common inbox."""
        self._put([(self, event) for event in events])

    def count_taken(self, event: RunEvent) -> None:
        """Count an event that the reader has taken."""
        if isinstance(event, Delta):
            self.taken += event.tokens
