"""A generation's frames as its reader takes them."""

import asyncio

import pytest

from gateway.client import ConnectionLostError, GatewayError
from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import (
    Chunk,
    Done,
    Error,
    Generate,
    Progress,
    Queued,
    Timing,
    Usage,
)
from provider.replicas.relay import MAX_ARRIVED, MAX_TOKENS, Relay


class Taker:
    """A client that notes what it is asked."""

    def __init__(self):
        self.acknowledged, self.cancelled = [], 0

    async def acknowledge(self, run, frame):
        if (seq := getattr(frame, "seq", None)) is not None:
            run.acknowledged = seq
            self.acknowledged.append(seq)

    async def cancel(self, run):
        self.cancelled += 1


def relayed():
    taker = Taker()
    return taker, Relay(taker, Generate(id="a", window=4))


def chunk(seq, text="x"):
    return Chunk(id="a", seq=seq, text=text)


DONE = Done(id="a", seq=3, finish_reason="stop", usage=Usage(), timing=Timing())


async def test_frames_are_taken_in_order_and_each_half_of_a_window_is_acknowledged_then():
    taker, relay = relayed()
    for seq in range(7):
        relay.receive(chunk(seq))
    assert taker.acknowledged == []
    assert [(await relay.take()).seq for _ in range(7)] == [0, 1, 2, 3, 4, 5, 6]
    assert taker.acknowledged == [1, 3, 5]


async def test_only_the_newest_of_what_the_window_does_not_bound_is_kept():
    _, relay = relayed()
    for position in (3, 2, 1):
        relay.receive(Queued(id="a", position=position))
    for done in range(9):
        relay.receive(Progress(id="a", done=done, total=9))
    assert [await relay.take() for _ in range(2)] == [
        Queued(id="a", position=1),
        Progress(id="a", done=8, total=9),
    ]


async def test_a_reader_waits_for_the_next_frame():
    _, relay = relayed()
    waiting = asyncio.ensure_future(relay.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    relay.receive(chunk(0))
    assert (await waiting).seq == 0


async def test_it_is_over_with_its_last_frame_and_takes_no_other():
    _, relay = relayed()
    relay.receive(DONE)
    assert relay.over
    relay.receive(chunk(4))
    relay.fail(ConnectionLostError("gone"))
    assert await relay.take() is DONE
    assert not relay._arrived


@pytest.mark.parametrize("of_the_client", [True, False])
async def test_an_error_comes_after_what_was_received(of_the_client):
    _, relay = relayed()
    relay.receive(chunk(0))
    if of_the_client:
        relay.fail(ConnectionLostError("gone"))
    else:
        relay.receive(Error(id="a", code=ErrorCode.OVERLOADED, message="full", retryable=True))
    assert (await relay.take()).seq == 0
    with pytest.raises(GatewayError, match="gone" if of_the_client else "full"):
        await relay.take()


async def test_stopping_asks_once_and_forgets_what_comes_late():
    taker, relay = relayed()
    relay.started_here = True
    relay.receive(chunk(0))
    await relay.stop()
    await relay.stop()
    relay.receive(chunk(1))
    assert (taker.cancelled, len(relay._arrived)) == (1, 0)
    _, ended = relayed()
    ended.receive(DONE)
    await ended.stop()
    assert not ended.asked_to_stop


async def test_what_was_never_asked_for_is_not_stopped():
    taker, relay = relayed()
    await relay.stop()
    assert taker.cancelled == 0


async def test_a_replica_that_ignores_the_window_is_lost_and_takes_no_memory():
    _, relay = relayed()
    for seq in range(MAX_ARRIVED + 100):
        relay.receive(chunk(seq))
    assert relay.over
    assert len(relay._arrived) == MAX_ARRIVED + 1
    for _ in range(MAX_ARRIVED):
        await relay.take()
    with pytest.raises(ConnectionLostError, match="more than was asked for"):
        await relay.take()


async def test_no_more_tokens_are_kept_than_are_of_use():
    _, relay = relayed()
    some = list(range(MAX_TOKENS // 2))
    for number in range(5):
        relay.receive(Progress(id="a", done=3, total=3, first=number * len(some), tokens=some))
    assert len(relay.tokens) == MAX_TOKENS


async def test_tokens_that_are_told_are_kept_and_not_read():
    _, relay = relayed()
    for first, tokens in ((0, [5, 6]), (2, [7]), (9, [8])):  # what does not follow is no use
        relay.receive(Progress(id="a", done=3, total=3, first=first, tokens=tokens))
    assert relay.tokens == [5, 6, 7]
    assert not relay._arrived
