"""Accepts sockets, and refuses those that are too many before anything is read of them.

With its descriptors in use but for those that the server keeps for itself, whoever connects is told
so and closed. Sockets that are not let in yet are counted by address.

One socket is accepted in a turn of the event loop. Accepting it, making its connection and closing
that take some tenths of a millisecond, which count for its address. Whose a socket is shows only
then. So after one of an address beyond its share (`LoopShare`) none is accepted for as long as what
it took takes to be earned; others wait in the kernel's queue meanwhile.

Of asyncio's inside this module uses `_start_serving` of the event loop, by which asyncio itself
goes on accepting where it could not, and the attributes of `Server` that this takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from weakref import WeakSet

from websockets.asyncio.server import ServerConnection

from gateway.server.logs import Rare
from gateway.server.origins import Proxies, client_address, counted_as, is_trusted
from gateway.server.rates import Counts
from provider.wording import counted

__all__ = [
    "ACCEPT_S",
    "Door",
    "Guests",
    "Listening",
    "deepen",
    "stop_accepting",
    "tell_rarely_of_accept",
]

log = logging.getLogger(__name__)

# Seconds of the event loop that asyncio takes to accept a socket and to close it, beside what is
# measured of a connection.
ACCEPT_S = 0.0002
LINGER_S = 0.5  # seconds a refused client has to take its answer
MAX_LINGERING = 32  # refused clients that have this time at once
RETRY_AFTER_S = 5
KERNEL_BACKLOG = 1024  # connections that wait in the kernel, which has a limit of its own
ACCEPT_FAILED = "socket.accept() out of system resource"  # asyncio's message


def deepen(sockets: Iterable[Any]) -> None:
    """Lengthen the kernel's queues of connections that wait to be accepted on these sockets.

    asyncio takes its argument `backlog` for the length of that queue, and also for the number of
    connections that it accepts in one turn of the event loop. The gateway gives asyncio 1, so that
    many new connections delay no other one, and a failed accept is tried again once a second; with
    a larger number, each failed try would start as many new ones. So the queue is set here.
    """
    for one in sockets:
        with socket.socket(fileno=os.dup(one.fileno())) as same:
            same.listen(KERNEL_BACKLOG)


async def stop_accepting(sockets: Iterable[Any]) -> None:
    """Accept no more on these sockets; on return, what was accepted before is a connection.

    asyncio makes a transport of an accepted socket in a task. It fails if the server is closed by
    then, and leaves the transport open.
    """
    loop = asyncio.get_running_loop()
    for one in sockets:
        loop.remove_reader(one.fileno())
    await asyncio.sleep(0)  # the transports are made
    await asyncio.sleep(0)  # their `connection_made` is called


def tell_rarely_of_accept(loop: asyncio.AbstractEventLoop) -> None:
    """Log at most once a minute that connections can't be accepted; asyncio logs each try."""
    rare = Rare()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != ACCEPT_FAILED:
            loop.default_exception_handler(context)
        elif rare.now():
            log.error("cannot accept connections: %s", context.get("exception"))

    loop.set_exception_handler(handle)


class Listening:
    """The sockets on which a server accepts, of which it can take a rest."""

    def __init__(self) -> None:
        self._server: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, server: asyncio.AbstractServer) -> None:
        """Note the server."""
        self._server = server

    @property
    def rests(self) -> bool:
        """Whether nothing is accepted for now."""
        return self._timer is not None

    def rest(self, seconds: float) -> None:
        """Accept nothing for so long, or for so long more: some are on their way already."""
        if self._server is None:
            return
        loop, begin = asyncio.get_running_loop(), None
        if self._timer is None:
            for one in self._server.sockets:
                loop.remove_reader(one.fileno())
        else:
            begin = self._timer.when()
            self._timer.cancel()
        self._timer = loop.call_at((begin or loop.time()) + seconds, self._go_on)

    def end(self) -> None:
        """Go on with nothing."""
        self._server = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        self._timer = None
        server, loop = self._server, asyncio.get_running_loop()
        for one in server._sockets:  # noqa: SLF001
            loop._start_serving(  # type: ignore[attr-defined]  # noqa: SLF001 - see above
                server._protocol_factory,  # noqa: SLF001
                one,
                server._ssl_context,  # noqa: SLF001
                server,
                server._backlog,  # noqa: SLF001
                server._ssl_handshake_timeout,  # noqa: SLF001
                server._ssl_shutdown_timeout,  # noqa: SLF001
            )


class Guests:
    """Counts the sockets of each address that are not let in yet.

    One address may have half of those that others leave, so that one that comes anew always gets
    one. Those of a trusted proxy, and of a Unix socket, are of many clients.
    """

    def __init__(self, most: int, trusted: Proxies):
        self._most = most
        self._trusted = trusted
        self._by_address = Counts()
        self._rare = Rare()
        self.listening = Listening()
        # The sockets on which TLS has begun, by the connections that will be made of them.
        self.handshakes: dict[object, asyncio.Transport] = {}
        self._refusals: dict[_Refusal, None] = {}  # those that are open, the oldest first

    def enter(self, peer: str, made: int) -> str | None:
        """Count a socket of a peer beside the connections that are `made`.

        Return the name under which it is counted, None if it is one too many.
        """
        in_all = made + len(self.handshakes)
        address = self.name(peer)
        own = self._by_address[address]
        full = own >= max(1, (self._most - in_all + own) // 2)
        if full and peer and not is_trusted(peer, self._trusted):
            if self._rare.now():
                said = counted(own, "socket")
                log.warning("%s has %s not let in yet, and gets no more", peer, said)
            return None
        self._by_address.add(address)
        return address

    def name(self, peer: str) -> str:
        """Return the name under which a peer's sockets are counted."""
        return counted_as(client_address(peer, (), ()))

    def account(self, address: str) -> str | None:
        """Return what a socket's processor time is counted as, None for one of many clients."""
        if not address or is_trusted(address, self._trusted):
            return None
        return f"guest {address}"

    def leave(self, address: str) -> None:
        """Stop counting a socket, because it is let in or closed."""
        self._by_address.remove(address)

    def refusal(self) -> asyncio.Protocol:
        """Return the protocol of an accepted socket that is to be refused."""
        return _Refusal(self._refusals)

    def refuse(self, transport: asyncio.Transport) -> None:
        """Answer a new connection with the status 503, and close it."""
        refusal = self.refusal()
        transport.set_protocol(refusal)
        refusal.connection_made(transport)

    async def end_refusals(self) -> None:
        """Close the sockets that were refused, whether their clients have read why or not."""
        refusals = list(self._refusals)
        for refusal in refusals:
            refusal.abort()
        await asyncio.gather(*(refusal.lost.wait() for refusal in refusals))


class Door:
    """Makes a connection of each accepted socket, and refuses those beyond `most`.

    It does so before anything is read, so that a client that sends nothing is refused too. An
    instance is the `create_connection` of websockets' `serve`; `make` makes the connections.
    """

    def __init__(self, most: int, guests: Guests, make: Callable[..., ServerConnection]):
        self._most = most
        self._guests = guests
        self._make = make
        self._rare = Rare()
        self._made: WeakSet[ServerConnection] = WeakSet()

    def __call__(self, protocol: Any, server: Any, **options: Any) -> asyncio.Protocol:
        """Return the protocol of a socket that was accepted."""
        if len(server.handler_tasks) + len(self._guests.handshakes) < self._most:
            connection = self._make(protocol, server, **options)
            self._made.add(connection)
            return connection
        if self._rare.now():
            said = counted(self._most, "socket", are=True)
            log.warning("%s open, the most that the process may have", said)
        return self._guests.refusal()

    async def end_silent(self) -> None:
        """Close the sockets that were refused, and abort those without a whole request."""
        await self._guests.end_refusals()
        for transport in list(self._guests.handshakes.values()):
            transport.abort()
        for connection in list(self._made):
            if connection.request is None and hasattr(connection, "transport"):
                connection.transport.abort()


class _Refusal(asyncio.Protocol):
    """Answers a connection with the status 503, without reading its request.

    It is among `others` until its socket is closed.
    """

    def __init__(self, others: dict[_Refusal, None]) -> None:
        self.lost = asyncio.Event()  # set once its socket is closed
        self._others = others
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write the answer; close when the request comes, at the latest after LINGER_S seconds."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_answer())
        self._others[self] = None
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
        if len(self._others) > MAX_LINGERING:
            next(iter(self._others)).abort()

    def data_received(self, data: bytes) -> None:
        """Close, because the request has come; closing before that might lose the answer."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop counting the connection among those that wait to be closed."""
        self._others.pop(self, None)
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()


def _answer() -> bytes:
    status, reason = HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nRetry-After: {RETRY_AFTER_S}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(reason)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + reason
