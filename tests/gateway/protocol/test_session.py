import pytest

from gateway.protocol.codes import RETRYABLE, BadFrame, ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.frames import (
    Ack,
    Cancel,
    Chunk,
    Done,
    Generate,
    Hello,
    Ping,
    Pong,
    Progress,
    Queued,
    Resume,
    Started,
)
from gateway.protocol.generation import AT_ONCE, TERMINAL, TRANSITIONS, State
from gateway.protocol.session import Begin, Session, Stop, TakeOver
from provider.interface import (
    GenerateResponse,
    GenerationStarted,
    PrefillProgress,
    QueuePosition,
)

STARTED = GenerateResponse(raw_response=GenerationStarted("m", 5, 2))
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "other": 1}
LAST = GenerateResponse(content="", finish_reason="stop", usage=USAGE)


def text(content, **fields):
    return GenerateResponse(content=content, **fields)


class Scene:
    """A session, its generations by id, and all that leaves."""

    def __init__(self, **options):
        self.session = Session(**{"keep_bytes": 4096, **options})
        self.known = {}

    def receive(self, frame, now):
        commands = self.session.receive(frame, now)
        for command in commands:
            if isinstance(command, Begin):
                self.known[command.frame.id] = command.generation
        return commands

    def _tell(self, frame_id, act):
        if frame_id in self.known:
            act(self.known[frame_id])
            self.session.enqueue(self.known[frame_id])

    def respond(self, frame_id, response, now):
        self._tell(frame_id, lambda one: one.respond(response, now))

    def ended(self, frame_id, now):
        self._tell(frame_id, lambda one: one.ended(now))

    def failed(self, frame_id, code, message):
        self._tell(frame_id, lambda one: one.failed(Refusal(code, message)))

    def reject(self, error):
        self.session.reject(error)

    def pop_events(self):
        frames = []
        while self.session.waiting:
            frames += self.session.pop_events()[0]
        return frames

    @property
    def live(self):
        return [one.id for one in self.session.generations if one.live]

    @property
    def waiting_bytes(self):
        return sum(one.waiting_bytes for one in self.known.values())


def session(**options):
    return Scene(**options)


def generating(**fields):
    made = session()
    made.receive(Generate(id="a", prompt="hi", **fields), 10.0)
    made.respond("a", STARTED, 10.5)
    return made


def test_a_generation_runs_from_started_to_done():
    made = session()
    frame = Generate(id="a", prompt="hi")
    (begin,) = made.receive(frame, 10.0)
    assert (begin.frame, begin.generation.id) == (frame, "a")
    made.respond("a", GenerateResponse(raw_response=QueuePosition(3)), 10.1)
    made.respond("a", STARTED, 10.5)
    made.respond("a", GenerateResponse(raw_response=PrefillProgress(1, 5)), 10.6)
    made.respond("a", text("Hel"), 11.0)
    assert made.pop_events() == [
        Queued(id="a", position=3),
        Started(id="a", seq=0, model="m", prompt_tokens=5, cached_tokens=2),
        Progress(id="a", done=1, total=5),
        Chunk(id="a", seq=1, text="Hel"),
    ]
    made.respond("a", text("lo"), 12.0)
    made.respond("a", LAST, 13.0)
    chunk, done = made.pop_events()
    assert chunk == Chunk(id="a", seq=2, text="lo")
    assert (done.seq, done.finish_reason) == (3, "stop")
    assert done.usage.total_tokens == 7
    assert (done.timing.queue, done.timing.first_token, done.timing.total) == (500, 1000, 3000)
    assert made.live == []


def test_generations_are_merged_each_for_itself():
    made = generating()
    made.receive(Generate(id="b", prompt="hi"), 10.0)
    for frame_id, word in (("a", "1"), ("b", "x"), ("a", "2"), ("b", "y")):
        made.respond(frame_id, text(word), 11.0)
    assert {(f.id, f.text) for f in made.pop_events() if isinstance(f, Chunk)} == {
        ("a", "12"),
        ("b", "xy"),
    }


def test_a_cancel_ends_with_one_done_at_once():
    made = generating()
    made.respond("a", text("x"), 11.0)
    assert made.receive(Cancel(id="a"), 11.0) == [Stop(made.known["a"])]
    frames = made.pop_events()
    assert [f.text for f in frames if isinstance(f, Chunk)] == ["x"]
    assert (frames[-1].finish_reason, frames[-1].usage.completion_tokens) == ("cancelled", 1)
    assert made.receive(Cancel(id="a"), 11.0) == []
    made.respond("a", text("late"), 11.0)
    made.respond("a", LAST, 11.0)
    made.ended("a", 11.0)
    made.failed("a", ErrorCode.MODEL_ERROR, "late")
    assert made.pop_events() == []


def test_a_cancel_of_nothing_is_ignored():
    made = session()
    assert made.receive(Cancel(id="a"), 0.0) == []
    assert made.pop_events() == []


def test_a_failure_is_one_error():
    made = generating()
    made.failed("a", ErrorCode.MODEL_ERROR, "broken")
    made.failed("a", ErrorCode.MODEL_ERROR, "broken")
    error = made.pop_events()[-1]
    assert (error.id, error.seq, error.code, error.message) == ("a", 1, "model_error", "broken")
    assert made.pop_events() == []


def test_a_duplicate_id_leaves_the_first_alone():
    made = generating()
    made.pop_events()
    assert made.receive(Generate(id="a", prompt="again"), 11.0) == []
    (error,) = made.pop_events()
    assert (error.id, error.code) == ("a", ErrorCode.DUPLICATE_ID)
    assert made.live == ["a"]
    made.respond("a", LAST, 12.0)
    assert made.receive(Generate(id="a", prompt="not yet"), 12.5) == []
    made.pop_events()
    assert made.receive(Generate(id="a", prompt="now"), 13.0) != []


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, ("prompt", "messages")),
        ({"prompt": "a", "messages": []}, ("prompt", "messages")),
        ({"prompt": "a", "window": 0}, ("window",)),
        ({"prompt": "a", "keep_on_close": True}, ("keep_on_close", "resumable")),
    ],
)
def test_a_generate_that_cannot_be_is_refused_and_the_fields_at_fault_are_named(given, fields):
    made = session()
    assert made.receive(Generate(id="a", **given), 0.0) == []
    (error,) = made.pop_events()
    assert (error.id, error.code, error.fields) == ("a", ErrorCode.INVALID_REQUEST, fields)
    assert error.retryable is RETRYABLE[ErrorCode.INVALID_REQUEST]
    assert "$" not in error.message


def test_too_many_generations_are_refused_for_now():
    full = Refusal(ErrorCode.RATE_LIMITED, "full")
    made = session(admit=lambda request, live: full if live else None)
    made.receive(Generate(id="a", prompt="x"), 0.0)
    made.receive(Generate(id="b", prompt="x"), 0.0)
    (error,) = made.pop_events()
    assert (error.id, error.code, error.retryable) == ("b", ErrorCode.RATE_LIMITED, True)


def test_ping_is_answered_and_hello_accepted():
    made = session()
    made.receive(Hello(token="x"), 0.0)
    made.receive(Ping(nonce="n"), 0.0)
    assert made.pop_events() == [Pong(nonce="n")]


def test_what_waits_in_answer_to_frames_is_counted_in_bytes():
    made = Session()
    made.receive(Ping(nonce="n" * 64), 0.0)
    made.receive(Ping(nonce=7), 0.0)
    made.reject(BadFrame("bad", "a", code=ErrorCode.INVALID_REQUEST, fields=("prompt",)))
    assert made.waiting_bytes == 64 + len("bad") + len("prompt")
    while made.waiting:
        made.pop_events()
    assert made.waiting_bytes == 0


def test_a_bad_frame_with_a_live_id_does_not_end_it():
    made = generating()
    made.pop_events()
    made.reject(BadFrame("bad", "a", code=ErrorCode.INVALID_REQUEST))
    made.reject(BadFrame("bad", "b", code=ErrorCode.INVALID_REQUEST))
    assert [error.id for error in made.pop_events()] == [None, "b"]
    assert made.live == ["a"]


def test_every_state_can_end_and_no_end_goes_on():
    assert set(TRANSITIONS) == set(State)
    for state, following in TRANSITIONS.items():
        assert (not following) == (state in TERMINAL)


# Windows. ---------------------------------------------------------------------------------------


def test_with_a_window_no_more_leaves_than_is_acknowledged():
    made = generating(window=2)
    for channel in ("content", "reasoning_trace", "content"):
        made.respond("a", GenerateResponse(**{channel: "x"}), 11.0)
        made.respond("a", GenerateResponse(**{channel: "y"}), 11.0)
    made.respond("a", LAST, 12.0)
    first = made.pop_events()
    assert [frame.seq for frame in first] == [0, 1]
    assert made.known["a"].window_closed
    assert made.pop_events() == []
    made.receive(Ack(id="a", seq=0), 12.0)
    assert [frame.seq for frame in made.pop_events()] == [2]
    made.receive(Ack(id="a", seq=2), 12.0)
    last = made.pop_events()
    assert [frame.seq for frame in last] == [3, 4]
    made.receive(Ack(id="a", seq=999), 12.0)  # counts as far as anything was sent
    assert made.known["a"].over
    (done,) = [frame for frame in [*first, *last] if isinstance(frame, Done)]
    assert (done.finish_reason, list(made.session.generations)) == ("stop", [])
    made.receive(Ack(id="a", seq=9), 12.0)
    assert made.pop_events() == []


def test_a_cancel_waits_for_its_window_and_the_id_stays_taken():
    made = generating(window=1)
    made.respond("a", text("x"), 11.0)
    assert [frame.seq for frame in made.pop_events()] == [0]
    made.receive(Cancel(id="a"), 11.0)
    assert made.pop_events() == []
    assert made.receive(Generate(id="a", prompt="again"), 11.0) == []
    assert made.pop_events()[0].code == ErrorCode.DUPLICATE_ID
    made.receive(Ack(id="a", seq=0), 12.0)
    made.receive(Ack(id="a", seq=0), 12.0)
    assert [frame.text for frame in made.pop_events()] == ["x"]
    made.receive(Ack(id="a", seq=1), 12.0)
    assert made.pop_events()[0].finish_reason == "cancelled"


# Resuming. --------------------------------------------------------------------------------------


def resumable(**fields):
    made = session(new_ticket=lambda: "t")
    made.receive(Generate(id="a", prompt="hi", resumable=True, **fields), 10.0)
    made.respond("a", STARTED, 10.5)
    return made


def test_only_what_asks_for_it_gets_a_ticket():
    assert resumable().pop_events()[0].ticket == "t"
    made = session(new_ticket=lambda: "t")
    made.receive(Generate(id="a", prompt="hi"), 10.0)
    made.respond("a", STARTED, 10.5)
    assert made.pop_events()[0].ticket is None


@pytest.mark.parametrize("after", range(-1, 5))
def test_what_has_left_leaves_again_on_another_connection(after):
    made = resumable()
    sent = made.pop_events()
    for word in "abcd":
        made.respond("a", text(word), 11.0)
        sent += made.pop_events()
    other = session()
    (generation,) = made.session.generations
    made.respond("a", text("e"), 12.0)
    made.respond("a", text("f"), 12.0)
    assert other.receive(Resume(id="a", ticket="t", after=after), 12.0) == [
        TakeOver(Resume(id="a", ticket="t", after=after))
    ]
    assert other.session.adopt(generation, after) is None
    other.known["a"] = generation
    other.respond("a", LAST, 13.0)
    again = other.pop_events()
    assert again[: 4 - after] == sent[after + 1 :]
    assert [frame.seq for frame in again] == list(range(after + 1, 7))
    assert again[-2].text == "ef"
    made.session.lose(generation, Refusal(ErrorCode.NOT_RESUMABLE, "taken over"))
    assert [frame.code for frame in made.pop_events()] == [ErrorCode.NOT_RESUMABLE]
    assert list(made.session.generations) == []


def test_others_have_turns_between_what_leaves_again():
    made = session(new_ticket=lambda: "t", keep_bytes=1 << 20)
    made.receive(Generate(id="a", prompt="hi", resumable=True), 10.0)
    for _ in range(AT_ONCE + 9):
        made.respond("a", text("x"), 11.0)
        made.pop_events()
    other = session()
    [generation] = made.session.generations
    assert other.session.adopt(generation, -1) is None
    other.receive(Generate(id="b", prompt="hi"), 12.0)
    other.respond("b", text("b"), 12.0)
    turns = [other.session.pop_events() for _ in range(3)]
    assert [(one.id, len(events)) for events, one in turns] == [
        ("a", AT_ONCE),
        ("b", len(["started", "b"])),
        ("a", 9 + len(["started"])),
    ]
    assert not other.session.waiting


def test_a_resume_with_nothing_left_takes_one_turn_also_where_the_one_before_was_cut_off():
    made = session(new_ticket=lambda: "t", keep_bytes=1 << 20)
    made.receive(Generate(id="a", prompt="hi", resumable=True), 10.0)
    for _ in range(AT_ONCE + 9):
        made.respond("a", text("x"), 11.0)
        made.pop_events()
    [generation] = made.session.generations
    cut_off, other = session(), session()
    assert cut_off.session.adopt(generation, -1) is None
    assert len(cut_off.session.pop_events()[0]) == AT_ONCE
    assert other.session.adopt(generation, generation.newest) is None
    assert other.session.pop_events() == ([], generation)
    assert not other.session.waiting


def test_what_is_not_kept_or_was_never_sent_cannot_be_resumed():
    made = resumable()
    for _ in range(40):
        made.respond("a", text("x" * 100), 11.0)
        made.pop_events()
    generation = made.known["a"]
    assert generation.held_bytes <= 2048
    for after, said in ((0, "is no longer kept"), (41, "no frame 41")):
        refusal = session().session.adopt(generation, after)
        assert (refusal.code, said in refusal.message) == (ErrorCode.NOT_RESUMABLE, True)
    assert session().session.adopt(generation, 39) is None


def test_a_generation_is_not_taken_over_beside_another_of_its_id():
    made, other = resumable(), generating()
    made.pop_events()
    assert other.session.adopt(made.known["a"], 0).code == ErrorCode.DUPLICATE_ID
    assert other.live == ["a"]


def test_what_is_acknowledged_is_not_kept():
    made = resumable()
    for _ in range(5):
        made.respond("a", text("x" * 100), 11.0)
        made.pop_events()
    before = made.known["a"].held_bytes
    made.receive(Ack(id="a", seq=5), 12.0)
    assert made.known["a"].held_bytes < before / 3
