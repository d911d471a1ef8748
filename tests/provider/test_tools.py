import json

import pytest

from provider.interface import InvalidParameterError
from provider.tools import normalise_tools, parse_calls


def weather(city: str, days: int = 1) -> str:
    """Tell the weather in a city."""


FLAT = {"name": "weather", "description": "Tell.", "parameters": {"type": "object"}}


@pytest.mark.parametrize("tool", [weather, FLAT, {"type": "function", "function": FLAT}])
def test_three_forms_become_one(tool):
    (tool,) = normalise_tools([tool])
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "weather"
    assert tool["function"]["parameters"]["type"] == "object"


def test_a_function_is_described_by_its_signature():
    (tool,) = normalise_tools([weather])
    assert tool["function"]["description"] == "Tell the weather in a city."
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }


@pytest.mark.parametrize("bad", [3, {}, {"name": 3}, {"type": "function", "function": None}])
def test_a_bad_tool_is_named_by_its_index(bad):
    with pytest.raises(InvalidParameterError) as caught:
        normalise_tools([FLAT, bad])
    assert caught.value.parameter == "tools[1]"


def json_parser(text, tools):
    return json.loads(text)


def test_calls_are_numbered_on_from_the_first():
    text = '[{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": "{\\"y\\": 2}"}]'
    assert parse_calls(text, json_parser, [], 3) == [
        {"id": "call_3", "name": "a", "arguments": {"x": 1}},
        {"id": "call_4", "name": "b", "arguments": {"y": 2}},
    ]


@pytest.mark.parametrize("text", ["", "{", "3", '{"arguments": {}}'])
def test_what_is_no_call_gives_none(text):
    assert parse_calls(text, json_parser, [], 0) == []


def test_arguments_that_are_no_object_are_kept_or_dropped():
    assert parse_calls('{"name": "a", "arguments": "x"}', json_parser, [], 0)[0]["arguments"] == {
        "value": "x"
    }
    assert parse_calls('{"name": "a"}', json_parser, [], 0)[0]["arguments"] == {}
