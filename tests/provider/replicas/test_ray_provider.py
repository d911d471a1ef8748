"""What is asked of Ray Serve; what it does is in test_ray_serve.py."""

import pytest

from provider.replicas.ray_provider import counts


@pytest.mark.parametrize(
    ("text", "found"), [("1", (1, None)), ("4", (4, None)), ("1-3", (1, 3)), ("2-2", (2, 2))]
)
def test_a_number_or_a_range_of_replicas(text, found):
    assert counts(text) == found


@pytest.mark.parametrize("text", ["0", "", "x", "1-", "-2", "3-1", "1.5"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=f"`{text}` is no"):
        counts(text)
