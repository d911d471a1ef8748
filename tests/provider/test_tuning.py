"""The number of threads that proves fastest is kept, for each magnitude of a batch."""

import pytest

from provider.tuning import AGAIN, BLOCK, BLOCKS, ThreadTuner


def run(tuner, rows, seconds, steps):
    """Run steps that take what `seconds` says for a number of threads; return those chosen."""
    chosen = []
    for _ in range(steps):
        threads = tuner.choose(rows)
        chosen.append(threads)
        tuner.took(rows, seconds(threads))
    return chosen


@pytest.mark.parametrize(("of_two", "best"), [(0.5, 2), (1.5, 1), (0.99, 1)])
def test_the_faster_is_kept_and_fewer_where_it_hardly_matters(of_two, best):
    tuner = ThreadTuner((1, 2))
    chosen = run(tuner, 8, {1: 1.0, 2: of_two}.__getitem__, 3 * BLOCK * BLOCKS)
    assert set(chosen[: 2 * BLOCK]) == {1, 2}
    assert set(chosen[2 * BLOCK * BLOCKS :]) == {best}


def test_the_first_step_after_a_change_does_not_count():
    last = []

    def seconds(threads):
        changed = last[-1:] != [threads]
        last.append(threads)
        return 100.0 if changed else {1: 1.0, 2: 0.5}[threads]

    tuner = ThreadTuner((1, 2))
    run(tuner, 8, seconds, 2 * BLOCK * BLOCKS)
    assert tuner.choose(8) == 2


def test_each_magnitude_of_rows_is_tried_by_itself():
    tuner = ThreadTuner((1, 2))
    run(tuner, 1, {1: 1.0, 2: 2.0}.__getitem__, 2 * BLOCK * BLOCKS)
    run(tuner, 32, {1: 2.0, 2: 1.0}.__getitem__, 2 * BLOCK * BLOCKS)
    assert (tuner.choose(1), tuner.choose(32), tuner.choose(40)) == (1, 2, 2)


def test_a_decision_is_made_anew_after_a_while():
    tuner = ThreadTuner((1, 2))
    run(tuner, 8, {1: 1.0, 2: 2.0}.__getitem__, AGAIN)
    run(tuner, 8, {1: 2.0, 2: 1.0}.__getitem__, 2 * BLOCK * BLOCKS)
    assert tuner.choose(8) == 2


def test_with_one_choice_there_is_nothing_to_try():
    tuner = ThreadTuner((1, 1))
    assert set(run(tuner, 8, lambda threads: 1.0, 50)) == {1}
