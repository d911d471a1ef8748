"""A connection is aborted when its peer takes no bytes, and not while it takes some."""

import pytest

from gateway.client.watched_connection import LOOKS, WriteWatchdog

NEVER = 3600.0


class Line:
    """A transport whose bytes are taken as a test says."""

    def __init__(self, waiting):
        self.waiting = waiting
        self.aborted = False

    def get_write_buffer_size(self):
        return self.waiting

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


@pytest.fixture
async def watched():
    """Yield a line with bytes that wait, and its watchdog, whose looks the test makes."""
    line = Line(1000)
    dog = WriteWatchdog(line, NEVER)
    yield line, dog
    if dog._timer is not None:
        dog._timer.cancel()


async def test_a_line_that_takes_nothing_is_aborted(watched):
    line, dog = watched
    with dog.watching():
        for _ in range(LOOKS):
            assert not line.aborted
            dog.look()
    assert line.aborted
    assert dog._timer is None


async def test_a_line_that_takes_a_few_bytes_at_a_time_is_kept(watched):
    line, dog = watched
    with dog.watching():
        for _ in range(50):
            for _ in range(LOOKS - 1):
                dog.look()
            line.waiting -= 1
            dog.look()
    assert not line.aborted


async def test_bytes_that_are_added_are_not_taken_for_progress(watched):
    line, dog = watched
    with dog.watching():
        for _ in range(LOOKS):
            line.waiting += 10  # such as a pong
            dog.look()
    assert line.aborted


async def test_bytes_that_wait_are_watched_after_their_write_was_cancelled(watched):
    line, dog = watched
    with dog.watching():
        dog.look()
    for _ in range(LOOKS - 1):
        dog.look()
    assert line.aborted


async def test_a_line_that_has_taken_everything_is_not_watched(watched):
    line, dog = watched
    with dog.watching():
        line.waiting = 0
    dog.look()
    assert dog._timer is None
    line.waiting = 1000
    with dog.watching():
        assert dog._timer is not None, "the next write is watched again"
        for _ in range(LOOKS - 1):
            dog.look()
    assert not line.aborted, "earlier looks do not count"


async def test_a_write_that_waits_for_another_one_is_watched(watched):
    line, dog = watched
    with dog.watching():
        line.waiting = 0
        dog.look()
        line.waiting = 1000
        for _ in range(LOOKS + 1):
            dog.look()
    assert line.aborted
