import asyncio
import threading

import pytest

from gateway.client.blocking import LoopThread


async def doubled(number):
    await asyncio.sleep(0)
    return 2 * number


def test_work_is_done_on_the_loops_thread_and_its_value_returned():
    with LoopThread() as loop:
        assert loop.wait(doubled(3)) == 6

        async def where():
            return threading.current_thread().name

        assert loop.wait(where()) == "gateway-client"
    assert loop.loop.is_closed()


def test_what_the_work_raises_is_raised_here():
    async def fail():
        raise LookupError("here")

    with LoopThread() as loop, pytest.raises(LookupError, match="here"):
        loop.wait(fail())


def test_the_thread_ends_with_its_block():
    before = threading.active_count()
    with LoopThread():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
