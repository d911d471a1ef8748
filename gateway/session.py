"""One client connection as a state machine, without I/O.

Frames and a provider's responses go in, frames and commands come out; time is an argument.

Rule 1: every change of a generation's state is in TRANSITIONS.
Rule 2: an accepted `generate` ends with exactly one terminal frame, `done` or `error`, and nothing
with its id follows it until the id is used again.
Rule 3: text is numbered when it leaves, not when it comes: chunks that wait for a slow client
merge, none is dropped, none is reordered, and the numbers have no gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

import msgspec

from gateway.frames import (
    RETRYABLE,
    Ack,
    BadFrame,
    Cancel,
    Chunk,
    ClientFrame,
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
    ServerFrame,
    Started,
    Timing,
    ToolCall,
    Usage,
)
from provider.interface import (
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    PrefillProgress,
    QueuePosition,
)

__all__ = ["TRANSITIONS", "Begin", "Command", "Session", "State", "Stop"]

REASONS = frozenset({"stop", "length", "tool_calls"})
USAGE_FIELDS = frozenset(Usage.__struct_fields__)


class State(Enum):
    """Where a generation is."""

    QUEUED = auto()  # accepted; the provider has not begun
    RUNNING = auto()  # `started` is on its way
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


@dataclass(frozen=True)
class Begin:
    """Command: call the provider for this generation."""

    frame: Generate


@dataclass(frozen=True)
class Stop:
    """Command: stop pulling this generation and close it; its `done` is queued already."""

    id: str


Command = Begin | Stop


@dataclass
class _Generation:
    """What the session knows of one generation."""

    frame: Generate
    accepted_at: float  # seconds, on the caller's clock
    state: State = State.QUEUED
    next_seq: int = 0
    started_at: float | None = None
    first_text_at: float | None = None
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    deltas: int = 0
    text: list[str] = field(default_factory=list)  # kept only for stream=false
    reasoning: list[str] = field(default_factory=list)

    def become(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} cannot become {state}"
        self.state = state


@dataclass
class _Tail:
    """A chunk that still waits, which more text of its channel may join."""

    id: str
    seq: int
    channel: Literal["reasoning"] | None
    texts: list[str] = field(default_factory=list)

    def frame(self) -> Chunk:
        return Chunk(id=self.id, seq=self.seq, text="".join(self.texts), channel=self.channel)


class Session:
    """The rules of one connection.

    `receive`, `reject`, `respond`, `ended` and `failed` take what happened and queue frames; `take`
    hands them out, numbered, in order. What comes for a generation that has ended is ignored.
    """

    def __init__(self, ready: Ready, *, max_generations: int):
        self.waiting_bytes = 0  # of text, in UTF-8, that nobody has taken yet
        self._max_generations = max_generations
        self._default_model = ready.models[0] if ready.models else ""
        self._live: dict[str, _Generation] = {}
        self._outbox: deque[ServerFrame | _Tail] = deque()
        self._tails: dict[str, _Tail] = {}  # the chunk that the next text of an id may join
        self._put(ready)

    # What the connection asks.

    @property
    def live(self) -> Sequence[str]:
        """The ids that have no terminal frame yet."""
        return list(self._live)

    @property
    def waiting_frames(self) -> int:
        """How many frames `take` would return."""
        return len(self._outbox)

    def take(self) -> list[ServerFrame]:
        """Return what is to be sent now."""
        frames, self._outbox = list(self._outbox), deque()
        self._tails.clear()
        self.waiting_bytes = 0
        return [frame.frame() if isinstance(frame, _Tail) else frame for frame in frames]

    # What the client sends.

    def receive(self, frame: ClientFrame, now: float) -> list[Command]:
        """Take a frame of the client; return what has to be done for it."""
        match frame:
            case Generate():
                return self._generate(frame, now)
            case Cancel(id=frame_id):
                return self.cancel(frame_id, now)
            case Ping(nonce=nonce):
                self._put(Pong(nonce=nonce))
            case Hello():
                pass  # who is here is let in already
            case Ack(id=frame_id) | Resume(id=frame_id):
                name = "ack" if isinstance(frame, Ack) else "resume"
                # Said without the id: an error with a live one would end its generation.
                self.refuse(None, ErrorCode.UNSUPPORTED, f"`{name}` is not supported yet")
        return []

    def reject(self, error: BadFrame) -> None:
        """Answer a frame that could not be read; a live generation of that id is not disturbed."""
        frame_id = None if error.frame_id in self._live else error.frame_id
        self.refuse(frame_id, error.code, str(error))

    def _generate(self, frame: Generate, now: float) -> list[Command]:
        refusal = self._refusal(frame)
        if refusal is not None:
            self.refuse(frame.id, *refusal)
            return []
        self._live[frame.id] = _Generation(frame, now)
        return [Begin(frame)]

    def _refusal(self, frame: Generate) -> tuple[ErrorCode, str] | None:
        if frame.id in self._live:
            return ErrorCode.DUPLICATE_ID, f"`$.id`: `{frame.id}` is already running"
        if frame.window is not None or frame.resumable:
            field_name = "resumable" if frame.resumable else "window"
            return ErrorCode.UNSUPPORTED, f"`$.{field_name}` is not supported yet"
        if (frame.prompt is None) == (frame.messages is None):
            return ErrorCode.INVALID_REQUEST, "give either `$.prompt` or `$.messages`"
        if len(self._live) >= self._max_generations:
            limit = f"at most {self._max_generations} generations run on one connection"
            return ErrorCode.OVERLOADED, limit
        return None

    def cancel(self, frame_id: str, now: float) -> list[Command]:
        """End a generation at once; return what has to be done for it, nothing if it ended."""
        generation = self._live.get(frame_id)
        if generation is None:
            return []
        generation.become(State.CANCELLED)
        timing = _timing(generation, None, now)
        self._end(self._done(generation, "cancelled", _counted(generation), timing))
        return [Stop(frame_id)]

    # What the provider gives.

    def respond(self, frame_id: str, response: GenerateResponse, now: float) -> None:
        """Take one response of a generation's stream."""
        generation = self._live.get(frame_id)
        if generation is None:
            return
        match response.raw_response:
            case QueuePosition(position):
                self._put(Queued(id=frame_id, position=position))
                return
            case PrefillProgress(done, total):
                self._begin(generation, now)
                self._put(Progress(id=frame_id, done=done, total=total))
                return
            case GenerationStarted(model, prompt_tokens, cached_tokens):
                generation.model = model
                generation.prompt_tokens, generation.cached_tokens = prompt_tokens, cached_tokens
                self._begin(generation, now)
                return
            case _:
                self._begin(generation, now)
        self._add_text(generation, response, now)
        if response.finish_reason is not None:
            self._finish(generation, response, now)

    def ended(self, frame_id: str, now: float) -> None:
        """End a generation whose stream is over without having said why, as some providers' are."""
        generation = self._live.get(frame_id)
        if generation is not None:
            self._begin(generation, now)
            last = GenerateResponse(
                finish_reason="stop", usage=msgspec.structs.asdict(_counted(generation))
            )
            self._finish(generation, last, now)

    def failed(
        self, frame_id: str, code: ErrorCode, message: str, retry_after: float | None = None
    ) -> None:
        """End a generation whose provider raised; `retry_after` in seconds, if it said so."""
        generation = self._live.get(frame_id)
        if generation is None:
            return
        seq = self._number(generation) if generation.state is State.RUNNING else None
        generation.become(State.FAILED)
        self._end(
            Error(
                id=frame_id,
                seq=seq,
                code=code,
                message=message,
                retryable=RETRYABLE[code],
                retry_after=retry_after,
            )
        )

    def _begin(self, generation: _Generation, now: float) -> None:
        if generation.state is not State.QUEUED:
            return
        generation.become(State.RUNNING)
        generation.started_at = now
        self._put(
            Started(
                id=generation.frame.id,
                seq=self._number(generation),
                model=generation.model or self._default_model,
                prompt_tokens=generation.prompt_tokens,
                cached_tokens=generation.cached_tokens,
            )
        )

    def _add_text(self, generation: _Generation, response: GenerateResponse, now: float) -> None:
        if not (response.reasoning_trace or response.content):
            return
        generation.deltas += 1
        if generation.first_text_at is None:
            generation.first_text_at = now
        streamed = generation.frame.stream
        if response.reasoning_trace:
            if streamed:
                self._put_text(generation, response.reasoning_trace, "reasoning")
            else:
                generation.reasoning.append(response.reasoning_trace)
        if response.content:
            if streamed:
                self._put_text(generation, response.content, None)
            else:
                generation.text.append(response.content)

    def _finish(self, generation: _Generation, response: GenerateResponse, now: float) -> None:
        calls = response.tool_calls or []
        if generation.frame.stream:
            for index, call in enumerate(calls):
                self._put(_tool_call(generation.frame.id, self._number(generation), index, call))
        generation.become(State.DONE)
        usage = Usage(**{k: v for k, v in (response.usage or {}).items() if k in USAGE_FIELDS})
        timing = _timing(generation, response.raw_response, now)
        reason = response.finish_reason if response.finish_reason in REASONS else "stop"
        self._end(self._done(generation, reason, usage, timing, calls))

    def _done(
        self,
        generation: _Generation,
        reason: Any,
        usage: Usage,
        timing: Timing,
        calls: Sequence[dict[str, Any]] = (),
    ) -> Done:
        whole: dict[str, Any] = {}
        if not generation.frame.stream:
            whole = {
                "text": "".join(generation.text),
                "reasoning": "".join(generation.reasoning) or None,
                "tool_calls": list(calls) or None,
            }
        seq = self._number(generation)
        return Done(
            id=generation.frame.id,
            seq=seq,
            finish_reason=reason,
            usage=usage,
            timing=timing,
            **whole,
        )

    # The outbox.

    def _number(self, generation: _Generation) -> int:
        """Return the next number. Text that waits keeps the number that it took first."""
        self._tails.pop(generation.frame.id, None)
        seq, generation.next_seq = generation.next_seq, generation.next_seq + 1
        return seq

    def _put(self, frame: ServerFrame) -> None:
        self._outbox.append(frame)

    def _put_text(
        self, generation: _Generation, text: str, channel: Literal["reasoning"] | None
    ) -> None:
        frame_id = generation.frame.id
        tail = self._tails.get(frame_id)
        if tail is None or tail.channel != channel:
            tail = _Tail(frame_id, self._number(generation), channel)
            self._tails[frame_id] = tail
            self._outbox.append(tail)
        tail.texts.append(text)
        self.waiting_bytes += len(text.encode("utf-8", "surrogatepass"))

    def _end(self, frame: Done | Error) -> None:
        assert frame.id is not None
        assert frame.id in self._live, "a generation ends once"
        del self._live[frame.id]
        self._put(frame)

    def refuse(self, frame_id: str | None, code: ErrorCode, message: str) -> None:
        """Say that a frame is not accepted; this ends no generation that is live."""
        self._put(Error(id=frame_id, code=code, message=message, retryable=RETRYABLE[code]))


def _counted(generation: _Generation) -> Usage:
    """Return the usage as far as the session itself can tell."""
    return Usage(
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.deltas,
        total_tokens=generation.prompt_tokens + generation.deltas,
        cached_tokens=generation.cached_tokens,
    )


def _tool_call(frame_id: str, seq: int, index: int, call: dict[str, Any]) -> ToolCall:
    return ToolCall(
        id=frame_id,
        seq=seq,
        index=index,
        call_id=str(call.get("id") or f"call_{index}"),
        name=call.get("name"),
        arguments=msgspec.json.encode(call.get("arguments") or {}).decode(),
        complete=True,
    )


def _timing(generation: _Generation, given: object, now: float) -> Timing:
    """Return the provider's own timing, or what the session saw from where it stands."""
    if isinstance(given, GenerationTiming):
        return Timing(
            queue=round(given.queue_ms, 3),
            prefill=round(given.prefill_ms, 3),
            first_token=round(given.first_token_ms, 3),
            total=round(given.total_ms, 3),
            tokens_per_second=round(given.tokens_per_second, 3),
        )
    accepted, started = generation.accepted_at, generation.started_at
    first = generation.first_text_at
    decode_s = now - first if first is not None else 0.0
    return Timing(
        queue=round(((started if started is not None else now) - accepted) * 1000, 3),
        prefill=round((first - started) * 1000, 3) if first and started else 0.0,
        first_token=round((first - accepted) * 1000, 3) if first is not None else 0.0,
        total=round((now - accepted) * 1000, 3),
        tokens_per_second=round((generation.deltas - 1) / decode_s, 3) if decode_s > 0 else 0.0,
    )
