"""The events of a generation that wait to be sent, and their sizes in bytes.

Waiting texts of one answer and channel are joined into one frame, and so are waiting parts of one
tool call. A frame is made and numbered when it is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec

from gateway.protocol.events import Event, Failed
from gateway.protocol.frames import Chunk, Done, Started, ToolCall
from provider.interface import ToolCallDelta

__all__ = [
    "FRAME_BYTES",
    "LONG_ARRAY",
    "PAIR_MEMORY",
    "PIECE",
    "Channel",
    "Numbered",
    "PackedLogprobs",
    "Waiting",
    "WaitingCall",
    "WaitingFrame",
    "WaitingText",
    "pairs_of",
]

TO_JSON, TO_MSGPACK = msgspec.json.Encoder(), msgspec.msgpack.Encoder()
MAX_PARTS = 128  # strings collected before they are joined into one, which takes less memory
PAIR_BYTES = 64  # estimated size of a token and its log-probability on the wire
PAIR_MEMORY = 640  # measured size of the same as Python objects
FRAME_BYTES = 128  # estimated size of a kept frame without its text
PIECE = 32 * 1024  # bytes of log-probabilities that are packed anew at once, in some 2 ms
LONG_ARRAY = b"\xdd"  # head of a msgpack array of any length

Channel = Literal["reasoning"] | None
Numbered = Started | Chunk | ToolCall | Done | Failed


@dataclass(eq=False, slots=True)  # slots, because one is made for almost every token
class WaitingText:
    """Waiting text, to which more text of the same answer and channel is joined."""

    channel: Channel
    choice: int = 0
    parts: list[str] = field(default_factory=list)
    size: int = 0  # bytes of UTF-8, plus the memory of log-probabilities
    logprobs: list[dict[str, Any]] | None = None
    numbered: ClassVar = True

    def add(self, text: str, logprobs: Sequence[dict[str, Any]]) -> int:
        """Join more text; return by how many bytes the size grows."""
        grown = _size(text)
        self.parts.append(text)
        if logprobs:
            grown += PAIR_MEMORY * pairs_of(logprobs)
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


class PackedLogprobs:
    """Log-probabilities of a whole answer, packed as they will be sent when they come.

    So they take a tenth of the memory of objects, and megabytes of them are sent in little time.
    They are packed as msgpack if `binary`, else as JSON.
    """

    __slots__ = ("_binary", "_packed", "nbytes")

    def __init__(self, *, binary: bool = False) -> None:
        self.nbytes = 0  # as they are packed
        self._binary = binary
        self._packed: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._packed)

    def add(self, logprobs: Sequence[dict[str, Any]]) -> int:
        """Add log-probabilities; return by how many bytes the size grows, here or on the wire."""
        packed = list(map(_encode(self._binary), logprobs))
        self._packed += packed
        self.nbytes += sum(map(len, packed))
        size = sum(map(sys.getsizeof, packed))
        return max(size, PAIR_BYTES * pairs_of(logprobs))

    def is_packed_as(self, *, binary: bool) -> bool:
        """Whether they are in a format already."""
        return binary == self._binary

    def raw(self, *, binary: bool) -> msgspec.Raw:
        """Return all of them as a part of a message.

        In the other format than that in which they are packed, 8 MiB take a tenth of a second; see
        `repack`.
        """
        if binary == self._binary:
            return _array(self._packed, binary=binary)
        return _array(list(map(_encode(binary), self.unpacked())), binary=binary)

    def repack(self, *, binary: bool) -> Generator[None, None, msgspec.Raw]:
        """Return what `raw` does; yield after each PIECE of bytes that was packed anew."""
        if binary == self._binary:
            return self.raw(binary=binary)
        decode, encode = _decode(self._binary), _encode(binary)
        packed, size = [], 0
        for one in self._packed:
            packed.append(encode(decode(one)))
            size += len(one)
            if size >= PIECE:
                size = 0
                yield
        return _array(packed, binary=binary)

    def unpacked(self) -> list[dict[str, Any]]:
        """Return all log-probabilities as they were added."""
        return list(map(_decode(self._binary), self._packed))


def _array(packed: list[bytes], *, binary: bool) -> msgspec.Raw:
    """Return an array of packed values, which are not looked at one by one again."""
    if binary:
        return msgspec.Raw(b"".join([LONG_ARRAY, len(packed).to_bytes(4, "big"), *packed]))
    return msgspec.Raw(b"".join([b"[", b",".join(packed), b"]"]))


def _decode(binary: bool) -> Callable[[bytes], Any]:
    return msgspec.msgpack.decode if binary else msgspec.json.decode


def _encode(binary: bool) -> Callable[[Any], bytes]:
    return TO_MSGPACK.encode if binary else TO_JSON.encode


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


def pairs_of(logprobs: Sequence[dict[str, Any]]) -> int:
    """Return how many pairs of a token and its log-probability there are."""
    return sum(1 + len(one["top_logprobs"]) for one in logprobs)
