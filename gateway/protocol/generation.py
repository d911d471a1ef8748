"""One generation as a state machine, without I/O: a provider's responses in, events out.

Rule 1: every change of state is in TRANSITIONS.
Rule 2: it ends with exactly one terminal event, `done` or `failed`, and nothing follows it.
Rule 3: events are numbered when they are sent, or when followers read them while no first reader
is connected. Texts that wait for a slow client are merged into one chunk; none is dropped or
reordered, and the numbers have no gap.
Rule 4: with a window of n, at most n numbered events are sent beyond the last acknowledged one.
Rule 5: a resumable generation keeps its newest sent events, up to a bound in bytes, so that they
can be sent again on another connection.
Rule 6: a generation that is not streamed ends when its answer would not fit into one frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Literal

import msgspec

from gateway.protocol.answer import Answer, whole_call
from gateway.protocol.events import Event, Failed, Refusal
from gateway.protocol.frames import (
    Done,
    Generate,
    Loading,
    Progress,
    Queued,
    Started,
    Timing,
    Usage,
)
from gateway.protocol.outbox import (
    FRAME_BYTES,
    Channel,
    Numbered,
    PackedLogprobs,
    Waiting,
    WaitingCall,
    WaitingFrame,
    WaitingText,
)
from provider.interface import (
    AnswerTokens,
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
)

__all__ = ["AT_ONCE", "TERMINAL", "TRANSITIONS", "Generation", "NotResumable", "State"]

AT_ONCE = 64  # events that are sent again at once; others have turns before the next ones
MAX_ANSWERS = 1024  # bound on `n` here, for memory; the provider has its own, smaller limit
USAGE_FIELDS = frozenset(Usage.__struct_fields__)


class State(Enum):
    """The state of a generation."""

    QUEUED = auto()  # accepted, not yet begun by the provider
    RUNNING = auto()  # begun by the provider; `started` is waiting or sent
    DONE = auto()
    CANCELLED = auto()
    FAILED = auto()


TERMINAL = frozenset({State.DONE, State.CANCELLED, State.FAILED})
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.DONE, State.CANCELLED, State.FAILED}),
    State.DONE: frozenset(),
    State.CANCELLED: frozenset(),
    State.FAILED: frozenset(),
}


class NotResumable(Exception):  # noqa: N818 - a message for the client, not a fault of ours
    """The events that a client asks for can't be sent again; `fields` are the fields at fault."""

    def __init__(self, message: str, fields: tuple[str, ...] = ()):
        super().__init__(message)
        self.fields = fields


class Generation:
    """The state of one generation, and its events that wait to be sent.

    Responses after its end are ignored. A generation with a `ticket` can be resumed, and keeps up
    to `keep_bytes` of sent and waiting events. Without streaming, it ends with the reason `length`
    when its answers exceed `max_bytes`, and keeps their log-probabilities as msgpack if `binary`.
    """

    def __init__(
        self,
        frame: Generate,
        now: float,
        *,
        default_model: str = "",
        ticket: str | None = None,
        keep_bytes: int = 0,
        max_bytes: int | None = None,
        binary: bool = False,
    ):
        self.id = frame.id
        self.answers = max(1, min(frame.n or 1, MAX_ANSWERS))  # how many, ended ones included
        self.ticket = ticket
        self.state = State.QUEUED
        self.live = True  # False once its end is known
        self.reason = ""  # a finish_reason or an error's code, once ended
        self.usage = Usage()  # final counts, once ended
        self.timing = Timing()
        self.waiting_bytes = 0  # size of the text that is not sent, in bytes of UTF-8
        self.unsent_bytes = 0  # of that, answers that are sent as a whole once they have ended
        self.merged = 0  # texts that were merged into a waiting one
        self.model = ""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.accepted_at = now  # seconds, on the caller's clock
        self.started_at: float | None = None
        self.first_text_at: float | None = None
        self._default_model = default_model
        self.keep_on_close = frame.keep_on_close  # whether it goes on when its page is left
        self._streamed = frame.stream
        self._window = frame.window
        self._waiting: deque[Waiting] = deque()
        # The newest waiting item of each answer.
        self._newest: dict[int, WaitingText | WaitingCall] = {}
        self._next_seq = 0
        self._sent_seq = -1  # the highest `seq` sent on this connection
        self._acked = -1
        self._keep_bytes = keep_bytes
        self._max_bytes = max_bytes
        # The sent events before `_next_seq`, in order and without a gap, each with its size.
        self._kept: deque[tuple[Numbered, int]] = deque()
        self.more_again = False  # whether others are to be sent again in turns to come
        self.kept_bytes = 0  # size of the events that can be sent again
        self.followed = False  # whether there are other readers of what is kept
        self._answers = [
            Answer(logprobs=PackedLogprobs(binary=binary)) for _ in range(self.answers)
        ]

    # State.

    @property
    def over(self) -> bool:
        """Whether its terminal event has been sent on this connection."""
        return not (self.live or self._waiting or self.behind)

    @property
    def resumable(self) -> bool:
        """Whether the client may have received its ticket."""
        return self.ticket is not None and self._next_seq > 0

    @property
    def window_closed(self) -> bool:
        """Whether the client must acknowledge an event before more can be sent."""
        return self._window is not None and self._sent_seq - self._acked >= self._window

    @property
    def held_bytes(self) -> int:
        """Bytes held in memory for the client."""
        return self.kept_bytes + self.waiting_bytes

    @property
    def holds_enough(self) -> bool:
        """Whether it holds as many bytes as it may while no client is connected to it."""
        return self.held_bytes >= self._keep_bytes

    @property
    def behind(self) -> bool:
        """Whether events are yet to be sent again."""
        return self._sent_seq < self._next_seq - 1

    # Requests of the client.

    def cancel(self, now: float) -> bool:
        """Cancel the generation; return False if it had ended."""
        if not self.live:
            return False
        self._become(State.CANCELLED)
        self._wait_done("cancelled", self._counted(), self._timing(None, now))
        return True

    def ack(self, seq: int) -> None:
        """Record that the client has processed all sent events up to the number `seq`."""
        self._acked = max(self._acked, min(seq, self._sent_seq))
        if not (self.keep_on_close or self.followed):  # then a page without any of them may come
            self._drop_kept(lambda frame: (frame.seq or 0) <= self._acked)

    def replay(self, after: int) -> None:
        """Send all events after the number `after` again. Raises NotResumable."""
        self.check_kept(after)
        self._sent_seq = self._acked = after
        self.more_again = False  # what a connection before may have left

    def check_kept(self, after: int) -> None:
        """Raise NotResumable unless all events after the number `after` are kept."""
        if after >= self._next_seq:
            raise NotResumable(f"no frame {after} has been sent", ("after",))
        if after + 1 < self._next_seq - len(self._kept):
            raise NotResumable(f"frame {after + 1} is no longer kept")

    # Followers.

    @property
    def newest(self) -> int:
        """The highest number so far, -1 for none."""
        return self._next_seq - 1

    def kept(self, seq: int) -> Numbered | None:
        """Return the event with this number, which has been given; None if it is not kept."""
        behind = self._next_seq - seq
        return self._kept[-behind][0] if behind <= len(self._kept) else None

    def keep_at_most(self, size: int) -> None:
        """Forget the oldest events beyond a size, except those that are yet to be sent again."""
        if not self.behind:
            self._drop_kept(lambda first: self.kept_bytes > size)

    def number(self) -> None:
        """Give all that waits a number, and keep it until the first reader comes back."""
        while self._waiting:
            self._leave(self._waiting.popleft())

    # Responses of the provider.

    def respond(self, response: GenerateResponse, now: float) -> None:
        """Add the events for one response of the provider's stream."""
        if not self.live:
            return
        raw = response.raw_response
        # The responses of a provider without `n` have no `choice`.
        most = len(self._answers) - 1
        choice = min(getattr(response, "choice", 0), most) if most else 0
        if raw is not None and self._add_event(raw, choice, now):
            return
        if self.state is State.QUEUED:
            self._begin(now)
        logprobs = raw.tokens if isinstance(raw, TokenLogprobs) else ()
        if response.reasoning_trace:
            self._add_text(response.reasoning_trace, "reasoning", choice, now, logprobs)
        elif response.content:
            self._add_text(response.content, None, choice, now, logprobs)
        if response.reasoning_trace and response.content:
            self._add_text(response.content, None, choice, now, ())
        if response.finish_reason is not None:
            self._finish(response, choice, now)
        if self._max_bytes is not None and self.unsent_bytes > self._max_bytes:
            self.ended(now, "length")

    def _add_event(self, event: object, choice: int, now: float) -> bool:
        """Add the event of a response without text; return False if `event` is of another kind."""
        match event:
            case ModelLoading(model, done, total, warming_up):
                self._tell(Loading, model=model, done=done, total=total, warming_up=warming_up)
            case QueuePosition(position):
                self._tell(Queued, position=position)
            case PrefillProgress(done, total):
                self._begin(now)
                self._tell(Progress, done=done, total=total)
            case AnswerTokens(first, tokens):
                self._tell_tokens(first, list(tokens))
            case ToolCallDelta():
                self._begin(now)
                self._add_call(event, choice)
            case GenerationStarted(model, prompt_tokens, cached_tokens):
                self.model = model
                self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens
                self._begin(now)
            case _:
                return False
        return True

    def ended(self, now: float, reason: Literal["stop", "length"] = "stop") -> None:
        """End the answers that the provider has not ended itself, with `reason`."""
        if self.live:
            self._begin(now)
            for choice, answer in enumerate(list(self._answers)):
                if answer.last is None:
                    usage = msgspec.structs.asdict(self._counted(answer))
                    end = GenerateResponse(finish_reason=reason, usage=usage)
                    self._finish(end, choice, now)

    def failed(self, why: Refusal) -> None:
        """End the generation with an error; do nothing if it has ended."""
        if not self.live:
            return
        fields = {
            "code": why.code,
            "message": why.message,
            "retry_after": why.retry_after,
            "fields": why.fields,
        }
        started = self.state is State.RUNNING
        self._become(State.FAILED)
        self.reason, self.usage = why.code.value, self._counted()
        self._answers = [Answer()]
        self.waiting_bytes -= self.unsent_bytes
        self.unsent_bytes = 0
        self._waiting.append(WaitingFrame(Failed, fields, numbered=started))

    # Sending.

    def pop_events(self) -> list[Event]:
        """Remove and return the events that may be sent now, numbered, in order."""
        # Runs for almost every token: no property is called where an attribute will do.
        frames: list[Event] = []
        if self._sent_seq < self._next_seq - 1:
            frames += self._again()
            if self.more_again:
                return frames
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if first.numbered:
                if self._sent_seq < self._next_seq - 1:
                    break
                if self._window is not None and self.window_closed:
                    break
            frames.append(self._leave(waiting.popleft()))
            if first.numbered:
                self._sent_seq = self._next_seq - 1
        # The other half is left for events that come while the client is away.
        if self.kept_bytes > self._keep_bytes // 2 and not self.behind:
            self._drop_kept(lambda first: self.kept_bytes > self._keep_bytes // 2)
        return frames

    def _again(self) -> list[Numbered]:
        """Return events that are sent again, AT_ONCE at most."""
        frames: list[Numbered] = []
        while self.behind and not self.window_closed and len(frames) < AT_ONCE:
            frame = self.kept(self._sent_seq + 1)
            assert frame is not None, "what is yet to be sent again is kept"
            frames.append(frame)
            self._sent_seq += 1
        self.more_again = self.behind and not self.window_closed
        return frames

    def _leave(self, item: Waiting) -> Event:
        self.waiting_bytes -= item.size
        if not item.numbered:
            return item.frame(self.id, None)
        if not isinstance(item, WaitingFrame) and self._newest.get(item.choice) is item:
            del self._newest[item.choice]
        frame = item.frame(self.id, self._next_seq)
        self._next_seq += 1
        if self.ticket is not None:
            self._kept.append((frame, FRAME_BYTES + item.size))  # type: ignore[arg-type]
            self.kept_bytes += FRAME_BYTES + item.size
        return frame

    def _drop_kept(self, may_go: Callable[[Numbered], bool]) -> None:
        while len(self._kept) > 1 and may_go(self._kept[0][0]):
            self.kept_bytes -= self._kept.popleft()[1]

    # Waiting events.

    def _become(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} cannot become {state}"
        self.state = state
        self.live = state not in TERMINAL

    def _tell(self, kind: type[Any], **fields: Any) -> None:
        """Add an unnumbered event; it replaces the newest waiting event if that is of its kind."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, WaitingFrame) and last.kind is kind:
            last.fields = fields
        else:
            self._waiting.append(WaitingFrame(kind, fields, numbered=False))

    def _tell_tokens(self, first: int, tokens: list[int]) -> None:
        """Add the ids of tokens of the answer, joined to those that wait as the newest event."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, WaitingFrame) and last.kind is Progress and last.fields.get("tokens"):
            first, tokens = last.fields["first"], last.fields["tokens"] + tokens
        total = self.prompt_tokens
        self._tell(Progress, done=total, total=total, first=first, tokens=tokens)

    def _begin(self, now: float) -> None:
        if self.state is not State.QUEUED:
            return
        self._become(State.RUNNING)
        self.started_at = now
        fields = {
            "model": self.model or self._default_model,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "ticket": self.ticket,
        }
        self._waiting.append(WaitingFrame(Started, fields))

    def _add_text(
        self,
        text: str,
        channel: Channel,
        choice: int,
        now: float,
        logprobs: Sequence[dict[str, Any]],
    ) -> None:
        if self.first_text_at is None:
            self.first_text_at = now
        answer = self._answers[choice]
        answer.pieces += 1
        if not self._streamed:
            self._add_unsent(answer.add_text(channel, text, logprobs))
            return
        last = self._newest.get(choice)
        if isinstance(last, WaitingText) and last.channel == channel:
            self.merged += 1
        else:
            last = self._newest[choice] = WaitingText(channel, choice)
            self._waiting.append(last)
        self.waiting_bytes += last.add(text, logprobs)

    def _add_call(self, part: ToolCallDelta, choice: int) -> None:
        answer = self._answers[choice]
        if part.complete:
            answer.complete_ids.add(part.id)
        answer.calls = max(answer.calls, part.index + 1)
        if not self._streamed:
            self._add_unsent(answer.add_call(part))
            return
        last = self._newest.get(choice)
        if not isinstance(last, WaitingCall) or last.index != part.index:
            last = self._newest[choice] = WaitingCall(part.index, part.id, choice)
            self._waiting.append(last)
        self.waiting_bytes += last.add(part)

    def _add_unsent(self, size: int) -> None:
        self.unsent_bytes += size
        self.waiting_bytes += size

    def _finish(self, response: GenerateResponse, choice: int, now: float) -> None:
        """End one answer; when all have ended, the generation ends."""
        answer, raw = self._answers[choice], response.raw_response
        broken = raw.broken_calls if isinstance(raw, GenerationTiming) else ()
        calls = [whole_call(n, call) for n, call in enumerate(response.tool_calls or ())]
        for part in [*calls, *broken]:
            if part.id not in answer.complete_ids:
                self._add_call(replace(part, index=answer.calls), choice)
        answer.last = response
        if all(one.last is not None for one in self._answers):
            self._become(State.DONE)
            self._wait_done(self._answers[0].reason, self._used(), self._timing(raw, now))

    def _used(self) -> Usage:
        """Return the provider's counts, summed over the answers, with the prompt counted once."""
        ends = [answer.last.usage or {} for answer in self._answers if answer.last is not None]
        usage = {name: ends[0].get(name, 0) for name in USAGE_FIELDS}
        for more in ends[1:]:
            for name in ("completion_tokens", "reasoning_tokens"):
                usage[name] += more.get(name, 0)
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return Usage(**usage)

    def _wait_done(self, reason: Any, usage: Usage, timing: Timing) -> None:
        self.reason, self.usage, self.timing = reason, usage, timing
        fields: dict[str, Any] = {"finish_reason": reason, "usage": usage, "timing": timing}
        answers = self._answers
        if not self._streamed:
            fields |= answers[0].fields()
        if len(answers) > 1:
            fields["choices"] = [
                {"finish_reason": one.reason} | ({} if self._streamed else _given(one.fields()))
                for one in answers
            ]
        self._answers = [Answer()]
        self._waiting.append(WaitingFrame(Done, fields, size=self.unsent_bytes))
        self.unsent_bytes = 0

    def _counted(self, *answers: Answer) -> Usage:
        """Return the usage of the given answers, by default all, without the provider's counts.

        Each text that the provider has sent counts as one token.
        """
        pieces = sum(answer.pieces for answer in answers or self._answers)
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=pieces,
            total_tokens=self.prompt_tokens + pieces,
            cached_tokens=self.cached_tokens,
        )

    def _timing(self, given: object, now: float) -> Timing:
        """Return the provider's timing if `given` is one, else a timing measured here."""
        if isinstance(given, GenerationTiming):
            return Timing(
                queue=round(given.queue_ms, 3),
                prefill=round(given.prefill_ms, 3),
                first_token=round(given.first_token_ms, 3),
                total=round(given.total_ms, 3),
                tokens_per_second=round(given.tokens_per_second, 3),
            )
        accepted, started, first = self.accepted_at, self.started_at, self.first_text_at
        decode_s = now - first if first is not None else 0.0
        pieces = sum(answer.pieces for answer in self._answers)
        return Timing(
            queue=round(((started if started is not None else now) - accepted) * 1000, 3),
            prefill=round((first - started) * 1000, 3) if first and started else 0.0,
            first_token=round((first - accepted) * 1000, 3) if first is not None else 0.0,
            total=round((now - accepted) * 1000, 3),
            tokens_per_second=round((pieces - 1) / decode_s, 3) if decode_s > 0 else 0.0,
        )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
