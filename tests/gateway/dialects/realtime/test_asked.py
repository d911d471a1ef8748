import msgspec
import pytest

from gateway.dialects.openai.errors import Refused
from gateway.dialects.realtime.asked import SessionFields

TOOL = {"type": "function", "name": "f", "description": "F", "parameters": {"type": "object"}}


def session(**given):
    fields = SessionFields("sess_1", "m")
    fields.given = fields.updated(given)
    return fields


def shown(fields):
    return msgspec.to_builtins(fields.shown())


def test_a_session_shows_what_it_is_set_to():
    fields = session(
        type="realtime",
        model="m",
        output_modalities=["text"],
        instructions="Be brief.",
        tools=[TOOL, {"type": "mcp", "server_label": "x"}],
        tool_choice="required",
        max_output_tokens=9,
        truncation={"type": "retention_ratio", "retention_ratio": 0.8},
        parallel_tool_calls=False,
        audio={"output": {"voice": "cedar"}},
    )
    assert shown(fields) == {
        "id": "sess_1",
        "object": "realtime.session",
        "type": "realtime",
        "model": "m",
        "output_modalities": ("text",),
        "instructions": "Be brief.",
        "tools": [TOOL],
        "tool_choice": "required",
        "max_output_tokens": 9,
        "truncation": "auto",
        "parallel_tool_calls": False,
    }


def test_a_session_shows_the_tools_that_are_not_allowed_too():
    other = {**TOOL, "name": "g", "strict": True}
    only = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    fields = session(tools=[TOOL, other], tool_choice=only)
    assert (shown(fields)["tools"], shown(fields)["tool_choice"]) == ([TOOL, other], only)
    assert [tool["name"] for tool in fields.asked({}).tools.asked] == ["f"]


def test_an_update_changes_what_it_names_and_null_undoes_it():
    fields = session(instructions="a", max_output_tokens=9, tools=[TOOL])
    changes = {"instructions": "b", "max_output_tokens": "inf", "tools": None}
    fields.given = fields.updated(changes)
    told = shown(fields)
    assert (told["instructions"], told["max_output_tokens"], told["tools"]) == ("b", "inf", [])


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "session"),
        ([], "session"),
        ({"type": "transcription"}, "session.type"),
        ({"model": "other"}, "session.model"),
        ({"output_modalities": ["audio"]}, "session.output_modalities"),
        ({"modalities": ["audio", "text"]}, "session.modalities"),
        ({"max_output_tokens": "many"}, "session.max_output_tokens"),
        ({"instructions": 1}, "session.instructions"),
        ({"tool_choice": {"type": "mcp"}}, "session.tool_choice"),
        ({"truncation": "some"}, "session.truncation"),
        ({"reasoning": {"effort": "huge"}}, "session.reasoning.effort"),
        ({"prompt": {"id": "p"}}, "session.prompt"),
    ],
)
def test_a_field_that_is_refused_is_named_and_changes_nothing(given, param):
    fields = session(instructions="a")
    with pytest.raises(Refused, match=f"`{param}`") as refused:
        fields.updated(given)
    assert refused.value.error.param == param
    assert shown(fields) == shown(session(instructions="a"))


def test_a_response_is_asked_with_its_own_fields_before_the_sessions():
    asked = session(instructions="a", max_output_tokens=9).asked(
        {"instructions": "b", "temperature": 0.5, "metadata": {"k": "v"}}
    )
    assert (asked.create.instructions, asked.create.max_output_tokens) == ("b", 9)
    assert (asked.create.temperature, asked.create.metadata) == (0.5, {"k": "v"})
    assert asked.path_of("temperature") == "response.temperature"
    assert asked.path_of("max_output_tokens") == "session.max_output_tokens"
    assert asked.path_of("tools[0].name") == "session.tools[0].name"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (1, "response"),
        ({"conversation": "other"}, "response.conversation"),
        ({"conversation": []}, "response.conversation"),
        ({"output_modalities": ["audio"]}, "response.output_modalities"),
        ({"temperature": "hot"}, "response.temperature"),
    ],
)
def test_a_response_that_is_refused_names_its_field(given, param):
    with pytest.raises(Refused) as refused:
        session().asked(given)
    assert refused.value.error.param == param
