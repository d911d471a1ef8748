"""The responses that a caller gets for a replica's frames."""

import pytest

from gateway.protocol.frames import (
    Chunk,
    Done,
    Loading,
    Pong,
    Progress,
    Queued,
    Started,
    Timing,
    ToolCall,
    Usage,
)
from provider.interface import (
    ChoiceResponse,
    GenerationStarted,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
)
from provider.replicas.responses import Responses

STARTED = Started(id="a", seq=0, model="m", prompt_tokens=5, cached_tokens=2)
USAGE = Usage(prompt_tokens=5, completion_tokens=9, total_tokens=14, reasoning_tokens=3)


def of(*frames, answers=1):
    made = Responses(answers)
    return [response for frame in frames for response in made.of(frame)]


def done(reason="stop", **more):
    timing = Timing(queue=1.0, prefill=2.0, first_token=3.0, total=4.0, tokens_per_second=5.0)
    return Done(id="a", seq=9, finish_reason=reason, usage=USAGE, timing=timing, **more)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (STARTED, GenerationStarted("m", 5, 2)),
        (Queued(id="a", position=3), QueuePosition(3)),
        (Progress(id="a", done=1, total=5), PrefillProgress(1, 5)),
        (
            Loading(id="a", model="m", done=1, total=2, warming_up=True),
            ModelLoading("m", 1, 2, True),
        ),
    ],
)
def test_a_frame_without_text_is_an_event(frame, event):
    assert [response.raw_response for response in of(frame)] == [event]


def test_texts_come_on_their_channels_with_their_log_probabilities():
    drawn = [{"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}]
    _, thought, text = of(
        STARTED,
        Chunk(id="a", seq=1, text="hm", channel="reasoning"),
        Chunk(id="a", seq=2, text="x", logprobs=drawn),
    )
    assert (thought.reasoning_trace, thought.content, thought.model) == ("hm", "", "m")
    assert (text.content, text.reasoning_trace) == ("x", None)
    assert text.raw_response == TokenLogprobs(tuple(drawn))


def test_the_end_has_usage_times_and_the_calls_whole():
    *parts, last = of(
        ToolCall(id="a", seq=1, index=0, call_id="c", name="f", arguments='{"a"'),
        ToolCall(id="a", seq=2, index=0, call_id="c", arguments=":1}", complete=True),
        ToolCall(id="a", seq=3, index=1, call_id="d", complete=True, error="cut_off", text="<f"),
        done("tool_calls"),
    )
    assert [one.raw_response.arguments for one in parts] == ['{"a"', ":1}", None]
    assert last.tool_calls == [{"id": "c", "name": "f", "arguments": {"a": 1}}]
    assert [call.text for call in last.raw_response.broken_calls] == ["<f"]
    assert last.finish_reason == "tool_calls"
    assert last.usage["completion_tokens"] == 9
    assert last.raw_response.total_ms == 4.0


def test_arguments_that_are_no_json_stay_text():
    call = ToolCall(id="a", seq=1, index=0, call_id="c", name="f", arguments="x", complete=True)
    assert of(call, done())[-1].tool_calls[0]["arguments"] == "x"


def test_each_of_several_answers_ends_and_their_tokens_count_once():
    ends = of(done(choices=[{"finish_reason": "stop"}, {"finish_reason": "length"}]), answers=2)
    assert all(isinstance(one, ChoiceResponse) for one in ends)
    assert [(one.choice, one.finish_reason) for one in ends] == [(0, "stop"), (1, "length")]
    assert sum(one.usage["completion_tokens"] for one in ends) == 9
    assert sum(one.usage["reasoning_tokens"] for one in ends) == 3


def test_a_frame_about_no_generation_gives_nothing():
    assert of(Pong()) == []


def test_what_a_replica_says_wrongly_of_an_answers_end_is_left_out():
    wrong = [{}, {"finish_reason": 5}, {"finish_reason": "bored"}, {"finish_reason": "length"}]
    got = of(STARTED, done(choices=wrong), answers=4)
    assert [one.finish_reason for one in got[1:]] == ["stop", "stop", "stop", "length"]
    chunks = [Chunk(id="a", seq=1, text="x", choice=choice) for choice in (-7, 0, 99)]
    assert [one.choice for one in of(*chunks, answers=2)] == [0, 0, 1]
