"""The one thread, and the lanes that take turns on it."""

import itertools
import threading

import pytest

from provider.engine.mlx_thread import MAX_RAISED, MlxThread


class Turns:
    """A lane that has so many turns to make, and notes them in a log that all share."""

    def __init__(self, name, count, log):
        self.name = name
        self.left = count
        self.log = log
        self.failed = []
        self.done = threading.Event()

    def turn(self, active_models):
        self.left -= 1
        self.log.append((self.name, active_models, threading.current_thread().name))
        if not self.left:
            self.done.set()

    def idle(self):
        return self.left <= 0

    def fail(self, error):
        self.failed.append(str(error))

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


class Raising(First):
    """A lane each of whose first `raises` turns raises, against the contract."""

    def __init__(self, name, count, log, raises):
        super().__init__(name, count, log)
        self.raises = raises

    def turn(self, active_models):
        super().turn(active_models)
        if self.raises:
            self.raises -= 1
            raise AssertionError(f"of {self.name}")


def test_a_lane_that_raises_harms_no_other_and_has_its_next_turns(thread, caplog):
    log = []
    bad, good = Raising("bad", 4, log, raises=1), Turns("good", 6, log)
    thread.wake(bad)
    thread.wake(good)
    bad.others_woken.set()
    assert good.done.wait(10)
    assert bad.done.wait(10)
    assert [name for name, _, _ in log].count("bad") == 4
    assert caplog.text.count("AssertionError: of bad") == 1


def test_a_lane_that_always_raises_is_left_alone_until_it_is_woken(thread):
    log = []
    bad, good = Raising("bad", 10**6, log, raises=10**6), Turns("good", 20, log)
    thread.wake(bad)
    thread.wake(good)
    bad.others_woken.set()
    assert good.done.wait(10)
    thread.close()
    assert [name for name, _, _ in log].count("bad") == MAX_RAISED
    assert not thread.works_for(bad)
    assert (bad.failed, good.failed) == (["of bad"], [])  # nothing of it waits for a next message


class Unfailing(Raising):
    """A lane that can't even end its work."""

    def fail(self, error):
        super().fail(error)
        raise ValueError("nor can it fail")


def test_a_lane_that_cannot_end_its_work_harms_no_other(thread, caplog):
    bad, good = Unfailing("bad", 10**6, [], raises=10**6), Turns("good", 20, [])
    thread.wake(bad)
    thread.wake(good)
    bad.others_woken.set()
    assert good.done.wait(10)
    thread.close()
    assert bad.failed == ["of bad"]
    assert "nor can it fail" in caplog.text


def test_a_lane_that_was_left_alone_gets_turns_when_it_is_woken(thread):
    bad = Raising("bad", MAX_RAISED + 2, [], raises=MAX_RAISED)
    bad.others_woken.set()
    thread.wake(bad)
    last = Turns("last", MAX_RAISED + 3, [])
    thread.wake(last)
    assert last.done.wait(10)
    assert not bad.done.is_set()
    thread.wake(bad)
    assert bad.done.wait(10)
