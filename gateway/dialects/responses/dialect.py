"""Responses over WebSocket on one connection: `response.create` in, the events of its answer out.

Rule 1: each `response.create` ends with one `response.completed`, `response.incomplete`,
`response.failed` or `error`, in the order of its lane.
Rule 2: an error in a `response.create` is told when its turn has come, because a client takes any
`error` in a lane as the end of what runs there.
Rule 3: what is not about a response that runs or waits is ignored, a late cancel for example: some
clients give up a connection on an `error` that belongs to nothing.

Source: DIALECTS.md, section "Responses".
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import UNSET

from gateway.dialects import incoming, json_text, values
from gateway.dialects.base import Dialect, Message, Opening, Route, RouteLimits
from gateway.dialects.held_requests import HeldRequests
from gateway.dialects.openai.answer import NOTHING_USED, Answer, new_id
from gateway.dialects.openai.creates import flat
from gateway.dialects.openai.errors import Refused, code_of_failure, of_failure, overloaded
from gateway.dialects.openai.server_events import (
    ErrorBody,
    ErrorEvent,
    ServerEvent,
    SteerFailed,
)
from gateway.dialects.own_answers import OwnAnswers
from gateway.dialects.responses.lanes import MAX_ACTIVE, Lanes, lane_of
from gateway.dialects.responses.memory import Memory, Place
from gateway.dialects.responses.turn import Turn
from gateway.protocol.codes import BadFrame, ErrorCode
from gateway.protocol.events import Event, Failed, Request
from gateway.protocol.frames import (
    Cancel,
    Chunk,
    Done,
    Loading,
    Ping,
    Pong,
    Queued,
    Ready,
    Started,
    ToolCall,
)

__all__ = ["ROUTE", "ResponsesDialect"]

log = logging.getLogger(__name__)

PATH = "/v1/responses"
STREAM_ID = re.compile(r'"stream_id"\s*:\s*"([A-Za-z0-9_.-]{1,256})"')
MAX_TOLD = 64  # types of tools that are logged of a connection
MAX_QUOTED = 64  # characters of a field's name in an error
# Bytes of log-probabilities in one response, which has them in four events at its end.
MAX_LOGPROBS = 2 << 20
STEP = 64 * 1024  # bytes of log-probabilities after which they are counted
MAX_STEER = 4096  # characters of a `response.steer` that are sent back, and wait for the client


class ResponsesDialect(Dialect):
    """The language of one connection."""

    name = "openai.v1.responses"

    def __init__(
        self,
        opening: Opening,
        limits: RouteLimits,
        memory: Memory,
        clock: Callable[[], float] = time.time,
    ):
        self._limits = limits.frames
        self._held = HeldRequests(opening)
        self._memory = memory
        self._place = Place(object(), opening.owner, opening.client)
        self._clock = clock  # seconds since 1970
        self._lanes: Lanes[Turn] = Lanes(min(MAX_ACTIVE, limits.generations))
        self._running: dict[str, tuple[Turn, Answer]] = {}  # by the ids of turns
        self._again: list[Turn] = []  # turns whose prompt was too long, and is shorter now
        self._own = OwnAnswers()
        self._to_stop: list[Request] = []  # cancels of turns that this language has ended
        self._cut: set[str] = set()  # ids of these turns, until their last event
        self._model = ""  # the model that answers if none is named
        self._told: set[str] = set()  # types of tools that were logged
        self._closed = False

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of answers that need no generation are not sent yet."""
        return self._own.waiting_bytes

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return nothing; the client speaks first."""
        self._model = next(iter(ready.models), "")
        return ()

    def close(self) -> None:
        """Forget what is kept for the connection alone."""
        self._closed = True
        for turn in [*self._lanes.waiting, *(turn for turn, _ in self._running.values())]:
            self._held.remove(turn)
        self._memory.leave(self._place.connection)

    # From the client.

    def check(self, message: str | bytes) -> Iterator[None]:
        """Raise BadFrame once a message has too many keys and values; yield meanwhile."""
        return incoming.check(message, self._limits, STREAM_ID)

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests for a message. Raises NotAFrame for a binary one, or BadFrame."""
        fields = incoming.event_in(message)
        match fields.get("type"):
            case "response.create":
                return self._create(fields, len(message))
            case "response.cancel":
                return self._cancel(fields)
            case "response.steer":
                return self._steer(fields if len(message) <= MAX_STEER else {})
            case str():
                return ()  # `response.processed` of Codex, and what may come
        said = "a message must be a JSON object with a `type`"
        raise BadFrame(said, None, code=ErrorCode.INVALID_FRAME)

    def _create(self, fields: dict[str, Any], size: int) -> Sequence[Request]:
        turn, fields = Turn(new_id("resp")), flat(fields)
        try:
            turn.stream_id = lane_of(fields.get("stream_id"))
            self._lanes.check_room(turn.stream_id)
        except Refused as refused:
            return [self._say([_error(refused, turn.stream_id)])]
        self._read(turn, fields)
        if not self._held.add(turn, size):
            turn.refuse(overloaded("too much is asked for at once"))
        self._lanes.add(turn)
        return self.next_requests()

    def _read(self, turn: Turn, fields: dict[str, Any]) -> None:
        previous = fields.get("previous_response_id")
        turn.previous = previous if isinstance(previous, str) else None
        deep = values.too_deep(fields, self._limits.depth)
        if deep is not None:
            name = deep[:MAX_QUOTED]
            turn.refuse(Refused(f"`{name}`: nested deeper than {self._limits.depth}", name))
            return
        try:
            turn.read(fields)
        except Refused as refused:
            turn.refuse(refused)

    def _cancel(self, fields: dict[str, Any]) -> Sequence[Request]:
        own, stream_id = fields.get("response_id"), fields.get("stream_id")
        if not isinstance(own, str | None) or not isinstance(stream_id, str | None):
            return ()
        waiting = self._lanes.withdraw(own) if own is not None else None
        if waiting is not None:
            self._held.remove(waiting)
            return [self._say(waiting.answer(self._model, self._clock).cancelled())]
        running = self._lanes.running(own, stream_id)
        if running is None:
            return ()
        running.stopping = True
        return [Cancel(id=running.id)]

    def _steer(self, fields: dict[str, Any]) -> Sequence[Request]:
        error = ErrorBody(
            type="invalid_request_error",
            code="steering_not_supported",
            message="a response can't be steered; send its successor as `response.create`",
        )
        names = ("input", "previous_response_id")
        steer = {name: fields.get(name) or "" for name in names}
        return [self._say([SteerFailed(error=error, steer=steer)])]

    # Turns.

    def next_requests(self) -> Sequence[Request]:
        """Return the requests of the turns that begin now."""
        requests = [*self._to_stop, *(self._ask(turn) for turn in self._again)]
        self._again.clear()
        self._to_stop.clear()
        self.asks = False
        while not self._closed and (turn := self._lanes.next()) is not None:
            requests.append(self._begin(turn))
        return requests

    def _begin(self, turn: Turn) -> Request:
        if turn.previous is not None:
            turn.parent = self._memory.find(turn.previous, self._place, time.monotonic())
        turn.find_item = self._find_item
        self._running[turn.id] = turn, turn.answer(self._model, self._clock)
        self._tell_left_out(turn)
        return self._ask(turn)

    def _ask(self, turn: Turn) -> Request:
        """Return the request of a turn, or the one after which it ends."""
        _, answer = self._running[turn.id]
        try:
            request = self._request(turn)
        except Refused as refused:
            self._forget_parent(turn)
            return self._say(answer.fail(refused.status, refused.error), turn.id)
        if request is None:
            events = answer.completed(NOTHING_USED)
            self._keep(turn, answer)
            return self._say(events, turn.id)
        return request

    def _request(self, turn: Turn) -> Request | None:
        """Return the request of a turn, None if it needs no model. Raises Refused."""
        if turn.refused is not None:
            raise turn.refused
        if turn.previous is not None and turn.parent is None:
            said = f"Previous response with id '{turn.previous[:256]}' not found."
            raise Refused(said, "previous_response_id", "previous_response_not_found")
        return turn.request(self._limits.values)

    def _find_item(self, own: str) -> dict[str, Any] | None:
        return self._memory.find_item(own, self._place, time.monotonic())

    def _tell_left_out(self, turn: Turn) -> None:
        new = set(turn.tools.left_out) - self._told
        told = sorted(new)[: MAX_TOLD - len(self._told)]
        if told:
            self._told.update(told)
            log.info("tools of the types %s are left out of prompts", ", ".join(told))

    # To the client.

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""
        if isinstance(event, Pong):
            return self._own_messages(event)
        found = self._running.get(event.id) if event.id is not None else None
        if found is None:
            return self._of_no_turn(event)
        turn, answer = found
        match event:
            case Chunk():
                events = answer.add_text(event)
                if answer.logprobs_bytes - turn.logprobs_bytes > STEP:
                    events += self._count_logprobs(turn, answer)
                return _messages(events)
            case ToolCall():
                return _messages(answer.add_call(event))
            case Started():
                turn.prompt_tokens = event.prompt_tokens
                return _messages(answer.start(event.model))
            case Queued() | Loading():
                return _messages(answer.wait())
            case Done():
                events = answer.finish(event)
                self._keep(turn, answer)
                self._end(turn)
                return _messages(events)
            case Failed(code=ErrorCode.CONTEXT_TOO_LONG) if not turn.stopping and turn.shorten():
                self._again.append(turn)
            case Failed():
                events = self._failed(turn, answer, event)
                self._end(turn)
                return _messages(events)
        return ()

    def _count_logprobs(self, turn: Turn, answer: Answer) -> Sequence[ServerEvent]:
        """Count what has come, or return the events that end a response that is too large."""
        grown = answer.logprobs_bytes - turn.logprobs_bytes
        if answer.logprobs_bytes <= MAX_LOGPROBS and self._held.add(turn, grown):
            turn.logprobs_bytes = answer.logprobs_bytes
            return ()
        events = answer.cut(turn.prompt_tokens)
        self._keep(turn, answer)
        self._end(turn)
        self._to_stop.append(Cancel(id=turn.id))
        self._cut.add(turn.id)
        self.asks = True
        return events

    def _failed(self, turn: Turn, answer: Answer, event: Failed) -> list[ServerEvent]:
        # Many templates take no conversation that has no question yet. It may still be continued.
        if turn.prepares_only and event.code is ErrorCode.INVALID_REQUEST and not event.fields:
            self._keep(turn, answer)
            return answer.completed(NOTHING_USED)
        status, why = of_failure(event, turn.paths, turn.tools.places)
        self._forget_parent(turn)
        return answer.fail(status, why, code_of_failure(status))

    def _end(self, turn: Turn) -> None:
        self._held.remove(turn)
        del self._running[turn.id]
        self._lanes.end(turn)

    def _own_messages(self, pong: Pong) -> Sequence[Message]:
        turn, _ = self._running.get(str(pong.nonce), (None, None))
        if turn is not None:
            self._end(turn)
        return self._own.take(pong)

    def _of_no_turn(self, event: Event) -> Sequence[Message]:
        """Return the error for a message that could not be decoded; its id is then its lane."""
        if not isinstance(event, Done | Failed):
            return ()
        if event.id in self._cut:
            self._cut.remove(event.id)
            return ()
        if isinstance(event, Done):
            return ()
        status, why = of_failure(event)
        lane = UNSET if event.id is None else event.id
        return _messages([ErrorEvent(status=status, error=why, stream_id=lane)])

    def _say(self, events: Sequence[ServerEvent], own: str | None = None) -> Ping:
        """Return the request for a pong, in whose place the events are sent."""
        return self._own.say(_messages(events), own)

    # What is kept.

    def _keep(self, turn: Turn, answer: Answer) -> None:
        if self._closed:
            return
        self._memory.keep(
            turn.id,
            [*turn.conversation.new, *answer.messages()],
            answer.items(),
            parent=turn.parent,
            place=self._place,
            stream_id=turn.stream_id,
            stored=turn.stored,
            now=time.monotonic(),
        )

    def _forget_parent(self, turn: Turn) -> None:
        """Forget what a failed turn was to continue, unless it is stored or of another lane."""
        parent = turn.parent
        if parent is not None and not parent.stored and parent.stream_id == turn.stream_id:
            self._memory.forget(parent)


def _messages(events: Sequence[ServerEvent]) -> list[Message]:
    return [Message(json_text.encode(event), text=True) for event in events]


def _error(refused: Refused, stream_id: str | None) -> ErrorEvent:
    lane = UNSET if stream_id is None else stream_id
    return ErrorEvent(status=refused.status, error=refused.error, stream_id=lane)


def _prepare(limits: RouteLimits) -> Callable[[Opening], ResponsesDialect]:
    memory = Memory(limits.kept, limits.kept_s)
    return lambda opening: ResponsesDialect(opening, limits, memory)


ROUTE = Route(
    PATH,
    _prepare,
    says_hello=False,
    hint="this path is for WebSocket clients that speak OpenAI's Responses",
)
