"""The protocol's rules, held through every order of frames, responses, losses and resumes.

A client of the protocol stands on the other side of a session: it takes what leaves, or loses the
connection with some of it on the way, and comes back on a new one.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.protocol.codes import BadFrame, ErrorCode
from gateway.protocol.events import Failed, Refusal
from gateway.protocol.frames import (
    Ack,
    Cancel,
    Chunk,
    Done,
    Generate,
    Hello,
    Ping,
    Resume,
    Started,
    ToolCall,
)
from gateway.protocol.session import Begin, Session, TakeOver
from provider.interface import (
    GenerateResponse,
    GenerationStarted,
    PrefillProgress,
    QueuePosition,
    ToolCallDelta,
)

KEEP = 2048
IDS = ("a", "b", "c")
ids = st.sampled_from(IDS)
texts = st.tuples(
    st.sampled_from(["content", "reasoning_trace"]), st.text(min_size=1, max_size=300)
)
NOT_ENDS = {ErrorCode.DUPLICATE_ID, ErrorCode.INVALID_REQUEST, ErrorCode.NOT_RESUMABLE}


class Heard:
    """What the client knows of one generation."""

    def __init__(self, generation, window):
        self.generation = generation
        self.window = window
        self.said = {"content": "", "reasoning_trace": ""}  # by the provider
        self.calls = {}  # by the provider: arguments by index, with a full stop when complete
        self.text = {None: "", "reasoning": ""}  # as it arrived
        self.called = {}
        self.next = 0
        self.acked = -1
        self.ticket = None
        self.end = None

    def hear(self, frame):
        assert self.end is None, "something came after the end"
        seq = getattr(frame, "seq", None)
        if seq is not None:
            assert seq == self.next, "a gap, or a frame twice"
            self.next += 1
            if self.window is not None:
                assert self.next - 1 - self.acked <= self.window
        match frame:
            case Started():
                assert seq == 0
                self.ticket = frame.ticket
            case Chunk():
                assert frame.text
                self.text[frame.channel] += frame.text
            case ToolCall():
                self.hear_call(frame)
            case Done() | Failed():
                self.end = frame

    def hear_call(self, frame):
        before = self.called.get(frame.index, "")
        assert not before.endswith("."), "something came after the last part"
        assert (frame.name is not None) == (before == "")
        more = f"{frame.name or ''}{frame.arguments or ''}{'.' if frame.complete else ''}"
        self.called[frame.index] = before + more

    def check(self):
        if self.end is not None:
            assert self.text == {
                None: self.said["content"],
                "reasoning": self.said["reasoning_trace"],
            }
            assert self.called == self.calls


class Protocol(RuleBasedStateMachine):
    """One client, one connection at a time, three ids."""

    def __init__(self):
        super().__init__()
        self.tickets = 0
        self.connect()
        self.running = {}  # by id: not ended for the client
        self.lost = []  # resumable ones without a connection

    def connect(self):
        self.session = Session(new_ticket=self.new_ticket, keep_bytes=KEEP)

    def new_ticket(self):
        self.tickets += 1
        return f"t{self.tickets}"

    def said(self, frame_id, response, calls=None, **texts):
        heard = self.running.get(frame_id)
        if heard is None:
            return
        one = heard.generation
        if one.live:
            for channel, text in texts.items():
                heard.said[channel] += text
            for index, said in (calls or {}).items():
                heard.calls[index] = heard.calls.get(index, "") + said
        one.respond(response, 1.0)
        if heard not in self.lost:
            self.session.enqueue(one)

    @rule(
        frame_id=ids,
        resumable=st.sampled_from([True, True, False]),
        window=st.sampled_from([None, None, None, -1, 1, 2, 3]),
    )
    def generate(self, frame_id, resumable, window):
        frame = Generate(id=frame_id, prompt="x", resumable=resumable, window=window)
        before = self.live_here()
        for command in self.session.receive(frame, 0.0):
            assert isinstance(command, Begin)
            assert frame_id not in before
            old = self.running.get(frame_id)
            if old is not None:  # its connection was lost, and its id is used anew
                self.lost.remove(old)
            self.running[frame_id] = Heard(command.generation, window)

    def live_here(self):
        return {one.id for one in self.session.generations}

    @rule(frame_id=ids, texts=st.lists(texts, min_size=1, max_size=4), heard=st.booleans())
    def text(self, frame_id, texts, heard):
        for channel, text in texts:
            self.said(frame_id, GenerateResponse(**{channel: text}), **{channel: text})
            if heard:
                self.read()

    @rule(frame_id=ids)
    def started(self, frame_id):
        self.said(frame_id, GenerateResponse(raw_response=GenerationStarted("m", 1, 0)))

    @rule(frame_id=ids, n=st.integers(1, 9))
    def queued_or_reading(self, frame_id, n):
        heard = self.running.get(frame_id)
        begun = heard is not None and heard.generation.state.name != "QUEUED"
        event = PrefillProgress(n, 9) if begun else QueuePosition(n)
        self.said(frame_id, GenerateResponse(raw_response=event))

    @rule(frame_id=ids, parts=st.lists(st.text("x", max_size=99), max_size=3), whole=st.booleans())
    def call(self, frame_id, parts, whole):
        heard = self.running.get(frame_id)
        index = 0 if heard is None else len(heard.calls)
        if heard is None or any(not said.endswith(".") for said in heard.calls.values()):
            return  # a model ends a call before it begins the next one
        own = f"id{index}"
        deltas = [
            ToolCallDelta(index, own, "f"),
            *(ToolCallDelta(index, own, None, p) for p in parts),
        ]
        deltas += [ToolCallDelta(index, own, complete=True)] * whole
        for delta in deltas:
            said = f"{delta.name or ''}{delta.arguments or ''}{'.' * delta.complete}"
            self.said(frame_id, GenerateResponse(raw_response=delta), {index: said})

    @rule(frame_id=ids, calls=st.integers(0, 2))
    def last(self, frame_id, calls):
        heard = self.running.get(frame_id)
        before = {} if heard is None else heard.calls
        if any(not said.endswith(".") for said in before.values()):
            return
        ids = [*(f"id{n}" for n in before), *(f"new{n}" for n in range(calls))]
        called = [{"id": one, "name": "f", "arguments": {}} for one in ids]
        reason = "tool_calls" if called else "stop"
        response = GenerateResponse(finish_reason=reason, tool_calls=called or None)
        self.said(frame_id, response, {len(before) + n: "f{}." for n in range(calls)})

    @rule(frame_id=ids)
    def fails(self, frame_id):
        heard = self.running.get(frame_id)
        if heard is not None:
            heard.generation.failed(Refusal(ErrorCode.MODEL_ERROR, "x"))
            if heard not in self.lost:
                self.session.enqueue(heard.generation)

    @rule(frame_id=ids)
    def cancel(self, frame_id):
        self.session.receive(Cancel(id=frame_id), 2.0)

    @rule(frame_id=ids, ahead=st.integers(-3, 3))
    def ack(self, frame_id, ahead):
        heard = self.running.get(frame_id)
        if heard is not None and heard not in self.lost:
            seq = max(0, heard.next - 1 + ahead)
            self.session.receive(Ack(id=frame_id, seq=seq), 2.0)
            if frame_id in self.live_here():
                heard.acked = max(heard.acked, min(seq, heard.next - 1))

    @rule(frame_id=ids, nonce=st.text(max_size=3))
    def other_frames(self, frame_id, nonce):
        self.session.receive(Ping(nonce=nonce), 2.0)
        self.session.receive(Hello(), 2.0)
        self.session.reject(BadFrame("bad", frame_id, code=ErrorCode.INVALID_REQUEST))

    def leaving(self):
        frames = []
        while self.session.waiting:
            frames += self.session.pop_events()[0]
        return frames

    def hear(self, frames):
        for frame in frames:
            frame_id = getattr(frame, "id", None)
            if frame_id is None or (isinstance(frame, Failed) and frame.code in NOT_ENDS):
                continue
            heard = self.running[frame_id]
            heard.hear(frame)
            if heard.end is not None:
                heard.check()
                del self.running[frame_id]

    @rule()
    def read(self):
        self.hear(self.leaving())

    @rule(data=st.data())
    def lose_the_connection(self, data):
        frames = self.leaving()
        self.hear(frames[: data.draw(st.integers(0, len(frames)))])
        for heard in list(self.running.values()):
            if heard in self.lost:
                continue
            if heard.ticket is None:
                del self.running[heard.generation.id]
            else:
                self.lost.append(heard)
        self.connect()

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def resume(self, data):
        heard = data.draw(st.sampled_from(self.lost))
        one = heard.generation
        frame = Resume(id=one.id, ticket=heard.ticket, after=heard.next - 1)
        if self.session.receive(frame, 3.0) != [TakeOver(frame)]:
            return
        refusal = self.session.adopt(one, frame.after)
        if refusal is None:
            self.lost.remove(heard)
            heard.acked = frame.after
            return
        assert refusal.code in {ErrorCode.DUPLICATE_ID, ErrorCode.NOT_RESUMABLE}
        if refusal.code is ErrorCode.NOT_RESUMABLE:
            assert one.held_bytes > KEEP // 4, "too little was kept"
            self.lost.remove(heard)
            del self.running[one.id]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def another_connection_takes_over(self, data):
        heard = data.draw(st.sampled_from(list(self.running.values())))
        one = heard.generation
        if heard in self.lost or heard.ticket is None or one not in self.session.generations:
            return
        self.hear(self.leaving())
        if one.id not in self.running:
            return
        before = self.session
        others = [other for other in before.generations if other is not one]
        for other in others:  # it goes on here; this client follows the one that was taken
            del self.running[other.id]
        self.connect()
        assert self.session.adopt(one, heard.next - 1) is None
        heard.acked = heard.next - 1
        before.lose(one, Refusal(ErrorCode.NOT_RESUMABLE, "taken over"))
        frames = []
        while before.waiting:
            frames += before.pop_events()[0]
        own = [frame for frame in frames if getattr(frame, "id", None) == one.id]
        assert [frame.code for frame in own] == [ErrorCode.NOT_RESUMABLE]

    @invariant()
    def what_is_kept_is_bounded(self):
        for heard in self.running.values():
            one = heard.generation
            kept = one.held_bytes - one.waiting_bytes
            assert kept <= KEEP // 2 or len(one._kept) == 1
            assert heard.ticket is not None or one.ticket or kept == 0

    @invariant()
    def every_id_is_known_to_both_sides(self):
        assert self.live_here() <= set(self.running)

    def teardown(self):
        """Let every generation that has a connection come to its end."""
        for _ in range(1000):
            for heard in list(self.running.values()):
                if heard in self.lost:
                    continue
                heard.generation.cancel(9.0)
                self.ack(heard.generation.id, 0)
                self.session.enqueue(heard.generation)
            self.read()
            if all(heard in self.lost for heard in self.running.values()):
                return
        raise AssertionError("a generation does not end")


MORE = pytest.param(400, marks=pytest.mark.slow("hundreds of conversations take seconds"))


@pytest.mark.parametrize("conversations", [100, MORE])
def test_the_rules_hold_in_every_order(conversations):
    few = settings(max_examples=conversations, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(Protocol, settings=few)
