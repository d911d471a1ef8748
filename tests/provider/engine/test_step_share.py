"""How many rows there may be beside others, by how long steps take."""

from provider.engine.step_share import AGAIN, CURVE, FEW, LEAST, StepShare

SLOWDOWN = 1.2


def learnt(step, *rows, times=CURVE + LEAST):
    """Return what has seen steps of so many rows, which take `step(rows)`."""
    share = StepShare(SLOWDOWN)
    for n in rows:
        for _ in range(times):
            share.took(n, step(n))
    return share


def most(share, fair):
    """Return how many rows there may be instead of `fair` ones."""
    return max(n for n in range(1, 100) if share.allows(n, fair))


def on_a_cpu(rows):
    return 2.0 + 0.25 * rows


def test_rows_that_cost_time_are_bounded_and_those_that_cost_none_are_not():
    assert most(learnt(on_a_cpu, 4, 8, 16, 32), 4) == 6  # 3.5 of at most 3.6
    assert most(learnt(lambda rows: 1.0, 4, 8, 16, 32, 64), 4) == 99


def test_a_fair_part_is_allowed_whatever_it_costs():
    share = learnt(lambda rows: rows**3, 1, 2, 4, 8, 16)
    assert share.allows(16, 16)
    assert not share.allows(16, 8)


def test_the_time_between_two_numbers_of_rows_is_between_theirs():
    share = learnt(on_a_cpu, 2, 32)
    assert most(share, 4) == 6


def test_patience_allows_some_more():
    share = learnt(on_a_cpu, 4, 8, 16, 32)
    assert not share.allows(7, 4)
    assert share.allows(7, 4, 1.1)


def test_twice_as_many_rows_as_were_seen_are_tried():
    assert most(StepShare(SLOWDOWN), 4) == FEW
    assert most(learnt(lambda rows: 1.0, 4, 12), 4) == 24


def test_a_few_steps_say_nothing():
    share = StepShare(SLOWDOWN)
    for _ in range(LEAST - 1):
        share.took(30, 1.0)
    assert most(share, 4) == FEW


def test_where_one_number_of_rows_was_seen_others_are_tried_one_after_the_other():
    share = learnt(on_a_cpu, 3)
    assert most(share, 4) == 5, "half of a step's time may be its rows'"
    for _ in range(CURVE + LEAST):
        share.took(5, on_a_cpu(3))
    assert most(share, 4) == 10, "they cost nothing"


def test_where_one_number_of_rows_was_seen_one_more_is_tried_whatever_it_may_take():
    share = learnt(lambda rows: 1.0, 2)
    assert most(share, 2) == 3
    for _ in range(CURVE + LEAST):
        share.took(3, 1.0)
    assert most(share, 2) == FEW


def test_where_only_many_rows_were_seen_fewer_are_tried():
    assert not learnt(on_a_cpu, 30).allows(30, 4)


def test_steps_that_other_programs_made_longer_say_nothing_even_if_they_are_most():
    share = learnt(lambda rows: 1.0, 4)
    for number in range(4 * LEAST):
        share.took(8, 1.0 if number % 3 == 0 else 100.0)
    assert share.allows(8, 4)


def test_a_row_costs_no_more_than_where_there_are_fewer():
    share = learnt(lambda rows: 1.0 + rows, 2, 3, 8)
    for _ in range(LEAST):
        share.took(4, 100.0)  # other programs had the processors
    assert not share.allows(8, 4)


def test_times_that_no_longer_hold_are_forgotten():
    share = learnt(on_a_cpu, 4, 32)
    assert not share.allows(32, 4)
    for _ in range(2 * AGAIN):
        share.took(16, 1.0)
        share.took(4, 1.0)
    assert share.allows(32, 4), "it is tried anew"
