import json

import pytest

from gateway.dialects.chat.writer import Writer
from gateway.protocol.frames import (
    Chunk,
    Done,
    Progress,
    Started,
    Timing,
    ToolCall,
    Usage,
)

BEGIN = Started(id="g", seq=0, model="m", prompt_tokens=3, cached_tokens=0)


def done(reason="stop"):
    return Done(id="g", seq=9, finish_reason=reason, usage=Usage(), timing=Timing())


def call(**fields):
    return ToolCall(id="g", seq=1, index=0, call_id="1", **fields)


def frames(messages):
    return [json.loads(message.data) for message in messages]


def told(messages):
    return [frame["chunk"] for frame in frames(messages) if frame["type"] == "chunk"]


def test_chunks_are_numbered_over_all_that_is_written():
    writer = Writer("r", "m1", [{"type": "start-step"}])
    written = [*writer.start(BEGIN), writer.wait(Progress(id="g", done=1, total=2))]
    written += writer.text(Chunk(id="g", seq=1, text="a"))
    written += writer.end(done())
    *numbered, end = frames(written)
    assert [frame["sequence"] for frame in numbered] == list(range(len(numbered)))
    assert end == {"type": "end", "requestId": "r"}
    first, second = numbered[0]["chunk"], numbered[1]["chunk"]
    assert first == {"type": "start", "messageId": "m1"}
    assert second == {"type": "start-step"}
    assert numbered[3]["chunk"]["data"] == {"progress": {"done": 1, "total": 2}}


@pytest.mark.parametrize(
    ("reason", "said"), [("stop", "stop"), ("length", "length"), ("tool_calls", "tool-calls")]
)
def test_an_end_has_a_reason_that_the_client_knows(reason, said):
    writer = Writer("r", "m1")
    list(writer.start(BEGIN))
    *_, usage, finish = told(writer.end(done(reason)))
    assert finish == {"type": "finish", "finishReason": said}
    assert usage["data"]["model"] == "m"


def test_what_was_cancelled_before_it_began_is_aborted():
    assert [chunk["type"] for chunk in told(Writer("r", "m1").end(done("cancelled")))] == ["abort"]


def test_a_call_comes_in_parts_and_as_a_whole():
    writer = Writer("r", "m1")
    written = list(writer.text(Chunk(id="g", seq=1, text="a", channel="reasoning")))
    for part in ({"name": "f"}, {"arguments": '{"a":'}, {"arguments": "1}", "complete": True}):
        written += writer.call(call(**part))
    written += writer.call(ToolCall(id="g", seq=2, index=1, call_id="2", name="g", complete=True))
    chunks = told(written)
    assert [chunk["type"] for chunk in chunks[2:]] == [
        "reasoning-end",
        *("tool-input-start", "tool-input-delta", "tool-input-delta", "tool-input-available"),
        *("tool-input-start", "tool-input-available"),
    ]
    assert (chunks[6]["toolName"], chunks[6]["input"]) == ("f", {"a": 1})
    assert chunks[-1]["input"] == {}


def test_a_broken_call_is_an_error_of_its_own():
    named, nameless = Writer("r", "m1"), Writer("r", "m1")
    list(named.call(call(name="f", arguments='{"a')))
    broken = call(complete=True, error="cut_off", text="<call>")
    (chunk,) = told(named.call(broken))
    assert chunk["errorText"] == "the call is cut off"
    assert (chunk["toolName"], chunk["input"]) == ("f", "<call>")
    (chunk,) = told(nameless.call(broken))
    assert (chunk["type"], chunk["toolName"]) == ("tool-input-error", "unknown")
    assert chunk["dynamic"]


def test_arguments_that_are_not_json_stay_text():
    (*_, chunk) = told(Writer("r", "m1").call(call(name="f", arguments="x", complete=True)))
    assert chunk["input"] == "x"
