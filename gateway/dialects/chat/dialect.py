"""AI SDK's chat over WebSocket on one connection: `send`, `resume` and `abort` in, chunks out.

Rule 1: each `send` and each `resume` has one stream of frames with its `requestId`, and that ends
with one `end`, `error` or `no-active`. No frame is without a `requestId`.
Rule 2: what runs for a chat goes on when its connection is lost, and its client can resume it; it
ends with `abort`, or when the same chat sends something new.

Source: DIALECTS.md, section "Chat".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects import json_text, native, values
from gateway.dialects.base import Message, Opening, Route, RouteLimits
from gateway.dialects.chat.messages import read_messages
from gateway.dialects.chat.parts import Part, again
from gateway.dialects.chat.writer import Writer, frame_of
from gateway.dialects.held_requests import HeldRequests
from gateway.dialects.incoming import object_in
from gateway.dialects.kept_runs import RUN_BYTES, KeptRun, KeptRuns, Reading, new_id
from gateway.dialects.options import generate_frame, name_in, read_options
from gateway.dialects.readings import ResumingDialect, Stream
from gateway.dialects.refusals import Refused, said
from gateway.protocol.codes import ErrorCode, NotAFrame
from gateway.protocol.events import Event, Failed, Request
from gateway.protocol.frames import (
    Chunk,
    Done,
    Loading,
    Ping,
    Pong,
    Progress,
    Queued,
    Started,
    ToolCall,
)

__all__ = ["ROUTE", "ChatDialect"]

PATH = "/v1/chat"
SUBPROTOCOL = "ai-sdk.v1"
MAX_ID = 256  # characters of a chat's id and of a request's
REQUEST_ID = re.compile(rf'"requestId"\s*:\s*"([^"\\]{{1,{MAX_ID}}})"')
MAX_CONTINUED = 256  # parts of a message that goes on; each is told again, in three chunks at most
TRIGGERS = ("submit-message", "regenerate-message")
RUNNING = "an answer of this chat is being made"


@dataclass(frozen=True)
class Continued:
    """What tells an answer again: its message's id, and the parts that were there before."""

    message_id: str
    before: list[Part] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class ChatStream(Stream):
    """One request of the client and what it is told."""

    request_id: str
    chat_id: str
    writer: Writer
    answer: Continued
    resumes: bool = False
    before_bytes: int = 0  # size of what is kept to continue a message
    size: int = 0  # bytes that are counted for the client
    paths: dict[str, str] = field(default_factory=dict)  # the path of each option
    messages: list[str] = field(default_factory=list)  # the path of each message


class ChatDialect(ResumingDialect[ChatStream]):
    """The language of one connection."""

    name = "ai-sdk.v1.chat"

    early_id = REQUEST_ID

    def __init__(self, opening: Opening, limits: RouteLimits, kept: KeptRuns):
        super().__init__(opening, limits, kept)
        self._by_request: dict[str, ChatStream] = {}
        self._held = HeldRequests(opening)

    def close(self) -> None:
        """Leave what goes on without the connection."""
        super().close()
        for stream in self._by_request.values():
            self._held.remove(stream)

    # From the client.

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests for a message. Raises NotAFrame."""
        fields = object_in(message)
        if not isinstance(fields.get("type"), str):
            raise NotAFrame("a message must be a JSON object with a `type`")
        request_id = fields.get("requestId")
        if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID:
            raise NotAFrame(f"`requestId` must be a string of 1 to {MAX_ID} characters")
        try:
            return self._request(fields, request_id)
        except Refused as refused:
            return [self._say(request_id, "error", errorText=f"{refused.code}: {refused}")]

    def _request(self, fields: dict[str, Any], request_id: str) -> Sequence[Request]:
        if fields["type"] == "abort":
            return self._abort(request_id)
        deep = values.too_deep(fields, self._limits.depth)
        if deep is not None:
            raise Refused(f"nested deeper than {self._limits.depth}", deep)
        if request_id in self._by_request:
            raise Refused("is in use", "requestId", ErrorCode.DUPLICATE_ID)
        chat_id = fields.get("id")
        if not isinstance(chat_id, str) or not 0 < len(chat_id) <= MAX_ID:
            raise Refused(f"must be a string of 1 to {MAX_ID} characters", "id")
        match fields["type"]:
            case "send":
                return self._send(fields, request_id, chat_id)
            case "resume":
                return self._resume(fields, request_id, chat_id)
        raise Refused("must be send, resume or abort", "type", ErrorCode.INVALID_FRAME)

    def _send(self, fields: dict[str, Any], request_id: str, chat_id: str) -> Sequence[Request]:
        if fields.get("trigger", TRIGGERS[0]) not in TRIGGERS:
            raise Refused(f"must be one of {', '.join(TRIGGERS)}", "trigger")
        body = fields.get("body") or {}
        if not isinstance(body, dict):
            raise Refused("must be an object", "body")
        prompt = read_messages(fields.get("messages"))
        options, paths = read_options(body, "body")
        own = new_id("msg")
        answer = _continued(fields["messages"], own)
        before_bytes = len(json_text.encode(answer.before)) if answer.before else 0
        self._check_room(before_bytes)
        frame = generate_frame(
            {
                **options,
                "id": own,
                "messages": prompt.messages,
                "files": prompt.files or None,
                "resumable": True,
                "keep_on_close": True,
            },
            paths,
        )
        earlier = self._to_stop(chat_id)
        self._add(
            ChatStream(
                Reading(own),
                request_id=request_id,
                chat_id=chat_id,
                writer=Writer(request_id, answer.message_id),
                answer=answer,
                paths=paths,
                messages=prompt.paths,
                before_bytes=before_bytes,
            )
        )
        return [*earlier, frame]

    def _to_stop(self, chat_id: str) -> Sequence[Request]:
        """Return what stops an earlier answer that nobody reads. Raises Refused if one is read."""
        if any(one.chat_id == chat_id and not one.stopped for one in self._readings.all):
            raise Refused(RUNNING, code=ErrorCode.DUPLICATE_ID)
        run = self._kept.find(self._client, chat_id)
        if run is None or run.ended:
            return ()
        if run.reader is not None:
            raise Refused(RUNNING, code=ErrorCode.DUPLICATE_ID)
        return self._readings.stop_unread(run)

    def _resume(self, fields: dict[str, Any], request_id: str, chat_id: str) -> Sequence[Request]:
        if fields.get("lastSequence") is not None:
            raise Refused("leave it out: an answer is told again as a whole", "lastSequence")
        kept = self._kept.find(self._client, chat_id)
        if kept is not None:
            self._check_room(kept.size - RUN_BYTES)
        begun = self._readings.begin(self._client, chat_id)
        if begun is None:
            return [self._say(request_id, "no-active")]
        reading, request = begun
        assert reading.run is not None
        answer: Continued = reading.run.context
        writer = Writer(request_id, answer.message_id, again(answer.before))
        self._add(
            ChatStream(
                reading,
                request_id=request_id,
                chat_id=chat_id,
                writer=writer,
                answer=answer,
                resumes=True,
                before_bytes=reading.run.size - RUN_BYTES,
            )
        )
        return [request]

    def _abort(self, request_id: str) -> Sequence[Request]:
        stream = self._by_request.get(request_id)
        return () if stream is None else self._readings.stop(stream)

    def _check_room(self, size: int) -> None:
        """Raise Refused if there is no room for what an answer continues."""
        if not self._held.fits(size):
            raise Refused("too much is continued at once", code=ErrorCode.OVERLOADED)

    def _add(self, stream: ChatStream) -> None:
        self._held.add(stream, stream.before_bytes)
        self._readings.add(stream)
        self._by_request[stream.request_id] = stream

    def _remove(self, stream: ChatStream) -> None:
        self._by_request.pop(stream.request_id, None)
        self._held.remove(stream)

    def _say(self, request_id: str, kind: str, **fields: Any) -> Ping:
        """Return the request after which a frame is sent."""
        return self._own.say([frame_of({"type": kind, "requestId": request_id, **fields})])

    # To the client.

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""
        if isinstance(event, Pong):
            return self._own.take(event)
        stream = self._readings.of(event)
        if stream is None:
            return () if self._readings.stopped_unread(event) else _of_no_stream(event)
        writer = stream.writer
        match event:
            case Chunk():
                return list(writer.text(event))
            case ToolCall():
                return list(writer.call(event))
            case Started():
                return self._start(stream, event)
            case Queued() | Loading() | Progress():
                return [writer.wait(event)]
            case Done():
                return self._end(stream, event)
            case Failed():
                return self._fail(stream, event)

    def _start(self, stream: ChatStream, event: Started) -> Sequence[Message]:
        reading = stream.reading
        if reading.run is None and event.ticket is not None:
            reading.run = KeptRun(
                self._client,
                stream.chat_id,
                reading.id,
                event.ticket,
                self,
                context=stream.answer,
                size=RUN_BYTES + stream.before_bytes,
            )
            self._kept.add(reading.run)
        first = [stream.writer.frame("start")] if stream.resumes else []
        return [*first, *stream.writer.start(event)]

    def _end(self, stream: ChatStream, event: Done) -> Sequence[Message]:
        self._readings.end(stream, forget=event.finish_reason == "cancelled")
        self._remove(stream)
        return list(stream.writer.end(event))

    def _fail(self, stream: ChatStream, event: Failed) -> Sequence[Message]:
        if self._readings.goes_on(stream):
            return ()
        forget = event.code is not ErrorCode.RATE_LIMITED
        self._readings.fail(stream, forget=forget)
        self._remove(stream)
        if stream.resumes and not stream.begun and event.code is ErrorCode.NOT_RESUMABLE:
            return [stream.writer.frame("no-active")]
        text = said(event, lambda name: name_in(stream.paths, stream.messages, name))
        return [stream.writer.frame("error", errorText=f"{event.code}: {text}")]


def _of_no_stream(event: Event) -> Sequence[Message]:
    """Return the error for a message that was too much to decode; its id is its request's."""
    if not isinstance(event, Failed) or event.id is None:
        return ()
    text = f"{event.code}: {event.message}"
    return [frame_of({"type": "error", "requestId": event.id, "errorText": text})]


def _continued(messages: list[dict[str, Any]], own: str) -> Continued:
    """Return what an answer continues: the last message, if that is an answer already."""
    last = messages[-1]
    if last.get("role") != "assistant" or not isinstance(last.get("id"), str):
        return Continued(own)
    if len(last["parts"]) > MAX_CONTINUED:
        path = f"messages[{len(messages) - 1}].parts"
        raise Refused(f"an answer goes on after at most {MAX_CONTINUED}", path)
    return Continued(last["id"], last["parts"])


def _prepare(limits: RouteLimits) -> Callable[[Opening], ChatDialect]:
    kept = KeptRuns()
    return lambda opening: ChatDialect(opening, limits, kept)


ROUTE = Route(
    PATH,
    _prepare,
    subprotocols=(SUBPROTOCOL,),
    secret_in=native.secret_in,
    says_hello=False,
    hint="this path is for WebSocket clients, AI SDK's WebSocketChatTransport",
)
