"""The events of a generation that wait to be sent, and their sizes in bytes.

Waiting texts of one answer and channel are joined into one frame, and so are waiting parts of one
tool call. A frame is made and numbered when it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from gateway.protocol.events import Event, Failed
from gateway.protocol.frames import Chunk, Done, Started, ToolCall
from provider.interface import ToolCallDelta

__all__ = [
    "FRAME_BYTES",
    "Channel",
    "Numbered",
    "Waiting",
    "WaitingCall",
    "WaitingFrame",
    "WaitingText",
]

MAX_PARTS = 128  # strings collected before they are joined into one, which takes less memory
PAIR_BYTES = 64  # estimated size of a token and its log-probability on the wire
FRAME_BYTES = 128  # estimated size of a kept frame without its text

Channel = Literal["reasoning"] | None
Numbered = Started | Chunk | ToolCall | Done | Failed


@dataclass(eq=False, slots=True)  # slots, because one is made for almost every token
class WaitingText:
    """Waiting text, to which more text of the same answer and channel is joined."""

    channel: Channel
    choice: int = 0
    parts: list[str] = field(default_factory=list)
    size: int = 0  # bytes of UTF-8, plus an estimate for log-probabilities
    logprobs: list[dict[str, Any]] | None = None
    numbered: ClassVar = True

    def add(self, text: str, logprobs: Sequence[dict[str, Any]]) -> int:
        """Join more text; return by how many bytes the size grows."""
        grown = _size(text)
        self.parts.append(text)
        if logprobs:
            grown += _size_of_logprobs(logprobs)
            self.logprobs = self.logprobs or []
            self.logprobs += logprobs
        if len(self.parts) == MAX_PARTS:
            self.parts = ["".join(self.parts)]
        self.size += grown
        return grown

    def frame(self, generation: str, seq: int | None) -> Event:
        """Return the frame to send."""
        text = self.parts[0] if len(self.parts) == 1 else "".join(self.parts)
        return Chunk(
            id=generation,
            seq=seq or 0,
            text=text,
            channel=self.channel,
            logprobs=self.logprobs,
            choice=self.choice,
        )


@dataclass(eq=False)
class WaitingCall:
    """A waiting part of a tool call, to which further parts of the call are joined."""

    index: int
    call_id: str
    choice: int = 0
    name: str | None = None
    parts: list[str] = field(default_factory=list)
    complete: bool = False
    error: Any = None
    text: str | None = None  # the model's own text of a broken call
    size: int = 0  # bytes of UTF-8
    numbered = True

    def add(self, part: ToolCallDelta) -> int:
        """Join a part of the call; return by how many bytes the size grows."""
        self.name = self.name or part.name
        if part.arguments:
            self.parts.append(part.arguments)
        if len(self.parts) == MAX_PARTS:
            self.parts = ["".join(self.parts)]
        self.complete, self.error, self.text = part.complete, part.error, part.text
        grown = sum(_size(text) for text in (part.name, part.arguments, part.text) if text)
        self.size += grown
        return grown

    def frame(self, generation: str, seq: int | None) -> Event:
        """Return the frame to send."""
        return ToolCall(
            id=generation,
            seq=seq or 0,
            index=self.index,
            call_id=self.call_id,
            name=self.name,
            arguments="".join(self.parts) or None,
            complete=self.complete,
            error=self.error,
            text=self.text,
            choice=self.choice,
        )


@dataclass(eq=False)
class WaitingFrame:
    """A waiting frame; with `numbered` it gets its number when it is sent."""

    kind: type[Any]
    fields: dict[str, Any]
    numbered: bool = True
    size: int = 0  # bytes of the answer's text in it

    def frame(self, generation: str, seq: int | None) -> Event:
        """Return the frame to send."""
        number = {} if seq is None else {"seq": seq}
        return self.kind(id=generation, **number, **self.fields)  # type: ignore[no-any-return]


Waiting = WaitingText | WaitingCall | WaitingFrame


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _size_of_logprobs(logprobs: Sequence[dict[str, Any]]) -> int:
    return sum(PAIR_BYTES * (1 + len(one["top_logprobs"])) for one in logprobs)
