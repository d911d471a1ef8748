"""What a wire language is: requests out of a client's messages, messages out of events.

Rule 1: a dialect is pure. There is one for each connection, so it may keep state.
Rule 2: it invents no event and drops none; one event may become several messages, or none.
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

    name: str  # in logs; what follows its last full stop is a label of the metrics

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return the messages that open the connection."""

    def decode(self, message: str | bytes) -> Sequence[Request]:
        """Return what a client's message asks for, in order.

        Raises NotAFrame, which ends the connection, or BadFrame, which refuses the whole message.
        """

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""


@dataclass(frozen=True)
class Route:
    """A path that speaks a wire language.

    `make` takes the subprotocol that was agreed on, None for none, and the deepest nesting that a
    message may have. `secret_in` returns the token among the subprotocols that a client offers: ""
    for one that can't be read, None for none. Without it, a client whose language has no `hello`
    shows its token in the `Authorization` header. `hint` is what a plain GET of the path is told.
    """

    path: str
    make: Callable[[str | None, int], Dialect]
    subprotocols: tuple[str, ...] = ()
    secret_in: Callable[[Iterable[str]], str | None] = lambda offered: None
    hint: str = "this path is for WebSocket clients"
