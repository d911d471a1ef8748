import json

from gateway.dialects.agui.writer import RunIds, Writer, bare
from gateway.protocol.frames import Chunk, Done, Timing, ToolCall, Usage

IDS = RunIds("t", "r", "g")


def frames(messages):
    return [json.loads(message.data) for message in messages]


def done(reason, usage=None):
    return Done(id="g", seq=9, finish_reason=reason, usage=usage or Usage(), timing=Timing())


def call(**fields):
    return ToolCall(id="g", seq=1, index=0, call_id="1", **fields)


def written(after=-1):
    writer = Writer(IDS, after)
    found = list(writer.start("m"))
    found += writer.text(Chunk(id="g", seq=1, text="a"))
    found += writer.call(call(name="f", arguments="{", complete=True))
    found += writer.end(done("tool_calls"))
    return frames(found)


def test_each_event_has_an_offset_after_which_it_can_be_read_on():
    whole = written()
    assert [one["id"] for one in whole] == [f"g.{n}" for n in range(len(whole))]
    for after in range(len(whole)):
        assert written(after) == whole[after + 1 :]


def test_a_call_whose_arguments_are_not_json_is_given_as_text():
    (interrupt,) = written()[-1]["chunk"]["outcome"]["interrupts"]
    assert interrupt["metadata"]["input"] == "{"


def test_a_broken_call_has_an_error_as_its_result_and_no_interrupt():
    writer = Writer(IDS)
    events = frames(writer.call(call(complete=True, error="malformed", text="<f>")))
    kinds = [one["chunk"]["type"] for one in events]
    assert kinds == ["TOOL_CALL_START", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert events[0]["chunk"]["toolCallName"] == "unknown"
    said = json.loads(events[-1]["chunk"]["content"])
    assert said == {"error": "the call is malformed", "text": "<f>"}
    assert "outcome" not in frames(writer.end(done("stop")))[-1]["chunk"]


def test_the_usage_has_all_counts():
    writer = Writer(IDS)
    list(writer.start("m"))
    used = Usage(
        prompt_tokens=7, completion_tokens=5, total_tokens=12, cached_tokens=4, reasoning_tokens=3
    )
    (end,) = frames(writer.end(done("stop", used)))
    assert end["chunk"]["usage"] == [
        {
            "model": "m",
            "inputTokens": 7,
            "cachedInputTokens": 4,
            "outputTokens": 5,
            "reasoningTokens": 3,
            "totalTokens": 12,
        }
    ]


def test_what_was_cancelled_ends_as_aborted():
    (end,) = frames(Writer(IDS).end(done("cancelled")))
    assert (end["chunk"]["type"], end["chunk"]["code"]) == ("RUN_ERROR", "aborted")


def test_what_is_not_told_again_has_no_offset():
    assert frames([bare({"type": "RUN_ERROR"})]) == [{"type": "RUN_ERROR"}]
