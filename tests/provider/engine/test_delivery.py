"""From the MLX thread to the readers."""

import asyncio
from dataclasses import dataclass
from typing import Any

from provider.engine.delivery import EventDelivery
from provider.engine.inbox import AsyncInbox, SyncInbox


@dataclass(eq=False)
class Reader:
    """Whoever has an inbox."""

    inbox: Any


class CountingLoop:
    """An event loop's door, and how often it was knocked at."""

    def __init__(self, loop):
        self.loop = loop
        self.calls = 0

    def call_soon_threadsafe(self, *call):
        self.calls += 1
        self.loop.call_soon_threadsafe(*call)


async def test_one_call_wakes_a_loop_for_all_its_readers():
    loop = CountingLoop(asyncio.get_running_loop())
    readers = [Reader(AsyncInbox()) for _ in range(3)]
    for reader in readers:
        reader.inbox.loop = loop
    delivery = EventDelivery()
    for number in range(2):
        for reader in readers:
            delivery.add(reader, [number])
    assert delivery.flush() == []
    assert [[await r.inbox.get() for _ in range(2)] for r in readers] == [[0, 1]] * 3
    assert loop.calls == 1
    assert delivery.flush() == []
    assert loop.calls == 1


def test_a_thread_gets_its_events_at_once_and_in_order():
    reader, delivery = Reader(SyncInbox()), EventDelivery()
    delivery.add(reader, [1, 2])
    delivery.add(reader, [])
    delivery.add(reader, [3])
    delivery.flush()
    assert [reader.inbox.get() for _ in range(3)] == [1, 2, 3]


def test_readers_whose_loop_is_closed_are_named_and_the_others_served():
    async def inbox():
        return AsyncInbox()

    orphan, thread = Reader(asyncio.run(inbox())), Reader(SyncInbox())
    delivery = EventDelivery()
    delivery.add(orphan, ["lost"])
    delivery.add(thread, ["kept"])
    assert delivery.flush() == [orphan]
    assert thread.inbox.get() == "kept"
    assert delivery.flush() == []
