"""What the processes of one model tell one another, and how they end together."""

import queue
import socket
import time
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest

from provider.caches.operations import Make
from provider.sharding.frames import Do, Load, Unload, encode
from provider.sharding.link import HEADER
from provider.sharding.ranks import (
    LOST,
    FollowingRank,
    LeadingRank,
    Times,
)
from tests.support.timeouts import TIMEOUT

TIMES = Times(beat=0.05, flush=0.0, end=0.2)
GROUP = SimpleNamespace(rank=lambda: 1, size=lambda: 2)


def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def until(holds):
    """Wait for what another thread does soon."""
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


class Scene:
    """Rank 0 and rank 1, each with its end of a connection; exits are noted."""

    def __init__(self):
        self.exits, self.errors = queue.SimpleQueue(), queue.SimpleQueue()
        self.mine, self.theirs = pair()
        self.leading = LeadingRank(GROUP, 1 << 30, self.exits.put, times=TIMES)
        self.leading.on_lost = self.errors.put
        self.leading.start({1: self.mine})

    def follow(self, **times):
        times = replace(TIMES, **times)
        self.following = FollowingRank(GROUP, self.theirs, self.exits.put, times=times)
        return self.following

    def error(self):
        return str(self.errors.get(timeout=TIMEOUT))

    def exit(self):
        return self.exits.get(timeout=TIMEOUT)


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.leading.close()
    scene.theirs.close()


def test_what_is_done_is_announced_in_order(scene):
    told = scene.follow().told()
    scene.leading.load()
    scene.leading.journal.add(Make(1))
    scene.leading.tell()
    scene.leading.journal.add(Make(2))
    scene.leading.tell()
    scene.leading.unload()
    assert list(islice(told, 4)) == [Load(), Do([Make(1)]), Do([Make(2)]), Unload()]


def test_what_is_done_between_passes_is_announced_too(scene):
    scene.leading.journal.add(Make(1))
    assert next(scene.follow().told()) == Do([Make(1)])


def test_the_others_end_with_the_first(scene):
    told = scene.follow().told()
    scene.leading.close()
    scene.leading.close()
    assert list(told) == []
    assert scene.errors.empty()
    assert scene.exits.empty()


def test_a_lost_rank_ends_all_runs_with_an_error_and_then_the_process(scene):
    scene.theirs.close()
    assert "rank 1 is lost" in scene.error()
    assert scene.exit() == LOST


def test_a_rank_that_fails_says_why(scene):
    scene.follow().failed("no memory")
    assert "rank 1 has failed: no memory" in scene.error()
    assert scene.exit() == LOST


def test_the_first_waits_for_what_the_others_have(scene):
    facts = {"mlx": "1", "the model's files as": "abc"}
    following = scene.follow()
    assert scene.leading.awaited == [1]
    following.has({**facts, "mlx": "2"})
    until(lambda: not scene.leading.awaited)
    assert scene.leading.difference(facts) == "rank 1 has mlx 2, and rank 0 has 1"
    assert scene.leading.difference({**facts, "mlx": "2"}) == ""


def test_a_rank_that_is_asked_to_end_asks_the_first(scene):
    asked = queue.SimpleQueue()
    scene.leading.on_leave = lambda: asked.put("end")
    scene.follow().leave()
    assert asked.get(timeout=TIMEOUT) == "end"
    assert scene.exits.empty()


@pytest.mark.parametrize("frame", [b"nonsense", encode(Load())])
def test_a_rank_that_can_not_be_understood_is_lost(scene, frame):
    scene.theirs.sendall(HEADER.pack(len(frame)) + frame)
    assert "rank 1 is lost: what it sends can't be used" in scene.error()
    assert scene.exit() == LOST


def test_another_rank_that_can_not_understand_the_first_exits(scene):
    frame = b"nonsense"
    scene.mine.sendall(HEADER.pack(len(frame)) + frame)
    scene.follow()
    assert scene.exit() == LOST


def test_a_pass_that_never_ends_ends_all_although_the_others_live(scene):
    scene.follow()
    scene.leading.watchdog = SimpleNamespace(overdue=lambda: 61.0)
    assert "a forward pass has not ended for 61 s" in scene.error()
    assert scene.exit() == LOST


def test_a_failure_ends_the_process_once(scene):
    scene.leading.fail("one")
    scene.leading.fail("two")
    assert "one" in scene.error()
    assert scene.exit() == LOST
    assert scene.errors.empty()
    assert scene.exits.empty()


def test_a_process_exits_although_its_runs_can_not_be_ended(scene):
    def broken(error):
        raise RuntimeError("broken")

    scene.leading.on_lost = broken
    with pytest.raises(RuntimeError):
        scene.leading.fail("one")
    assert scene.exit() == LOST


def test_another_rank_exits_at_once_when_the_first_is_lost(scene):
    scene.follow()
    scene.mine.shutdown(socket.SHUT_RDWR)
    assert scene.exit() == LOST


def test_another_rank_that_hangs_exits_after_the_first_has_ended(scene):
    scene.follow(end=0.0)
    scene.leading.close()
    assert scene.exit() == 0
