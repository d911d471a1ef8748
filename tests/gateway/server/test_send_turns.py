"""Turns of the event loop in which many frames are sent."""

import asyncio

from gateway.server.send_turns import SendTurns


class Loop:
    """Counts turns of the event loop."""

    def __init__(self):
        self.turn = 0

    async def count(self):
        while True:
            await asyncio.sleep(0)
            self.turn += 1


async def send(turns, loop, frames, sent, name):
    own = 0
    for _ in range(frames):
        while turns.must_wait(own):
            own = 0
            await turns.wait()
        turns.spend(1)
        own += 1
        sent.append((loop.turn, name))


async def test_all_together_send_few_frames_in_a_turn_and_take_turns():
    turns, loop, sent = SendTurns(most=8, slice_=4), Loop(), []
    counting = asyncio.create_task(loop.count())
    await asyncio.gather(*(send(turns, loop, 40, sent, name) for name in "abcdef"))
    counting.cancel()
    in_turn = {}
    for turn, name in sent:
        in_turn.setdefault(turn, []).append(name)
    assert len(sent) == 240
    # One turn may have the end of what was allowed in the one before.
    assert max(map(len, in_turn.values())) <= 2 * 8
    half = [name for _, name in sent[: len(sent) // 2]]
    assert all(abs(half.count(name) - 20) <= 8 for name in "abcdef")


async def test_one_alone_waits_only_for_the_next_turn():
    turns, loop, sent = SendTurns(most=8, slice_=4), Loop(), []
    counting = asyncio.create_task(loop.count())
    await send(turns, loop, 24, sent, "a")
    counting.cancel()
    assert len({turn for turn, _ in sent}) >= 3


async def test_one_that_has_gone_holds_nobody_up():
    turns = SendTurns(most=1, slice_=1)
    turns.spend(1)
    gone = asyncio.create_task(turns.wait())
    left = asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    gone.cancel()
    await left
    assert not turns.is_full
    assert not turns.must_wait(1)
