import msgspec
import pytest

from gateway.dialects import json_text
from gateway.protocol.codes import NotAFrame


class Said(msgspec.Struct):
    text: str


def test_a_struct_is_written_and_read_again():
    assert json_text.decode(json_text.encode(Said("Grüße"))) == {"text": "Grüße"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"a": ["\ud800x"]}', {"a": ["?x"]}),
        (r'{"\udc00": 1}', {"?": 1}),
        ("[1e999]", [float("inf")]),
        (b"[1e999]", [float("inf")]),
    ],
)
def test_what_the_grammar_allows_is_read(text, value):
    assert json_text.decode(text) == value


@pytest.mark.parametrize("text", ["{", "NaN", b"\xff", "[" * 100_000, ""])
def test_what_is_not_json_is_not_a_frame(text):
    with pytest.raises(NotAFrame, match="not JSON"):
        json_text.decode(text)


def test_a_lone_surrogate_is_written_as_a_question_mark():
    assert json_text.encode(Said("a\ud800")) == b'{"text":"a?"}'
    assert json_text.encode({"\ud800": ("x", 1)}) == b'{"?":["x",1]}'
    assert json_text.encode({"\ud800": msgspec.Raw(b"[1]")}) == b'{"?":[1]}'


@pytest.mark.parametrize("text", ["", "{", "[" * 16_000, "[" * 65 + "]" * 65])
def test_json_inside_a_message_is_a_value_or_no_good(text):
    assert json_text.value_in('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match=r"Expecting|nested too deep"):
        json_text.value_in(text)


def test_json_inside_a_message_is_not_built_beyond_its_room():
    lists = "[" + "[]," * 20_000 + "0]"
    with pytest.raises(json_text.LargeJsonError, match="too many keys and values"):
        json_text.value_in(lists)
    assert len(json_text.value_in(lists, json_text.Room(values=40_002))) == 20_001
    with pytest.raises(json_text.LargeJsonError, match="1048576 characters"):
        json_text.value_in(f'"{"x" * 1024 * 1024}"')
    with pytest.raises(json_text.LargeJsonError):
        json_text.value_in("[" * 100_000)
    assert json_text.value_in('"' + "x" * 1_000_000 + '"') == "x" * 1_000_000


def test_the_strings_of_a_message_share_its_room_also_those_that_are_no_json():
    room = json_text.Room(values=10)
    json_text.value_in("[1, 2, 3]", room)
    with pytest.raises(ValueError, match="Expecting"):
        json_text.value_in("[1, 2, 3", room)
    with pytest.raises(json_text.LargeJsonError):
        json_text.value_in("[1, 2, 3]", room)
