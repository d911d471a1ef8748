"""The gateway: it listens, answers requests, serves connections, and shuts down.

Shutdown, in order: `drain` refuses new generations and connections, and waits up to
`shutdown_grace_s` for live generations. `close` stops listening, cancels the remaining generations,
sends their `done`, closes connections with 1012, and aborts those that don't close within
`close_timeout_s`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gateway import __version__
from gateway.configuration.settings import Settings
from gateway.dialects.base import Dialect, FrameLimits, Opening, Route, RouteLimits
from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.routes import ROUTES
from gateway.protocol.codes import CloseCode, ErrorCode
from gateway.protocol.frames import Ready
from gateway.server.accepting import Door, Guests, Listening, deepen, stop_accepting
from gateway.server.byte_budget import ByteBudget
from gateway.server.closing import close
from gateway.server.connection import Connection
from gateway.server.descriptors import Sockets
from gateway.server.generations import Generations, client_name
from gateway.server.handshake import TOO_MANY_PAGES, Handshake, too_much_unread, unauthorized
from gateway.server.inflating import DeflateFactory, Slices
from gateway.server.logs import LIBRARY, fields, unexpected
from gateway.server.loop_share import LoopShare, timed
from gateway.server.origins import proxies
from gateway.server.pages import (
    PROBES,
    SHARED,
    Page,
    not_allowed,
    page_for,
    preflight,
    shared,
    unless_known,
)
from gateway.server.reading import ClientRates, MeteredConnection, Secure, Turn
from gateway.server.routing import Routing, path_of, query_of, upgrade_required
from gateway.server.tls import Tls
from gateway.server.tokens import Token, Tokens
from provider.interface import AbstractLLMInterface
from provider.wording import counted

__all__ = ["Gateway", "options_of"]

log = logging.getLogger(__name__)

GUARDED = frozenset(
    {"/v1/models", "/metrics"}
)  # plain answers that say something about what is served
TURNED_AWAY = {
    CloseCode.FORBIDDEN: ErrorCode.FORBIDDEN,
    CloseCode.NOT_AUTHENTICATED: ErrorCode.UNAUTHORIZED,
    CloseCode.TOO_MANY: ErrorCode.RATE_LIMITED,
    CloseCode.OVERLOADED: ErrorCode.OVERLOADED,
}
TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}  # constants that the socket module lacks


class Gateway:
    """A provider behind a WebSocket; an async context manager that listens while it is open."""

    def __init__(
        self,
        provider: AbstractLLMInterface,
        settings: Settings | None = None,
        tokens: Tokens | None = None,
        routes: Sequence[Route] = ROUTES,
    ):
        """Prepare a gateway that does not listen yet; `routes` are its WebSocket paths.

        Raises ValueError for settings that can't be used together, OSError if a certificate can't
        be read.
        """
        self.settings = settings or Settings()
        self._sockets = Sockets.allowed(self.settings.max_connections)
        self._handshake = Handshake(self.settings, tokens or Tokens(), self._sockets.connections)
        self._routing = Routing(routes)
        limits = _route_limits(self.settings)
        self._dialects = {route.path: route.prepare(limits) for route in routes}
        self._generations = Generations(provider, self.settings)
        self.provider = self._generations.provider
        self._tls = _tls(self.settings)
        self._epoch = secrets.token_hex(8)  # changes with each start
        self._connections: set[Connection] = set()
        self._server: Server | None = None
        self._door: Door | None = None
        self._listening: Listening | None = None

    async def __aenter__(self) -> Self:
        """Start to listen. Raises OSError if the address can't be used."""
        if self._sockets.connections < self.settings.max_connections:
            log.warning(
                "`max_connections` is cut from %d to %d, because the process may open few files; "
                "raise its limit (`ulimit -n`, LimitNOFILE)",
                self.settings.max_connections,
                self._sockets.connections,
            )
        settings = self.settings
        guests = Guests(self._sockets.all, proxies(settings.trusted_proxies))
        secure = None if self._tls is None else self._tls.begin
        generations = self._generations
        options = options_of(settings, generations.arriving, generations.loop_share, guests, secure)
        self._door = Door(self._sockets.all, guests, options["create_connection"])
        options |= {
            "process_request": self._process_request,
            "select_subprotocol": self._routing.select_subprotocol,
            "create_connection": self._door,
            "backlog": 1,  # connections accepted at once; see `deepen`
        }
        if settings.unix is not None:
            self._server = await unix_serve(self._handle, settings.unix, **options)
        else:
            self._server = await serve(self._handle, settings.host, settings.port, **options)
            self._generations.authority = urlsplit(self.url).netloc
        deepen(self._server.sockets)
        guests.listening.begin(self._server.server)
        self._listening = guests.listening
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None, "not listening"
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """The address to open in a browser, or the path of the socket file."""
        if self.settings.unix is not None:
            return f"unix:{self.settings.unix}"
        host, scheme = self.settings.host, "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return len(self._connections)

    @property
    def live(self) -> int:
        """The number of live generations."""
        return self._generations.live

    @property
    def resumable(self) -> int:
        """The number of generations that their clients can still resume."""
        return len(self._generations.resume_store)

    @property
    def tokens(self) -> Tokens:
        """The accepted tokens.

        Setting them closes connections with other or expired tokens, with 4401; the others have
        the expiry and the limits of the new ones.
        """
        return self._handshake.tokens

    @tokens.setter
    def tokens(self, tokens: Tokens) -> None:
        self._handshake.tokens = tokens
        now = datetime.now(UTC)
        for connection in self._connections if tokens else ():
            token = tokens.successor(connection.token, now)
            if token is not None:
                connection.token = token
            elif not connection.is_to_show_token:
                connection.evict(now)

    def renew_certificate(self) -> None:
        """Read the certificate's files again, for connections to come. Raises OSError."""
        if self._tls is not None and self.settings.tls_cert is not None:
            self._tls.read(self.settings.tls_cert, self.settings.tls_key)

    async def drain(self) -> None:
        """Refuse new work, and wait up to `shutdown_grace_s` for live generations to end."""
        self._generations.draining = self._handshake.draining = True
        try:
            async with asyncio.timeout(self.settings.shutdown_grace_s):
                await self._generations.idle()
        except TimeoutError:
            log.info(
                "cancelling %s that did not finish in time",
                counted(self._generations.live, "generation"),
            )

    async def close(self) -> None:
        """Shut down as the module's docstring says. May be called again."""
        server = self._server
        if server is None or self._door is None:
            return
        self._generations.draining = self._handshake.draining = True
        if self._listening is not None:
            self._listening.end()
        try:
            await stop_accepting(server.sockets)
        finally:
            server.close(close_connections=False)
        await self._door.end_silent()  # each would otherwise have its whole time for the handshake
        await asyncio.gather(*(one.drain(CloseCode.RESTART) for one in list(self._connections)))
        await self._generations.close()
        if not await self._handlers_end(server):
            for left in server.all_connections:
                left.transport.abort()
            if not await self._handlers_end(server):
                left_open = counted(len(server.handler_tasks), "connection")
                log.warning("%s did not end in time", left_open)
        if self.settings.unix is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.settings.unix)  # noqa: PTH108 - nothing to wait for

    async def _handlers_end(self, server: Server) -> bool:
        """Wait up to `close_timeout_s` for all connections to end; return whether they have."""
        try:
            async with asyncio.timeout(self.settings.close_timeout_s):
                await server.wait_closed()
        except TimeoutError:
            return False
        return True

    # One connection.

    async def _handle(self, client: ServerConnection) -> None:
        assert isinstance(client, MeteredConnection), "as `options_of` says"
        assert client.request is not None
        foreign = self._handshake.foreign_origin(client.request)
        if foreign is not None:
            reason = self._handshake.refuse_origin(foreign)
            await self._turn_away(client, CloseCode.FORBIDDEN, reason)
            return
        secret = self._routing.secret(client.request)
        if self._handshake.is_wrong(secret):
            reason = "the token is wrong or has expired"
            await self._turn_away(client, CloseCode.NOT_AUTHENTICATED, reason)
            return
        address = self._handshake.address(client.request, _peer(client))
        full = self._handshake.enter(address)
        if full is not None:
            await self._turn_away(client, full, "too many connections")
            return
        try:
            await timed(self._serve(client, address, secret), client.spend)
        except asyncio.CancelledError:
            client.transport.abort()  # a close frame would wait behind unread bytes
            raise
        except Exception as error:  # noqa: BLE001 - logged without its message
            unexpected(log, "a connection failed", error)
            await close(client, self.settings.close_timeout_s, CloseCode.INTERNAL)
        finally:
            self._handshake.leave(address)

    def _refused(self, code: int) -> None:
        self._generations.metrics.refused[str(int(code))] += 1

    async def _turn_away(self, client: ServerConnection, code: CloseCode, reason: str) -> None:
        """Close a connection that is not let in, after what its language says of that."""
        self._refused(code)
        route = self._routing.find(client.request) if client.request is not None else None
        with suppress(ConnectionClosed):
            for message in route.turn_away(TURNED_AWAY[code], reason) if route is not None else ():
                await client.send(message.data, text=message.text)
        await client.close(code, reason)

    async def _serve(self, client: MeteredConnection, address: str, secret: str | None) -> None:
        self._bound_kernel_buffer(client)
        name = secrets.token_hex(4)
        token = self._handshake.token(secret)
        dialect = self._dialect(client, address, token)
        client.forget_headers()
        where = address or "a socket file"
        more = fields(connection=name, address=where, codec=dialect.name)
        log.info("connection %s: opened from %s, %s", name, where, dialect.name, extra=more)
        self._generations.metrics.opened[dialect.name.rpartition(".")[2]] += 1
        begin = time.monotonic()
        connection = Connection(
            client,
            self._generations,
            dialect,
            self._ready(name),
            address=address,
            token=token,
            authenticate=self._handshake.token if self.tokens and secret is None else None,
        )
        self._connections.add(connection)
        self._generations.connections += 1
        try:
            if await connection.admit():
                await self._serve_token(client, connection, connection.token)
        finally:
            self._connections.discard(connection)
            self._generations.connections -= 1
            code, seconds = client.close_code, time.monotonic() - begin
            more = fields(connection=name, code=code, seconds=round(seconds, 3))
            log.info("connection %s: closed, %s, after %.1f s", name, code, seconds, extra=more)

    def _dialect(self, client: MeteredConnection, address: str, token: Token | None) -> Dialect:
        assert client.request is not None
        route = self._routing.find(client.request)
        assert route is not None, "a WebSocket is let in by its route alone"
        opening = Opening(
            client.subprotocol,
            query=query_of(client.request),
            client=client_name(token, address),
            owner=token.name if token else None,
            waiting=self._generations.unbuilt,
        )
        return self._dialects[route.path](opening)

    async def _serve_token(
        self, client: MeteredConnection, connection: Connection, token: Token | None
    ) -> None:
        if token is None:
            await connection.run()
        elif self._handshake.enter_with(token):
            try:
                await connection.run()
            finally:
                self._handshake.leave_with(token)
        else:
            reason = "too many connections with this token"
            await self._turn_away(client, CloseCode.TOO_MANY, reason)

    def _ready(self, connection: str) -> Ready:
        settings = self.settings
        limits = {
            "max_frame_bytes": settings.max_frame_bytes,
            "max_generations": settings.max_generations,
            "max_prompt_tokens": settings.max_prompt_tokens,
            "max_answer_tokens": settings.max_answer_tokens,
            "max_batch": self.provider.places(),
            "resume_ttl": round(settings.resume_ttl_s),
        }
        return Ready(
            protocol="mlx-gateway.v1",
            server=f"mlx-gateway/{__version__}",
            epoch=self._epoch,
            connection=connection,
            models=[model.id for model in self.provider.models()],
            relays=settings.as_replica,
            replicas=self.provider.replicas(),
            node=settings.node,
            limits={name: limit for name, limit in limits.items() if limit is not None},
        )

    def _bound_kernel_buffer(self, client: MeteredConnection) -> None:
        """Bound the kernel's send buffer, so that unsent text waits here, where it is merged."""
        option = TCP_NOTSENT_LOWAT.get(sys.platform)
        raw = client.transport.get_extra_info("socket")
        if raw is None:
            return
        if raw.family == socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.settings.kernel_buffer_bytes)
        elif option is not None:
            raw.setsockopt(socket.IPPROTO_TCP, option, self.settings.kernel_buffer_bytes)

    # The handshake.

    async def _process_request(
        self, client: MeteredConnection, request: Request
    ) -> Response | None:
        """Answer a plain GET, refuse a client that may not connect, let a WebSocket through."""
        page = self._answer(client, request)
        if page is None:
            return None
        if page is TOO_MANY_PAGES:
            await self._handshake.delay()
        head = request.method == "HEAD"
        give_back = self._handshake.hold(request, _peer(client), 0 if head else len(page.body))
        if give_back is None:
            page = too_much_unread()
            self._refused(page.status)
        else:
            client.call_once_lost(give_back)
        if path_of(request) in SHARED:
            page = shared(page, self._handshake.reader(request))
        return _response(page, head=head)

    def _answer(self, client: MeteredConnection, request: Request) -> Page | None:
        route = self._routing.find(request)
        path, upgrade = path_of(request), bool(request.headers.get_all("Upgrade"))
        token = self._handshake.token(self._routing.secret(request))
        foreign = route is not None and self._handshake.foreign_origin(request) is not None
        shown = not foreign and (not self.tokens or token is not None)
        refusal = self._handshake.refusal(request, _peer(client), stream=route is not None)
        # A WebSocket that is let in counts for what it sends, all else as a plain GET.
        let_in = route is not None and upgrade and shown and refusal is None
        if not let_in and path not in PROBES:
            refusal = self._handshake.page_refusal(request, _peer(client)) or refusal
        if refusal is not None:
            self._refused(refusal.status)
            return refusal
        if client.has_body or request.method not in {"GET", "HEAD"}:
            return preflight() if request.method == "OPTIONS" and path in SHARED else not_allowed()
        if route is None:
            hidden = path in GUARDED and not shown
            return unauthorized() if hidden else self._page(request, path)
        if not upgrade:
            return upgrade_required(route)
        if not (shown or foreign or route.says_hello):
            self._refused(HTTPStatus.UNAUTHORIZED)
            return unauthorized()
        if shown:
            client.let_in(client_name(token, self._handshake.address(request, _peer(client))))
        return None

    def _page(self, request: Request, path: str) -> Page:
        page = page_for(path, self._generations)
        return unless_known(page, request.headers.get_all("If-None-Match"))


def _route_limits(settings: Settings) -> RouteLimits:
    return RouteLimits(
        FrameLimits(settings.max_depth, settings.max_values),
        settings.max_generations,
        KeptBytes(settings.response_bytes),
        settings.response_ttl_s,
    )


def options_of(
    settings: Settings,
    arriving: ByteBudget,
    loop_share: LoopShare,
    guests: Guests,
    secure: Secure | None = None,
) -> dict[str, Any]:
    """Return the arguments of websockets' `serve` that come from the settings."""
    shared: dict[str, Any] = {
        "turn": Turn(),
        "budget": arriving,
        "rates": ClientRates(settings),
        "share": loop_share,
        "guests": guests,
        "secure": secure,
    }
    make = partial(MeteredConnection, settings=settings, slices=Slices(), **shared)
    return {
        "compression": None,  # the library's own inflates a whole message at once
        "extensions": [DeflateFactory()] if settings.compression else None,
        "server_header": None,
        "logger": logging.getLogger(LIBRARY),
        "max_size": settings.max_frame_bytes,
        "max_queue": 0,  # nothing more is read while a message waits
        "create_connection": make,
        "ping_interval": settings.ping_interval_s,
        "ping_timeout": settings.ping_timeout_s,
        "close_timeout": settings.close_timeout_s,
    }


def _tls(settings: Settings) -> Tls | None:
    if settings.tls_cert is not None:
        return Tls(settings.tls_cert, settings.tls_key)
    if settings.tls_key is not None:
        raise ValueError("`tls_key` without `tls_cert`")
    return None


def _peer(client: MeteredConnection) -> str:
    """Return the address of the peer, "" on a Unix socket."""
    address = client.remote_address
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _response(page: Page, *, head: bool = False) -> Response:
    headers = Headers(page.headers())
    headers["Connection"] = "close"
    body = b"" if head else page.body
    return Response(page.status.value, page.status.phrase, headers, body)
