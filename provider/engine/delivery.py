"""Delivery of events from the MLX thread to the readers, one call per event loop and step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from provider.engine.inbox import Inbox
from provider.engine.messages import RunEvent

__all__ = ["EventDelivery"]


class Reader(Protocol):
    """Anything with an inbox."""

    @property
    def inbox(self) -> Inbox:
        """The inbox for its events."""


R = TypeVar("R", bound=Reader)


class EventDelivery(Generic[R]):
    """Collects the events of a step, and delivers them by one call to each event loop.

    There is one `call_soon_threadsafe` per step and loop, not per token: each wakes the loop by a
    system call, and with 32 streams those would cost more than the text.
    """

    def __init__(self) -> None:
        self._events: dict[R, list[RunEvent]] = {}

    def add(self, reader: R, events: Sequence[RunEvent]) -> None:
        """Keep events for a reader until the next `flush`."""
        if not events:
            return
        if (waiting := self._events.get(reader)) is None:
            self._events[reader] = list(events)
        else:
            waiting.extend(events)

    def flush(self) -> list[R]:
        """Deliver everything; return the readers whose loop is closed."""
        if not self._events:
            return []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[R, list[RunEvent]]]] = {}
        for reader, events in self._events.items():
            if reader.inbox.loop is None:
                reader.inbox.put(events)
            else:
                by_loop.setdefault(reader.inbox.loop, []).append((reader, events))
        self._events = {}
        orphans: list[R] = []
        for loop, deliveries in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, deliveries)
            except RuntimeError:  # raised when the loop is closed
                orphans += [reader for reader, _ in deliveries]
        return orphans


def _deliver(deliveries: Sequence[tuple[Reader, Sequence[RunEvent]]]) -> None:
    for reader, events in deliveries:
        reader.inbox.put(events)
