import pytest
from msgspec.structs import replace

from gateway.protocol.answer import Answer, is_packed_as, repack, size_of, whole_call
from gateway.protocol.frames import Chunk, Done, Pong, Timing, ToolCall, Usage
from gateway.protocol.outbox import PackedLogprobs
from provider.interface import GenerateResponse, ToolCallDelta


def test_texts_are_kept_by_channel_and_read_as_one():
    answer = Answer()
    assert answer.add_text(None, "Hé", ()) == 3
    assert answer.add_text("reasoning", "hm", ()) == 2
    answer.add_text(None, "llo", ())
    fields = answer.fields()
    assert (fields["text"], fields["reasoning"]) == ("Héllo", "hm")
    assert (fields["tool_calls"], fields["logprobs"], fields["broken_calls"]) == (None, None, None)


def test_calls_are_read_once_they_are_whole():
    answer = Answer()
    answer.add_call(ToolCallDelta(0, "c0", "add", '{"a": '))
    answer.add_call(ToolCallDelta(1, "c1", "sub"))
    assert answer.fields()["tool_calls"] is None
    answer.add_call(ToolCallDelta(0, "c0", None, "1}", complete=True))
    assert answer.fields()["tool_calls"] == [{"id": "c0", "name": "add", "arguments": {"a": 1}}]


def test_arguments_that_are_no_json_are_kept_as_they_were_written():
    answer = Answer()
    answer.add_call(ToolCallDelta(0, "c0", "add", "a=1", complete=True))
    assert answer.fields()["tool_calls"][0]["arguments"] == "a=1"


def test_a_broken_call_is_told_apart():
    answer = Answer()
    answer.add_call(ToolCallDelta(0, "c0", "add", None, True, "malformed", "<tool_call>"))
    fields = answer.fields()
    assert fields["tool_calls"] is None
    assert fields["broken_calls"] == [
        {"id": "c0", "name": "add", "error": "malformed", "text": "<tool_call>"}
    ]


@pytest.mark.parametrize(
    ("last", "reason"),
    [(None, "cancelled"), ("length", "length"), ("tool_calls", "tool_calls"), ("other", "stop")],
)
def test_an_unknown_reason_counts_as_stop_and_none_as_cancelled(last, reason):
    answer = Answer(last=last and GenerateResponse(finish_reason=last))
    assert answer.reason == reason


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"name": "f", "arguments": {"a": 1}}, '{"a":1}'),
        ({"name": "f", "arguments": '{"a": 1}'}, '{"a": 1}'),
        ({"name": "f"}, "{}"),
    ],
)
def test_a_whole_call_has_its_arguments_as_text_and_an_id(call, arguments):
    part, other = whole_call(3, call), whole_call(3, call)
    assert part == ToolCallDelta(3, part.id, "f", arguments, complete=True)
    assert part.id
    assert part.id != other.id
    assert whole_call(3, {**call, "id": "own"}).id == "own"


@pytest.mark.parametrize("binary", [True, False])
def test_all_answers_of_an_end_are_packed_anew_and_nothing_else_of_it_changes(binary):
    one = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    packed = [PackedLogprobs(binary=binary) for _ in range(2)]
    for number, logprobs in enumerate(packed):
        logprobs.add([one] * (number + 1))
    choices = [{"finish_reason": "stop", "logprobs": packed[0]}, {"finish_reason": "length"}]
    done = Done(
        id="a",
        seq=1,
        finish_reason="stop",
        usage=Usage(),
        timing=Timing(),
        text="x",
        logprobs=packed[1],
        choices=choices,
    )
    assert is_packed_as(done, binary=binary)
    assert not is_packed_as(done, binary=not binary)
    made = []

    def steps():
        made.append((yield from repack(done, binary=not binary)))

    assert list(steps()) == []
    (ready,) = made
    assert is_packed_as(ready, binary=not binary)
    assert ready.logprobs == packed[1].raw(binary=not binary)
    assert ready.choices == [
        {**choices[0], "logprobs": packed[0].raw(binary=not binary)},
        choices[1],
    ]
    assert replace(ready, logprobs=None, choices=None) == replace(done, logprobs=None, choices=None)
    assert choices[0]["logprobs"] is packed[0]


def test_the_size_of_an_event_is_that_of_its_texts_and_log_probabilities():
    one = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    packed = PackedLogprobs()
    packed.add([one] * 100)
    done = Done(
        id="a",
        seq=1,
        finish_reason="stop",
        usage=Usage(),
        timing=Timing(),
        text="x" * 10,
        reasoning="y" * 5,
        logprobs=packed,
        choices=[{"text": "z" * 20}, {"finish_reason": "stop"}],
    )
    assert size_of(done) == 35 + packed.nbytes > 35 + 100 * 40
    assert size_of(Chunk(id="a", seq=1, text="x" * 7)) == 7
    assert size_of(Chunk(id="a", seq=1, text="x", logprobs=[one])) > 100
    assert size_of(ToolCall(id="a", seq=1, index=0, call_id="c", arguments="{}", text="ab")) == 4
    assert size_of(Pong(nonce="n")) == 0
