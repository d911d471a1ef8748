"""The answer to one `response.create`: a generation's events in, events of Responses out.

Rule 1: it ends with one of `response.completed`, `response.incomplete`, `response.failed` and
`error`; nothing follows.
Rule 2: an item that begins also ends, before the next begins.
Rule 3: numbers count the answer's own events, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import uuid4

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from gateway.dialects import json_text
from gateway.dialects.openai.server_events import (
    NO_LOGPROBS,
    ArgumentsDelta,
    ArgumentsDone,
    CallItem,
    Completed,
    Created,
    ErrorBody,
    ErrorEvent,
    FailedEvent,
    Incomplete,
    IncompleteDetails,
    InProgress,
    InputDetails,
    Item,
    ItemAdded,
    ItemDone,
    MessageItem,
    OutputDetails,
    OutputText,
    PartAdded,
    PartDone,
    QueuedEvent,
    ReasoningDelta,
    ReasoningDone,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseError,
    ResponseUsage,
    ServerEvent,
    TextDelta,
    TextDone,
)
from gateway.protocol.frames import Chunk, Done, Timing, ToolCall, Usage

__all__ = ["NOTHING_USED", "Answer", "new_id"]

Ending = Literal["completed", "incomplete"]
NOTHING_USED = ResponseUsage(
    input_tokens=0,
    input_tokens_details=InputDetails(cached_tokens=0),
    output_tokens=0,
    output_tokens_details=OutputDetails(reasoning_tokens=0),
    total_tokens=0,
)


def new_id(kind: str) -> str:
    """Return an id that nobody can guess."""
    return f"{kind}_{uuid4().hex}"


class _OpenText:
    """A message, or the reasoning, that is being written."""

    def __init__(self, place: int, *, reasons: bool):
        self.id = new_id("rs" if reasons else "msg")
        self.place = place  # among the items of the output
        self.reasons = reasons
        self.parts: list[str] = []
        self.logprobs: list[bytes] = []  # lists in JSON, without their brackets

    def item(self, status: Literal["in_progress", "completed", "incomplete"]) -> Item:
        begun = status != "in_progress"
        if self.reasons:
            thoughts = [self.part()] if begun else []
            return ReasoningItem(id=self.id, status=status, content=thoughts)  # type: ignore[arg-type]
        content = [self.part()] if begun else []
        return MessageItem(id=self.id, status=status, content=content)  # type: ignore[arg-type]

    def part(self) -> OutputText | ReasoningText:
        text = "".join(self.parts)
        if self.reasons:
            return ReasoningText(text=text)
        return OutputText(text=text, logprobs=_list_of(self.logprobs))


class _OpenCall:
    """A call that is being written."""

    def __init__(self, place: int, call: ToolCall):
        self.id = new_id("fc")
        self.place = place
        self.index = call.index
        self.call_id = call.call_id
        self.name = call.name or ""
        self.parts: list[str] = []

    def item(self, status: Literal["in_progress", "completed", "incomplete"]) -> Item:
        return CallItem(
            id=self.id,
            status=status,
            call_id=self.call_id,
            name=self.name,
            arguments="".join(self.parts),
        )


class Answer:
    """The events of one response, in order.

    `head` is the response as it begins. Of an answer that is `prepared_only` nothing is told but
    its beginning and its end. With `one_call` only the first of the model's calls is told.
    """

    def __init__(
        self,
        head: Response,
        stream_id: str | None,
        clock: Callable[[], float],
        *,
        prepared_only: bool = False,
        one_call: bool = False,
    ):
        self._head = head
        self._stream_id: str | UnsetType = UNSET if stream_id is None else stream_id
        self._clock = clock  # seconds since 1970
        self._prepared_only = prepared_only
        self._one_call = one_call
        self._sequence = 0
        self._open: _OpenText | _OpenCall | None = None
        self._output: list[Item] = []
        self._broken: list[str] = []  # calls that can't be read, as the model wrote them
        self._begun = self._in_progress = False
        self.logprobs_bytes = self.logprobs_tokens = 0  # those of all its messages

    # Its beginning.

    def wait(self) -> list[ServerEvent]:
        """Return the events for a generation that waits, none if they were sent."""
        if self._begun:
            return []
        self._begun = True
        response = replace(self._head, status="queued")
        return [self._of(Created, response), self._of(QueuedEvent, response)]

    def start(self, model: str) -> list[ServerEvent]:
        """Return the events for a generation that begins."""
        self._head = replace(self._head, model=model or self._head.model)
        events: list[ServerEvent] = [] if self._begun else [self._of(Created, self._head)]
        self._begun = self._in_progress = True
        return [*events, self._of(InProgress, self._head)]

    # What the model says.

    def add_text(self, chunk: Chunk) -> list[ServerEvent]:
        """Return the events for some text or reasoning."""
        if self._prepared_only:
            return []
        now, reasons = self._open, chunk.channel is not None
        events: list[ServerEvent] = []
        if not isinstance(now, _OpenText) or now.reasons != reasons:
            events = self._close("completed")
            now = self._open = _OpenText(len(self._output), reasons=reasons)
            events += [self._item_added(now), self._part_added(now)]
        now.parts.append(chunk.text)
        if reasons:
            events.append(
                ReasoningDelta(
                    item_id=now.id,
                    output_index=now.place,
                    delta=chunk.text,
                    sequence_number=self._next(),
                    stream_id=self._stream_id,
                )
            )
            return events
        new = self._packed(chunk.logprobs) if chunk.logprobs else []
        now.logprobs += new
        events.append(
            TextDelta(
                item_id=now.id,
                output_index=now.place,
                delta=chunk.text,
                logprobs=_list_of(new),
                sequence_number=self._next(),
                stream_id=self._stream_id,
            )
        )
        return events

    def _packed(self, given: Sequence[dict[str, Any]]) -> list[bytes]:
        packed = json_text.encode(_logprobs(given))[1:-1]
        self.logprobs_bytes += len(packed)
        self.logprobs_tokens += len(given)
        return [packed]

    def add_call(self, call: ToolCall) -> list[ServerEvent]:
        """Return the events for a part of a call."""
        if self._prepared_only or (self._one_call and call.index > 0):
            return []
        now = self._open
        events: list[ServerEvent] = []
        if not isinstance(now, _OpenCall) or now.index != call.index:
            if call.error is not None:
                self._broken.append(call.text or "")
                text = Chunk(id=call.id, seq=call.seq, text=call.text or "")
                return self.add_text(text) if call.text else []
            events = self._close("completed")
            now = self._open = _OpenCall(len(self._output), call)
            events.append(self._item_added(now))
        if call.arguments:
            now.parts.append(call.arguments)
            events.append(
                ArgumentsDelta(
                    item_id=now.id,
                    output_index=now.place,
                    delta=call.arguments,
                    sequence_number=self._next(),
                    stream_id=self._stream_id,
                )
            )
        if call.error is not None:
            self._broken.append(call.text or "")
            events += self._close("incomplete")
        elif call.complete:
            events += self._close("completed")
        return events

    # Its end.

    def finish(self, done: Done) -> list[ServerEvent]:
        """Return the last events of a generation that did not fail."""
        usage = _usage(done.usage, prepared_only=self._prepared_only)
        match done.finish_reason:
            case "cancelled":
                return self.cancelled(usage)
            case "length" if not self._prepared_only:
                why = IncompleteDetails(reason="max_output_tokens")
                events = self._close("incomplete")
                end = self._ended("incomplete", usage=usage, incomplete_details=why)
                return [*events, self._of(Incomplete, end)]
        return [*self._close("completed"), *self.completed(usage)]

    def cut(self, prompt_tokens: int) -> list[ServerEvent]:
        """Return the last events of an answer that ends before the model does."""
        written = self.logprobs_tokens
        used = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=written,
            total_tokens=prompt_tokens + written,
        )
        return self.finish(Done(id="", seq=0, finish_reason="length", usage=used, timing=Timing()))

    def completed(self, usage: ResponseUsage) -> list[ServerEvent]:
        """Return the events at the end of a whole answer."""
        end = self._ended("completed", usage=usage, completed_at=int(self._clock()))
        return [*self._created(), self._of(Completed, end)]

    def cancelled(self, usage: ResponseUsage | None = None) -> list[ServerEvent]:
        """Return the last events of a response that the client has cancelled."""
        events = self._close("incomplete")
        end = self._ended("cancelled", usage=usage)
        return [*self._created(), *events, self._of(Incomplete, end)]

    def fail(self, status: int, why: ErrorBody, code: str = "server_error") -> list[ServerEvent]:
        """Return the last events of a response that is refused, or that failed with a `code`."""
        if not self._begun:
            return [
                ErrorEvent(
                    status=status,
                    error=why,
                    sequence_number=self._next(),
                    stream_id=self._stream_id,
                )
            ]
        events = self._close("incomplete")
        end = self._ended("failed", error=ResponseError(code=code, message=why.message))
        return [*events, self._of(FailedEvent, end)]

    def messages(self) -> list[dict[str, Any]]:
        """Return what the model has said, as messages of the conversation."""
        said: dict[str, Any] = {"role": "assistant", "content": ""}
        for item in self._output:
            match item:
                case MessageItem(content=parts):
                    said["content"] += "".join(part.text for part in parts)
                case ReasoningItem(content=thoughts):
                    thought = said.get("reasoning_content", "")
                    said["reasoning_content"] = thought + "".join(part.text for part in thoughts)
                case CallItem(status="completed"):
                    function = {"name": item.name, "arguments": item.arguments or "{}"}
                    call = {"id": item.call_id, "type": "function", "function": function}
                    said.setdefault("tool_calls", []).append(call)
        said["content"] = said["content"] or "".join(self._broken)
        return [said] if len(said) > 2 or said["content"] else []

    def items(self) -> dict[str, dict[str, Any]]:
        """Return by their ids the items that a later input may refer to."""
        found: dict[str, dict[str, Any]] = {}
        for item in self._output:
            match item:
                case MessageItem(content=parts):
                    said = "".join(part.text for part in parts)
                    found[item.id] = {"type": "message", "role": item.role, "content": said}
                case ReasoningItem(content=thoughts):
                    parts = [msgspec.to_builtins(part) for part in thoughts]
                    found[item.id] = {"type": "reasoning", "content": parts}
                case CallItem(status="completed"):
                    call = {"name": item.name, "arguments": item.arguments or "{}"}
                    found[item.id] = {"type": "function_call", "call_id": item.call_id, **call}
        return found

    # Events.

    def _next(self) -> int:
        number = self._sequence
        self._sequence = number + 1
        return number

    def _of(self, kind: type[Any], response: Response) -> ServerEvent:
        event: ServerEvent = kind(
            response=response, sequence_number=self._next(), stream_id=self._stream_id
        )
        return event

    def _created(self) -> list[ServerEvent]:
        if self._begun:
            return []
        self._begun = True
        return [self._of(Created, self._head)]

    def _ended(self, status: str, **fields: Any) -> Response:
        return replace(self._head, status=status, output=self._output, **fields)

    def _item_added(self, now: _OpenText | _OpenCall) -> ServerEvent:
        return ItemAdded(
            output_index=now.place,
            item=now.item("in_progress"),
            sequence_number=self._next(),
            stream_id=self._stream_id,
        )

    def _part_added(self, now: _OpenText) -> ServerEvent:
        return PartAdded(
            item_id=now.id,
            output_index=now.place,
            part=now.part(),
            sequence_number=self._next(),
            stream_id=self._stream_id,
        )

    def _close(self, status: Ending) -> list[ServerEvent]:
        """Return the events at the end of the open item, none if there is none."""
        now, self._open = self._open, None
        if now is None:
            return []
        item = now.item(status)
        self._output.append(item)
        events = self._texts_done(now) if isinstance(now, _OpenText) else [self._call_done(now)]
        done = ItemDone(
            output_index=now.place,
            item=item,
            sequence_number=self._next(),
            stream_id=self._stream_id,
        )
        return [*events, done]

    def _texts_done(self, now: _OpenText) -> list[ServerEvent]:
        part = now.part()
        at: dict[str, Any] = {
            "item_id": now.id,
            "output_index": now.place,
            "stream_id": self._stream_id,
        }
        if isinstance(part, OutputText):
            done: ServerEvent = TextDone(
                text=part.text, logprobs=part.logprobs, sequence_number=self._next(), **at
            )
        else:
            done = ReasoningDone(text=part.text, sequence_number=self._next(), **at)
        return [done, PartDone(part=part, sequence_number=self._next(), **at)]

    def _call_done(self, now: _OpenCall) -> ServerEvent:
        return ArgumentsDone(
            item_id=now.id,
            output_index=now.place,
            arguments="".join(now.parts),
            sequence_number=self._next(),
            stream_id=self._stream_id,
        )


def _usage(used: Usage, *, prepared_only: bool) -> ResponseUsage:
    output = 0 if prepared_only else used.completion_tokens
    reasoning = 0 if prepared_only else used.reasoning_tokens
    return ResponseUsage(
        input_tokens=used.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=used.cached_tokens),
        output_tokens=output,
        output_tokens_details=OutputDetails(reasoning_tokens=reasoning),
        total_tokens=used.prompt_tokens + output,
    )


def _list_of(packed: Sequence[bytes]) -> Raw:
    return Raw(b"[" + b",".join(packed) + b"]") if packed else NO_LOGPROBS


def _logprobs(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return log-probabilities in which a part of a character has no bytes, instead of null."""
    return [
        {**_whole(one), "top_logprobs": [_whole(top) for top in one["top_logprobs"]]}
        for one in given
    ]


def _whole(one: dict[str, Any]) -> dict[str, Any]:
    return {"token": one["token"], "logprob": one["logprob"], "bytes": one.get("bytes") or []}
