"""Which run gives its memory back while one of another client waits for it."""

import pytest

from provider.engine.memory_share import MemoryShare
from tests.support.clock import Clock

ROOM = 100
TURN_S = 10.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def share(clock):
    """Return a share of which client a holds 60 with two runs, and b 40."""
    made = MemoryShare(clock)
    for key, client, need in (("a1", "a", 30), ("a2", "a", 30), ("b1", "b", 40)):
        made.hold(key, client, need)
    for key in ("a2", "b1"):
        made.decode(key)
    clock.now = 1.0
    made.decode("a1")
    return made


def test_the_run_that_has_decoded_longest_of_the_client_that_holds_most_gives_memory_back(
    share, clock
):
    clock.now = TURN_S + 1.0
    assert share.yielding("c", ROOM, TURN_S) == "a2"
    share.release("a2")
    assert share.yielding("c", ROOM, TURN_S) == "b1"
    share.release("b1")
    assert share.yielding("c", ROOM, TURN_S) is None, "a has 30 of 50"


def test_who_holds_no_more_than_a_share_keeps_it(share, clock):
    clock.now = TURN_S + 1.0
    share.release("a2")
    assert share.yielding("a", ROOM, TURN_S) is None
    assert share.yielding("b", ROOM, TURN_S) is None, "b itself holds most"


def test_a_client_does_not_give_memory_to_itself(share, clock):
    clock.now = TURN_S + 1.0
    share.release("b1")
    assert share.yielding("a", ROOM / 2, TURN_S) is None
    assert share.yielding("b", ROOM, TURN_S) == "a2"


def test_a_run_decodes_for_a_turn_first(share, clock):
    clock.now = TURN_S - 0.1
    assert share.yielding("c", ROOM, TURN_S) is None
    clock.now = TURN_S
    assert share.yielding("c", ROOM, TURN_S) == "a2"


def test_a_run_decodes_as_long_as_its_prompt_took_to_read(clock):
    share = MemoryShare(clock)
    share.hold("a", "a", 90)
    clock.now = 3 * TURN_S
    assert share.yielding("b", ROOM, TURN_S) is None, "it is being read"
    share.decode("a")
    clock.now = 5 * TURN_S
    share.decode("a")
    assert share.yielding("b", ROOM, TURN_S) is None
    clock.now = 6 * TURN_S
    assert share.yielding("b", ROOM, TURN_S) == "a"


def test_of_prompts_that_are_read_the_last_gives_its_memory_and_the_first_keeps_it(clock):
    share = MemoryShare(clock)
    for key in ("a1", "a2", "a3"):
        share.hold(key, "a", 30)
    assert share.yielding("b", ROOM, TURN_S) == "a3"
    share.decode("a1")
    share.release("a3")
    assert share.yielding("b", ROOM, TURN_S) == "a2"
    clock.now = TURN_S
    assert share.yielding("b", ROOM, TURN_S) == "a1", "it has had its turn"
    share.release("a1")
    assert share.yielding("b", ROOM / 2, TURN_S) is None, "it is the first now"


def test_two_clients_whose_prompts_fill_the_memory_both_get_on(clock):
    """Each has a run that keeps its memory, whichever of the others give theirs to each other."""
    share, waiting = MemoryShare(clock), ["b1", "b2", "b3"]
    for key in ("a1", "a2", "a3"):
        share.hold(key, "a", 30)
    kept = {"a1"}
    for _ in range(20):
        key = waiting.pop(0)
        gives = share.yielding(key[0], 90, TURN_S)
        if gives is None:
            waiting.append(key)
            continue
        assert gives not in kept
        share.release(gives)
        share.hold(key, key[0], 30)
        if not any(one[0] == key[0] for one in kept):
            kept.add(key)
        waiting.append(gives)
    assert kept == {"a1", "b1"}


def test_a_run_that_holds_nothing_is_not_noted_when_it_decodes(share):
    share.decode("gone")
    share.release("gone")
