"""Clients take turns by time, and what waits is bounded."""

from provider.constraints.fair_queue import FairQueue


def served(queue, seconds=None, steps=1000):
    """Take the items in turn, each with as many steps of a second as `seconds` says of it."""
    order, taken = [], {}
    while len(order) < steps and (item := queue.pop()) is not None:
        order.append(item)
        taken[item] = taken.get(item, 0) + 1
        if taken[item] < (seconds or {}).get(item, 1):
            queue.put_back(item[0], item, taken[item])
        queue.took(item[0], 1)
    return "".join(item[1] for item in order)


def queue_of(*items, most=100, most_of_one=100):
    """Return a queue of items, each with its client's name as its first letter."""
    queue = FairQueue(most, most_of_one)
    for item in items:
        assert queue.put(item[0], item)
    return queue


def test_items_of_one_client_come_in_their_order():
    queue = queue_of("aA", "aB", "aC")
    assert len(queue) == 3
    assert served(queue) == "ABC"
    assert queue.pop() is None
    assert len(queue) == 0


def test_clients_take_turns_and_each_is_served_in_order():
    assert served(queue_of("aA", "aB", "aC", "bX", "cY", "bZ")) == "AXYBZC"


def test_a_client_with_many_items_gets_no_more_time_than_one_with_one():
    queue = queue_of("aA", "aB", "aC", "bZ")
    order = served(queue, {"aA": 4, "aB": 4, "aC": 4, "bZ": 3})
    assert order[:6].count("Z") == 3


def test_a_client_whose_items_take_long_has_fewer_turns():
    queue = queue_of("aA", "aB", "bX", "bY", "bZ")
    order = []
    while (item := queue.pop()) is not None:
        order.append(item[1])
        queue.took(item[0], 5 if item[0] == "a" else 1)
    assert "".join(order) == "AXYZB"


def test_a_short_item_passes_the_long_ones_of_its_client():
    queue = queue_of("aA", "aB")
    for _ in range(4):
        item = queue.pop()
        queue.put_back("a", item, 9)
        queue.took("a", 9)
    queue.put("a", "aS")
    assert queue.pop() == "aS"


def test_a_client_that_pauses_is_even_with_the_others_when_it_comes_back():
    queue = queue_of("aA")
    for seconds in range(1, 100):
        queue.put_back("a", queue.pop(), seconds)
        queue.took("a", 1)
    queue.put("b", "bZ")
    order = served(queue, {"aA": 5, "bZ": 5}, steps=6)
    assert order.count("Z") == 3


def test_two_items_of_one_client_may_be_taken_at_the_same_time():
    queue = queue_of("aA", "aB", "bZ")
    assert [queue.pop(), queue.pop()] == ["aA", "aB"]
    queue.took("a", 1)
    queue.took("a", 1)
    assert served(queue) == "Z"


def test_neither_one_client_nor_all_have_more_than_their_share():
    queue = queue_of("aA", "aB", most=3, most_of_one=2)
    assert not queue.put("a", "aC")
    assert queue.put("b", "bX")
    assert not queue.put("c", "cY")
    queue.put_back("a", "aD", 1)  # what goes on is never refused
    assert len(queue) == 4
    assert served(queue) == "AXBD"
    assert queue.put("c", "cY")


def test_what_is_removed_is_not_taken_and_its_client_is_forgotten():
    queue = queue_of("aA", "aB", "bZ")
    assert queue.remove("a", "aA")
    assert queue.remove("b", "bZ")
    assert not queue.remove("b", "bZ")
    assert not queue.remove("x", "xX")
    assert len(queue) == 1
    assert served(queue) == "B"
    queue.put("b", "bY")
    assert queue.clear() == ["bY"]
    assert len(queue) == 0
    assert queue.pop() is None
