"""Readers show calls in JSON while they are written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider.formats.readers import HeadedCalls, JsonCall, WholeText, as_json, is_name

HEADER = re.compile(r"\s*(?P<id>#\d+)?(?P<name>\w+)->(?=\{)")


def read(reader, text, cuts=()):
    """Return the calls that a reader shows of a text: name, arguments, id."""
    calls = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        for piece in reader.add(text[begin:end]):
            if piece.name is not None:
                calls.append([piece.name, "", piece.id])
            calls[-1][1] += piece.arguments
    return [tuple(call) for call in calls]


def test_a_whole_text_reader_shows_nothing_early():
    reader = WholeText()
    assert reader.add('{"name": "f"}') == []
    assert (reader.rest({"a": 1}), reader.whole) == ("", 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": "}"}}',
        '{"arguments": {"a": "}"}, "id": 1.5, "name": "f"}',
        ' {"x": [1, {"name": "no"}], "name": "f", "arguments": {"a": "}"}, "more": null}',
    ],
)
def test_the_fields_of_a_call_in_json_come_in_any_order(text):
    assert read(JsonCall(), text) == [("f", '{"a": "}"}', None)]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("[1]", []),
        ('{"name": 3, "arguments": {}}', []),
        ('{"name": "f", "arguments": "{}"}', [("f", "", None)]),
        ('{"name": "f", "name": "g"}', [("f", "", None)]),
    ],
)
def test_text_that_is_not_a_call_with_an_object_is_left_to_the_parser(text, known):
    assert read(JsonCall(), text) == known


def test_calls_after_headers_are_shown_in_order_with_their_ids():
    reader = HeadedCalls(HEADER)
    first, second = '#7f->{"a": {"b": "\\"}"}}', ' g->{"c": 1'
    assert read(reader, first + second) == [
        ("f", '{"a": {"b": "\\"}"}}', "#7"),
        ("g", '{"c": 1', None),
    ]
    assert reader.whole == len(first)


def test_text_without_a_header_is_not_shown():
    assert read(HeadedCalls(HEADER), "I would rather not") == []
    assert read(HeadedCalls(HEADER), 'f->{"a": 1} and then {"b": 2}') == [("f", '{"a": 1}', None)]


VALUES = st.recursive(
    st.integers() | st.text('a"\\{}[]', max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text('a"', max_size=2), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text("ab", max_size=2), VALUES, max_size=3), st.data())
def test_any_split_gives_the_same_calls(arguments, data):
    told = json.dumps(arguments)
    for make, text in (
        (JsonCall, f'{{"name": "f", "arguments": {told}}}'),
        (lambda: HeadedCalls(HEADER), f"f->{told} g->{told}"),
    ):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        calls = read(make(), text, cuts)
        assert calls == read(make(), text)
        assert all(json.loads(call[1]) == arguments for call in calls)


def test_objects_that_json_does_not_support_become_strings():
    assert as_json({"a": {1}}) == '{"a": "{1}"}'
    assert as_json("\ud800") == '"?"'
    assert [is_name(value) for value in ("f", "", None, 3)] == [True, False, False, False]
