"""The events of one answer as those of an AG-UI run, each with an offset.

The same events make the same ones, so that a run can be told again from any offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects import json_text
from gateway.dialects.agui.messages import CLIENT_TOOL
from gateway.dialects.base import Message
from gateway.protocol.frames import Chunk, Done, ToolCall, Usage

__all__ = ["RunIds", "Writer", "bare"]


@dataclass(frozen=True)
class RunIds:
    """The ids of a run: the client's own, and that of its generation."""

    thread: str
    run: str
    generation: str


@dataclass
class _Call:
    name: str
    parts: list[str] = field(default_factory=list)
    complete: bool = False


class Writer:
    """The events of one run as messages; those with an offset up to `after` are left out."""

    def __init__(self, ids: RunIds, after: int = -1):
        self._ids = ids
        self._after = after
        self._number = 0
        self._open: str | None = None  # "text" or "reasoning"
        self._thought = 0  # how many pieces of reasoning have begun
        self._calls: dict[str, _Call] = {}
        self._model = ""

    def start(self, model: str) -> Iterator[Message]:
        """Yield what begins a run."""
        self._model = model
        yield from self._event("RUN_STARTED", threadId=self._ids.thread, runId=self._ids.run)

    def text(self, event: Chunk) -> Iterator[Message]:
        """Yield the events for text of the answer or of its reasoning."""
        kind = event.channel or "text"
        if self._open != kind:
            yield from self._close()
            self._open = kind
            if kind == "text":
                own = self._ids.generation
                yield from self._event("TEXT_MESSAGE_START", messageId=own, role="assistant")
            else:
                self._thought += 1
                own = self._thoughts
                yield from self._event("REASONING_START", messageId=own)
                yield from self._event("REASONING_MESSAGE_START", messageId=own, role="reasoning")
        if kind == "text":
            own = self._ids.generation
            yield from self._event("TEXT_MESSAGE_CONTENT", messageId=own, delta=event.text)
        else:
            own = self._thoughts
            yield from self._event("REASONING_MESSAGE_CONTENT", messageId=own, delta=event.text)

    def call(self, event: ToolCall) -> Iterator[Message]:
        """Yield the events for a part of a tool call."""
        yield from self._close()
        own, call = event.call_id, self._calls.get(event.call_id)
        if call is None:
            call = self._calls[own] = _Call(event.name or "unknown")
            yield from self._event(
                "TOOL_CALL_START",
                toolCallId=own,
                toolCallName=call.name,
                parentMessageId=self._ids.generation,
            )
        if event.arguments:
            call.parts.append(event.arguments)
            yield from self._event("TOOL_CALL_ARGS", toolCallId=own, delta=event.arguments)
        if event.complete or event.error is not None:
            yield from self._event("TOOL_CALL_END", toolCallId=own)
        if event.error is not None:
            said = {"error": f"the call is {event.error.replace('_', ' ')}", "text": event.text}
            result = json.dumps(said, ensure_ascii=False)
            about = {"messageId": f"{own}-result", "role": "tool"}
            yield from self._event("TOOL_CALL_RESULT", toolCallId=own, content=result, **about)
        elif event.complete:
            call.complete = True

    def end(self, event: Done) -> Iterator[Message]:
        """Yield what ends a run: with an interrupt for each call, which the client answers."""
        yield from self._close()
        if event.finish_reason == "cancelled":
            about = {"threadId": self._ids.thread, "runId": self._ids.run}
            yield from self._event("RUN_ERROR", message="aborted", code="aborted", **about)
            return
        told: dict[str, Any] = {
            "usage": [_usage(self._model, event.usage)],
            "metadata": {"tanstack": {"finishReason": event.finish_reason, "model": self._model}},
        }
        interrupts = [_interrupt(own, call) for own, call in self._calls.items() if call.complete]
        if interrupts:
            told["outcome"] = {"type": "interrupt", "interrupts": interrupts}
        yield from self._event(
            "RUN_FINISHED", threadId=self._ids.thread, runId=self._ids.run, **told
        )

    @property
    def _thoughts(self) -> str:
        return f"{self._ids.generation}-reasoning-{self._thought}"

    def _close(self) -> Iterator[Message]:
        kind, self._open = self._open, None
        if kind == "text":
            yield from self._event("TEXT_MESSAGE_END", messageId=self._ids.generation)
        elif kind is not None:
            yield from self._event("REASONING_MESSAGE_END", messageId=self._thoughts)
            yield from self._event("REASONING_END", messageId=self._thoughts)

    def _event(self, type: str, **fields: Any) -> Iterator[Message]:  # noqa: A002 - as on the wire
        number = self._number
        self._number += 1
        if number > self._after:
            own = f"{self._ids.generation}.{number}"
            yield _message({"id": own, "chunk": {"type": type, **fields}})


def bare(fields: dict[str, Any]) -> Message:
    """Return an event without an offset, which is not told again."""
    return _message(fields)


def _message(fields: dict[str, Any]) -> Message:
    return Message(json_text.encode(fields), text=True)


def _usage(model: str, usage: Usage) -> dict[str, Any]:
    return {
        "model": model,
        "inputTokens": usage.prompt_tokens,
        "cachedInputTokens": usage.cached_tokens,
        "outputTokens": usage.completion_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "totalTokens": usage.total_tokens,
    }


def _interrupt(own: str, call: _Call) -> dict[str, Any]:
    text = "".join(call.parts) or "{}"
    try:
        given = json_text.value_in(text)
    except ValueError:
        given = text
    return {
        "id": f"{CLIENT_TOOL}{own}",
        "reason": "tanstack:client_tool_execution",
        "message": f"Client tool {call.name} is ready to run",
        "toolCallId": own,
        "responseSchema": {},
        "metadata": {"kind": "client_tool", "toolName": call.name, "input": given},
    }
