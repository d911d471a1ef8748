"""AG-UI over WebSocket on one connection, as TanStack AI's `webSocket()` speaks it.

Rule 1: runs of one connection never interleave, because most events name no run; one that comes
early waits for the one before it.
Rule 2: each run ends with one RUN_FINISHED or RUN_ERROR; after an `abort` nothing more comes of it.
Rule 3: a connection that is dialled with an `offset` only reads a run, and is closed at its end.

Source: DIALECTS.md, section "AG-UI".
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from gateway.dialects import native, values
from gateway.dialects.agui.messages import read_messages
from gateway.dialects.agui.writer import RunIds, Writer, bare
from gateway.dialects.base import FrameLimits, Message, Opening, Route, RouteLimits
from gateway.dialects.held_requests import HeldRequests
from gateway.dialects.incoming import object_in
from gateway.dialects.kept_runs import KeptRun, KeptRuns, Reading, new_id
from gateway.dialects.options import generate_frame, name_in, read_options
from gateway.dialects.readings import ResumingDialect, Stream
from gateway.dialects.refusals import Refused, said
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Event, Failed, Request
from gateway.protocol.frames import Chunk, Done, Generate, Pong, Started, ToolCall

__all__ = ["ROUTE", "AguiDialect"]

PATH = "/v1/agui"
SUBPROTOCOL = "ag-ui.v1"
MAX_ID = 256  # characters of a run's id and of a thread's
MAX_WAITING = 8  # runs of a connection that wait for the one before them
NUMBER = re.compile(r"[0-9]{1,18}")  # the number of an event, as its offset has it
READ_ALL, NOTHING_KEPT = 1000, 1008  # codes with which a connection is closed that only reads
UNKNOWN = "the run is not kept"
WITHOUT_PLACE = "models here are not shown it; put it into the messages"


@dataclass(eq=False, kw_only=True)
class RunStream(Stream):
    """One run and what the client is told of it."""

    ids: RunIds
    writer: Writer
    frame: Generate | None = None  # while it waits
    size: int = 0  # bytes of its message, while it waits
    paths: dict[str, str] = field(default_factory=dict)  # of the options
    messages: list[str] = field(default_factory=list)  # the path of each


class AguiDialect(ResumingDialect[RunStream]):
    """The language of one connection."""

    name = "tanstack.v1.agui"

    def __init__(self, opening: Opening, limits: RouteLimits, kept: KeptRuns):
        super().__init__(opening, limits, kept)
        self._held = HeldRequests(opening)
        self._waiting: deque[RunStream] = deque()
        query = parse_qs(opening.query, keep_blank_values=True)
        self._reads_only = "offset" in query
        self._first: Sequence[Request] = ()
        if self._reads_only:
            self._first = self._read(query.get("runId", [""])[0], query["offset"][0])

    def close(self) -> None:
        """Leave what goes on without the connection, and what waits."""
        super().close()
        for stream in self._waiting:
            self._held.remove(stream)
        self._waiting.clear()

    # From the client.

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests for a message. Raises NotAFrame."""
        fields = object_in(message)
        if self._reads_only:
            return ()
        if fields.get("type") == "abort":
            return self._abort(fields.get("runId"))
        try:
            return self._run(fields, len(message))
        except Refused as refused:
            return [self._say(str(refused), refused.code, fields.get("runId"))]

    def _run(self, fields: dict[str, Any], size: int) -> Sequence[Request]:
        deep = values.too_deep(fields, self._limits.depth)
        if deep is not None:
            raise Refused(f"nested deeper than {self._limits.depth}", deep)
        for name in ("state", "context"):
            if fields.get(name):
                raise Refused(WITHOUT_PLACE, name)
        ids = RunIds(_id(fields, "threadId"), _id(fields, "runId"), new_id("msg"))
        stream = _stream(fields, ids, self._limits)
        stopped = self._stop_earlier(ids.run)
        try:
            self._hold(stream, size)
        except Refused as refused:
            return [*stopped, self._say(str(refused), refused.code, ids.run)]
        return [*stopped, *self._begin_next()]

    def _stop_earlier(self, run_id: str) -> Sequence[Request]:
        """Return what stops an earlier run with this id, which nobody is told of any more."""
        stopped = self._abort(run_id)
        run = self._kept.find(self._client, run_id)
        if run is None:
            return stopped
        if run.ended:
            self._kept.forget(run)
            return stopped
        return [*stopped, *self._readings.stop_unread(run)]

    def _abort(self, run_id: Any) -> Sequence[Request]:
        for waiting in [one for one in self._waiting if one.ids.run == run_id]:
            self._waiting.remove(waiting)
            self._held.remove(waiting)
        requests: list[Request] = []
        for stream in self._readings.all:
            if stream.ids.run == run_id and not stream.stopped:
                requests += self._readings.stop(stream)
        return [*requests, *self._begin_next()]

    # Runs in order.

    def _hold(self, stream: RunStream, size: int) -> None:
        """Let a run wait until no other is told. Raises Refused if too much waits."""
        if self._busy:
            if len(self._waiting) >= MAX_WAITING:
                text = f"{MAX_WAITING} runs of this connection wait already"
                raise Refused(text, code=ErrorCode.RATE_LIMITED)
            if not self._held.add(stream, size):
                raise Refused("too many requests of this client wait", code=ErrorCode.OVERLOADED)
        self._waiting.append(stream)

    @property
    def _busy(self) -> bool:
        return bool(self._waiting) or any(not one.stopped for one in self._readings.all)

    def _begin_next(self) -> Sequence[Request]:
        """Return the request of the run whose turn has come."""
        if not self._waiting or any(not one.stopped for one in self._readings.all):
            return ()
        stream = self._waiting.popleft()
        self._held.remove(stream)
        self._readings.add(stream)
        frame, stream.frame = stream.frame, None
        return () if frame is None else (frame,)

    def next_requests(self) -> Sequence[Request]:
        """Return the requests that waited until now."""
        first, self._first = self._first, ()
        return [*first, *super().next_requests(), *self._begin_next()]

    def _read(self, run_id: str, offset: str) -> Sequence[Request]:
        """Return the request that reads a run after an offset."""
        run = self._kept.find(self._client, run_id)
        after = None if run is None else _number(offset, run.id)
        begun = None if after is None else self._kept.begin(self, self._client, run_id)
        if run is None or after is None or begun is None:
            return [self._say(UNKNOWN, ErrorCode.NOT_RESUMABLE, run_id)]
        reading, request = begun
        ids = RunIds(str(run.context), run_id, run.id)
        self._readings.add(RunStream(reading, ids=ids, writer=Writer(ids, after)))
        return [request]

    def _say(self, message: str, code: ErrorCode, run_id: Any) -> Request:
        """Return the request after which a run's error is sent."""
        return self._own.say([bare(_error(message, code, run_id))])

    # To the client.

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""
        if isinstance(event, Pong):
            self._close_reader(NOTHING_KEPT)
            return self._own.take(event)
        stream = self._readings.of(event)
        if stream is None:
            return () if self._readings.stopped_unread(event) else _of_no_run(event)
        match event:
            case Chunk():
                told = list(stream.writer.text(event))
            case ToolCall():
                told = list(stream.writer.call(event))
            case Started():
                told = self._start(stream, event)
            case Done():
                told = self._end(stream, event)
            case Failed():
                told = self._fail(stream, event)
            case _:
                return ()  # AG-UI has no events for the time before a run begins
        return () if stream.stopped else told

    def _start(self, stream: RunStream, event: Started) -> list[Message]:
        reading = stream.reading
        if reading.run is None and event.ticket is not None:
            name, ticket = stream.ids.run, event.ticket
            run = KeptRun(self._client, name, reading.id, ticket, self, context=stream.ids.thread)
            reading.run = run
            if not stream.stopped:
                self._kept.add(run)
        return list(stream.writer.start(event.model))

    def _end(self, stream: RunStream, event: Done) -> list[Message]:
        self._readings.end(stream, forget=event.finish_reason == "cancelled")
        self._close_reader(READ_ALL)
        return list(stream.writer.end(event))

    def _fail(self, stream: RunStream, event: Failed) -> list[Message]:
        if self._readings.goes_on(stream):
            return []
        self._readings.fail(stream, forget=event.code is not ErrorCode.RATE_LIMITED)
        self._close_reader(NOTHING_KEPT)
        text = said(event, lambda name: name_in(stream.paths, stream.messages, name))
        return [bare(_error(text, event.code, stream.ids.run))]

    def _close_reader(self, code: int) -> None:
        if self._reads_only:
            self.farewell = code, "" if code == READ_ALL else UNKNOWN


def _stream(fields: dict[str, Any], ids: RunIds, limits: FrameLimits) -> RunStream:
    """Return the run that a client asks for. Raises Refused."""
    given, path = fields.get("forwardedProps"), "forwardedProps"
    if given is None:
        given, path = fields.get("data") or {}, "data"
    if not isinstance(given, dict):
        raise Refused("must be an object", path)
    prompt = read_messages(fields.get("messages"), fields.get("resume"), limits)
    options, paths = read_options(given, path)
    if fields.get("tools"):
        if "tools" in options:
            raise Refused("differs from `tools`", paths["tools"])
        options["tools"], paths["tools"] = fields["tools"], "tools"
    frame = generate_frame(
        {
            **options,
            "id": ids.generation,
            "messages": prompt.messages,
            "files": prompt.files or None,
            "resumable": True,
            "keep_on_close": True,
        },
        paths,
    )
    return RunStream(
        Reading(ids.generation),
        ids=ids,
        writer=Writer(ids),
        frame=frame,
        paths=paths,
        messages=prompt.paths,
    )


def _id(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Refused(f"must be a string of 1 to {MAX_ID} characters", name)
    return value


def _number(offset: str, generation: str) -> int | None:
    """Return the number of an offset of a run's generation, None if it is of no such run."""
    own, _, number = offset.rpartition(".")
    if offset == "-1":
        return -1
    return int(number) if own == generation and NUMBER.fullmatch(number) else None


def _error(message: str, code: ErrorCode, run_id: Any) -> dict[str, Any]:
    about = {"runId": run_id} if isinstance(run_id, str) else {}
    return {"type": "RUN_ERROR", "message": message, "code": code, **about}


def _of_no_run(event: Event) -> Sequence[Message]:
    """Return the error for an event of no run: a message was too much to decode."""
    if not isinstance(event, Failed):
        return ()
    return [bare(_error(event.message, event.code, None))]


def _turn_away(code: ErrorCode, reason: str) -> Sequence[Message]:
    """Return the error for a client that is not let in, whose own socket hides a close frame's."""
    return [bare(_error(reason, code, None))]


def _prepare(limits: RouteLimits) -> Callable[[Opening], AguiDialect]:
    kept = KeptRuns()
    return lambda opening: AguiDialect(opening, limits, kept)


ROUTE = Route(
    PATH,
    _prepare,
    subprotocols=(SUBPROTOCOL,),
    secret_in=native.secret_in,
    says_hello=False,
    hint="this path is for WebSocket clients that speak AG-UI, TanStack AI's webSocket()",
    turn_away=_turn_away,
)
