"""The rows of a batch, as plain data."""

import pytest

from provider.engine.rows import Parked, Row, StepResult, finish_of, without_frames


def row_of(prompt=(1, 2, 3), max_tokens=2):
    return Row(7, list(prompt), len(prompt), max_tokens, None)


def test_the_last_token_of_a_prompt_is_left_to_a_decode_step():
    row = row_of()
    assert row.left == 2
    row.done = 2
    assert row.left == 0
    row.sequence.append(9)
    assert row.generated == 1


def test_a_row_ends_with_an_end_token_or_when_it_has_all_it_wants():
    row = row_of(max_tokens=2)
    row.sequence.append(9)
    assert finish_of(row, 9, frozenset({9})) == "stop"
    assert finish_of(row, 9, frozenset()) is None
    row.sequence.append(8)
    assert finish_of(row, 8, frozenset({9})) == "length"
    assert finish_of(row, 9, frozenset({9})) == "stop"
    assert row.given(8, "length").finish == "length"


def test_a_row_is_blamed_for_its_first_fault():
    result = StepResult()
    first = ValueError("first")
    result.blame(7, first)
    result.blame(7, ValueError("second"))
    assert result.faults == {7: first}


def test_a_parked_row_gives_its_caches_up_and_is_read_again():
    row = row_of()
    row.caches, row.done = ["layer"], 2
    parked = Parked(row, None)
    assert parked.evict_caches() == (["layer"], 2)
    assert (row.caches, row.left) == (None, 2)
    assert parked.evict_caches() == (None, 0)


def test_an_error_and_its_causes_let_go_of_their_frames():
    with pytest.raises(KeyError) as caught:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise KeyError("outer") from error
    error = caught.value
    without_frames(error)
    assert error.__traceback__ is None
    assert error.__cause__.__traceback__ is None
