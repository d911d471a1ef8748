"""Which run may begin while one waits for memory."""

import pytest

from provider.engine.memory_turn import MAX_PASSED, MAX_PASSED_S, MemoryTurn
from tests.support.clock import Clock

ROOM = 100
LARGE = 90


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def turn(clock):
    """Return the turn of a large run that has not fitted."""
    made = MemoryTurn(clock)
    made.wait("large", LARGE)
    return made


def begin(turn, key, need=10):
    """Begin a run that fits, if it may."""
    allowed = turn.allows(key, need, ROOM)
    if allowed:
        turn.begin(key, need)
    return allowed


def test_as_long_as_every_run_fits_all_may_begin():
    turn = MemoryTurn()
    assert all(begin(turn, key, LARGE) for key in range(2 * MAX_PASSED))
    assert turn.awaited is None


def test_a_bounded_number_of_runs_may_go_past_one_that_does_not_fit(turn):
    assert [begin(turn, key, 20) for key in range(MAX_PASSED + 1)] == [True] * MAX_PASSED + [False]
    assert turn.awaited == "large"


def test_runs_may_go_past_one_that_does_not_fit_for_a_bounded_time(turn, clock):
    clock.now = 0.9 * MAX_PASSED_S
    assert begin(turn, 1, 20)
    assert not turn.reserved
    clock.now = MAX_PASSED_S
    assert turn.reserved
    assert not begin(turn, 2, 20)


def test_what_the_awaited_run_will_leave_is_free_for_others(turn, clock):
    clock.now = MAX_PASSED_S
    assert [begin(turn, key, 4) for key in range(3)] == [True, True, False]
    turn.end(0)
    assert begin(turn, 3, 4)
    assert not begin(turn, 4, 4)


def test_once_the_awaited_run_has_begun_all_may_begin(turn, clock):
    clock.now = MAX_PASSED_S
    assert begin(turn, "large", LARGE)
    assert begin(turn, 1, LARGE)
    assert turn.awaited is None


def test_a_run_that_ends_while_it_is_awaited_holds_nobody_up(turn, clock):
    clock.now = MAX_PASSED_S
    turn.end("large")
    assert begin(turn, 1, LARGE)


def test_only_the_first_run_that_does_not_fit_is_awaited(turn):
    turn.wait("other", 30)
    assert turn.awaited == "large"
    turn.end("large")
    turn.wait("other", 30)
    assert turn.awaited == "other"


def test_it_is_known_for_whom_and_how_long_a_run_has_been_waited_for(clock):
    turn = MemoryTurn(clock)
    assert (turn.client, turn.waited) == ("", 0.0)
    turn.reserve()
    turn.wait("large", LARGE, "a")
    clock.now = 3.0
    assert (turn.client, turn.waited, turn.reserved) == ("a", 3.0, False)
    turn.reserve()
    assert turn.reserved
    assert not begin(turn, 1, 20)
