"""What a command does that is one of several ranks, and what it says when it is not."""

import os
import queue
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.shards import attend, follow, join_ranks
from gateway.configuration.sources import Value
from provider.interface import ModelLoadingError
from provider.sharding.ranks import FollowingRank
from tests.support.timeouts import TIMEOUT

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def values(shard, *, replica=(), model=("embedded",)):
    given = {"shard": shard, "replica": replica, "model": model}
    return {name: Value(value, "default") for name, value in given.items()}


class Following(FollowingRank):
    """Another rank that has no link; `does` is what happens while it is told what to do."""

    def __init__(self, does=lambda: None):
        self.does, self.said = does, []
        self.asked = threading.Event()

    def has(self, facts):
        self.said.append(facts["`--shard`"])

    def told(self):
        self.does()
        return iter(())

    def leave(self):
        self.said.append("leave")
        self.asked.set()

    def failed(self, reason):
        self.said.append(reason)


@pytest.fixture(autouse=True)
def _handlers():
    kept = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_gateway_alone_joins_nobody():
    assert join_ranks(values(None)) is None


def test_a_process_without_others_is_told_how_to_start_them():
    with pytest.raises(Failure) as told:
        join_ranks(values("tensor"))
    assert told.value.status is ExitStatus.USAGE
    assert "mlx.launch" in told.value.hint


def test_a_gateway_in_front_of_replicas_has_no_ranks():
    with pytest.raises(Failure, match="can't be used with"):
        join_ranks(values("tensor", replica=("ws://one",)))


def test_rank_0_goes_on_to_serve():
    assert follow(SimpleNamespace(), values("tensor")) is None


def test_another_rank_follows_until_the_first_ends():
    rank = Following()
    assert follow(rank, values("pipeline")) is ExitStatus.OK
    assert rank.said == ["pipeline"]


def test_another_rank_whose_part_can_not_be_loaded_says_why():
    def broken():
        raise ModelLoadingError("no memory")

    rank = Following(broken)
    with pytest.raises(Failure, match="no memory") as told:
        follow(rank, values("tensor"))
    assert told.value.status is ExitStatus.NO_MODEL
    assert rank.said == ["tensor", "no memory"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_rank_0_to_end_all(number):
    def signalled():
        os.kill(os.getpid(), number)
        assert rank.asked.wait(TIMEOUT)

    rank = Following(signalled)
    assert follow(rank, values("tensor")) is ExitStatus.OK
    assert rank.said == ["tensor", "leave"]


def test_another_rank_does_not_end_with_its_terminal():
    rank = Following(lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert follow(rank, values("tensor")) is ExitStatus.OK
    assert rank.said == ["tensor"]


def attended(standard_input, left=None):
    """Attend to a launcher at a file descriptor; return the rank, the stops, and the thread."""
    rank, stops = SimpleNamespace(left=left or threading.Event()), queue.SimpleQueue()
    thread = attend(rank, lambda: stops.put("stop"), standard_input, 0.001)
    return rank, stops, thread


CONNECTED = {"pipe": os.pipe, "terminal": lambda: os.openpty()[::-1]}


@pytest.mark.parametrize("connected", CONNECTED.values(), ids=CONNECTED)
def test_rank_0_stops_when_the_launcher_is_gone(connected):
    ours, launchers = connected()
    os.write(launchers, b"what a user types is not read")
    _, stops, thread = attended(ours)
    os.close(launchers)
    assert stops.get(timeout=TIMEOUT) == "stop"
    thread.join(TIMEOUT)
    os.close(ours)


def test_rank_0_stops_when_another_leaves_and_needs_no_launcher():
    with Path(os.devnull).open() as nothing:
        rank, stops, thread = attended(nothing.fileno())
    assert thread is None
    assert attended(-1)[2] is None
    rank.on_leave()
    assert stops.get(timeout=TIMEOUT) == "stop"


def test_rank_0_stops_when_another_has_left_already():
    left = threading.Event()
    left.set()
    assert attended(-1, left)[1].get(timeout=TIMEOUT) == "stop"
