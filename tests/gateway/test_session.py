import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.frames import (
    RETRYABLE,
    Ack,
    BadFrame,
    Cancel,
    Chunk,
    Done,
    Error,
    ErrorCode,
    Generate,
    Hello,
    Ping,
    Pong,
    Progress,
    Queued,
    Ready,
    Resume,
    Started,
    ToolCall,
)
from gateway.session import TERMINAL, TRANSITIONS, Begin, Session, State, Stop
from provider.interface import (
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    PrefillProgress,
    QueuePosition,
)

READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=[], limits={})
STARTED = GenerateResponse(raw_response=GenerationStarted("m", 5, 2))
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "other": 1}
LAST = GenerateResponse(content="", finish_reason="stop", usage=USAGE)


def text(content, **fields):
    return GenerateResponse(content=content, **fields)


def session(max_generations=4):
    made = Session(READY, max_generations=max_generations)
    made.take()
    return made


def generating(**fields):
    made = session()
    made.receive(Generate(id="a", prompt="hi", **fields), 10.0)
    made.respond("a", STARTED, 10.5)
    return made


def test_ready_comes_first():
    assert Session(READY, max_generations=1).take() == [READY]


def test_a_generation_runs_from_started_to_done():
    made = session()
    frame = Generate(id="a", prompt="hi")
    assert made.receive(frame, 10.0) == [Begin(frame)]
    made.respond("a", GenerateResponse(raw_response=QueuePosition(3)), 10.1)
    made.respond("a", STARTED, 10.5)
    made.respond("a", GenerateResponse(raw_response=PrefillProgress(1, 5)), 10.6)
    made.respond("a", text("Hel"), 11.0)
    assert made.take() == [
        Queued(id="a", position=3),
        Started(id="a", seq=0, model="m", prompt_tokens=5, cached_tokens=2),
        Progress(id="a", done=1, total=5),
        Chunk(id="a", seq=1, text="Hel"),
    ]
    made.respond("a", text("lo"), 12.0)
    made.respond("a", LAST, 13.0)
    chunk, done = made.take()
    assert chunk == Chunk(id="a", seq=2, text="lo")
    assert (done.seq, done.finish_reason) == (3, "stop")
    assert done.usage.total_tokens == 7
    assert (done.timing.queue, done.timing.first_token, done.timing.total) == (500, 1000, 3000)
    assert made.live == []


def test_the_providers_own_timing_is_passed_on():
    made = generating()
    timing = GenerationTiming(1.0, 2.0, 3.0, 4.0, 5.0)
    made.respond("a", GenerateResponse(finish_reason="length", raw_response=timing), 11.0)
    done = made.take()[-1]
    assert (done.timing.queue, done.timing.tokens_per_second) == (1.0, 5.0)


def test_a_provider_without_events_gets_its_started_all_the_same():
    made = session()
    made.receive(Generate(id="a", prompt="hi"), 0.0)
    made.respond("a", text("x"), 1.0)
    assert [type(frame) for frame in made.take()] == [Started, Chunk]


def test_text_that_waits_is_merged_without_a_gap_in_the_numbers():
    made = generating()
    for word in ("a", "b", "c"):
        made.respond("a", text(word), 11.0)
    assert made.waiting_bytes == 3
    made.respond("a", LAST, 12.0)
    started, chunk, done = made.take()
    assert chunk == Chunk(id="a", seq=1, text="abc")
    assert (started.seq, done.seq) == (0, 2)
    assert made.waiting_bytes == 0


def test_channels_are_not_merged_with_each_other():
    made = generating()
    for reasoning, content in (("r", None), ("s", None), (None, "x"), ("t", None)):
        made.respond("a", text(content, reasoning_trace=reasoning), 11.0)
    chunks = [(f.text, f.channel, f.seq) for f in made.take() if isinstance(f, Chunk)]
    assert chunks == [("rs", "reasoning", 1), ("x", None, 2), ("t", "reasoning", 3)]


def test_generations_are_merged_each_for_itself():
    made = generating()
    made.receive(Generate(id="b", prompt="hi"), 10.0)
    for frame_id, word in (("a", "1"), ("b", "x"), ("a", "2"), ("b", "y")):
        made.respond(frame_id, text(word), 11.0)
    assert {(f.id, f.text) for f in made.take() if isinstance(f, Chunk)} == {
        ("a", "12"),
        ("b", "xy"),
    }


def test_a_whole_answer_comes_in_done():
    made = generating(stream=False)
    made.respond("a", text("Hel", reasoning_trace="hm"), 11.0)
    made.respond("a", text("lo"), 11.0)
    made.respond("a", LAST, 12.0)
    assert [type(frame) for frame in made.take()[:-1]] == [Started]
    made = generating(stream=False)
    made.respond("a", text("Hel", reasoning_trace="hm"), 11.0)
    made.respond("a", LAST, 12.0)
    done = made.take()[-1]
    assert (done.text, done.reasoning, done.tool_calls) == ("Hel", "hm", None)


def test_tool_calls_come_before_done():
    made = generating()
    calls = [{"id": "c1", "name": "add", "arguments": {"a": 1}}]
    made.respond("a", GenerateResponse(finish_reason="tool_calls", tool_calls=calls), 11.0)
    _, call, done = made.take()
    assert call == ToolCall(
        id="a", seq=1, index=0, call_id="c1", name="add", arguments='{"a":1}', complete=True
    )
    assert done.finish_reason == "tool_calls"


def test_a_cancel_ends_with_one_done_at_once():
    made = generating()
    made.respond("a", text("x"), 11.0)
    assert made.receive(Cancel(id="a"), 11.0) == [Stop("a")]
    frames = made.take()
    assert [f.text for f in frames if isinstance(f, Chunk)] == ["x"]
    assert (frames[-1].finish_reason, frames[-1].usage.completion_tokens) == ("cancelled", 1)
    assert made.receive(Cancel(id="a"), 11.0) == []
    made.respond("a", text("late"), 11.0)
    made.respond("a", LAST, 11.0)
    made.ended("a", 11.0)
    made.failed("a", ErrorCode.MODEL_ERROR, "late")
    assert made.take() == []


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_a_stream_that_ends_without_a_reason_is_done_all_the_same(words):
    made = session()
    made.receive(Generate(id="a", prompt="hi"), 0.0)
    for word in words:
        made.respond("a", text(word), 1.0)
    made.ended("a", 2.0)
    started, *_, done = made.take()
    assert isinstance(started, Started)
    assert (done.finish_reason, done.usage.completion_tokens) == ("stop", len(words))
    assert made.live == []


def test_started_names_the_served_model_where_the_provider_does_not():
    ready = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
    made = Session(ready, max_generations=1)
    made.receive(Generate(id="a", prompt="hi"), 0.0)
    made.respond("a", text("x"), 1.0)
    assert made.take()[1].model == "m"


def test_a_cancel_of_nothing_is_ignored():
    made = session()
    assert made.receive(Cancel(id="a"), 0.0) == []
    assert made.take() == []


def test_a_failure_is_one_error():
    made = generating()
    made.failed("a", ErrorCode.MODEL_ERROR, "broken")
    made.failed("a", ErrorCode.MODEL_ERROR, "broken")
    error = made.take()[-1]
    assert (error.id, error.seq, error.code, error.message) == ("a", 1, "model_error", "broken")
    assert made.take() == []


def test_a_duplicate_id_leaves_the_first_alone():
    made = generating()
    made.take()
    assert made.receive(Generate(id="a", prompt="again"), 11.0) == []
    (error,) = made.take()
    assert (error.id, error.code) == ("a", ErrorCode.DUPLICATE_ID)
    assert made.live == ["a"]
    made.respond("a", LAST, 12.0)
    assert made.receive(Generate(id="a", prompt="now"), 13.0) != []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, ErrorCode.INVALID_REQUEST),
        ({"prompt": "a", "messages": []}, ErrorCode.INVALID_REQUEST),
        ({"prompt": "a", "window": 3}, ErrorCode.UNSUPPORTED),
        ({"prompt": "a", "resumable": True}, ErrorCode.UNSUPPORTED),
    ],
)
def test_a_generate_that_cannot_be_is_refused(fields, code):
    made = session()
    assert made.receive(Generate(id="a", **fields), 0.0) == []
    (error,) = made.take()
    assert (error.id, error.code, error.retryable) == ("a", code, RETRYABLE[code])


def test_too_many_generations_are_refused_for_now():
    made = session(max_generations=1)
    made.receive(Generate(id="a", prompt="x"), 0.0)
    made.receive(Generate(id="b", prompt="x"), 0.0)
    (error,) = made.take()
    assert (error.id, error.code, error.retryable) == ("b", ErrorCode.OVERLOADED, True)


@pytest.mark.parametrize("frame", [Ack(id="a", seq=0), Resume(id="a", ticket="t", after=0)])
def test_what_is_not_there_yet_says_so_and_ends_nothing(frame):
    made = generating()
    made.take()
    made.receive(frame, 11.0)
    (error,) = made.take()
    assert (error.id, error.code) == (None, ErrorCode.UNSUPPORTED)
    assert made.live == ["a"]


def test_ping_is_answered_and_hello_accepted():
    made = session()
    made.receive(Hello(token="x"), 0.0)
    made.receive(Ping(nonce="n"), 0.0)
    assert made.take() == [Pong(nonce="n")]


def test_a_bad_frame_with_a_live_id_does_not_end_it():
    made = generating()
    made.take()
    made.reject(BadFrame("bad", "a", code=ErrorCode.INVALID_REQUEST))
    made.reject(BadFrame("bad", "b", code=ErrorCode.INVALID_REQUEST))
    assert [error.id for error in made.take()] == [None, "b"]
    assert made.live == ["a"]


def test_every_state_can_end_and_no_end_goes_on():
    assert set(TRANSITIONS) == set(State)
    for state, following in TRANSITIONS.items():
        assert (not following) == (state in TERMINAL)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "generate",
                "cancel",
                "ended",
                "started",
                "text",
                "last",
                "fail",
                "queued",
                "take",
                "ack",
                "bad",
            ]
        ),
        st.sampled_from("ab"),
    ),
    max_size=40,
)


@given(EVENTS)
def test_every_order_of_events_ends_each_generation_exactly_once(events):
    made, frames = session(), []
    accepted = dict.fromkeys("ab", 0)
    for kind, frame_id in events:
        match kind:
            case "generate":
                accepted[frame_id] += len(made.receive(Generate(id=frame_id, prompt="x"), 0.0))
            case "cancel":
                made.receive(Cancel(id=frame_id), 0.0)
            case "ended":
                made.ended(frame_id, 0.0)
            case "started":
                made.respond(frame_id, STARTED, 0.0)
            case "text":
                made.respond(frame_id, text("x"), 0.0)
            case "last":
                made.respond(frame_id, LAST, 0.0)
            case "queued":
                made.respond(frame_id, GenerateResponse(raw_response=QueuePosition(1)), 0.0)
            case "fail":
                made.failed(frame_id, ErrorCode.INTERNAL, "x")
            case "ack":
                made.receive(Ack(id=frame_id, seq=0), 0.0)
            case "bad":
                made.reject(BadFrame("bad", frame_id, code=ErrorCode.INVALID_REQUEST))
            case "take":
                frames += made.take()
    for frame_id in list(made.live):
        made.receive(Cancel(id=frame_id), 0.0)
    frames += made.take()
    for frame_id in "ab":
        assert_well_formed([f for f in frames if getattr(f, "id", None) == frame_id], accepted)


def assert_well_formed(frames, accepted):
    """Numbers without a gap from 0, one terminal frame a generation, nothing between two."""
    frame_id = frames[0].id if frames else "a"
    terminals, expected, running = 0, 0, False
    for frame in frames:
        if isinstance(frame, Error) and frame.code in {"duplicate_id", "invalid_request"}:
            continue
        seq = getattr(frame, "seq", None)
        if seq is not None:
            assert seq == expected
            expected += 1
        running = True
        if isinstance(frame, Done | Error):
            terminals, expected, running = terminals + 1, 0, False
    assert not running
    assert terminals == (accepted[frame_id] if frames else terminals)
