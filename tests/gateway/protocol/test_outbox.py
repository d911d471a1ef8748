import msgspec
import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed
from gateway.protocol.frames import Chunk, Progress, ToolCall
from gateway.protocol.outbox import (
    MAX_PARTS,
    PAIR_BYTES,
    PIECE,
    PackedLogprobs,
    WaitingCall,
    WaitingFrame,
    WaitingText,
)
from provider.interface import ToolCallDelta

LOGPROB = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}


def test_texts_that_wait_become_one_chunk_and_count_in_bytes():
    text = WaitingText(None, 2)
    assert [text.add("é", ()), text.add("ab", ())] == [2, 2]
    assert text.size == 4
    assert text.frame("a", 5) == Chunk(id="a", seq=5, text="éab", choice=2)


def test_half_a_character_counts_and_leaves():
    text = WaitingText("reasoning")
    assert text.add("\ud800", ()) == 3
    assert text.frame("a", 0).text == "\ud800"


def test_many_short_texts_do_not_stay_many():
    text, call = WaitingText(None), WaitingCall(0, "c")
    for _ in range(3 * MAX_PARTS):
        text.add("x", ())
        call.add(ToolCallDelta(0, "c", None, "y"))
    assert len(text.parts) < MAX_PARTS
    assert len(call.parts) < MAX_PARTS
    assert text.frame("a", 0).text == "x" * 3 * MAX_PARTS
    assert call.frame("a", 0).arguments == "y" * 3 * MAX_PARTS


def test_log_probabilities_are_counted_and_kept_in_order():
    text = WaitingText(None)
    size = text.add("a", [LOGPROB]) + text.add("b", ()) + text.add("c", [LOGPROB, LOGPROB])
    assert size == text.size > 3
    assert text.frame("a", 0).logprobs == [LOGPROB] * 3


@pytest.mark.parametrize("binary", [True, False])
def test_packed_log_probabilities_are_part_of_a_message_in_both_formats(binary):
    packed = PackedLogprobs(binary=binary)
    assert not packed
    assert packed.add([LOGPROB, LOGPROB]) >= 2 * PAIR_BYTES
    other = {**LOGPROB, "token": "é" * 500}
    assert packed.add([other]) > 1000
    assert packed.unpacked() == [LOGPROB, LOGPROB, other]
    whole = [{"logprobs": packed.unpacked()}]
    in_json = msgspec.json.encode([{"logprobs": packed.raw(binary=False)}])
    in_msgpack = msgspec.msgpack.encode([{"logprobs": packed.raw(binary=True)}])
    assert msgspec.json.decode(in_json) == msgspec.msgpack.decode(in_msgpack) == whole


@pytest.mark.parametrize("binary", [True, False])
def test_many_log_probabilities_are_packed_anew_in_pieces(binary):
    packed = PackedLogprobs(binary=binary)
    long = {**LOGPROB, "token": "é" * 500}
    packed.add([long] * (4 * PIECE // 1000))
    assert packed.is_packed_as(binary=binary)
    assert not packed.is_packed_as(binary=not binary)
    steps, made = packed.repack(binary=not binary), []
    assert list(_until_its_end(steps, made)) == [None] * 4
    assert made == [packed.raw(binary=not binary)]
    assert list(_until_its_end(packed.repack(binary=binary), made)) == []
    assert made[1] == packed.raw(binary=binary)


def _until_its_end(steps, made):
    made.append((yield from steps))


def test_parts_of_a_call_join_and_the_first_name_stays():
    call = WaitingCall(1, "c", choice=3)
    call.add(ToolCallDelta(1, "c", "add"))
    call.add(ToolCallDelta(1, "c", None, '{"a"'))
    assert call.add(ToolCallDelta(1, "c", None, ": 1}", complete=True)) == 4
    assert call.frame("a", 7) == ToolCall(
        id="a",
        seq=7,
        index=1,
        call_id="c",
        name="add",
        arguments='{"a": 1}',
        complete=True,
        choice=3,
    )


@pytest.mark.parametrize("seq", [None, 4])
def test_a_frame_gets_its_number_when_it_leaves(seq):
    fields = {"code": ErrorCode.INTERNAL, "message": "m"}
    assert WaitingFrame(Failed, fields).frame("a", seq) == Failed(id="a", seq=seq, **fields)
    progress = WaitingFrame(Progress, {"done": 1, "total": 2}, numbered=False)
    assert progress.frame("a", None) == Progress(id="a", done=1, total=2)
