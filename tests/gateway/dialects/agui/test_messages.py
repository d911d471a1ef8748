import json

import pytest

from gateway.dialects.agui.messages import read_messages
from gateway.dialects.base import FrameLimits
from gateway.dialects.refusals import Refused
from tests.gateway.dialects.agui.clients import user


def call(own="1", arguments='{"a": 1}'):
    function = {"name": "f", "arguments": arguments}
    return {"id": own, "type": "function", "function": function}


def test_every_role_is_read():
    prompt = read_messages(
        [
            {"role": "developer", "content": "Be short."},
            user("hi"),
            {"role": "activity", "activityType": "plan", "content": {}},
            {"role": "reasoning", "content": "hm"},
            {"role": "assistant", "content": "I look.", "toolCalls": [call(), call("2")]},
            {"role": "tool", "toolCallId": "1", "content": '{"b":2}'},
            {"role": "assistant", "content": "So."},
        ]
    )
    roles = [message["role"] for message in prompt.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    answer, result = prompt.messages[2:4]
    assert answer["reasoning_content"] == "hm"
    assert [one["id"] for one in answer["tool_calls"]] == ["1"]
    assert (result["tool_call_id"], result["content"]) == ("1", '{"b":2}')
    assert prompt.paths[2:4] == ["messages[4]"] * 2


def test_a_result_may_be_an_error_or_what_a_run_resumes():
    turns = [user("hi"), {"role": "assistant", "toolCalls": [call(str(n)) for n in range(4)]}]
    turns += [{"role": "tool", "toolCallId": "0", "content": "", "error": "no"}]
    turns += [{"role": "tool", "toolCallId": "3", "content": [{"type": "text", "text": "x"}]}]
    resume = [
        {"interruptId": "client_tool_1", "payload": {"b": 2}},
        {"interruptId": "client_tool_2", "status": "cancelled"},
    ]
    results = [one["content"] for one in read_messages(turns, resume).messages[2:]]
    assert results[3] == "x"
    assert [json.loads(one) for one in results[:3]] == [
        {"error": "no"},
        {"b": 2},
        {"error": "the user has cancelled the call"},
    ]


@pytest.mark.parametrize("arguments", ["", "{", "[]", "[" * 9999, None, {"a": 1}])
def test_arguments_that_cannot_be_read_are_none(arguments):
    turns = [user("hi"), {"role": "assistant", "toolCalls": [call(arguments=arguments)]}]
    turns += [{"role": "tool", "toolCallId": "1", "content": "x"}]
    (made,) = read_messages(turns).messages[1]["tool_calls"]
    expected = arguments if isinstance(arguments, dict) else {}
    assert json.loads(made["function"]["arguments"]) == expected


def test_arguments_with_too_many_values_are_refused_by_their_path():
    few, many = (json.dumps({"a": [[]] * count}) for count in (8, 40))
    turns = [user("hi"), {"role": "assistant", "toolCalls": [call("1", few), call("2", many)]}]
    with pytest.raises(
        Refused, match=r"`messages\[1\].toolCalls\[1\].function.arguments`: .* values"
    ):
        read_messages(turns, limits=FrameLimits(values=40))
    assert read_messages([*turns[:1], {"role": "assistant", "toolCalls": [call("1", few)]}])


def test_the_arguments_of_all_calls_share_one_bound():
    calls = [call(str(n), json.dumps({"a": "x" * 300_000})) for n in range(4)]
    turns = [user("hi"), *({"role": "assistant", "toolCalls": [one]} for one in calls)]
    with pytest.raises(Refused, match=r"`messages\[4\].toolCalls\[0\].* characters"):
        read_messages(turns)
    assert read_messages(turns[:4])


def test_images_and_documents_are_taken_as_data():
    image = {"type": "data", "value": "aGk=", "mimeType": "image/png"}
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "content": "b"},
        {"type": "image", "source": image},
        {"type": "document", "source": {**image, "mimeType": "text/plain"}},
        {"type": "binary", "mimeType": "text/plain", "data": "aGk=", "filename": "b.txt"},
    ]
    prompt = read_messages([user(parts)])
    (message,) = prompt.messages
    assert [part["type"] for part in message["content"]] == ["text", "text", "image_url"]
    assert message["content"][2]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert [(file.name, file.data) for file in prompt.files] == [
        ("file.txt", b"hi"),
        ("b.txt", b"hi"),
    ]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (7, "`messages[0]`"),
        ({"role": "user"}, "`messages[0].content`"),
        ({"role": "tool", "content": "x"}, "`messages[0].toolCallId`"),
        ({"role": "assistant", "toolCalls": 7}, "`messages[0].toolCalls`"),
        ({"role": "assistant", "toolCalls": [7]}, "`messages[0].toolCalls[0]`"),
        (user([{"type": "poem"}]), "`messages[0].content[0]`"),
        (user([{"type": "image"}]), "`messages[0].content[0].source`"),
        (
            user([{"type": "image", "source": {"type": "url", "value": "http://a"}}]),
            "`messages[0].content[0].source.value`: must be a data URL",
        ),
        (
            user([{"type": "audio", "source": {"type": "data", "value": ""}}]),
            "`messages[0].content[0]`: no model here takes audio",
        ),
        ({"role": "activity"}, "`messages`: nothing in them"),
    ],
)
def test_a_wrong_message_is_named_by_its_path(message, path):
    with pytest.raises(Refused) as caught:
        read_messages([message])
    assert path in str(caught.value)


def test_only_interrupts_of_client_tools_are_resumed():
    for resume in (7, [7], [{"interruptId": "approval_1"}]):
        with pytest.raises(Refused, match="`resume"):
            read_messages([user("hi")], resume)
