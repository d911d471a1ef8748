"""One of the answers of a generation. Without streaming, it collects the text until the end."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.protocol.events import Event
from gateway.protocol.frames import Chunk, Done, ToolCall
from gateway.protocol.outbox import (
    PAIR_MEMORY,
    Channel,
    PackedLogprobs,
    WaitingCall,
    WaitingText,
    pairs_of,
)
from provider.interface import GenerateResponse, ToolCallDelta, new_call_id

__all__ = ["Answer", "is_packed_as", "repack", "size_of", "whole_call"]

REASONS = frozenset({"stop", "length", "tool_calls"})


@dataclass(eq=False)
class Answer:
    """One answer; its texts and tool calls are kept only if the generation is not streamed."""

    texts: dict[Channel, WaitingText] = field(default_factory=dict)
    making: dict[int, WaitingCall] = field(default_factory=dict)
    logprobs: PackedLogprobs = field(default_factory=PackedLogprobs)
    complete_ids: set[str] = field(default_factory=set)  # ids of complete tool calls
    calls: int = 0  # tool calls that have begun
    pieces: int = 0  # pieces of text received
    last: GenerateResponse | None = None  # the provider's last response for this answer

    def add_text(self, channel: Channel, text: str, logprobs: Sequence[dict[str, Any]]) -> int:
        """Keep text to send it at the end; return its size in bytes."""
        size = self.texts.setdefault(channel, WaitingText(channel)).add(text, ())
        return size + (self.logprobs.add(logprobs) if logprobs else 0)

    def add_call(self, part: ToolCallDelta) -> int:
        """Keep a part of a tool call to send it at the end; return its size in bytes."""
        return self.making.setdefault(part.index, WaitingCall(part.index, part.id)).add(part)

    @property
    def reason(self) -> str:
        """Its `finish_reason` on the wire."""
        if self.last is None:
            return "cancelled"
        return self.last.finish_reason if self.last.finish_reason in REASONS else "stop"

    def fields(self) -> dict[str, Any]:
        """Return an unstreamed answer's text, calls and log-probabilities as fields of `done`."""
        made = [call for call in self.making.values() if call.complete]
        return {
            "text": self._text(None),
            "reasoning": self._text("reasoning") or None,
            "tool_calls": [_read(call) for call in made if call.error is None] or None,
            "logprobs": self.logprobs or None,
            "broken_calls": [_broken(call) for call in made if call.error is not None] or None,
        }

    def _text(self, channel: Channel) -> str:
        return "".join(self.texts[channel].parts) if channel in self.texts else ""


def is_packed_as(done: Done, *, binary: bool) -> bool:
    """Whether all log-probabilities of whole answers are in a format already."""
    return all(packed.is_packed_as(binary=binary) for packed in _packed_in(done))


def _packed_in(done: Done) -> Iterator[PackedLogprobs]:
    held = [done.logprobs, *(choice.get("logprobs") for choice in done.choices or ())]
    return (one for one in held if isinstance(one, PackedLogprobs))


def size_of(event: Event) -> int:
    """Return the size of an event's texts and log-probabilities, the parts that may be large."""
    match event:
        case Chunk(text=text, logprobs=logprobs):
            return len(text) + PAIR_MEMORY * pairs_of(logprobs or ())
        case ToolCall(arguments=arguments, text=text):
            return len(arguments or "") + len(text or "")
        case Done(text=text, reasoning=reasoning, choices=choices):
            texts = [text, reasoning]
            for choice in choices or ():
                texts += [choice.get("text"), choice.get("reasoning")]
            packed = sum(logprobs.nbytes for logprobs in _packed_in(event))
            return packed + sum(len(one) for one in texts if one)
    return 0


def repack(done: Done, *, binary: bool) -> Generator[None, None, Done]:
    """Return the end of a generation with its log-probabilities in a format, ready to be sent.

    Yields after each piece that was packed anew, so that others can be served meanwhile.
    """
    choices: list[dict[str, Any]] = []
    for choice in done.choices or ():
        choices.append({**choice})
        if (logprobs := choice.get("logprobs")) is not None:
            choices[-1]["logprobs"] = yield from _repacked(logprobs, binary=binary)
    logprobs = yield from _repacked(done.logprobs, binary=binary)
    return msgspec.structs.replace(done, logprobs=logprobs, choices=choices or done.choices)


def _repacked(logprobs: Any, *, binary: bool) -> Generator[None, None, Any]:
    if isinstance(logprobs, PackedLogprobs):
        return (yield from logprobs.repack(binary=binary))
    return logprobs


def whole_call(number: int, call: dict[str, Any]) -> ToolCallDelta:
    """Return a provider's tool call as one complete part; arguments may be a dict or JSON text."""
    arguments = call.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    own = str(call.get("id") or new_call_id())
    return ToolCallDelta(number, own, call.get("name"), text, complete=True)


def _read(call: WaitingCall) -> dict[str, Any]:
    try:
        arguments = json.loads("".join(call.parts) or "{}")
    except ValueError:  # another provider's arguments need not be JSON; keep them as text
        arguments = "".join(call.parts)
    return {"id": call.call_id, "name": call.name, "arguments": arguments}


def _broken(call: WaitingCall) -> dict[str, Any]:
    return {"id": call.call_id, "name": call.name, "error": call.error, "text": call.text}
