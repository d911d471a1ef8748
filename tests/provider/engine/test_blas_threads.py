"""The number of threads that proves fastest is kept, for each magnitude of a batch."""

import pytest

from provider.engine.blas_threads import AGAIN, BLOCK, BLOCKS, SETTLE_S, ThreadTuner

STEP_S = SETTLE_S / 2  # two of them settle
TRIAL = 2 * BLOCKS * (BLOCK + 2)  # steps


def run(tuner, rows, seconds, steps):
    """Run steps that take what `seconds` says for a number of threads; return those chosen."""
    chosen = []
    for _ in range(steps):
        threads = tuner.choose(rows)
        chosen.append(threads)
        tuner.took(rows, STEP_S * seconds(threads))
    return chosen


@pytest.mark.parametrize(("of_two", "best"), [(0.9, 2), (1.5, 1), (0.99, 1)])
def test_the_faster_is_kept_and_fewer_where_it_hardly_matters(of_two, best):
    tuner = ThreadTuner((1, 2))
    chosen = run(tuner, 8, {1: 1.0, 2: of_two}.__getitem__, 2 * TRIAL)
    assert set(chosen[: TRIAL // 2]) == {1, 2}
    assert set(chosen[TRIAL + 4 :]) == {best}


def test_steps_beside_threads_that_still_spin_do_not_count():
    tuner, since = ThreadTuner((1, 2)), [0]
    last = [None]

    def seconds(threads):
        since[0] = 0 if last[0] != threads else since[0] + 1
        last[0] = threads
        return {1: 3.0 if since[0] < 1 else 1.0, 2: 1.5}[threads]

    run(tuner, 8, seconds, TRIAL)
    assert tuner.choose(8) == 1


def test_what_ran_otherwise_makes_a_trial_wait():
    tuner = ThreadTuner((1, 2))
    for _ in range(200):  # a chunk of a prompt after every step
        tuner.choose(8)
        tuner.disturbed()
        tuner.took(8, STEP_S)
    assert set(run(tuner, 8, {1: 1.0, 2: 0.5}.__getitem__, TRIAL)) == {1, 2}
    assert tuner.choose(8) == 2


def test_each_magnitude_of_rows_is_tried_by_itself():
    tuner = ThreadTuner((1, 2))
    run(tuner, 1, {1: 1.0, 2: 2.0}.__getitem__, 2 * TRIAL)
    run(tuner, 32, {1: 2.0, 2: 1.0}.__getitem__, 2 * TRIAL)
    assert (tuner.choose(1), tuner.choose(32), tuner.choose(40)) == (1, 2, 2)


def test_a_decision_is_made_anew_after_a_while():
    tuner = ThreadTuner((1, 2))
    run(tuner, 8, {1: 1.0, 2: 2.0}.__getitem__, AGAIN)
    run(tuner, 8, {1: 2.0, 2: 1.0}.__getitem__, 2 * TRIAL)
    assert tuner.choose(8) == 2


def test_with_one_choice_there_is_nothing_to_try():
    tuner = ThreadTuner((1, 1))
    assert set(run(tuner, 8, lambda threads: 1.0, 50)) == {1}
