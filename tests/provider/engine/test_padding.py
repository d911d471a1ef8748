"""What rows of uneven length take in one forward pass."""

import pytest

from provider.engine.memory_budget import STEP
from provider.engine.padding import padding


@pytest.mark.parametrize(
    ("lengths", "spare"),
    [
        ([], 0),
        ([1000], 0),
        ([1, 2, STEP], 0),  # all have what they would have alone
        ([1, STEP + 1], STEP),
        ([10 * STEP, 1, 1, STEP + 1], (9 + 9 + 8) * STEP),
    ],
)
def test_each_row_has_as_many_positions_as_the_longest(lengths, spare):
    assert padding(lengths) == spare
