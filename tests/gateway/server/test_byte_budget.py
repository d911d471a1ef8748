"""Who may have how many of the bytes that all share."""

from gateway.server.byte_budget import PART, ByteBudget, Held, SharedBuffer


def claims(budget, *wanted):
    """Claim bytes for clients; return the claims, and a list of the numbers of those granted."""
    granted = []
    made = [
        budget.claim(client, size, lambda number=number: granted.append(number))
        for number, (client, size) in enumerate(wanted)
    ]
    return made, granted


def test_what_exceeds_the_limit_waits_and_gets_its_turn_in_order():
    budget = ByteBudget(100, 1.0)
    (first, *_), granted = claims(budget, ("a", 90), ("b", 20), ("c", 5), ("d", 5))
    assert [budget.held, budget.contended, granted] == [90, True, []], "c does not overtake b"
    budget.withdraw(first)
    assert [budget.held, budget.contended, granted] == [30, False, [1, 2, 3]]


def test_who_waits_for_the_limit_is_not_overtaken_when_bytes_are_given_back():
    budget = ByteBudget(100, 1.0)
    (first, second, *_), granted = claims(budget, ("a", 50), ("b", 50), ("c", 80), ("d", 10))
    budget.withdraw(first)
    assert granted == []
    budget.withdraw(second)
    assert granted == [2, 3]


def test_a_client_has_its_share_of_what_others_leave():
    budget = ByteBudget(100, 0.5)
    (first, *_), granted = claims(budget, ("a", 40), ("a", 20), ("b", 25), ("b", 10))
    assert budget.held == 65
    assert granted == []
    budget.withdraw(first)
    assert granted == [1, 3], "each as soon as its own share allows it"


def test_clients_that_cannot_be_told_apart_have_no_share():
    budget = ByteBudget(100, 0.5)
    assert budget.claim(None, 50, list).waits is False
    assert budget.claim(None, 50, list).waits is False


def test_one_alone_may_have_more_than_the_limit():
    budget = ByteBudget(10, 0.5)
    (first, second), granted = claims(budget, ("a", 90), ("b", 95))
    assert (first.waits, second.waits) == (False, True)
    budget.withdraw(first)
    assert granted == [1]


def test_who_stops_waiting_lets_those_behind_have_their_turn():
    budget = ByteBudget(100, 1.0)
    (_, second, _), granted = claims(budget, ("a", 50), ("b", 80), ("c", 60))
    budget.add("a", -20)
    assert granted == []
    budget.withdraw(second)
    assert granted == [2]
    assert budget.held == 90


def test_nothing_is_kept_of_a_client_without_bytes():
    budget = ByteBudget(100, 1.0)
    budget.withdraw(budget.claim("a", 50, list))
    budget.add("b", 7)
    budget.add("b", -7)
    assert (budget.held, budget.of_client("a"), dict(budget._by_client._counts)) == (0, 0, {})


def test_shares_of_a_buffer_shrink_so_that_all_fit_and_the_last_has_as_much_as_the_first():
    buffer, held = SharedBuffer(100_000, 0.5), [0] * 200
    assert buffer.share(1000) == 1000
    while grown := [at for at, size in enumerate(held) if size < buffer.share(50_000)]:
        for at in grown:
            held[at] += 10
            buffer.held += 10
    assert max(held) - min(held) <= 10
    assert 0.9 * buffer.limit < buffer.held <= buffer.limit
    assert min(held) > buffer.limit / (len(held) + PART) - 10


def test_what_is_held_counts_until_it_has_left():
    buffer = SharedBuffer(1000, 0.5)
    held = Held("a")
    held.settle(5)
    assert (held.size, buffer.held) == (5, 0), "in no sum yet"
    held.join(buffer, 5)
    held.settle(30)
    held.leave(10)
    assert (held.leaving, buffer.held) == (20, 30)
    held.settle(25)
    assert (held.size, buffer.held, buffer.of_client("a")) == (45, 45, 45)
    held.left(25)
    assert (held.leaving, held.size, buffer.held) == (0, 25, 25)


def test_what_is_held_moves_from_sum_to_sum():
    first, second = SharedBuffer(1000, 0.5), SharedBuffer(1000, 0.5)
    held = Held("a")
    held.join(first, 30)
    held.leave(10)
    held.join(second, 12)
    assert (first.held, second.held, held.leaving) == (0, 12, 0)
    held.join(None)
    assert (second.held, held.size) == (0, 0)
