"""The interface of a wire language: it decodes messages to requests and encodes events to messages.

Rule 1: a dialect does no I/O. Each connection has its own, which may keep state; those of one route
may share some.
Rule 2: `encode` gets every event, and only events cause messages after the greeting. A dialect that
has no message for an event returns an empty sequence; others may return several messages. One that
answers a client by itself returns a `Ping`, and encodes its answer when the `Pong` comes.
Rule 3: whatever a client sends, `decode` returns requests or raises NotAFrame or BadFrame.
Rule 4: a request that has to wait for an event is returned by `next_requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from gateway.dialects.kept_bytes import KeptBytes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Event, Request
from gateway.protocol.frames import Done, Ready

__all__ = ["Budget", "Dialect", "FrameLimits", "Message", "Opening", "Route", "RouteLimits"]


class Message(Struct, frozen=True, gc=False):
    """One WebSocket message: UTF-8 as a text message, or bytes as a binary one."""

    data: bytes
    text: bool


@dataclass(frozen=True)
class FrameLimits:
    """What a client's message may hold; each limit bounds the time that decoding takes."""

    depth: int = 64  # of nesting; JSON Schemas of tools need a dozen
    values: int = 16_384  # keys and values


@dataclass(frozen=True)
class RouteLimits:
    """The gateway's settings that bound what dialects keep and begin."""

    frames: FrameLimits = FrameLimits()
    generations: int = 64  # live ones on a connection
    kept: KeptBytes = field(default_factory=lambda: KeptBytes(64 << 20))  # conversations
    kept_s: float = 3600.0  # seconds for which a response is kept after its last use


class Budget(Protocol):
    """The bytes of requests in memory, of which each client may have a share."""

    def fits(self, client: str | None, size: int) -> bool:
        """Return whether a client may have so many bytes more."""

    def add(self, client: str | None, size: int) -> None:
        """Add to the bytes that are counted for a client; a negative size takes from them."""


@dataclass(frozen=True)
class Opening:
    """What a dialect is told of its connection.

    `client` is the name that the client's share of anything is counted under, None if clients can't
    be told apart. `owner` names the token that was shown in the handshake.
    """

    subprotocol: str | None = None  # the subprotocol that was agreed on
    query: str = ""  # the query of the address that the client has opened
    client: str | None = None
    owner: str | None = None
    waiting: Budget | None = None  # counts requests that are held in memory; None for no bound


class Dialect(Protocol):
    """The wire language of one connection."""

    # Code and reason of the close frame after what is waiting; None while the connection goes on.
    farewell: tuple[int, str] | None = None
    name: str  # shown in logs; the part after the last full stop is the label `codec` in metrics
    # Makes one message of several, in a language whose messages may be joined; None in others.
    join: Callable[[Sequence[Message]], Message] | None = None

    binary: bool = False  # whether log-probabilities of a whole answer are sent as msgpack
    # Whether an event of a running generation may make `next_requests` return some.
    asks: bool = False

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of answers that need no generation are not sent yet."""
        return 0

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

    def prepare(self, event: Done) -> Generator[None, None, Done] | None:
        """Return what makes an event that `encode` would take long for, in pieces.

        None where it takes no time. Other work may be done between two pieces.
        """
        return None

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event."""

    def next_requests(self) -> Sequence[Request]:
        """Return the requests that waited until now, in order.

        Called once the connection is open, after events of a follower were encoded, after one that
        ends a generation or belongs to none, and after each when `asks` is true. Raising anything
        ends the connection.
        """
        return ()

    def close(self) -> None:
        """Forget what is kept for the connection, which has ended."""
        return


@dataclass(frozen=True)
class Route:
    """A path that speaks a wire language.

    `prepare` is called once for each gateway, and returns the function that makes the dialects of
    connections. `secret_in` returns the token among the subprotocols that a client offers, "" if it
    can't be decoded, None if there is none. By default it finds none. Where `says_hello` is false,
    the language has no `hello`, and a client without a token in the handshake is refused there.
    `hint` answers a plain GET of the path. `turn_away` makes the messages for a client that is not
    let in, by an error's code and its reason; the close frame after them has the reason too.
    """

    path: str
    prepare: Callable[[RouteLimits], Callable[[Opening], Dialect]]
    subprotocols: tuple[str, ...] = ()
    secret_in: Callable[[Iterable[str]], str | None] = lambda offered: None
    says_hello: bool = True
    hint: str = "this path is for WebSocket clients"
    turn_away: Callable[[ErrorCode, str], Sequence[Message]] = lambda code, reason: ()
