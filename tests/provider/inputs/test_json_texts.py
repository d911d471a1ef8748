import json

import pytest

from provider.inputs.json_texts import (
    LONG,
    MAX_CHARACTERS,
    MAX_VALUES,
    PIECE,
    JsonRoom,
    _values_in,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("[]", 2),  # one too many, as for each list and object that is empty
        ('{"a": [1, 2], "b": "c"}', 7),
        (r'["a,b", "\"[,", "\\", ","]', 5),
        (json.dumps(["\\" * PIECE, '"' * PIECE, ",[" * PIECE]), 4),
        (json.dumps(["x" + "\\" * PIECE, '"' * PIECE, ",[" * PIECE]), 4),
        (json.dumps([[]] * 40_000), 80_001),
        (json.dumps([1.2345678901234567] * 1000), 1001),
        (f"[{'1' * 4040}]", 2 + 4000 // LONG),
    ],
)
def test_keys_and_values_are_counted_but_nothing_in_strings(text, count):
    assert _values_in(text) == count


def test_several_texts_share_a_room():
    room = JsonRoom(values=10)
    assert room.take("[1, 2, 3]")
    assert room.take("[1, 2, 3]")
    assert not room.take("[1, 2, 3]")


def test_a_text_may_be_long_and_may_have_many_values():
    assert JsonRoom().take(json.dumps("x" * (MAX_CHARACTERS - 2)))
    assert not JsonRoom().take(json.dumps("x" * (MAX_CHARACTERS - 1)))
    assert JsonRoom().take(json.dumps([1] * (MAX_VALUES - 1)))
    assert not JsonRoom().take(json.dumps([1] * MAX_VALUES))
