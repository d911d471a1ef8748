"""Listen, route, admit, drain, stop.

Shutdown, in order: stop accepting; refuse new generations; cancel those that run and let clients
have their `done`; close with 1001; abort whatever is left. Each part is bounded in time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway import __version__
from gateway.auth import host_allowed, origin_allowed
from gateway.connection import Connection
from gateway.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, CloseCode, Ready
from gateway.hub import Hub
from gateway.pages import Page, page_for
from gateway.settings import Settings
from gateway.tokens import Token, Tokens, from_header, from_subprotocols
from provider.interface import AbstractLLMInterface, models_of

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

STREAM_PATH = "/v1/stream"
GUARDED = frozenset({"/v1/models"})  # plain answers that say something about what is served
TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}  # socket has no name for it


class Gateway:
    """A provider behind a WebSocket; an async context manager that listens while it is open."""

    def __init__(
        self,
        provider: AbstractLLMInterface,
        settings: Settings | None = None,
        tokens: Tokens | None = None,
    ):
        self.settings = settings or Settings()
        self.tokens = tokens or Tokens()  # another one may take its place; who is in stays in
        self.provider = provider
        self._hub = Hub(provider, self.settings)
        self._epoch = secrets.token_hex(8)  # another one after each start
        self._connections: set[Connection] = set()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError if the address cannot be had."""
        settings = self.settings
        self._server = await serve(
            self._handle,
            settings.host,
            settings.port,
            process_request=self._process_request,
            select_subprotocol=_select_subprotocol,
            compression=None,
            server_header=None,
            max_size=settings.max_frame_bytes,
            ping_interval=settings.ping_interval_s,
            ping_timeout=settings.ping_timeout_s,
            close_timeout=settings.close_timeout_s,
        )
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
        """The port that is listened on."""
        assert self._server is not None, "not listening"
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def close(self) -> None:
        """Stop, as the module says. May be called twice."""
        server = self._server
        if server is None:
            return
        self._hub.draining = True
        server.close(close_connections=False)
        await asyncio.gather(*(one.drain(CloseCode.RESTART) for one in list(self._connections)))
        await self._hub.close()
        try:
            async with asyncio.timeout(self.settings.close_timeout_s):
                await server.wait_closed()
        except TimeoutError:
            for left in server.all_connections:
                left.transport.abort()
            await server.wait_closed()

    # One connection.

    async def _handle(self, client: ServerConnection) -> None:
        self._bound_kernel_buffer(client)
        name = secrets.token_hex(4)
        log.info("connection %s: opened, %s", name, client.subprotocol or JSON_PROTOCOL)
        secret = _secret(client.request) if client.request else None
        if self._is_wrong(secret):  # a browser's: it can read a close code and no HTTP status
            await client.close(CloseCode.NOT_AUTHENTICATED, "this token will not do")
            return
        connection = Connection(
            client,
            self._hub,
            self._ready(name),
            token=self._token(secret),
            authenticate=self._token if self.tokens and secret is None else None,
        )
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            log.info("connection %s: closed, %s", name, client.close_code)

    def _token(self, secret: str | None) -> Token | None:
        return self.tokens.find(secret, datetime.now(UTC))

    def _ready(self, connection: str) -> Ready:
        return Ready(
            protocol="mlx-gateway.v1",
            server=f"mlx-gateway/{__version__}",
            epoch=self._epoch,
            connection=connection,
            models=[model.id for model in models_of(self.provider)],
            limits={
                "max_frame_bytes": self.settings.max_frame_bytes,
                "max_generations": self.settings.max_generations,
            },
        )

    def _bound_kernel_buffer(self, client: ServerConnection) -> None:
        """Let unsent bytes wait here, where they merge and hold the model up, not in the kernel."""
        option = TCP_NOTSENT_LOWAT.get(sys.platform)
        raw = client.transport.get_extra_info("socket")
        if (
            option is not None
            and raw is not None
            and raw.family in {socket.AF_INET, socket.AF_INET6}
        ):
            raw.setsockopt(socket.IPPROTO_TCP, option, self.settings.kernel_buffer_bytes)

    # The handshake.

    def _process_request(self, client: ServerConnection, request: Request) -> Response | None:
        """Answer a plain GET, refuse who may not come in, let a WebSocket through."""
        host = _only(request.headers.get_all("Host"))
        if not host_allowed(host, self.settings.host):
            return _refusal(HTTPStatus.FORBIDDEN, "this Host is not served here")
        path = urlsplit(request.path).path
        if path == STREAM_PATH:
            origins = request.headers.get_all("Origin")
            if origins and not origin_allowed(_only(origins), host):
                return _refusal(HTTPStatus.FORBIDDEN, "pages of this origin may not connect")
            # Who shows none may still do so in a first frame.
            shown = from_header(request.headers.get_all("Authorization"))
            return _unauthorized() if self._is_wrong(shown) else None
        if request.method not in {"GET", "HEAD"}:
            response = _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here")
            response.headers["Allow"] = "GET, HEAD"
            return response
        if path in GUARDED and self.tokens and self._token(_secret(request)) is None:
            return _unauthorized()
        return _response(page_for(path, self.provider), head=request.method == "HEAD")

    def _is_wrong(self, secret: str | None) -> bool:
        return bool(self.tokens) and secret is not None and self._token(secret) is None


def _select_subprotocol(
    client: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Take the first codec that the client offers; a token among the offers is never echoed."""
    return next((name for name in offered if name in {JSON_PROTOCOL, MSGPACK_PROTOCOL}), None)


def _secret(request: Request) -> str | None:
    """Return the token that a request shows, "" for one that can't be read, None for none."""
    secret = from_header(request.headers.get_all("Authorization"))
    if secret is not None:
        return secret
    offers = request.headers.get_all("Sec-WebSocket-Protocol")
    return from_subprotocols(name.strip() for offer in offers for name in offer.split(","))


def _unauthorized() -> Response:
    response = _refusal(HTTPStatus.UNAUTHORIZED, "a token is needed, and this one will not do")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _only(values: Sequence[str]) -> str | None:
    """Return a header that is there once; one that is there twice names nothing."""
    return values[0] if len(values) == 1 else "" if values else None


def _response(page: Page, *, head: bool = False) -> Response:
    headers = Headers(page.headers())
    headers["Connection"] = "close"
    body = b"" if head else page.body
    return Response(page.status.value, page.status.phrase, headers, body)


def _refusal(status: HTTPStatus, reason: str) -> Response:
    return _response(Page(status, "text/plain; charset=utf-8", f"{reason}\n".encode()))
