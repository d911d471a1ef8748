import asyncio

import pytest

from tests.support.loop import CheckedLoop


async def test_tests_run_on_a_checked_loop():
    assert isinstance(asyncio.get_running_loop(), CheckedLoop)


@pytest.mark.parametrize("schedule", ["call_soon", "call_later", "call_at"])
async def test_another_thread_may_not_schedule_on_the_loop(schedule):
    loop = asyncio.get_running_loop()
    when = () if schedule == "call_soon" else (loop.time(),)
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        await asyncio.to_thread(getattr(loop, schedule), *when, print)


async def test_another_thread_may_not_complete_a_future_that_is_awaited():
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(print)
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        await asyncio.to_thread(future.set_result, None)


async def test_another_thread_may_schedule_safely():
    called = asyncio.Event()
    await asyncio.to_thread(asyncio.get_running_loop().call_soon_threadsafe, called.set)
    await called.wait()
