"""A generation by itself; what a session makes of many is in test_session.py and test_rules.py."""

import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed, Refusal
from gateway.protocol.frames import Chunk, Done, Generate, Started
from gateway.protocol.generation import TERMINAL, TRANSITIONS, Generation, NotResumable, State
from provider.interface import GenerateResponse, GenerationStarted

BROKEN = Refusal(ErrorCode.MODEL_ERROR, "broken", 2.0, ("prompt",))
LAST = GenerateResponse(finish_reason="stop")


def generation(ticket=None, **fields):
    keep = 4096 if ticket else 0
    frame = Generate(id="a", prompt="hi", **fields)
    return Generation(frame, 0.0, default_model="m", ticket=ticket, keep_bytes=keep)


def say(one, text):
    one.respond(GenerateResponse(content=text), 1.0)


ENDS = {
    State.DONE: lambda one: one.respond(LAST, 2.0),
    State.CANCELLED: lambda one: one.cancel(2.0),
    State.FAILED: lambda one: one.failed(BROKEN),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("later", ENDS.values())
def test_the_first_end_is_the_only_one(end, later):
    one = generation()
    say(one, "x")
    ENDS[end](one)
    assert (one.state, one.live, one.over) == (end, False, False)
    later(one)
    assert one.state is end
    frames = one.take()
    assert [type(frame) for frame in frames[:-1]] == [Started, Chunk]
    assert isinstance(frames[-1], Done | Failed)
    assert one.over


def test_a_state_that_cannot_follow_is_a_fault_of_ours():
    one = generation()
    one.cancel(0.0)
    with pytest.raises(AssertionError, match="cannot become"):
        one._become(State.RUNNING)


def test_every_state_is_reached_and_only_ends_are_final():
    reached = {to for following in TRANSITIONS.values() for to in following}
    assert reached == set(State) - {State.QUEUED}
    assert {state for state in State if not TRANSITIONS[state]} == TERMINAL


@pytest.mark.parametrize("begun", [True, False])
def test_a_failure_keeps_what_was_said_of_it_and_is_numbered_once_it_has_begun(begun):
    one = generation()
    if begun:
        say(one, "x")
        one.take()
    one.failed(BROKEN)
    (failed,) = one.take()
    assert failed == Failed(
        id="a",
        seq=2 if begun else None,
        code=ErrorCode.MODEL_ERROR,
        message="broken",
        retry_after=2.0,
        fields=("prompt",),
    )


def test_a_window_lets_so_many_leave_and_merges_the_rest():
    one = generation(window=2)
    for word in "abcd":
        say(one, word)
        one.take()
    assert one.window_closed
    assert one.waiting_bytes == 3
    one.ack(1)
    assert [frame.text for frame in one.take()] == ["bcd"]


def test_an_acknowledgement_of_what_has_not_left_is_cut_short():
    one = generation(window=1)
    say(one, "a")
    one.take()
    one.ack(100)
    assert [frame.text for frame in one.take()] == ["a"]
    assert one.window_closed


def test_what_has_left_leaves_again_in_order():
    one = generation(ticket="t")
    for word in "abc":
        say(one, word)
        one.take()
    one.replay(1)
    assert [(frame.seq, frame.text) for frame in one.take()] == [(2, "b"), (3, "c")]
    with pytest.raises(NotResumable, match="no frame 9") as caught:
        one.replay(9)
    assert caught.value.fields == ("after",)


def test_the_model_is_the_providers_word_or_the_default():
    one, other = generation(), generation()
    one.respond(GenerateResponse(raw_response=GenerationStarted("own", 3, 1)), 0.0)
    say(other, "x")
    assert (one.take()[0].model, other.take()[0].model) == ("own", "m")
