"""The interface of a wire language: it decodes messages to requests and encodes events to messages.

Rule 1: a dialect does no I/O. Each connection has its own, which may keep state.
Rule 2: `encode` gets every event, and only events cause messages after the greeting. A dialect that
has no message for an event returns an empty sequence; others may return several messages.
Rule 3: whatever a client sends, `decode` returns requests or raises NotAFrame or BadFrame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from gateway.protocol.events import Event, Request
from gateway.protocol.frames import Ready

__all__ = ["Dialect", "FrameLimits", "Message", "Route"]


class Message(Struct, frozen=True, gc=False):
    """One WebSocket message: UTF-8 as a text message, or bytes as a binary one."""

    data: bytes
    text: bool


@dataclass(frozen=True)
class FrameLimits:
    """What a client's message may hold; each limit bounds the time that decoding takes."""

    depth: int = 64  # of nesting; JSON Schemas of tools need a dozen
    values: int = 16_384  # keys and values


class Dialect(Protocol):
    """The wire language of one connection."""

    name: str  # shown in logs; the part after the last full stop is the label `codec` in metrics

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return the messages that open the connection."""

    def check(self, message: str | bytes) -> Iterator[None]:
        """Check a message's number of keys and values in pieces, before it is decoded.

        Called for large messages alone; other work may be done between two pieces. Raises as
        `decode` does.
        """

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests in a client's message, in order.

        Raises NotAFrame, which ends the connection, or BadFrame, which refuses the whole message.
        """

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""


@dataclass(frozen=True)
class Route:
    """A path that speaks a wire language.

    `make` returns a dialect, given the agreed subprotocol, None without one. `secret_in` returns
    the token among the subprotocols that a client offers, "" if it can't be decoded, None if there
    is none. By default it finds none, so clients of a language without `hello` must send the
    `Authorization` header. `hint` answers a plain GET of the path.
    """

    path: str
    make: Callable[[str | None, FrameLimits], Dialect]
    subprotocols: tuple[str, ...] = ()
    secret_in: Callable[[Iterable[str]], str | None] = lambda offered: None
    hint: str = "this path is for WebSocket clients"
