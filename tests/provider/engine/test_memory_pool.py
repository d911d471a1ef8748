"""Who may take how much of the memory, and how long one waits for it."""

import pytest

from provider.engine.memory_pool import MemoryPool
from provider.interface import MemoryExceededError, ResourceExceededError
from tests.support.clock import Clock


class Member:
    """A model's part, some of which is only kept for later."""

    def __init__(self, held, kept=0, promised=0):
        self.held = held
        self.weights = held - kept - promised
        self.kept = kept
        self.promised = promised

    def forget(self, nbytes):
        freed = min(nbytes, self.kept)
        self.kept -= freed
        self.held -= freed
        return freed


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pool(clock):
    return MemoryPool(100, clock)


def enter(pool, *members):
    for member in members:
        pool.enter(member)
    return members


def test_what_all_hold_is_added_up_once_a_member(pool):
    one, other = enter(pool, Member(30, promised=5), Member(20, promised=2))
    pool.enter(one)
    assert pool.held_by_others(None) == 50
    assert pool.held_by_others(one) == 20
    assert pool.promised == 7
    pool.leave(other)
    pool.leave(other)
    assert pool.held_by_others(None) == 30


def test_the_room_for_runs_is_what_the_weights_leave(pool):
    enter(pool, Member(30, kept=10, promised=5), Member(20))
    assert pool.room == 100 - 15 - 20


def test_what_is_kept_for_later_goes_before_a_model_does(pool):
    (member,) = enter(pool, Member(90, kept=50))
    unloaded = []
    pool.unload = lambda: bool(unloaded.append(1))
    pool.reserve("m", 50)
    assert (member.held, unloaded) == (50, [])


def test_an_idle_model_goes_where_nothing_else_helps(pool):
    (member,) = enter(pool, Member(90))

    def unload():
        pool.leave(member)
        return True

    pool.unload = unload
    pool.reserve("m", 50)
    assert pool.held_by_others(None) == 0


def test_what_could_never_fit_is_refused_at_once(pool):
    for reserve in (pool.reserve, lambda *needs: next(pool.reserving(*needs))):
        with pytest.raises(MemoryExceededError):
            reserve("m", 101)


def test_where_all_are_in_use_it_is_said_when_to_come_back(pool):
    enter(pool, Member(90))
    with pytest.raises(ResourceExceededError) as caught:
        pool.reserve("m", 50)
    assert caught.value.details["retry_after"] > 0


def test_one_that_waits_asks_others_to_make_way_and_takes_what_they_leave(pool):
    (member,) = enter(pool, Member(90))
    asked, called_off = [], []
    pool.make_way = lambda: asked.append(1)
    pool.call_off = lambda: called_off.append(1)
    waiting = pool.reserving("m", 50)
    next(waiting)
    next(waiting)
    assert (len(asked), called_off) == (2, [])
    pool.leave(member)
    assert list(waiting) == []
    assert called_off == [1]


def test_nobody_is_asked_to_make_way_where_there_is_room(pool):
    asked = []
    pool.make_way = lambda: asked.append(1)
    assert list(pool.reserving("m", 50)) == []
    assert asked == []


def test_those_who_wait_come_in_their_order(pool):
    (member,) = enter(pool, Member(60))
    large, small = pool.reserving("large", 90), pool.reserving("small", 10)
    next(large)
    next(small)  # it would fit
    pool.leave(member)
    next(small)
    assert list(large) == []
    assert list(small) == []


def test_waiting_ends_after_a_while_and_leaves_the_place_to_the_next(pool, clock):
    (member,) = enter(pool, Member(90))
    first = pool.reserving("first", 50)
    next(first)
    clock.now = pool.wait_s / 2
    second = pool.reserving("second", 50)
    next(second)
    clock.now = pool.wait_s
    with pytest.raises(ResourceExceededError):
        next(first)
    next(second)
    pool.leave(member)
    assert list(second) == []


def test_one_that_is_given_up_waits_no_more(pool):
    enter(pool, Member(90))
    called_off = []
    pool.call_off = lambda: called_off.append(1)
    waiting = pool.reserving("m", 50)
    next(waiting)
    waiting.close()
    assert called_off == [1]
