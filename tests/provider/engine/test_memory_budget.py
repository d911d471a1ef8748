"""What runs may come to need is promised before they begin, and never more than there is."""

from hypothesis import given
from hypothesis import strategies as st

from provider.engine.memory_budget import STEP, MemoryBudget

RUNS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10_000)), max_size=20)


def budget_of(limit=10_000, fixed=100, per_token=2.0):
    budget = MemoryBudget(limit)
    budget.learn(fixed, per_token)
    return budget


def test_a_run_needs_what_its_caches_will_have_grown_to():
    budget = budget_of()
    assert budget.need(0) == 100
    assert budget.need(1) == budget.need(STEP) == 100 + 2 * STEP
    assert budget.need(STEP + 1) == 100 + 4 * STEP


def test_nothing_is_lacking_up_to_the_limit():
    budget = budget_of(limit=1000)
    budget.commit("a", 600)
    assert budget.lacking(300, others=100) == 0
    assert budget.lacking(301, others=100) == 1


def test_a_promise_is_renewed_and_taken_back():
    budget = budget_of()
    budget.commit("a", 600)
    budget.commit("a", 200)
    budget.commit("b", 50)
    assert budget.committed == 250
    budget.release("a")
    budget.release("a")
    assert budget.committed == 50


@given(RUNS)
def test_what_is_committed_is_the_sum_of_the_last_promises(runs):
    budget = budget_of()
    for key, need in runs:
        budget.commit(key, need)
    assert budget.committed == sum(dict(runs).values())
    for key, _ in runs:
        budget.release(key)
    assert budget.committed == 0
