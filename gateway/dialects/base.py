"""The interface of a wire language: it decodes messages to requests and encodes events to messages.

Rule 1: a dialect does no I/O. Each connection has its own, which may keep state.
Rule 2: `encode` gets every event, and only events cause messages after the greeting. A dialect that
has no message for an event returns an empty sequence; others may return several messages.
Rule 3: whatever a client sends, `decode` returns requests or raises NotAFrame or BadFrame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from gateway.protocol.events import Event, Request
from gateway.protocol.frames import Ready

__all__ = ["Dialect", "Message", "Route"]


class Message(Struct, frozen=True, gc=False):
    """One WebSocket message: UTF-8 as a text message, or bytes as a binary one."""

    data: bytes
    text: bool


class Dialect(Protocol):
    """The wire language of one connection."""

    name: str  # shown in logs; the part after the last full stop is the label `codec` in metrics

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return the messages that open the connection."""

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests in a client's message, in order.

        Raises NotAFrame, which ends the connection, or BadFrame, which refuses the whole message.
        """

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""


@dataclass(frozen=True)
class Route:
    """A path that speaks a wire language.

    `make` returns a dialect, given the agreed subprotocol (None without one) and the deepest
    nesting that a message may have. `secret_in` returns the token among the subprotocols that a
    client offers, "" if it can't be decoded, None if there is none. By default it finds none, so
    clients of a language without `hello` must send the `Authorization` header. `hint` answers a
    plain GET of the path.
    """

    path: str
    make: Callable[[str | None, int], Dialect]
    subprotocols: tuple[str, ...] = ()
    secret_in: Callable[[Iterable[str]], str | None] = lambda offered: None
    hint: str = "this path is for WebSocket clients"
