import base64

import pytest

from gateway.dialects.data_urls import MAX_BYTES
from gateway.dialects.openai.conversation import Conversation
from gateway.dialects.openai.errors import Refused

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
CALLED = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
THOUGHT = {"type": "reasoning", "id": "rs", "summary": [], "content": []}
PNG = "data:image/png;base64,AAAA"


def thought(text):
    return {**THOUGHT, "content": [{"type": "reasoning_text", "text": text}]}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def read(given, earlier=(), instructions=None):
    conversation = Conversation(earlier)
    conversation.add_input(given)
    return conversation.messages(instructions)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("hi", [said("user", "hi")]),
        (None, []),
        ([said("developer", "d"), said("user", "u")], [said("system", "d"), said("user", "u")]),
        (
            [said("user", [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}])],
            [said("user", "ab")],
        ),
        (
            [{"type": "message", **said("assistant", [{"type": "refusal", "refusal": "no"}])}],
            [said("assistant", "no")],
        ),
        (
            [thought("hm"), said("assistant", "yes"), CALL, {**CALL, "call_id": "c2"}],
            [
                said(
                    "assistant",
                    "yes",
                    reasoning_content="hm",
                    tool_calls=[CALLED, {**CALLED, "id": "c2"}],
                )
            ],
        ),
        (
            [CALL, {"type": "function_call_output", "call_id": "c1", "output": "2"}],
            [
                said("assistant", "", tool_calls=[CALLED]),
                said("tool", "2", tool_call_id="c1"),
            ],
        ),
        (
            [said("assistant", "a"), said("assistant", "b")],
            [said("assistant", "a"), said("assistant", "b")],
        ),
        ([THOUGHT, {**THOUGHT, "encrypted_content": "x"}, {**THOUGHT, "content": [3]}], []),
    ],
)
def test_items_become_messages(given, messages):
    assert read(given)[0] == messages


def test_system_messages_at_the_beginning_become_one():
    given = [said("system", "b"), said("user", "u"), said("system", "c")]
    messages, paths = read(given, instructions="a")
    assert messages == [said("system", "a\n\nb"), said("user", "u"), said("system", "c")]
    assert paths == ["instructions", "input[1]", "input[2]"]


def test_instructions_go_before_what_is_continued():
    messages, paths = read("u", [said("user", "x"), said("assistant", "y")], "a")
    assert [m["content"] for m in messages] == ["a", "x", "y", "u"]
    assert paths == ["instructions", *["previous_response_id"] * 2, "input"]


def test_an_image_is_data():
    parts = [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": PNG}]
    [message] = read([said("user", parts)])[0]
    image = {"type": "image_url", "image_url": {"url": PNG}}
    assert message["content"] == [{"type": "text", "text": "what?"}, image]


def test_a_file_of_text_is_put_in_after_its_name():
    data = "data:text/plain;base64," + base64.b64encode("Füchse\n".encode()).decode()
    part = {"type": "input_file", "filename": "a.txt", "file_data": data}
    assert read([said("user", [part])])[0] == [said("user", "a.txt:\nFüchse\n\n")]


def test_the_files_of_a_conversation_have_a_bound_together():
    def file(data):
        return {"type": "input_file", "filename": "a.txt", "file_data": data}

    half = base64.b64encode(b"x" * (MAX_BYTES // 2 - 2)).decode()
    items = [said("user", [file(half)]), said("user", [file(half), file("!" * 8)])]
    with pytest.raises(Refused, match=f"{MAX_BYTES} bytes together") as raised:
        read(items)
    assert raised.value.error.param == "input[1].content[1].file_data"
    items[1]["content"].pop()
    assert [len(one["content"]) > MAX_BYTES // 2 for one in read(items)[0]] == [True, True]


def test_a_type_that_is_no_text_is_not_quoted():
    with pytest.raises(Refused, match=r"`input\[0\].type`: `list` is not among"):
        read([{"type": ["x" * 100]}])


def test_an_output_may_answer_a_call_of_an_earlier_response():
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    earlier = [said("assistant", "", tool_calls=[CALLED])]
    assert read([output], earlier)[0][-1] == said("tool", "2", tool_call_id="c1")
    with pytest.raises(Refused, match="No tool call found"):
        read([output])


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "computer_call"}, "input[0].type"),
        ({"type": ["message"]}, "input[0].type"),
        ({"type": "web_search_call", "id": "ws"}, "input[0].type"),
        (said("judge", "x"), "input[0].role"),
        (said(["user"], "x"), "input[0].role"),
        (said("user", [{"type": ["text"]}]), "input[0].content[0].type"),
        ({**CALL, "name": ""}, "input[0].name"),
        (said("user", 3), "input[0].content"),
        (said("user", [3]), "input[0].content[0].type"),
        (said("user", [{"type": "input_audio"}]), "input[0].content[0].type"),
        (said("user", [{"type": "input_text"}]), "input[0].content[0].text"),
        (said("user", [{"type": "input_image", "file_id": "f"}]), "input[0].content[0].image_url"),
        (
            said("user", [{"type": "input_image", "image_url": "http://x/y.png"}]),
            "input[0].content[0].image_url",
        ),
        (said("user", [{"type": "input_file", "file_id": "f"}]), "input[0].content[0].file_data"),
        (
            said("user", [{"type": "input_file", "file_data": "/w=="}]),
            "input[0].content[0].file_data",
        ),
        ({"type": "function_call", "name": "f"}, "input[0].call_id"),
        ({**CALL, "arguments": {}, "name": 3}, "input[0].name"),
        ({"type": "function_call_output"}, "input[0].call_id"),
    ],
)
def test_what_can_not_be_read_is_refused_by_its_field(item, param):
    with pytest.raises(Refused) as refused:
        read([item])
    assert refused.value.error.param == param


@pytest.mark.parametrize("kind", [{"type": "item_reference"}, {"type": None}, {}])
def test_a_reference_stands_for_its_item(kind):
    conversation = Conversation(find={"fc": CALL}.get)
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    conversation.add_input([{"id": "fc", **kind}, output])
    assert conversation.new == [
        said("assistant", "", tool_calls=[CALLED]),
        said("tool", "2", tool_call_id="c1"),
    ]
    assert conversation.paths == ["input[0]", "input[1]"]


@pytest.mark.parametrize("own", ["fc", None, 7])
def test_a_reference_to_nothing_is_refused_by_its_id(own):
    with pytest.raises(Refused) as raised:
        read([said("user", "a"), {"type": "item_reference", "id": own}])
    assert raised.value.error.param == "input[1].id"
    assert raised.value.status == (404 if own == "fc" else 400)
