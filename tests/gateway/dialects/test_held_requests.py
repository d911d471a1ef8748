from dataclasses import dataclass

from gateway.dialects.base import Opening
from gateway.dialects.held_requests import HeldRequests
from gateway.server.byte_budget import ByteBudget


@dataclass
class Held:
    size: int = 0


def test_a_request_counts_until_it_is_removed():
    budget = ByteBudget(100, 0.5)
    held = HeldRequests(Opening(client="a", waiting=budget))
    first, second = Held(), Held()
    assert held.add(first, 40)
    assert not held.add(second, 40)
    assert (budget.held, first.size, second.size) == (40, 40, 0)
    for _ in range(2):
        held.remove(first)
        held.remove(second)
    assert budget.held == 0
    assert held.add(second, 40)


def test_without_a_budget_there_is_room():
    held, one = HeldRequests(Opening()), Held()
    assert held.add(one, 10**9)
    held.remove(one)
    assert one.size == 0
