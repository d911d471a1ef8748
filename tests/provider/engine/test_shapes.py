"""Prompts of any length are read in passes of few shapes."""

import random

import pytest

from provider.engine.shapes import (
    ANY_SHAPE,
    LARGEST,
    SMALLEST,
    STEP,
    UNPLANNED,
    Shapes,
    Timing,
)

FEW = Shapes(STEP)


def passes(shapes, length, *, cached=0, budget=LARGEST):
    """Return the passes `(offset, width)` that read a prompt, and how many tokens each reads."""
    done, found = shapes.start(cached, length), []
    while done < length:
        left = length - done
        n = shapes.tokens(done, min(left, budget), ends=left <= budget)
        assert 0 < n <= min(left, budget)
        width = shapes.width(done, n)
        assert width >= n
        found.append((done, width))
        done += n
    return found


def test_any_shape_reads_a_prompt_as_it_is():
    assert passes(ANY_SHAPE, 5000) == [(0, 2048), (2048, 2048), (4096, 904)]
    assert ANY_SHAPE.start(77, 100) == 77
    assert ANY_SHAPE.rows(5) == 5


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, [(0, 1)]),
        (20, [(0, 32)]),
        (33, [(0, 64)]),
        (200, [(0, 256)]),
        (300, [(0, 256), (256, 64)]),
        (450, [(0, 512)]),
        (1000, [(0, 1024)]),
        (1100, [(0, 1024), (1024, 128)]),
        (2048, [(0, 2048)]),
        (2049, [(0, 2048), (2048, 1)]),
        (6000, [(0, 2048), (2048, 2048), (4096, 2048)]),
    ],
)
def test_the_end_is_padded_where_that_costs_little_and_else_cut(length, expected):
    assert passes(FEW, length) == expected


def test_a_thousand_lengths_have_few_shapes():
    rng = random.Random(3)
    lengths = [rng.randrange(1, 4000) for _ in range(1000)]
    seen = {one for length in lengths for one in passes(FEW, length)}
    assert len({one for length in lengths for one in passes(ANY_SHAPE, length)}) > 500
    assert len(seen) <= 100
    assert len({one for length in lengths for one in passes(FEW, length) if length < 500}) <= 16


def test_every_chunk_begins_at_a_multiple_of_its_size():
    rng = random.Random(4)
    for _ in range(500):
        length, budget = rng.randrange(1, 9000), rng.randrange(SMALLEST, LARGEST + 1)
        cached = rng.randrange(length)
        for offset, width in passes(FEW, length, cached=cached, budget=budget):
            assert width <= UNPLANNED or (width & -width == width and offset % width == 0)


def test_padding_is_bounded_and_passes_are_few():
    rng = random.Random(5)
    for _ in range(500):
        length = rng.randrange(1, 20000)
        found = passes(FEW, length)
        assert sum(width for _, width in found) - length < STEP
        assert len(found) <= length // LARGEST + 8


def test_a_prefix_is_cut_back_to_where_a_chunk_may_begin_unless_hardly_anything_is_left():
    assert FEW.start(700, 1000) == 512
    assert FEW.start(200, 1000) == 0
    assert FEW.start(700, 700 + UNPLANNED) == 700
    assert Shapes(64).start(700, 1000) == 640


def test_a_place_between_is_left_at_once():
    """Caches that can't be trimmed begin at any place, which is met once."""
    assert FEW.tokens(300, 100, ends=True) == 100
    assert FEW.width(300, 100) == 100
    assert FEW.tokens(300, 2000, ends=True) == 512 - 300


def test_padding_stays_within_the_models_context():
    narrow = Shapes(STEP, window=1000)
    assert narrow.width(0, 900) == 900
    assert narrow.width(0, 500) == 512


def test_prompts_are_read_together_in_powers_of_two():
    assert [FEW.rows(n) for n in (1, 2, 3, 4, 5, 31, 32)] == [1, 2, 2, 4, 4, 16, 32]


def test_equal_passes_take_their_median_unless_others_slowed_most_of_them():
    assert Timing.of(64, [0.010, 0.011, 0.012]).again == 0.011
    assert Timing.of(64, [0.010, 0.011, 0.050]).again == 0.011
    assert Timing.of(64, [0.010, 0.030, 0.050]).again == 0.010
    assert Timing.of(64, [0.090, 0.050, 0.010]).again == 0.010
