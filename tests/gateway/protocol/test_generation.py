"""A generation by itself; what a session makes of many is in test_session.py and test_rules.py."""

import tracemalloc

import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed, Refusal
from gateway.protocol.frames import (
    Chunk,
    Done,
    Generate,
    Loading,
    Progress,
    Queued,
    Started,
    ToolCall,
)
from gateway.protocol.generation import (
    AT_ONCE,
    TERMINAL,
    TRANSITIONS,
    Generation,
    NotResumable,
    State,
)
from provider.interface import (
    AnswerTokens,
    ChoiceResponse,
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
)

BROKEN = Refusal(ErrorCode.MODEL_ERROR, "broken", 2.0, ("prompt",))
LAST = GenerateResponse(finish_reason="stop")
STARTED = GenerateResponse(raw_response=GenerationStarted("m", 5, 2))
LOGPROBS = {"token": "a", "logprob": -1.0, "bytes": [97]}


def generation(ticket=None, max_bytes=None, **fields):
    keep = 4096 if ticket else 0
    frame = Generate(id="a", prompt="hi", **fields)
    return Generation(
        frame, 0.0, default_model="m", ticket=ticket, keep_bytes=keep, max_bytes=max_bytes
    )


def running(**fields):
    one = generation(**fields)
    one.respond(STARTED, 0.5)
    return one


def text(content, **fields):
    return GenerateResponse(content=content, **fields)


def said(*parts):
    return [GenerateResponse(raw_response=ToolCallDelta(*part)) for part in parts]


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
    frames = one.pop_events()
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
        one.pop_events()
    one.failed(BROKEN)
    (failed,) = one.pop_events()
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
        one.pop_events()
    assert one.window_closed
    assert one.waiting_bytes == 3
    one.ack(1)
    assert [frame.text for frame in one.pop_events()] == ["bcd"]


def test_an_acknowledgement_of_what_has_not_left_is_cut_short():
    one = generation(window=1)
    say(one, "a")
    one.pop_events()
    one.ack(100)
    assert [frame.text for frame in one.pop_events()] == ["a"]
    assert one.window_closed


def test_what_has_left_leaves_again_in_order():
    one = generation(ticket="t")
    for word in "abc":
        say(one, word)
        one.pop_events()
    one.replay(1)
    assert [(frame.seq, frame.text) for frame in one.pop_events()] == [(2, "b"), (3, "c")]
    with pytest.raises(NotResumable, match="no frame 9") as caught:
        one.replay(9)
    assert caught.value.fields == ("after",)


def test_many_leave_again_in_several_turns_before_what_is_new():
    one = Generation(Generate(id="a", prompt="hi"), 0.0, ticket="t", keep_bytes=1 << 20)
    for _ in range(2 * AT_ONCE + 9):
        say(one, "x")
        one.pop_events()
    one.replay(-1)
    say(one, "new")
    turns = [one.pop_events()]
    while one.more_again:
        turns.append(one.pop_events())
    assert [len(turn) for turn in turns] == [AT_ONCE, AT_ONCE, 9 + len(["started", "new"])]
    assert [frame.seq for turn in turns for frame in turn] == list(range(2 * AT_ONCE + 11))
    assert turns[-1][-1].text == "new"


def test_nothing_more_is_to_leave_again_once_another_replay_begins_behind_it_all():
    one = Generation(Generate(id="a", prompt="hi"), 0.0, ticket="t", keep_bytes=1 << 20)
    for _ in range(AT_ONCE + 9):
        say(one, "x")
        one.pop_events()
    one.replay(-1)
    one.pop_events()
    assert one.more_again
    one.replay(one.newest)
    assert (one.pop_events(), one.more_again) == ([], False)


def test_the_model_is_the_providers_word_or_the_default():
    one, other = generation(), generation()
    one.respond(GenerateResponse(raw_response=GenerationStarted("own", 3, 1)), 0.0)
    say(other, "x")
    assert (one.pop_events()[0].model, other.pop_events()[0].model) == ("own", "m")


def test_the_providers_own_timing_is_passed_on():
    one = running()
    timing = GenerationTiming(1.0, 2.0, 3.0, 4.0, 5.0)
    one.respond(GenerateResponse(finish_reason="length", raw_response=timing), 11.0)
    done = one.pop_events()[-1]
    assert (done.timing.queue, done.timing.tokens_per_second) == (1.0, 5.0)


def test_a_provider_without_events_gets_its_started_all_the_same():
    one = generation()
    one.respond(text("x"), 1.0)
    assert [type(frame) for frame in one.pop_events()] == [Started, Chunk]


def test_text_that_waits_is_merged_without_a_gap_in_the_numbers():
    one = running()
    for word in ("a", "b", "c"):
        one.respond(text(word), 11.0)
    assert (one.waiting_bytes, one.merged) == (3, 2)
    one.respond(LAST, 12.0)
    started, chunk, done = one.pop_events()
    assert chunk == Chunk(id="a", seq=1, text="abc")
    assert (started.seq, done.seq) == (0, 2)
    assert one.waiting_bytes == 0


def test_channels_are_not_merged_with_each_other():
    one = running()
    for reasoning, content in (("r", None), ("s", None), (None, "x"), ("t", None)):
        one.respond(text(content, reasoning_trace=reasoning), 11.0)
    chunks = [(f.text, f.channel, f.seq) for f in one.pop_events() if isinstance(f, Chunk)]
    assert chunks == [("rs", "reasoning", 1), ("x", None, 2), ("t", "reasoning", 3)]


def test_a_whole_answer_comes_in_done():
    one = running(stream=False)
    one.respond(text("Hel", reasoning_trace="hm"), 11.0)
    one.respond(text("lo"), 11.0)
    one.respond(LAST, 12.0)
    assert [type(frame) for frame in one.pop_events()[:-1]] == [Started]
    one = running(stream=False)
    one.respond(text("Hel", reasoning_trace="hm"), 11.0)
    one.respond(LAST, 12.0)
    done = one.pop_events()[-1]
    assert (done.text, done.reasoning, done.tool_calls) == ("Hel", "hm", None)


def test_tool_calls_come_before_done():
    one = running()
    calls = [{"id": "c1", "name": "add", "arguments": {"a": 1}}]
    one.respond(GenerateResponse(finish_reason="tool_calls", tool_calls=calls), 11.0)
    _, call, done = one.pop_events()
    assert call == ToolCall(
        id="a", seq=1, index=0, call_id="c1", name="add", arguments='{"a":1}', complete=True
    )
    assert done.finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [True, False])
def test_several_answers_are_one_generation_with_one_end(stream):
    one = running(n=2, stream=stream)
    for content, choice in (("a", 0), ("b", 1), ("c", 1), ("d", 0)):
        one.respond(ChoiceResponse(content=content, choice=choice), 11.0)
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    one.respond(ChoiceResponse(finish_reason="length", usage=usage, choice=1), 11.0)
    assert one.live
    one.respond(GenerateResponse(finish_reason="stop", usage=usage), 12.0)
    _, *chunks, done = one.pop_events()
    assert (done.finish_reason, done.usage.completion_tokens) == ("stop", 4)
    assert (done.usage.prompt_tokens, done.usage.total_tokens) == (5, 9)
    reasons = [choice["finish_reason"] for choice in done.choices]
    assert reasons == ["stop", "length"]
    if stream:
        assert [(chunk.choice, chunk.text) for chunk in chunks] == [(0, "ad"), (1, "bc")]
    else:
        assert (done.text, [choice["text"] for choice in done.choices]) == ("ad", ["ad", "bc"])


def test_each_of_many_answers_that_wait_is_one_frame():
    one = running(n=32)
    for turn in range(100):
        for choice in range(32):
            one.respond(ChoiceResponse(content=f"{turn} ", choice=choice), 11.0)
    whole = "".join(f"{turn} " for turn in range(100))
    _, *chunks = one.pop_events()
    assert [(chunk.choice, chunk.text) for chunk in chunks] == [(n, whole) for n in range(32)]
    one.respond(ChoiceResponse(content="more", choice=3), 11.0)
    assert [(frame.seq, frame.text) for frame in one.pop_events()] == [(33, "more")]


def test_what_has_ended_of_several_answers_is_counted_once_where_time_is_over():
    one = running(n=2)
    for choice in (0, 1, 0, 1, 1):
        one.respond(ChoiceResponse(content="a", choice=choice), 11.0)
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    one.respond(ChoiceResponse(finish_reason="stop", usage=usage, choice=0), 11.0)
    one.ended(12.0, "length")
    done = one.pop_events()[-1]
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (5, 2 + 3)
    assert [one["finish_reason"] for one in done.choices] == ["stop", "length"]


@pytest.mark.parametrize("n", [1, 8])
def test_what_is_not_streamed_ends_where_it_would_be_larger_than_a_frame(n):
    one = generation(max_bytes=10_000, n=n, logprobs=True, stream=False)
    token = TokenLogprobs(({**LOGPROBS, "top_logprobs": [LOGPROBS] * 20},))
    for count in range(50):
        one.respond(ChoiceResponse("a", token, choice=count % n), 11.0)
    assert (one.live, one.reason) == (False, "length")
    assert 10_000 < one.held_bytes < 12_000
    _, done = one.pop_events()
    given = done.choices or [{"text": done.text, "logprobs": done.logprobs}]
    packed = [one["logprobs"].unpacked() for one in given]
    assert sum(map(len, packed)) == sum(len(one["text"]) for one in given) == 8
    assert one.held_bytes == 0


def test_what_is_kept_of_a_whole_answer_counts_with_all_that_is_in_it():
    one = running(ticket="t", n=2, stream=False)
    for choice in range(2):
        one.respond(ChoiceResponse("x" * 500, choice=choice), 11.0)
        one.respond(ChoiceResponse(reasoning_trace="y" * 500, choice=choice), 11.0)
    assert one.held_bytes >= 2000
    for choice in range(2):
        one.respond(ChoiceResponse(finish_reason="stop", choice=choice), 12.0)
    one.pop_events()
    assert one.held_bytes >= 2000


def test_a_whole_answer_that_is_cancelled_has_the_calls_that_were_whole():
    one = running(stream=False)
    for response in said((0, "c1", "add", '{"a": 1', False), (0, "c1", None, "}", True)):
        one.respond(response, 11.0)
    for response in said((1, "c2", "sub", '{"a"', False)):
        one.respond(response, 11.0)
    one.cancel(12.0)
    *_, done = one.pop_events()
    assert done.tool_calls == [{"id": "c1", "name": "add", "arguments": {"a": 1}}]


def test_parts_of_a_call_that_wait_become_one_frame():
    one = running()
    for response in said((0, "c1", "add"), (0, "c1", None, '{"a"'), (0, "c1", None, ": 1")):
        one.respond(response, 11.0)
    _, call = one.pop_events()
    assert (call.name, call.arguments, call.complete) == ("add", '{"a": 1', False)
    for response in said((0, "c1", None, "}"), (0, "c1", None, None, True), (1, "c2", "sub")):
        one.respond(response, 11.0)
    rest, other = one.pop_events()
    assert (rest.name, rest.arguments, rest.complete) == (None, "}", True)
    assert (other.index, other.call_id, other.name) == (1, "c2", "sub")


def test_a_call_that_was_told_is_not_told_again():
    one = running()
    calls = [{"id": c, "name": "add", "arguments": {}} for c in ("c1", "c2")]
    for response in said((0, "c1", "add", "{}", True)):
        one.respond(response, 11.0)
    one.respond(GenerateResponse(finish_reason="tool_calls", tool_calls=calls), 11.0)
    _, first, second, _ = one.pop_events()
    assert [(call.index, call.call_id) for call in (first, second)] == [(0, "c1"), (1, "c2")]


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_is_broken_is_told_with_its_text(stream):
    one = running(stream=stream)
    part = ToolCallDelta(0, "c1", "add", None, True, "cut_off", "<tool_call>{")
    one.respond(GenerateResponse(raw_response=part), 11.0)
    timing = GenerationTiming(0, 0, 0, 0, 0, broken_calls=(part,))
    one.respond(GenerateResponse(finish_reason="length", raw_response=timing), 11.0)
    *_, call, done = one.pop_events()
    if stream:
        assert (call.error, call.text, call.complete) == ("cut_off", "<tool_call>{", True)
        assert done.broken_calls is None
    else:
        assert done.broken_calls == [
            {"id": "c1", "name": "add", "error": "cut_off", "text": "<tool_call>{"}
        ]
        assert done.tool_calls is None


def test_a_long_call_that_nobody_takes_counts_as_waiting():
    one = running()
    for _ in range(300):
        (response,) = said((0, "c1", None, "x" * 100))
        one.respond(response, 11.0)
    assert one.waiting_bytes == 30_000
    one.pop_events()
    assert one.waiting_bytes == 0


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_a_stream_that_ends_without_a_reason_is_done_all_the_same(words):
    one = generation()
    for word in words:
        one.respond(text(word), 1.0)
    one.ended(2.0)
    started, *_, done = one.pop_events()
    assert isinstance(started, Started)
    assert (done.finish_reason, done.usage.completion_tokens) == ("stop", len(words))
    assert not one.live


def test_what_is_told_before_the_text_has_no_number_and_a_newer_one_takes_its_place():
    one = generation()
    for event in (ModelLoading("m", 1, 2, warming_up=True), QueuePosition(2), QueuePosition(1)):
        one.respond(GenerateResponse(raw_response=event), 0.0)
    assert one.pop_events() == [
        Loading(id="a", model="m", done=1, total=2, warming_up=True),
        Queued(id="a", position=1),
    ]
    one.respond(GenerateResponse(raw_response=PrefillProgress(1, 5)), 0.5)
    assert [type(frame) for frame in one.pop_events()] == [Started, Progress]


def test_tokens_that_are_told_wait_joined():
    one = running()
    for event in (AnswerTokens(0, (5, 6)), AnswerTokens(2, (7,))):
        one.respond(GenerateResponse(raw_response=event), 0.5)
    (told,) = [frame for frame in one.pop_events() if isinstance(frame, Progress)]
    assert (told.first, told.tokens) == (0, [5, 6, 7])


def test_what_is_no_longer_kept_cannot_leave_again():
    one = running(ticket="t")
    for _ in range(40):
        say(one, "x" * 100)
        one.pop_events()
    assert one.resumable
    assert one.held_bytes <= 2048
    with pytest.raises(NotResumable, match="frame 1 is no longer kept"):
        one.replay(0)


def test_a_client_that_reads_nothing_leaves_enough_held():
    one = running(ticket="t", window=1)
    say(one, "x" * 4000)
    assert not one.holds_enough
    say(one, "x" * 100)
    assert one.holds_enough


def test_the_window_holds_for_what_leaves_again():
    one = running(ticket="t", window=2)
    one.pop_events()
    one.ack(0)  # the newest that has left is kept all the same
    for word in "ab":
        say(one, word)
        one.pop_events()
    one.replay(-1)
    assert [frame.seq for frame in one.pop_events()] == [0, 1]
    one.ack(1)
    assert [frame.seq for frame in one.pop_events()] == [2]


def token_of(number):
    """Return a token with twenty likely ones, none of whose objects is shared with another's."""

    def pair(at):
        text = f"word {number} {at}"
        return {"token": text, "logprob": -1.5 - at, "bytes": [*text.encode()]}

    return TokenLogprobs(({**pair(0), "top_logprobs": [pair(at) for at in range(20)]},))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("state", ["waits", "ended", "kept"])
def test_log_probabilities_take_no_more_memory_than_is_counted(stream, state):
    one = Generation(
        Generate(id="a", prompt="hi", stream=stream, logprobs=True),
        0.0,
        ticket="t" if state == "kept" else None,
        keep_bytes=1 << 30,
    )
    one.respond(STARTED, 0.5)
    one.pop_events()
    tracemalloc.start()
    try:
        before, counted = tracemalloc.get_traced_memory()[0], one.held_bytes
        for number in range(300):
            one.respond(text("a", raw_response=token_of(number)), 1.0)
            if state == "kept" and stream:
                one.pop_events()
        if state != "waits":
            one.respond(LAST, 2.0)
        if state == "kept":
            one.pop_events()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1.5 * (one.held_bytes - counted)
    if not stream:
        assert grown < 300 * 21 * 150  # a fraction of what the objects take


def test_log_probabilities_that_were_packed_are_sent_as_they_were():
    one = running(stream=False, n=2, logprobs=True)
    tokens = [token_of(number) for number in range(4)]
    for number, token in enumerate(tokens):
        one.respond(ChoiceResponse("a", token, choice=number % 2), 11.0)
    one.ended(12.0)
    done = one.pop_events()[-1]
    given = [one["logprobs"].unpacked() for one in done.choices]
    assert given == [[*tokens[0].tokens, *tokens[2].tokens], [*tokens[1].tokens, *tokens[3].tokens]]
    assert done.logprobs.unpacked() == given[0]
