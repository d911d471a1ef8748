"""Realtime over WebSocket on one connection, of which it speaks the text.

Rule 1: each `response.create` ends with one `response.done`, or is refused by one `error`.
Rule 2: every `error` names the client's event at fault by its `event_id`, if that has one; the
session goes on.
Rule 3: one response at a time writes to the conversation. Others beside it are in none.

Source: DIALECTS.md, section "Realtime".
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import msgspec

from gateway.dialects import incoming, json_text, native, values
from gateway.dialects.base import Dialect, Message, Opening, Route, RouteLimits
from gateway.dialects.held_requests import HeldRequests
from gateway.dialects.openai import server_events as of
from gateway.dialects.openai.answer import Answer, new_id
from gateway.dialects.openai.conversation import Conversation
from gateway.dialects.openai.creates import generation_options
from gateway.dialects.openai.errors import (
    Refused,
    code_of_failure,
    of_failure,
    overloaded,
    quoted,
)
from gateway.dialects.own_answers import OwnAnswers
from gateway.dialects.realtime.asked import ALL, Asked, SessionFields
from gateway.dialects.realtime.items import Items
from gateway.dialects.realtime.server_events import (
    ConversationItemAdded,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemRetrieved,
    Item,
    RealtimeEvent,
    Response,
    SessionCreated,
    SessionUpdated,
)
from gateway.dialects.realtime.writer import Writer, refusal
from gateway.dialects.shortening import Shortening
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Event, Failed, Request
from gateway.protocol.frames import (
    Cancel,
    Chunk,
    Done,
    Generate,
    Loading,
    Ping,
    Pong,
    Queued,
    Ready,
    Started,
    ToolCall,
)

__all__ = ["ROUTE", "RealtimeDialect", "secret_in"]

log = logging.getLogger(__name__)

PATH = "/v1/realtime"
MAX_ACTIVE = 16  # responses that run at once on a connection
SUBPROTOCOL = "realtime"
KEY_PROTOCOL = "openai-insecure-api-key."  # followed by the token; used by browsers
EVENT_ID = re.compile(r'"event_id"\s*:\s*"([A-Za-z0-9_.-]{1,64})"')
MAX_EVENT_ID = 512  # characters, as in OpenAI's interface
MAX_ID = 256  # characters of a response's id; ours are shorter
MAX_TOLD = 64  # types of tools that are logged of a connection
AUDIO = ("input_audio_buffer.", "output_audio_buffer.", "conversation.item.truncate")


@dataclass(eq=False)
class Turn:
    """A `response.create` that waits, or runs."""

    id: str
    own: str | None  # the id of the client's event
    asked: Asked
    in_conversation: bool
    input: list[Item] | None  # that it is asked with instead of the conversation
    answer: Answer
    writer: Writer
    paths: Sequence[str] = ()  # for each message of the prompt, what it comes from
    shortening: Shortening = field(default_factory=Shortening)
    stopping: bool = False
    size: int = 0  # bytes of its message that are counted


class RealtimeDialect(Dialect):
    """The language of one connection."""

    name = "openai.v1.realtime"

    def __init__(self, opening: Opening, limits: RouteLimits):
        self._limits = limits.frames
        self._held = HeldRequests(opening)
        self._most = min(MAX_ACTIVE, limits.generations)
        query = parse_qs(opening.query)
        self._session = SessionFields(new_id("sess"), query.get("model", [""])[0])
        self._session_bytes = 0  # of it that are counted
        self._named = bool(self._session.model)  # whether the client named its model
        self._client, self._kept = opening.client, limits.kept
        self._items = Items(limits.kept, opening.client)
        self._running: dict[str, Turn] = {}
        self._waiting: Turn | None = None  # for one that is being cancelled
        self._again: list[Turn] = []  # those whose prompt was too long, and is shorter now
        self._own = OwnAnswers()
        self._numbers, self._prefix = count(), f"event_{secrets.token_hex(8)}_"
        self._left_out: set[str] = set()  # types of tools that were logged
        self._closed = False

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of answers that need no generation are not sent yet."""
        return self._own.waiting_bytes

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return `session.created`."""
        self._session.model = self._session.model or next(iter(ready.models), "")
        return _messages([SessionCreated(event_id=self._next(), session=self._session.shown())])

    def close(self) -> None:
        """Forget the conversation."""
        self._closed = True
        for turn in self._running.values():
            self._held.remove(turn)
        if self._waiting is not None:
            self._held.remove(self._waiting)
        self._items.close()
        self._keep_session(0)

    def _next(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"

    # From the client.

    def check(self, message: str | bytes) -> Iterator[None]:
        """Raise BadFrame once a message has too many keys and values; yield meanwhile."""
        return incoming.check(message, self._limits, EVENT_ID)

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests for a message. Raises NotAFrame for a binary one, or BadFrame."""
        fields = incoming.event_in(message)
        given = fields.get("event_id")
        own = given[:MAX_EVENT_ID] if isinstance(given, str) else None
        try:
            return self._act(fields, own, len(message))
        except Refused as refused:
            return [self._say([refusal(self._next(), refused.error, own)])]

    def _act(self, fields: dict[str, Any], own: str | None, size: int) -> Sequence[Request]:
        """Return the requests for a client's event. Raises Refused."""
        deep = values.too_deep(fields, self._limits.depth)
        if deep is not None:
            name = deep[:64]
            raise Refused(f"`{name}`: nested deeper than {self._limits.depth}", name)
        kind = fields.get("type")
        if kind == "response.create":
            return self._create(fields.get("response"), own, size)
        act = ACTS.get(kind) if isinstance(kind, str) else None
        if act is not None:
            return act(self, fields)
        if isinstance(kind, str) and kind.startswith(AUDIO):
            raise Refused("`type`: there is no audio here", "type", "unsupported_value")
        known = ", ".join([*ACTS, "response.create"])
        raise Refused(f"`type`: must be one of {known}", "type", "invalid_value")

    def _update(self, fields: dict[str, Any]) -> Sequence[Request]:
        given = self._session.updated(fields.get("session"))
        size = len(json_text.encode(given))
        if not self._kept.fits(self._client, size - self._session_bytes):
            raise overloaded("the conversations and sessions here hold too much")
        self._keep_session(size)
        self._session.given = given
        shown = self._session.shown()
        return [self._say([SessionUpdated(event_id=self._next(), session=shown)])]

    def _keep_session(self, size: int) -> None:
        self._kept.need(self._client, size - self._session_bytes)
        self._kept.reduce()
        self._session_bytes = size

    def _add_item(self, fields: dict[str, Any]) -> Sequence[Request]:
        item = self._items.read(fields.get("item"), "item")
        before = self._items.insert(item, fields.get("previous_item_id"))
        kinds = (ConversationItemAdded, ConversationItemDone)
        told = [kind(event_id=self._next(), item=item, previous_item_id=before) for kind in kinds]
        return [self._say(told)]

    def _remove_item(self, fields: dict[str, Any]) -> Sequence[Request]:
        item_id = fields.get("item_id")
        self._items.remove(item_id)
        return [self._say([ConversationItemDeleted(event_id=self._next(), item_id=str(item_id))])]

    def _show_item(self, fields: dict[str, Any]) -> Sequence[Request]:
        item = self._items.find(fields.get("item_id"), "item_id")
        return [self._say([ConversationItemRetrieved(event_id=self._next(), item=item)])]

    def _create(self, response: Any, own: str | None, size: int) -> Sequence[Request]:
        turn = self._turn(response, own)
        if turn.in_conversation:
            self._items.check_room()
        active = self._active() if turn.in_conversation else None
        if active is None and len(self._running) < self._most:
            self._count(turn, size)
            return [self._begin(turn)]
        if active is not None and active.stopping and self._waiting is None:
            self._count(turn, size)
            self._waiting = turn
            return ()
        if active is None:
            said = f"{self._most} responses run on this connection"
            kind, code = "too_many_requests", "rate_limit_exceeded"
            raise Refused(said, code=code, status=429, kind=kind)
        said = f"{active.id} writes to the conversation; wait for its end, or cancel it"
        raise Refused(said, code="conversation_already_has_active_response")

    def _turn(self, response: Any, own: str | None) -> Turn:
        """Return what a `response.create` asks for. Raises Refused."""
        asked = self._session.asked(response)
        self._tell_left_out(set(asked.tools.left_out) - self._left_out)
        fields = response or {}
        given = fields.get("input")
        inside = fields.get("conversation") != "none"
        head = Response(
            id=new_id("resp"),
            conversation_id=self._items.id if inside else None,
            max_output_tokens=asked.create.max_output_tokens or ALL,
            metadata=asked.create.metadata,
        )
        return Turn(
            head.id,
            own,
            asked,
            inside,
            None if given is None else self._items.read_input(given, "response.input"),
            Answer(
                of.Response(id=head.id, created_at=0, model=self._session.model, text={}),
                None,
                lambda: 0.0,
                one_call=asked.create.parallel_tool_calls is False,
            ),
            Writer(head, self._items if inside else None, own, self._next),
        )

    def _tell_left_out(self, new: set[str]) -> None:
        told = sorted(new)[: MAX_TOLD - len(self._left_out)]
        if told:
            self._left_out.update(told)
            log.info("tools of the types %s are left out of prompts", ", ".join(told))

    def _active(self) -> Turn | None:
        """Return the response that writes to the conversation, None if there is none."""
        return next((turn for turn in self._running.values() if turn.in_conversation), None)

    def _cancel(self, fields: dict[str, Any]) -> Sequence[Request]:
        given = fields.get("response_id")
        waiting = self._waiting
        if given is None and waiting is not None:
            self._waiting = None
            self._held.remove(waiting)
            return [self._say(waiting.writer.told(waiting.answer.cancelled()))]
        turn = self._active() if given is None else self._running.get(quoted(given, MAX_ID))
        if turn is None or turn.stopping:
            said = "there is no response to cancel"
            raise Refused(said, "response_id" if given else None, "response_cancel_not_active")
        turn.stopping = True
        return [Cancel(id=turn.id)]

    # Responses.

    def next_requests(self) -> Sequence[Request]:
        """Return the requests of the responses that begin now."""
        again, self._again = self._again, []
        requests = [self._begin(turn) for turn in again]
        waiting = self._waiting
        if waiting is not None and self._active() is None and not self._closed:
            self._waiting = None
            requests.append(self._begin(waiting))
        return requests

    def _begin(self, turn: Turn) -> Request:
        try:
            request = self._request(turn)
        except Refused as refused:
            self._end(turn)
            return self._say(_failed(turn, refused.status, refused.error))
        self._running[turn.id] = turn
        return request

    def _request(self, turn: Turn) -> Request:
        """Return the request for the model. Raises Refused."""
        conversation, create = Conversation(), turn.asked.create
        for item in self._items if turn.input is None else turn.input:
            if _can_be_shown(item):
                conversation.add_item(item["id"], item)
        whole = conversation.messages(create.instructions)
        messages, turn.paths = turn.shortening.applied_to(*whole)
        if not messages:
            raise Refused("there is nothing to answer", None, "missing_required_parameter")
        return Generate(
            id=turn.id,
            model=self._session.model if self._named else None,
            messages=messages,
            tools=turn.asked.tools.asked or None,
            tool_choice=turn.asked.tools.called,
            **generation_options(create),
        )

    # To the client.

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""
        if isinstance(event, Pong):
            return self._own.take(event)
        turn = self._running.get(event.id) if event.id is not None else None
        if turn is None:
            return self._of_no_turn(event)
        answer, told = turn.answer, turn.writer.told
        match event:
            case Chunk():
                return _messages(told(answer.add_text(event)))
            case ToolCall():
                return _messages(told(answer.add_call(event)))
            case Started():
                return _messages(told(answer.start(event.model)))
            case Queued() | Loading():
                return _messages(told(answer.wait()))
            case Done():
                self._end(turn)
                return _messages(told(answer.finish(event)))
            case Failed(code=ErrorCode.CONTEXT_TOO_LONG) if self._shorten(turn):
                self._again.append(turn)
            case Failed():
                self._end(turn)
                return _messages(
                    _failed(turn, *of_failure(event, turn.paths, turn.asked.tools.places))
                )
        return ()

    def _shorten(self, turn: Turn) -> bool:
        auto = turn.asked.create.truncation == "auto"
        return auto and not turn.stopping and turn.shortening.more()

    def _of_no_turn(self, event: Event) -> Sequence[Message]:
        """Return the error for a message that could not be decoded; its id is the client's own."""
        if not isinstance(event, Failed):
            return ()
        _, why = of_failure(event)
        return _messages([refusal(self._next(), why, event.id)])

    def _end(self, turn: Turn) -> None:
        self._held.remove(turn)
        self._running.pop(turn.id, None)

    def _count(self, turn: Turn, size: int) -> None:
        """Count what a response holds until its end. Raises Refused if there is no room."""
        if not self._held.add(turn, size):
            raise overloaded("too much is asked for at once")

    def _say(self, events: Sequence[RealtimeEvent]) -> Ping:
        """Return the request after which the events are sent."""
        return self._own.say(_messages(events))


Act = Callable[[RealtimeDialect, dict[str, Any]], Sequence[Request]]
ACTS: dict[str, Act] = {
    "session.update": RealtimeDialect._update,  # noqa: SLF001 - its own table
    "conversation.item.create": RealtimeDialect._add_item,  # noqa: SLF001
    "conversation.item.delete": RealtimeDialect._remove_item,  # noqa: SLF001
    "conversation.item.retrieve": RealtimeDialect._show_item,  # noqa: SLF001
    "response.cancel": RealtimeDialect._cancel,  # noqa: SLF001
}


def secret_in(offered: Iterable[str]) -> str | None:
    """Return the token that a browser offers as a subprotocol, None if there is none."""
    names = list(offered)
    for name in names:
        if name.startswith(KEY_PROTOCOL):
            return name.removeprefix(KEY_PROTOCOL)
    return native.secret_in(names)


def _can_be_shown(item: Item) -> bool:
    """Return whether a model can be shown an item: a message that was cut, but no such call."""
    status = item["status"]
    return bool(status == "completed" or (status == "incomplete" and item["type"] == "message"))


def _path_of(param: str, turn: Turn) -> str:
    """Return what a client calls a field that errors of Responses call `param`."""
    if any(param == path or param.startswith((f"{path}.", f"{path}[")) for path in turn.paths):
        return param  # that begins with the id of an item
    if param == "input":
        return "conversation" if turn.input is None else "response.input"
    return turn.asked.path_of(param)


def _failed(turn: Turn, status: int, why: of.ErrorBody) -> list[RealtimeEvent]:
    """Return what a client is told of a response that is refused, or that fails."""
    if why.param is not None:
        path = _path_of(why.param, turn)
        said = why.message.replace(f"`{why.param}`", f"`{path}`", 1)
        why = msgspec.structs.replace(why, param=path, message=said)
    return turn.writer.failed(turn.answer.fail(status, why, code_of_failure(status)), why)


def _messages(events: Sequence[RealtimeEvent]) -> list[Message]:
    return [Message(json_text.encode(event), text=True) for event in events]


def _prepare(limits: RouteLimits) -> Callable[[Opening], RealtimeDialect]:
    return lambda opening: RealtimeDialect(opening, limits)


ROUTE = Route(
    PATH,
    _prepare,
    subprotocols=(SUBPROTOCOL,),
    secret_in=secret_in,
    says_hello=False,
    hint="this path is for WebSocket clients that speak OpenAI's Realtime",
)
