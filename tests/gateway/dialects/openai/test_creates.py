import pytest

from gateway.dialects.openai.creates import (
    Text,
    flat,
    generation_options,
    read_create,
    read_tools,
    response_format,
)
from gateway.dialects.openai.errors import Refused

ADD = {"type": "function", "name": "add", "description": "Adds.", "parameters": {}, "strict": True}
SUB = {"type": "function", "name": "sub"}
SCHEMA = {"type": "object"}
JSON = {"type": "json_object"}
SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "presence_penalty": 1.0,
    "frequency_penalty": 2.0,
}


def test_fields_that_are_not_known_or_without_effect_are_taken():
    fields = {"type": "response.create", "stream": True, "client_metadata": {}, "user": "u"}
    create = read_create({**fields, "service_tier": "flex", "background": True, "include": []})
    assert create.user == "u"
    assert generation_options(create) == {}


def test_the_form_of_realtime_is_read_too():
    assert flat({"type": "t", "response": {"input": "hi"}})["input"] == "hi"
    assert flat({"type": "t", "response": "x"}) == {"type": "t", "response": "x"}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (
            {"temperature": 0.5, "top_p": 0.9, "seed": 1},
            {"temperature": 0.5, "top_p": 0.9, "seed": 1},
        ),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        (
            {"presence_penalty": 1, "frequency_penalty": 2},
            {"presence_penalty": 1, "frequency_penalty": 2},
        ),
        ({"reasoning": {"effort": "none"}}, {"enable_thinking": False}),
        (
            {"reasoning": {"effort": "xhigh", "summary": "auto"}},
            {"enable_thinking": True, "chat_template_kwargs": {"reasoning_effort": "high"}},
        ),
        ({"reasoning": {"summary": "auto"}}, {}),
        ({"top_logprobs": 3}, {}),
        (
            {"top_logprobs": 3, "include": ["message.output_text.logprobs"]},
            {"logprobs": True, "top_logprobs": 3},
        ),
        ({"text": {"verbosity": "low"}}, {}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
    ],
)
def test_options_are_the_gateways(fields, options):
    assert generation_options(read_create(fields)) == options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
            {"type": "json_schema", "schema": SCHEMA},
        ),
    ],
)
def test_a_format_is_the_constraint_on_the_answer(given, expected):
    assert response_format(Text(format=given)) == expected


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": [3]}, "input[0]", "invalid_type"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort", "invalid_type"),
        ({"truncation": "some"}, "truncation", "invalid_value"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "invalid_value"),
        ({"tool_choice": "some"}, "tool_choice", "unsupported_value"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "unsupported_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_its_field(fields, param, code):
    with pytest.raises(Refused) as refused:
        create = read_create(fields)
        read_tools(create)
        generation_options(create)
    assert (refused.value.error.param, refused.value.error.code) == (param, code)
    assert param in refused.value.error.message


def test_of_a_tools_type_the_beginning_is_kept():
    tools = read_tools(read_create({"tools": [{"type": "x" * 100}, {"type": ["x" * 100]}]}))
    assert tools.left_out == ["x" * 64, "list"]


def test_tools_of_other_types_are_left_out():
    given = [{"type": "web_search"}, ADD, {"type": "namespace", "tools": [SUB]}, SUB]
    tools = read_tools(read_create({"tools": given}))
    assert tools.left_out == ["web_search", "namespace"]
    assert tools.places == [1, 3]
    assert [tool["name"] for tool in tools.asked] == ["add", "sub"]
    assert tools.asked[0] == {name: value for name, value in ADD.items() if name != "strict"}
    assert tools.shown[0] == ADD
    nothing = {"description": None, "parameters": None, "strict": None}
    assert tools.shown[1] == {**SUB, **nothing}
    assert tools.called is None


@pytest.mark.parametrize(
    ("choice", "called", "names"),
    [
        (None, None, ["add", "sub"]),
        ("auto", None, ["add", "sub"]),
        ("none", "none", ["add", "sub"]),
        ("required", "required", ["add", "sub"]),
        ({"type": "function", "name": "add"}, {"type": "function", "name": "add"}, ["add", "sub"]),
        (
            {"type": "function", "function": {"name": "add"}},
            {"type": "function", "name": "add"},
            ["add", "sub"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [SUB, {"type": "x"}]}, "auto", ["sub"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [ADD]}, "required", ["add"]),
    ],
)
def test_a_choice_among_tools(choice, called, names):
    tools = read_tools(read_create({"tools": [ADD, SUB], "tool_choice": choice}))
    assert tools.called == called
    assert [tool["name"] for tool in tools.asked] == names
    assert [[ADD, SUB][place]["name"] for place in tools.places] == names


def test_a_tool_with_an_odd_name_is_not_among_the_allowed():
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": []}, ADD]}
    tools = read_tools(read_create({"tools": [{"name": []}, ADD], "tool_choice": choice}))
    assert [tool["name"] for tool in tools.asked] == ["add"]
