"""One generation as a state machine, without I/O: a provider's responses in, frames out.

Rule 1: every change of state is in TRANSITIONS.
Rule 2: it ends with exactly one terminal frame, `done` or `error`, and nothing follows it.
Rule 3: frames are numbered when they leave, not when they come: texts that wait for a slow client
merge into one chunk, none is dropped, none is reordered, and the numbers have no gap.
Rule 4: with a window, at most so many numbered frames leave beyond those acknowledged.
Rule 5: a resumable one keeps what has left, the newest first, up to a bound, so that it can leave
again on another connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

import msgspec

from gateway.frames import (
    RETRYABLE,
    Chunk,
    Done,
    Error,
    ErrorCode,
    Generate,
    Progress,
    Queued,
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
    TokenLogprobs,
)

__all__ = ["TERMINAL", "TRANSITIONS", "Generation", "NotResumable", "State"]

REASONS = frozenset({"stop", "length", "tool_calls"})
USAGE_FIELDS = frozenset(Usage.__struct_fields__)
MOST_PARTS = 128  # that are kept apart: many short texts cost far more than one long one
PAIR_BYTES = 64  # a token and its log-probability, on the wire, about
FRAME_BYTES = 128  # what a frame that is kept costs beside its text, about

Channel = Literal["reasoning"] | None
Numbered = Started | Chunk | ToolCall | Done | Error


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


class NotResumable(Exception):  # noqa: N818 - what the client is told, not an error of ours
    """What is asked for can't be sent again; the message says why."""


@dataclass(eq=False)
class _Text:
    """Text that waits, which more text of its channel may join."""

    channel: Channel
    parts: list[str]
    size: int  # in bytes of UTF-8, and about what the log-probabilities take
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(eq=False)
class _Waiting:
    """A frame that waits. A numbered one is made when it leaves."""

    kind: type[Any]
    fields: dict[str, Any]
    numbered: bool = True


class Generation:
    """What is known of one generation, and the frames that wait to leave.

    What comes after its end is ignored. `ticket` is set for one that can be resumed; it then keeps
    up to `keep_bytes` of what has left and of what waits.
    """

    def __init__(
        self,
        frame: Generate,
        now: float,
        *,
        default_model: str = "",
        ticket: str | None = None,
        keep_bytes: int = 0,
    ):
        self.id = frame.id
        self.ticket = ticket
        self.state = State.QUEUED
        self.live = True  # until its end has come
        self.reason = ""  # why it ended: a finish_reason or an error's code
        self.usage = Usage()  # once it has ended
        self.timing = Timing()
        self.waiting_bytes = 0  # of text, in UTF-8
        self.merged = 0  # texts that joined one that waited
        self.pieces = 0  # texts that came
        self.model = ""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.accepted_at = now  # seconds, on the caller's clock
        self.started_at: float | None = None
        self.first_text_at: float | None = None
        self._default_model = default_model
        self._streamed = frame.stream
        self._window = frame.window
        self._waiting: deque[_Text | _Waiting] = deque()
        self._next_seq = 0
        self._left = -1  # the newest number that has left on this connection
        self._acked = -1
        self._keep_bytes = keep_bytes
        self._kept: deque[Numbered] = deque()  # in order, without a gap, up to `_next_seq`
        self._kept_bytes = 0
        self._text: list[str] = []  # for stream=false
        self._reasoning: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    # What is asked.

    @property
    def over(self) -> bool:
        """Whether its terminal frame has left."""
        return not (self.live or self._waiting or self._behind)

    @property
    def resumable(self) -> bool:
        """Whether the client has, or may have, a ticket for it."""
        return self.ticket is not None and self._next_seq > 0

    @property
    def window_closed(self) -> bool:
        """Whether the client has to acknowledge something before more can leave."""
        return self._window is not None and self._left - self._acked >= self._window

    @property
    def held_bytes(self) -> int:
        """What it holds in memory for its client."""
        return self._kept_bytes + self.waiting_bytes

    @property
    def holds_enough(self) -> bool:
        """Whether it holds all that it may while nobody reads it."""
        return self.held_bytes >= self._keep_bytes

    @property
    def _behind(self) -> bool:
        return self._left < self._next_seq - 1

    # What the client does.

    def cancel(self, now: float) -> bool:
        """End it; return False if it had ended."""
        if not self.live:
            return False
        self._become(State.CANCELLED)
        self._wait_done("cancelled", self._counted(), self._timing(None, now))
        return True

    def ack(self, seq: int) -> None:
        """Take an acknowledgement of all frames up to `seq`; one from the future is cut short."""
        self._acked = max(self._acked, min(seq, self._left))
        self._drop_kept(lambda frame: (frame.seq or 0) <= self._acked)

    def replay(self, after: int) -> None:
        """Let what has left after the number `after` leave again. Raises NotResumable."""
        if after >= self._next_seq:
            raise NotResumable(f"`$.after`: no frame {after} has been sent")
        if after + 1 < self._next_seq - len(self._kept):
            raise NotResumable(f"frame {after + 1} is not kept any more")
        self._left = self._acked = after

    # What the provider does.

    def respond(self, response: GenerateResponse, now: float) -> None:
        """Take one response of the stream."""
        if not self.live:
            return
        if response.raw_response is not None and self._take_event(response.raw_response, now):
            return
        if self.state is State.QUEUED:
            self._begin(now)
        raw = response.raw_response
        logprobs = raw.tokens if isinstance(raw, TokenLogprobs) else ()
        if response.reasoning_trace:
            self._take_text(response.reasoning_trace, "reasoning", now, logprobs)
        elif response.content:
            self._take_text(response.content, None, now, logprobs)
        if response.reasoning_trace and response.content:
            self._take_text(response.content, None, now, ())
        if response.finish_reason is not None:
            self._finish(response, now)

    def _take_event(self, event: object, now: float) -> bool:
        """Take what a response without text says; return False if it says nothing of the kind."""
        match event:
            case QueuePosition(position):
                self._tell(Queued, position=position)
            case PrefillProgress(done, total):
                self._begin(now)
                self._tell(Progress, done=done, total=total)
            case GenerationStarted(model, prompt_tokens, cached_tokens):
                self.model = model
                self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens
                self._begin(now)
            case _:
                return False
        return True

    def ended(self, now: float, reason: Literal["stop", "length"] = "stop") -> None:
        """End it without the provider having said why, or because it has taken too long."""
        if self.live:
            self._begin(now)
            usage = msgspec.structs.asdict(self._counted())
            self._finish(GenerateResponse(finish_reason=reason, usage=usage), now)

    def failed(self, code: ErrorCode, message: str, retry_after: float | None = None) -> None:
        """End it with an error; `retry_after` in seconds, if the provider said so."""
        if not self.live:
            return
        fields = {
            "code": code,
            "message": message,
            "retryable": RETRYABLE[code],
            "retry_after": retry_after,
        }
        started = self.state is State.RUNNING
        self._become(State.FAILED)
        self.reason, self.usage = code.value, self._counted()
        self._waiting.append(_Waiting(Error, fields, numbered=started))

    # What leaves.

    def take(self) -> list[ServerFrame]:
        """Return what may leave now, numbered, in order."""
        frames: list[ServerFrame] = self._again() if self._behind else []
        while self._waiting:
            first = self._waiting[0]
            numbered = isinstance(first, _Text) or first.numbered
            if numbered and (self.window_closed or self._behind):
                break
            frames.append(self._leave(self._waiting.popleft()))
        return frames

    def _again(self) -> list[ServerFrame]:
        frames: list[ServerFrame] = []
        for frame in list(self._kept)[self._left + 1 - self._next_seq :]:
            if self.window_closed:
                break
            frames.append(frame)
            self._left += 1
        return frames

    def _leave(self, item: _Text | _Waiting) -> ServerFrame:
        if isinstance(item, _Text):
            text = item.parts[0] if len(item.parts) == 1 else "".join(item.parts)
            self.waiting_bytes -= item.size
            frame: Any = Chunk(
                id=self.id,
                seq=self._number(),
                text=text,
                channel=item.channel,
                logprobs=item.logprobs or None,
            )
            self._keep(frame)
            return frame  # type: ignore[no-any-return]
        if item.numbered:
            frame = item.kind(id=self.id, seq=self._number(), **item.fields)
            self._keep(frame)
        else:
            frame = item.kind(id=self.id, **item.fields)
        return frame  # type: ignore[no-any-return]

    def _number(self) -> int:
        self._left = self._next_seq
        self._next_seq += 1
        return self._left

    def _keep(self, frame: Numbered) -> None:
        if self.ticket is None:
            return
        self._kept.append(frame)
        self._kept_bytes += _cost(frame)
        # Half is room for what comes while the client is away.
        self._drop_kept(lambda first: self._kept_bytes > self._keep_bytes // 2)

    def _drop_kept(self, may_go: Callable[[Numbered], bool]) -> None:
        while len(self._kept) > 1 and may_go(self._kept[0]):
            self._kept_bytes -= _cost(self._kept.popleft())

    # What waits.

    def _become(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} cannot become {state}"
        self.state = state
        self.live = state not in TERMINAL

    def _tell(self, kind: type[Any], **fields: Any) -> None:
        """Let a frame wait that is not numbered; a newer one takes an older one's place."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, _Waiting) and last.kind is kind:
            last.fields = fields
        else:
            self._waiting.append(_Waiting(kind, fields, numbered=False))

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
        self._waiting.append(_Waiting(Started, fields))

    def _take_text(
        self, text: str, channel: Channel, now: float, logprobs: Sequence[dict[str, Any]]
    ) -> None:
        if self.first_text_at is None:
            self.first_text_at = now
        self.pieces += 1
        if not self._streamed:
            (self._reasoning if channel else self._text).append(text)
            self._logprobs += logprobs
            return
        last, size = self._waiting[-1] if self._waiting else None, _size(text)
        if logprobs:
            size += sum(PAIR_BYTES * (1 + len(one["top_logprobs"])) for one in logprobs)
        if isinstance(last, _Text) and last.channel == channel:
            last.parts.append(text)
            if len(last.parts) == MOST_PARTS:
                last.parts = ["".join(last.parts)]
            last.size += size
            last.logprobs += logprobs
            self.merged += 1
        else:
            self._waiting.append(_Text(channel, [text], size, list(logprobs)))
        self.waiting_bytes += size

    def _finish(self, response: GenerateResponse, now: float) -> None:
        calls = response.tool_calls or []
        if self._streamed:
            for index, call in enumerate(calls):
                self._waiting.append(_Waiting(ToolCall, _call_fields(index, call)))
        self._become(State.DONE)
        usage = Usage(**{k: v for k, v in (response.usage or {}).items() if k in USAGE_FIELDS})
        reason = response.finish_reason if response.finish_reason in REASONS else "stop"
        self._wait_done(reason, usage, self._timing(response.raw_response, now), calls)

    def _wait_done(
        self, reason: Any, usage: Usage, timing: Timing, calls: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.reason, self.usage, self.timing = reason, usage, timing
        fields: dict[str, Any] = {"finish_reason": reason, "usage": usage, "timing": timing}
        if not self._streamed:
            fields["text"] = "".join(self._text)
            fields["reasoning"] = "".join(self._reasoning) or None
            fields["tool_calls"] = list(calls) or None
            fields["logprobs"] = self._logprobs or None
            self._text, self._reasoning, self._logprobs = [], [], []
        self._waiting.append(_Waiting(Done, fields))

    def _counted(self) -> Usage:
        """Return the usage as far as can be told from here."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.pieces,
            total_tokens=self.prompt_tokens + self.pieces,
            cached_tokens=self.cached_tokens,
        )

    def _timing(self, given: object, now: float) -> Timing:
        """Return the provider's own timing, or what was seen from here."""
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
        return Timing(
            queue=round(((started if started is not None else now) - accepted) * 1000, 3),
            prefill=round((first - started) * 1000, 3) if first and started else 0.0,
            first_token=round((first - accepted) * 1000, 3) if first is not None else 0.0,
            total=round((now - accepted) * 1000, 3),
            tokens_per_second=round((self.pieces - 1) / decode_s, 3) if decode_s > 0 else 0.0,
        )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _cost(frame: Numbered) -> int:
    size = FRAME_BYTES + len(getattr(frame, "text", None) or "")
    for one in getattr(frame, "logprobs", None) or ():
        size += PAIR_BYTES * (1 + len(one["top_logprobs"]))
    return size


def _call_fields(index: int, call: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": index,
        "call_id": str(call.get("id") or f"call_{index}"),
        "name": call.get("name"),
        "arguments": msgspec.json.encode(call.get("arguments") or {}).decode(),
        "complete": True,
    }
