import json

import pytest

from gateway.dialects.chat.messages import read_messages
from gateway.dialects.refusals import Refused
from tests.gateway.dialects.chat.clients import user


def tool(call_id, state, **more):
    return {"type": "tool-f", "toolCallId": call_id, "state": state, "input": {"a": 1}, **more}


def assistant(*parts):
    return {"id": "m", "role": "assistant", "parts": list(parts)}


def text(said, **more):
    return {"type": "text", "text": said, **more}


def test_each_step_of_an_answer_is_a_message_with_the_results_of_its_calls():
    step = {"type": "step-start"}
    prompt = read_messages(
        [
            user("hi"),
            assistant(
                step,
                {"type": "reasoning", "text": "hm"},
                text("I look."),
                tool("1", "output-available", output={"b": 2}),
                step,
                {**tool("2", "output-error", errorText="no"), "type": "dynamic-tool"}
                | {"toolName": "g"},
                step,
                text("So."),
            ),
        ]
    )
    roles = [message["role"] for message in prompt.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    first, result, second, failed, last = prompt.messages[1:]
    assert (first["content"], first["reasoning_content"]) == ("I look.", "hm")
    assert json.loads(first["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert json.loads(result["content"]) == {"b": 2}
    assert second["tool_calls"][0]["function"]["name"] == "g"
    assert json.loads(failed["content"]) == {"error": "no"}
    assert last["content"] == "So."
    assert prompt.paths[-1] == "messages[1].parts[7]"


@pytest.mark.parametrize("state", ["input-streaming", "input-available", "approval-requested"])
def test_a_call_without_a_result_is_left_out(state):
    prompt = read_messages([user("hi"), assistant(text("a"), tool("1", state))])
    assert [message["content"] for message in prompt.messages] == ["hi", "a"]


def test_a_denied_call_is_one_with_a_result():
    prompt = read_messages([user("hi"), assistant(tool("1", "output-denied"))])
    assert "refused" in prompt.messages[-1]["content"]


def test_what_is_only_shown_says_nothing_to_the_model():
    parts = [{"type": "data-weather", "data": 1}, {"type": "source-url", "url": "x"}]
    prompt = read_messages([user("hi"), assistant(*parts), user("on", parts=[*parts, text("on")])])
    assert [message["content"] for message in prompt.messages] == ["hi", "on"]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (7, "`messages[0]`"),
        ({"role": "user"}, "`messages[0].parts`"),
        ({"role": "user", "parts": [{}]}, "`messages[0].parts[0]`"),
        ({"role": "user", "parts": [{"type": "text"}]}, "`messages[0].parts[0].text`"),
        ({"role": "user", "parts": [{"type": "file", "url": "x"}]}, "parts[0].mediaType`"),
        (assistant({"type": "reasoning"}), "`messages[0].parts[0].text`"),
        (assistant({"type": "tool-f"}), "`messages[0].parts[0].toolCallId`"),
        (assistant({"type": "dynamic-tool", "toolCallId": "1"}), "parts[0].toolName`"),
        (assistant({"type": "tool-", "toolCallId": "1"}), "parts[0].toolName`"),
        (assistant(), "`messages`: nothing in them"),
    ],
)
def test_a_wrong_part_is_named_by_its_path(message, path):
    with pytest.raises(Refused) as caught:
        read_messages([message])
    assert path in str(caught.value)
