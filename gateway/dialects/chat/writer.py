"""The events of one answer as chunks of a UI message, each numbered.

The same events make the same chunks, so that an answer can be told again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from gateway.dialects import json_text
from gateway.dialects.base import Message
from gateway.protocol.frames import Chunk, Done, Loading, Progress, Queued, Started, ToolCall

__all__ = ["Writer", "frame_of"]

# The `finishReason` for each of the gateway's; `cancelled` has a chunk of its own instead.
REASONS = {"stop": "stop", "length": "length", "tool_calls": "tool-calls", "cancelled": "other"}
UNNAMED = "unknown"  # a tool's name in a call that broke off before it


@dataclass
class _Call:
    name: str
    parts: list[str] = field(default_factory=list)


class Writer:
    """The chunks of one answer, as messages for one request of the client.

    `before` are the chunks of the parts that the answer's message had already.
    """

    def __init__(self, request_id: str, message_id: str, before: Iterable[dict[str, Any]] = ()):
        self._request_id = request_id
        self._message_id = message_id
        self._before = before
        self._number = 0
        self._open: Literal["text", "reasoning"] | None = None  # the part that is being written
        self._parts = 0
        self._calls: dict[str, _Call] = {}
        self._model = ""

    def start(self, event: Started) -> Iterator[Message]:
        """Yield what begins an answer."""
        self._model = event.model
        yield self._chunk("start", messageId=self._message_id)
        for chunk in self._before:
            yield self._numbered(chunk)
        yield self._chunk("start-step")

    def wait(self, event: Queued | Loading | Progress) -> Message:
        """Return a data chunk that no message keeps, for `onData`."""
        fields = msgspec.to_builtins(event)
        kind = fields.pop("type")
        del fields["id"]
        return self._chunk("data-progress", data={kind: fields}, transient=True)

    def text(self, event: Chunk) -> Iterator[Message]:
        """Yield the chunks for text of the answer or of its reasoning."""
        kind: Literal["text", "reasoning"] = event.channel or "text"
        if self._open != kind:
            yield from self._close()
            self._parts += 1
            self._open = kind
            yield self._chunk(f"{kind}-start", id=str(self._parts))
        yield self._chunk(f"{kind}-delta", id=str(self._parts), delta=event.text)

    def call(self, event: ToolCall) -> Iterator[Message]:
        """Yield the chunks for a part of a tool call."""
        yield from self._close()
        own, call = event.call_id, self._calls.get(event.call_id)
        if call is None and event.name is not None:
            call = self._calls[own] = _Call(event.name)
            yield self._chunk("tool-input-start", toolCallId=own, toolName=event.name)
        if event.arguments and call is not None:
            call.parts.append(event.arguments)
            yield self._chunk("tool-input-delta", toolCallId=own, inputTextDelta=event.arguments)
        if event.error is not None:
            error = f"the call is {event.error.replace('_', ' ')}"
            yield self._input("tool-input-error", own, call, event.text, errorText=error)
        elif event.complete and call is not None:
            given = _value("".join(call.parts))
            yield self._input("tool-input-available", own, call, given)

    def end(self, event: Done) -> Iterator[Message]:
        """Yield what ends an answer."""
        yield from self._close()
        if event.finish_reason == "cancelled":
            yield self._chunk("abort")
        else:
            yield self._chunk("finish-step")
            told = {"model": self._model, "usage": event.usage, "timing": event.timing}
            yield self._chunk("data-usage", data=told, transient=True)
            yield self._chunk("finish", finishReason=REASONS[event.finish_reason])
        yield self.frame("end")

    def frame(self, kind: str, **fields: Any) -> Message:
        """Return a frame about the whole stream."""
        return frame_of({"type": kind, "requestId": self._request_id, **fields})

    def _input(self, kind: str, own: str, call: _Call | None, given: Any, **more: Any) -> Message:
        name = {"toolName": call.name} if call else {"toolName": UNNAMED, "dynamic": True}
        return self._chunk(kind, toolCallId=own, input=given, **name, **more)

    def _close(self) -> Iterator[Message]:
        if self._open is not None:
            yield self._chunk(f"{self._open}-end", id=str(self._parts))
            self._open = None

    def _chunk(self, type: str, **fields: Any) -> Message:  # noqa: A002 - its name on the wire
        return self._numbered({"type": type, **fields})

    def _numbered(self, chunk: dict[str, Any]) -> Message:
        number = self._number
        self._number += 1
        return frame_of(
            {"type": "chunk", "requestId": self._request_id, "sequence": number, "chunk": chunk}
        )


def frame_of(fields: dict[str, Any]) -> Message:
    """Return one frame of the protocol."""
    return Message(json_text.encode(fields), text=True)


def _value(text: str) -> Any:
    """Return a call's arguments, as text if they are not JSON."""
    try:
        return json_text.value_in(text or "{}")
    except ValueError:
        return text
