"""Where a run's events wait for their reader."""

import asyncio
import threading

import pytest

from provider.engine.inbox import AsyncInbox, ChoiceInbox, SyncInbox
from provider.events import TextDelta


def delta(text, tokens=1):
    return TextDelta(text)._replace(tokens=tokens)


async def test_a_reader_on_a_loop_waits_and_counts_the_tokens_it_takes():
    inbox = AsyncInbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put([delta("a", 2), "an event without text", delta("b")])
    assert (await waiting).text == "a"
    assert inbox.taken == 2
    assert await inbox.get() == "an event without text"
    assert inbox.taken == 2
    await inbox.get()
    assert inbox.taken == 3


async def test_a_reader_that_is_cancelled_loses_no_event():
    inbox = AsyncInbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    inbox.put([delta("kept")])
    assert (await inbox.get()).text == "kept"


def test_a_reader_that_is_a_thread_waits_for_its_events():
    inbox, found = SyncInbox(), []
    thread = threading.Thread(target=lambda: found.append(inbox.get()))
    thread.start()
    inbox.put([delta("a", 3)])
    thread.join(10)
    assert [one.text for one in found] == ["a"]
    assert inbox.taken == 3
    assert inbox.loop is None


def test_the_events_of_several_runs_come_to_one_inbox_and_are_counted_apart():
    all_of_them = SyncInbox()
    choices = [ChoiceInbox(index, all_of_them) for index in range(2)]
    choices[1].put([delta("b", 2)])
    choices[0].put([delta("a")])
    for expected in (1, 0):
        choice, event = all_of_them.get()
        assert choice.index == expected
        choice.count_taken(event)
    assert [choice.taken for choice in choices] == [1, 2]
    assert choices[0].loop is None
