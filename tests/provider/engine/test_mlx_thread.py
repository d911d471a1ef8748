"""The one thread, and the lanes that take turns on it."""

import itertools
import threading

import pytest

from provider.engine.mlx_thread import MlxThread


class Turns:
    """A lane that has so many turns to make, and notes them in a log that all share."""

    def __init__(self, name, count, log):
        self.name = name
        self.left = count
        self.log = log
        self.done = threading.Event()

    def turn(self, active_models):
        self.left -= 1
        self.log.append((self.name, active_models, threading.current_thread().name))
        if not self.left:
            self.done.set()

    def idle(self):
        return self.left <= 0

    def end(self):
        pass


class First(Turns):
    """A lane whose first turn waits until the others are woken."""

    def __init__(self, *details):
        super().__init__(*details)
        self.others_woken = threading.Event()

    def turn(self, active_models):
        assert self.others_woken.wait(10)
        super().turn(active_models)


@pytest.fixture
def thread():
    made = MlxThread()
    yield made
    made.close()


def test_lanes_take_turns_and_know_how_many_they_are(thread):
    log = []
    a, b = First("a", 4, log), Turns("b", 3, log)
    thread.wake(a)
    thread.wake(b)
    a.others_woken.set()
    assert a.done.wait(10)
    assert b.done.wait(10)
    names = [name for name, _, _ in log]
    assert sorted(names) == ["a"] * 4 + ["b"] * 3
    both = [name for name, active, _ in log if active == 2]
    assert all(one != other for one, other in itertools.pairwise(both))
    assert len({worker for _, _, worker in log}) == 1


def test_a_lane_that_is_idle_is_left_alone_until_it_is_woken(thread):
    log = []
    lane = Turns("a", 1, log)
    thread.wake(lane)
    thread.close()
    assert len(log) == 1
    assert not thread.works_for(lane)


def test_a_lane_can_be_woken_again(thread):
    log = []
    lane = Turns("a", 1, log)
    for _ in range(3):
        lane.left = 1
        lane.done.clear()
        thread.wake(lane)
        assert lane.done.wait(10)
    assert len(log) == 3


def test_a_closed_thread_takes_nothing_and_closes_twice():
    thread = MlxThread()
    thread.close()
    thread.close()
    with pytest.raises(RuntimeError):
        thread.wake(Turns("a", 1, []))
