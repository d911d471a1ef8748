"""How large a chunk of a prompt may be beside running streams."""

import pytest

from provider.engine.pace import FIRST_CHUNK, MARGIN, MAX_CHUNK, MIN_CHUNK, Pace


def test_a_chunk_fills_the_gap_that_a_step_leaves():
    pace = Pace(0.1)
    pace.decoded(0.0125)
    assert pace.budget(0) == FIRST_CHUNK
    pace.prefilled(1000, 0, 1.0)
    # 1,000 tokens a second for what the step leaves of the part of the gap that is aimed at.
    assert pace.budget(0) == pytest.approx(1000 * (MARGIN * 0.1 - 0.0125), abs=1)


def test_a_chunk_is_never_smaller_than_the_least_nor_twice_the_last():
    pace = Pace(0.1)
    pace.prefilled(100, 0, 100.0)
    assert pace.budget(0) == MIN_CHUNK
    pace.prefilled(16, 0, 1e-6)
    assert pace.budget(0) == 32


def test_speeds_are_kept_by_the_length_of_the_context():
    pace = Pace(0.1)
    pace.prefilled(1000, 0, 1.0)
    pace.prefilled(600, 4000, 1.0)
    assert pace.budget(0) == pytest.approx(1000 * MARGIN * 0.1, abs=1)
    assert pace.budget(4090) == pytest.approx(600 * MARGIN * 0.1, abs=1)
    # Longer than anything measured: carefully.
    assert pace.budget(9000) == pytest.approx(300 * MARGIN * 0.1, abs=1)


def test_models_that_take_turns_share_the_gap():
    pace = Pace(0.1)
    pace.prefilled(1000, 0, 1.0)
    assert pace.budget(0, active_models=2) == pytest.approx(pace.budget(0) / 2, abs=1)


def test_where_no_reader_waits_a_prompt_is_read_as_fast_as_can_be():
    pace = Pace(0.1)
    pace.prefilled(100, 0, 100.0)
    assert pace.budget(0, streaming=False) == MAX_CHUNK
    assert pace.budget(0, 2, streaming=False) == MIN_CHUNK  # another model's readers may wait
