"""Which replicas a generation must not ask, by what they have said and by the time."""

from gateway.client.errors import GatewayError
from provider.replicas.failures import RETRY_AFTER_S
from provider.replicas.search import NEXT_PLACE_S, Search


def full(retry_after=None):
    return GatewayError("overloaded", "full", retry_after=retry_after)


def test_a_generation_that_was_not_moved_asks_each_replica_once():
    search = Search()
    search.refused("a", full(0.5), 100.0)
    assert not search.waits(100.0)
    assert search.avoided(1000.0) == ["a"]


def test_one_that_was_moved_asks_again_when_it_was_told_to():
    search = Search()
    search.was_lost("a", 100.0)
    search.refused("b", full(3.0), 100.0)
    search.refused("c", full(), 100.0)
    assert search.avoided(100.0) == ["a", "b", "c"]
    assert search.avoided(100.0 + RETRY_AFTER_S) == ["a", "b"]
    assert search.avoided(103.0) == ["a"]


def test_it_does_so_for_a_while_however_often_it_is_refused():
    search, now, asked = Search(), 100.0, 0
    search.was_lost("a", now)
    while search.avoided(now) == ["a"] or search.waits(now):
        if search.avoided(now) == ["a"]:
            search.refused("b", full(0.5), now)
            asked += 1
        now += 0.25
    assert now == 100.0 + NEXT_PLACE_S
    assert asked == 2 * NEXT_PLACE_S
    assert str(search.refusal) == "full"


def test_another_loss_lets_all_others_be_asked():
    search = Search()
    search.was_lost("a", 100.0)
    search.refused("b", full(60.0), 100.0)
    search.was_lost("c", 101.0)
    assert search.avoided(101.0) == ["a", "c"]
    assert search.refusal is None
    assert search.waits(101.0 + NEXT_PLACE_S / 2)
