"""What clients of other protocols may send, at random."""

import pytest

from tests.gateway.dialects.foreign_fuzz import GOOD, ForeignFuzz


@pytest.mark.parametrize("path", GOOD)
def test_whatever_comes_only_documented_answers_follow(path):
    counts = ForeignFuzz(path, seed=1).run(1500)
    assert counts["Generate"] > 100
    assert counts["answers"] > 1000
    assert counts["Ping"] > 100
