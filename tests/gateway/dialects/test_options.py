import pytest

from gateway.dialects.options import NAMES, generate_frame, name_in, read_options
from gateway.dialects.refusals import Refused
from provider.options import OF_THE_CALLER, OPTIONS


def test_every_option_of_a_provider_can_be_given_or_is_refused():
    assert set(OPTIONS) - set(OF_THE_CALLER) <= set(NAMES.values())


def test_an_option_has_its_own_name_or_that_of_other_libraries():
    given = {"topP": 0.5, "max_output_tokens": 3, "stopSequences": ["x"], "system": "Be short."}
    options, paths = read_options({**given, "seed": None, "app": object()}, "body")
    expected = {"top_p": 0.5, "max_tokens": 3, "stop": ["x"], "system_prompt": "Be short."}
    assert options == expected
    assert paths["max_tokens"] == "body.max_output_tokens"


def test_fields_of_the_gateways_own_are_ignored():
    given = {"id": "x", "window": 1, "resumable": True, "keep_on_close": True, "keepOnClose": True}
    given["relayed"] = {"client": "someone else", "answer": [1], "tell_tokens": True}
    assert read_options(given, "body") == ({}, {})


@pytest.mark.parametrize("field", [{"n": 2}, {"stream": False}, {"logprobs": True}, {"files": []}])
def test_what_cannot_be_honoured_is_refused(field):
    with pytest.raises(Refused, match=f"body.{next(iter(field))}"):
        read_options(field, "body")


def test_what_asks_for_the_usual_is_taken():
    given = {"n": 1, "stream": True, "logprobs": False, "prompt": None}
    assert read_options(given, "body") == ({}, {})


def test_one_option_under_two_names_must_have_one_value():
    assert read_options({"top_p": 0.5, "topP": 0.5}, "x")[0] == {"top_p": 0.5}
    with pytest.raises(Refused, match=r"`x\.topP`: differs from `x\.top_p`"):
        read_options({"top_p": 0.5, "topP": 0.6}, "x")


def test_tools_choices_and_forms_of_the_ai_sdk_are_read():
    schema = {"type": "object"}
    own = {"type": "function", "function": {"name": "g"}}
    given = {
        "tools": [{"name": "f", "description": "F", "inputSchema": schema}, own, 7],
        "toolChoice": {"type": "tool", "toolName": "f"},
        "responseFormat": {"type": "json", "schema": schema},
    }
    options, _ = read_options(given, "body")
    flat = {"name": "f", "description": "F", "parameters": schema}
    assert options["tools"] == [flat, own, 7]
    assert options["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    named = {"name": "answer", "schema": schema}
    assert options["response_format"] == {"type": "json_schema", "json_schema": named}
    assert read_options({"response_format": {"type": "json"}}, "body")[0] == {
        "response_format": {"type": "json_object"}
    }


def test_a_wrong_type_is_refused_by_the_clients_own_path():
    options, paths = read_options({"tools": ["x"]}, "body")
    with pytest.raises(Refused, match=r"`body.tools\[0\]`: expected `object`, got `str`"):
        generate_frame({**options, "id": "a"}, paths)
    assert generate_frame({"id": "a", "temperature": 1}, {}).temperature == 1.0


def test_a_field_is_named_by_what_it_was_made_of():
    paths, messages = {"top_p": "body.topP", "tools": "body.tools"}, ["messages[4].parts[2]"]
    named = {
        "top_p": "body.topP",
        "tools[1].name": "body.tools[1].name",
        "messages[0].content": "messages[4].parts[2]",
        "messages[7].content": "messages",
        "files": "messages",
        "window": "window",
    }
    assert {field: name_in(paths, messages, field) for field in named} == named
