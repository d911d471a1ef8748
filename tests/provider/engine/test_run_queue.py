"""Who is next among clients that wait."""

from hypothesis import given
from hypothesis import strategies as st

from provider.engine.run_queue import RunQueue


def queue_of(keys):
    """Return a queue of keys such as `a1`, each of the client that its letter names."""
    queue = RunQueue()
    for key in keys:
        queue.join(key, key[0])
    return queue


def take(queue):
    """Give the next key a place, and return it."""
    key = queue.first()
    queue.take(key)
    return key


def taken(queue):
    return [take(queue) for _ in range(len(queue))]


def test_clients_take_turns_and_each_keeps_its_order():
    assert taken(queue_of(["a1", "a2", "a3", "b1", "b2", "c1"])) == [
        "a1", "b1", "c1", "a2", "b2", "a3",
    ]  # fmt: skip


def test_who_has_fewer_places_is_next():
    queue = queue_of(["a1", "a2", "a3"])
    assert taken(queue) == ["a1", "a2", "a3"]
    for key in ["a4", "b1", "b2", "b3"]:
        queue.join(key, key[0])
    assert queue.lead("a", "b1") == 3
    assert [take(queue), take(queue)] == ["b1", "b2"]
    queue.give_back("a")
    queue.give_back("a")
    assert taken(queue) == ["a4", "b3"]


def test_a_key_that_joins_ahead_is_before_its_clients_others_alone():
    queue = queue_of(["a1", "b1", "b2"])
    queue.join("b0", "b", ahead=True)
    queue.join("b0", "b")
    assert taken(queue) == ["a1", "b0", "b1", "b2"]


def test_a_key_that_leaves_is_not_taken():
    queue = queue_of(["a1", "a2", "b1"])
    queue.leave("a1")
    queue.leave("a1")
    queue.leave("b1")
    assert "a1" not in queue
    assert taken(queue) == ["a2"]
    assert queue.first() is None


def test_nothing_is_kept_of_a_client_without_runs():
    queue = queue_of(["a1", "b1", "b2"])
    queue.leave("b1")
    queue.leave("b2")
    take(queue)
    queue.give_back("a")
    assert (queue._lines, queue._keys) == ({}, {})


def test_the_heads_are_the_first_runs_of_the_clients_that_are_next():
    queue = queue_of(["a1", "a2", "b1", "c1", "d1"])
    queue.take("b1")
    queue.join("b2", "b")
    assert list(queue.heads(9)) == ["a1", "c1", "d1", "b2"]
    assert list(queue.heads(2)) == ["a1", "c1"]
    assert list(queue_of([]).heads(2)) == []


CLIENTS = st.sampled_from("abc")
ACTIONS = st.lists(st.tuples(st.sampled_from(["join", "ahead", "take", "leave", "free"]), CLIENTS))


@given(ACTIONS)
def test_the_told_order_is_the_order_in_which_places_are_given(actions):
    queue, holders = RunQueue(), []
    for number, (action, client) in enumerate(actions):
        if action in {"join", "ahead"}:
            queue.join((client, number), client, ahead=action == "ahead")
        elif action == "free" and holders:
            queue.give_back(holders.pop(0))
        elif action == "take" and len(queue):
            assert queue.first() == queue.order()[0]
            holders.append(take(queue)[0])
        elif action == "leave" and len(queue):
            queue.leave(queue.order()[-1])
    order = queue.order()
    assert len(order) == len(queue)
    assert taken(queue) == order


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 60))
def test_no_client_gets_more_than_one_place_more_than_another_that_waits(asked, places):
    queue = RunQueue()
    for client, count in enumerate(asked):
        for number in range(count):
            queue.join((client, number), client)
    got = dict.fromkeys(range(len(asked)), 0)
    for _ in range(min(places, len(queue))):
        got[take(queue)[0]] += 1
    waiting = [count for client, count in got.items() if count < asked[client]]
    assert not waiting or max(got.values()) <= min(waiting) + 1
