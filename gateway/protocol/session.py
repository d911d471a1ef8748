"""One client connection as a state machine, without I/O.

Requests go in, events and commands come out; time is an argument. A provider's responses go to
their `Generation` directly; the caller then calls `enqueue`, so that `pop_events` returns the new
events.

Rule 1: an id is taken from its `generate` until its terminal event has been sent; a second
`generate` with it is refused meanwhile.
Rule 2: a wrong request is refused; it ends neither the connection nor a generation.
Rule 3: generations take turns: `pop_events` returns all sendable events of the first in line,
which joins the end of the line when it has new ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import assert_never

from gateway.protocol.codes import BadFrame, ErrorCode
from gateway.protocol.events import Event, Failed, Refusal, Request
from gateway.protocol.follower import Follower
from gateway.protocol.frames import (
    Ack,
    Cancel,
    Generate,
    Hello,
    Ping,
    Pong,
    Resume,
)
from gateway.protocol.generation import Generation, NotResumable

__all__ = ["Begin", "Command", "Session", "Stop", "TakeOver"]


@dataclass(frozen=True)
class Begin:
    """Command: call the provider for this generation."""

    generation: Generation
    frame: Generate


@dataclass(frozen=True)
class Stop:
    """Command: stop this generation's task; its `done` event is already waiting to be sent."""

    generation: Generation


@dataclass(frozen=True)
class TakeOver:
    """Command: find the generation with this ticket, and `adopt`, `follow` or `refuse` it."""

    frame: Resume


Command = Begin | Stop | TakeOver
Admit = Callable[[Generate | Resume, int], Refusal | None]


class Session:
    """The generations of one connection, and the events that wait to be sent.

    `started` names `default_model` if the provider does not say which model runs. `new_ticket`
    makes the tickets of resumable generations; `keep_bytes`, `max_bytes` and `binary` are as in
    Generation.
    `admit(request, live)` may refuse to begin or take over a generation; `live` is the number of
    answers that the generations on this connection have together.
    """

    def __init__(
        self,
        *,
        default_model: str = "",
        new_ticket: Callable[[], str] | None = None,
        keep_bytes: int = 0,
        max_bytes: int | None = None,
        binary: bool = False,
        admit: Admit = lambda request, live: None,
    ):
        self._default_model = default_model
        self._new_ticket = new_ticket
        self._keep_bytes = keep_bytes
        self._max_bytes = max_bytes
        self._binary = binary
        self._admit = admit
        self._generations: dict[str, Generation | Follower] = {}
        self._line: deque[Event | Generation | Follower] = deque()
        self._line_bytes = 0  # size of the events in line that belong to no generation
        self._in_line: set[Generation | Follower] = set()

    # Sending.

    @property
    def generations(self) -> Collection[Generation | Follower]:
        """The generations and followers whose terminal event has not been sent."""
        return self._generations.values()

    @property
    def _answers(self) -> int:
        return sum(generation.answers for generation in self._generations.values())

    @property
    def waiting(self) -> int:
        """The number of generations with new events, plus the events that belong to none."""
        return len(self._line)

    @property
    def answers_alone(self) -> bool:
        """Whether events wait, and all of them belong to no generation."""
        return bool(self._line) and not self._in_line

    @property
    def waiting_bytes(self) -> int:
        """The size of the waiting events that belong to no generation, see `_size`."""
        return self._line_bytes

    @property
    def is_behind(self) -> bool:
        """Whether the first in line has events that others have, or had before."""
        first = self._line[0]
        return isinstance(first, Follower) or (isinstance(first, Generation) and first.behind)

    def pop_events(self) -> tuple[list[Event], Generation | Follower | None]:
        """Return the events that may be sent for the first in line, and remove it from the line.

        The second value is the generation that they belong to, None for an event without one.
        Raises IndexError if nothing waits.
        """
        first = self._line.popleft()
        if isinstance(first, Generation):  # for almost every token, so that it comes first
            self._in_line.discard(first)
            events = first.pop_events()
            if first.more_again and events:  # without any, no other turn would have some either
                self.enqueue(first)
            if not first.live and first.over and self._generations.get(first.id) is first:
                del self._generations[first.id]
            return events, first
        if isinstance(first, Follower):
            self._in_line.discard(first)
            events = first.pop_events()
            if first.sendable:
                self.enqueue(first)
            if first.over and self._generations.get(first.id) is first:
                del self._generations[first.id]
            return events, first
        self._line_bytes -= _size(first)
        return [first], None

    # Requests of the client.

    def receive(self, request: Request, now: float) -> list[Command]:
        """Act on a client's request; return the commands that the connection must carry out."""
        match request:
            case Generate():
                return self._generate(request, now)
            case Cancel(id=frame_id):
                generation = self._generations.get(frame_id)
                return self.cancel(generation, now) if generation else []
            case Ack(id=frame_id, seq=seq):
                self._ack(frame_id, seq)
            case Resume():
                return self._resume(request)
            case Ping(nonce=nonce):
                self._answer(Pong(nonce=nonce))
            case Hello():
                pass  # already authenticated
            case _:
                assert_never(request)
        return []

    def reject(self, error: BadFrame) -> None:
        """Refuse a bad frame; the refusal has no id if that is the id of a live generation."""
        frame_id = None if error.frame_id in self._generations else error.frame_id
        self.refuse(frame_id, Refusal(error.code, str(error), fields=error.fields))

    def refuse(self, frame_id: str | None, refusal: Refusal) -> None:
        """Refuse a request; live generations go on."""
        self._answer(
            Failed(
                id=frame_id,
                code=refusal.code,
                message=refusal.message,
                retry_after=refusal.retry_after,
                fields=refusal.fields,
            )
        )

    def _answer(self, event: Pong | Failed) -> None:
        self._line.append(event)
        self._line_bytes += _size(event)

    def _generate(self, frame: Generate, now: float) -> list[Command]:
        refusal = self._refusal(frame)
        if refusal is not None:
            self.refuse(frame.id, refusal)
            return []
        ticket = self._new_ticket() if frame.resumable and self._new_ticket else None
        generation = Generation(
            frame,
            now,
            default_model=self._default_model,
            ticket=ticket,
            keep_bytes=self._keep_bytes,
            max_bytes=self._max_bytes,
            binary=self._binary,
        )
        self._generations[frame.id] = generation
        return [Begin(generation, frame)]

    def _refusal(self, frame: Generate) -> Refusal | None:
        if frame.id in self._generations:
            return _duplicate(frame.id)
        if frame.window is not None and frame.window < 1:
            return Refusal(ErrorCode.INVALID_REQUEST, "must be at least 1", fields=("window",))
        if frame.keep_on_close and not frame.resumable:
            both = ("keep_on_close", "resumable")
            return Refusal(ErrorCode.INVALID_REQUEST, "{} needs {}", fields=both)
        if (frame.prompt is None) == (frame.messages is None):
            either = ("prompt", "messages")
            return Refusal(ErrorCode.INVALID_REQUEST, "give either {} or {}", fields=either)
        return self._admit(frame, self._answers)

    def _ack(self, frame_id: str, seq: int) -> None:
        generation = self._generations.get(frame_id)
        if generation is not None:
            generation.ack(seq)
            self.enqueue(generation)

    def _resume(self, frame: Resume) -> list[Command]:
        full = self._admit(frame, self._answers) if frame.id not in self._generations else None
        if full is not None:
            self.refuse(frame.id, full)
            return []
        return [TakeOver(frame)]

    def cancel(self, generation: Generation | Follower, now: float) -> list[Command]:
        """Cancel a generation; return the commands to carry out, none if it had ended.

        A follower only leaves.
        """
        if isinstance(generation, Follower):
            generation.leave()
            self.enqueue(generation)
            return []
        if not generation.cancel(now):
            return []
        self.enqueue(generation)
        return [Stop(generation)]

    # Generations.

    def enqueue(self, generation: Generation | Follower) -> None:
        """Put a generation in line, because it may have new events; `pop_events` returns them."""
        if generation not in self._in_line:
            self._in_line.add(generation)
            self._line.append(generation)

    def adopt(self, generation: Generation, after: int) -> Refusal | None:
        """Take over a generation, and send its events after the number `after`.

        Returns None, or the reason why this can't be done; then nothing has changed.
        """
        other = self._generations.get(generation.id)
        if other is not None and other is not generation:
            return _duplicate(generation.id)
        try:
            generation.replay(after)
        except NotResumable as error:
            return Refusal(ErrorCode.NOT_RESUMABLE, str(error), fields=error.fields)
        self._generations[generation.id] = generation
        self.enqueue(generation)
        return None

    def follow(self, generation: Generation, frame: Resume) -> Follower | Refusal:
        """Add a follower of a generation, or return the reason why this can't be done."""
        if frame.id in self._generations:
            return _duplicate(frame.id)
        try:
            follower = self._generations[frame.id] = Follower(generation, frame)
        except NotResumable as error:
            return Refusal(ErrorCode.NOT_RESUMABLE, str(error), fields=error.fields)
        return follower

    def lose(self, generation: Generation, why: Refusal) -> None:
        """Forget a generation that another connection has taken over, and tell the client `why`."""
        if self._generations.get(generation.id) is generation:
            del self._generations[generation.id]
            if generation in self._in_line:
                self._in_line.discard(generation)
                self._line.remove(generation)
            self.refuse(generation.id, why)


def _size(event: Event) -> int:
    """Return the size of the text in an answer to a client's frame, in characters."""
    match event:
        case Failed(message=text, fields=fields):
            return len(text) + sum(map(len, fields))
        case Pong(nonce=str(text)):
            return len(text)
    return 0


def _duplicate(frame_id: str) -> Refusal:
    return Refusal(ErrorCode.DUPLICATE_ID, f"`{frame_id}` is already running", fields=("id",))
