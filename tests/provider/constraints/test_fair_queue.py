"""Clients take turns, and what waits is bounded."""

from provider.constraints.fair_queue import FairQueue


def taken(queue):
    found = []
    while (item := queue.pop()) is not None:
        found.append(item)
    return found


def test_clients_take_turns_and_each_is_served_in_order():
    queue = FairQueue(10, 10)
    for client, item in [("a", 1), ("a", 2), ("a", 3), ("b", 4), (None, 5), ("b", 6)]:
        assert queue.put(client, item)
    assert len(queue) == 6
    assert taken(queue) == [1, 4, 5, 2, 6, 3]
    assert len(queue) == 0


def test_a_client_that_comes_back_waits_for_the_others():
    queue = FairQueue(10, 10)
    queue.put("a", 1)
    queue.put("b", 2)
    queue.put("a", 3)
    assert queue.pop() == 1
    queue.put("a", 4)
    assert taken(queue) == [2, 3, 4]


def test_neither_one_client_nor_all_have_more_than_their_share():
    queue = FairQueue(3, 2)
    assert [queue.put("a", n) for n in range(3)] == [True, True, False]
    assert [queue.put(client, 9) for client in ("b", "c")] == [True, False]
    queue.pop()
    assert queue.put("c", 9)


def test_what_is_removed_is_not_taken():
    queue = FairQueue(10, 10)
    for client, item in [("a", 1), ("a", 2), ("b", 3)]:
        queue.put(client, item)
    assert queue.remove("a", 1)
    assert queue.remove("b", 3)
    assert not queue.remove("b", 3)
    assert not queue.remove("a", 3)
    assert len(queue) == 1
    assert taken(queue) == [2]
