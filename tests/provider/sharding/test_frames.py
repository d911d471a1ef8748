"""What the processes of one model tell each other."""

import pytest

from provider.caches.operations import Forward, Make
from provider.sharding.frames import (
    Do,
    End,
    Failed,
    Has,
    Leave,
    Load,
    Unload,
    difference,
    encode,
    from_first,
    from_other,
)


@pytest.mark.parametrize(
    "frame", [Load(), Unload(), End(), Do([Make(1), Forward(1, 2, 3, [4], [5])]), Do([])]
)
def test_what_the_first_process_says_arrives_as_it_is(frame):
    assert from_first(encode(frame)) == frame


@pytest.mark.parametrize("frame", [Has({"mlx": "1"}), Leave(), Failed("no memory")])
def test_what_another_process_says_arrives_as_it_is(frame):
    assert from_other(encode(frame)) == frame


@pytest.mark.parametrize("decode", [from_first, from_other])
def test_bytes_that_are_no_frame_are_refused(decode):
    for data in (b"", b"nonsense", encode(Do([Make(1)]))[:-1]):
        with pytest.raises(ValueError, match=r"\w"):
            decode(data)


def test_each_side_understands_only_the_other():
    with pytest.raises(ValueError, match="Invalid value"):
        from_other(encode(Load()))
    with pytest.raises(ValueError, match="Invalid value"):
        from_first(encode(Leave()))


def test_a_difference_names_both_sides():
    ours = {"mlx": "1", "mlx-lm": "2"}
    assert difference(1, dict(reversed(ours.items())), ours) == ""
    assert difference(3, {**ours, "mlx-lm": "3"}, ours) == "rank 3 has mlx-lm 3, and rank 0 has 2"
    assert difference(3, {"mlx": "1"}, ours) == "rank 3 has mlx-lm none, and rank 0 has 2"
    assert difference(3, {**ours, "a": "b"}, ours) == "rank 3 has a b, and rank 0 has none"
