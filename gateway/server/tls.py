"""TLS: the server's certificate, and the handshakes of sockets that come.

asyncio tells a connection of its socket once the handshake is done. A socket that says nothing
would not be counted until then, and would hold up the server's end. So plain sockets are accepted,
and TLS begins on them here.

Rule 1: a socket counts from its first moment, and is closed if its handshake is not done within
HANDSHAKE_S.
Rule 2: one socket takes a step of its handshake in a turn of the event loop, because that may take
two milliseconds; addresses take turns.
Rule 3: steps count for their address, which takes them later once it has used up its share of the
event loop's time.

Of asyncio's inside this module uses `SSLProtocol`, with which it makes its own TLS connections.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from time import thread_time

from gateway.server.reading import MeteredConnection

__all__ = ["HANDSHAKE_S", "Tls"]

HANDSHAKE_S = 10


class Tls:
    """A certificate, and the handshakes with it, each of `seconds` at most.

    Raises OSError if the certificate can't be read.
    """

    def __init__(self, certificate: str, key: str | None = None, seconds: int = HANDSHAKE_S):
        self.seconds = seconds
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._turns = _Turns()
        self.read(certificate, key)

    def read(self, certificate: str, key: str | None) -> None:
        """Read a certificate's files, for sockets to come. Raises OSError, which names them."""
        try:
            self._context.load_cert_chain(certificate, key)
        except OSError as error:
            files = f"`{certificate}`" if key is None else f"`{certificate}` with `{key}`"
            raise OSError(f"{files}: {error.strerror or error}") from error

    def begin(self, connection: MeteredConnection, transport: asyncio.Transport) -> None:
        """Begin TLS on a connection's socket; the connection is made when the handshake is done."""
        handshake = _Handshake(connection, self._context, self._turns, self.seconds)
        transport.set_protocol(handshake)
        handshake.connection_made(transport)


class _Turns:
    """Steps that wait, by address: one is called in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str | None, deque[Callable[[], None]]] = OrderedDict()

    def add(self, address: str | None, step: Callable[[], None]) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._waiting.setdefault(address, deque()).append(step)

    def _go_on(self) -> None:
        address, steps = self._waiting.popitem(last=False)
        step = steps.popleft()
        if steps:
            self._waiting[address] = steps
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)
        step()


class _Handshake(SSLProtocol):
    """The TLS of one socket."""

    def __init__(
        self,
        connection: MeteredConnection,
        context: ssl.SSLContext,
        turns: _Turns,
        seconds: int,
    ):
        loop = connection.loop
        ends: asyncio.Future[None] = loop.create_future()
        super().__init__(
            loop, connection, context, ends, server_side=True, ssl_handshake_timeout=seconds
        )
        ends.add_done_callback(self._ended)
        self._connection = connection
        self._turns: _Turns | None = turns  # None after the handshake

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, during the handshake when its turn has come."""
        if self._turns is None:
            super().buffer_updated(nbytes)
            return
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.pause_reading()
        step = partial(self._step, nbytes)
        self._connection.await_share(partial(self._turns.add, self._connection.guest, step))

    def _step(self, nbytes: int) -> None:
        if isinstance(self._transport, asyncio.Transport):  # else it was lost meanwhile
            begin = thread_time()
            self._transport.resume_reading()
            super().buffer_updated(nbytes)
            self._connection.count(thread_time() - begin)

    def _ended(self, ends: asyncio.Future[None]) -> None:
        self._turns = None
        self._connection.end_handshake()
        if not ends.cancelled():
            ends.exception()  # which is no fault of the server
