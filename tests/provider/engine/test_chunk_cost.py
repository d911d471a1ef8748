"""What a forward pass over a chunk costs, by those that were timed."""

import random
from statistics import median

import pytest

from provider.engine.chunk_cost import MAX_SHAPES, ChunkCost

FIXED, TOKEN, PAIR = 0.03, 0.0005, 2e-8


def seconds(tokens, context=0, rows=1):
    return FIXED + tokens * TOKEN + tokens * (context + tokens / rows / 2) * PAIR


def taught(cost, *passes):
    for tokens, context in passes:
        cost.learn(tokens, context, seconds(tokens, context), repeated=True)
    return cost


SHORT = [(1, 0), (16, 0), (64, 0), (128, 0)]
LONG = [(100 + 17 * n, 2000 * n) for n in range(20)]


def test_the_three_costs_are_found_from_passes_of_several_sizes():
    cost = taught(ChunkCost(), *SHORT, *LONG, *SHORT)
    for tokens, context in ((10, 0), (700, 0), (100, 30_000), (2048, 10_000)):
        assert cost.seconds(tokens, context) == pytest.approx(seconds(tokens, context), rel=0.05)


def test_noise_is_averaged_out_and_known():
    cost, numbers = ChunkCost(), random.Random(1)
    for tokens, context in [*SHORT, *LONG] * 5:
        noisy = seconds(tokens, context) * numbers.lognormvariate(0, 0.05)
        cost.learn(tokens, context, noisy, repeated=True)
    assert cost.seconds(300, 10_000) == pytest.approx(seconds(300, 10_000), rel=0.07)
    assert 0.02 < cost.noise < 0.08


def test_tokens_and_seconds_are_inverse():
    cost = taught(ChunkCost(), *SHORT, *LONG)
    for context in (0, 1000, 50_000):
        tokens = cost.tokens_in(0.2, context)
        assert cost.seconds(tokens, context) == pytest.approx(0.2)
        fewest = cost.tokens_at(0.005, 0.02, context)
        assert (cost.seconds(fewest, context) + 0.02) / fewest == pytest.approx(0.005)
    assert cost.tokens_in(0.001, 0) == 0
    assert cost.tokens_at(TOKEN / 2, 0.02, 0) == float("inf")


def test_a_pass_that_is_limited_by_the_weights_costs_the_same_with_more_tokens():
    cost = ChunkCost()
    for tokens in (1, 16, 64, 128, 256, 100, 150, 200, 180, 160):
        cost.learn(tokens, 0, max(FIXED, tokens * 0.0003), repeated=True)
    assert cost.seconds(8, 0) == pytest.approx(FIXED, rel=0.1)
    assert cost.seconds(60, 0) == pytest.approx(FIXED, rel=0.25)
    assert cost.seconds(200, 0) == pytest.approx(0.06, rel=0.1)


def test_no_cost_is_negative():
    cost = ChunkCost()
    for tokens, time in ((1, 0.05), (16, 0.01), (64, 0.001), (128, 0.03), (32, 0.0001)):
        cost.learn(tokens, 0, time)
        assert min(cost.seconds(n, c) for n in (1, 64, 2048) for c in (0, 9000)) >= 0
        assert cost.tokens_in(1.0, 0) > 0


def test_an_outlier_counts_for_little_and_several_in_a_row_for_all():
    cost = taught(ChunkCost(), *SHORT, *LONG)
    cost.learn(100, 0, 30 * seconds(100), repeated=True)
    assert cost.seconds(100, 0) < 1.3 * seconds(100)
    for _ in range(4):
        cost.learn(100, 0, 3 * seconds(100), repeated=True)
    assert cost.seconds(100, 0) == pytest.approx(3 * seconds(100), rel=0.15)
    # What is slower is the machine, so passes of other sizes are too.
    assert cost.seconds(300, 0) > 2 * seconds(300)


def test_what_a_new_shape_costs_is_taken_off_its_first_pass():
    cost = taught(ChunkCost(), *SHORT)
    cost.new_shape = 0.08
    for extra in (0.08, 0.0):
        for n in range(8):
            cost.learn(100, 100 * n, seconds(100, 100 * n) + extra)
    assert cost.seconds(100, 0) == pytest.approx(seconds(100), rel=0.05)
    assert cost.shapes(200) == {(100, 1): None}
    assert not cost.shapes(150)


def test_what_new_shapes_cost_may_differ_without_a_doubt_about_the_rest():
    cost, numbers = taught(ChunkCost(), *SHORT), random.Random(1)
    cost.new_shape = 0.06
    before = cost.noise
    for n in range(40):
        cost.learn(100, 100 * n, seconds(100, 100 * n) + numbers.uniform(0.055, 0.110))
    assert cost.new_shape == pytest.approx(0.0825, rel=0.15)
    assert cost.seconds(100, 2000) == pytest.approx(seconds(100, 2000), rel=0.1)
    assert cost.noise == before


def test_a_time_that_is_sure_is_no_outlier_however_long_it_is():
    for sure in (True, False):
        cost = taught(ChunkCost(), *((n, 0) for n in (1, 16, 64)))
        cost.learn(1024, 0, 30 * seconds(64), repeated=True, sure=sure)
        assert (cost.seconds(1024, 0) > 25 * seconds(64)) is sure


def test_several_prompts_of_a_pass_attend_to_their_own_tokens():
    one, many = taught(ChunkCost(), *SHORT, *LONG), taught(ChunkCost(), *SHORT, *LONG)
    many.learn(1024, 0, seconds(1024, rows=32), rows=32)
    one.learn(1024, 0, seconds(1024))
    assert many.seconds(200, 0) == pytest.approx(one.seconds(200, 0), rel=0.05)


def test_no_more_than_so_many_shapes_are_remembered():
    cost = taught(ChunkCost(), *SHORT)
    for tokens in range(1, MAX_SHAPES + 10):
        cost._remember(10, tokens, 1)
    assert sum(len(cost.shapes(context)) for context in range(MAX_SHAPES + 10)) <= MAX_SHAPES


DEAR = 3e-7  # seconds of a pair where attention is dear: a hundred times what is assumed


def dear(tokens, context):
    return 0.003 + tokens * 1e-4 + tokens * (context + tokens / 2) * DEAR


def test_attention_that_costs_far_more_than_assumed_is_found_from_a_few_passes():
    cost = ChunkCost()
    for tokens in (1, 16, 64, 128):
        cost.learn(tokens, 0, dear(tokens, 0), repeated=True, sure=True)
    cost.learn_pairs([(128, done, dear(128, done)) for done in (0, 128, 256)])
    assert cost.seconds(200, 500) == pytest.approx(dear(200, 500), rel=0.2)


def test_passes_that_take_no_longer_after_more_tokens_leave_what_was_assumed():
    cost = taught(ChunkCost(), *SHORT)
    before = cost.seconds(2048, 8000)
    cost.learn_pairs([(128, done, seconds(128)) for done in range(0, 512, 128)])
    assert cost.seconds(2048, 8000) == pytest.approx(before, rel=0.1)


def test_many_passes_that_others_slowed_change_neither_the_costs_nor_the_noise():
    cost, numbers, noises = taught(ChunkCost(), *SHORT, *LONG), random.Random(2), []
    for tokens, context in LONG * 10:
        slowed = numbers.uniform(2, 7) if numbers.random() < 0.3 else 1.0
        noisy = seconds(tokens, context) * numbers.lognormvariate(0, 0.03)
        cost.learn(tokens, context, slowed * noisy, repeated=True)
        noises.append(cost.noise)
    assert median(noises) < 0.06
    for tokens, context in ((100, 0), (300, 10_000)):
        assert cost.seconds(tokens, context) == pytest.approx(seconds(tokens, context), rel=0.15)
