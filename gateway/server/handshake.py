"""The checks before a connection is served, and the counts of connections.

Rule 1: a wrong Host is answered with the status 403, a wrong token in the header with 401, a
connection too many with 429 or 503 and Retry-After.
Rule 2: for a wrong Origin, and for a token among the subprotocols, the connection is made and then
closed with 4403, 4401 or 4429, because a browser shows a page the close code, but not the status.
Nothing else is served on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

from websockets.http11 import Request

from gateway.configuration.settings import Settings
from gateway.protocol.codes import CloseCode
from gateway.server.byte_budget import ByteBudget
from gateway.server.logs import LOG_EVERY_S, Rare
from gateway.server.origins import (
    client_address,
    counted_as,
    flags_for,
    host_allowed,
    is_loopback,
    listed,
    origins,
    proxies,
)
from gateway.server.pages import Page, text_page
from gateway.server.rates import Counts, Rates
from gateway.server.tokens import Token, Tokens, from_header
from provider.wording import counted

__all__ = ["TOO_MANY_PAGES", "Handshake", "too_much_unread", "unauthorized"]

log = logging.getLogger(__name__)

# Bytes of answers to plain GETs that wait for their readers, and the part of what others leave that
# one address may have. The files of the page have 2 MiB.
UNREAD_BYTES, UNREAD_SHARE = 32 << 20, 0.5
PAGES_BURST_S = 10  # seconds whose plain GETs may come at once
# Seconds after which a plain GET too many is answered, so that a client that then asks anew costs
# little, and how many wait at a time, each with its socket.
REFUSED_AFTER_S, MAX_DELAYED = 0.2, 256
RETRY_AFTER_S = 5  # for a client over a limit of connections
MAX_TOLD = 64  # refused origins that are logged in LOG_EVERY_S
MAX_REASON_BYTES = 123  # of a close frame


class Handshake:
    """The rules of the handshake, and the numbers of connections by token and by address."""

    def __init__(self, settings: Settings, tokens: Tokens, max_connections: int | None = None):
        """Read the rules from settings. Raises ValueError for a wrong list of them.

        `max_connections` may be lower than in the settings.
        """
        self.tokens = tokens  # replaced when the token file is reloaded
        self.draining = False
        self._settings = settings
        self._hosts = listed(settings.hosts)
        self._local = settings.unix is None and is_loopback(settings.host)
        if settings.dev and not self._local:
            raise ValueError("`dev` lets pages of this machine connect, so `host` must be loopback")
        self._origins = origins(settings.origins, loopback=settings.dev)
        self._told: dict[str, float] = {}  # when a refused origin was logged, the oldest first
        self._proxies = proxies(settings.trusted_proxies)
        self._by_address = Counts()
        self._by_token = Counts()
        self._all = 0
        rate = settings.page_rate
        self._pages = Rates(rate, rate * PAGES_BURST_S, time.monotonic())
        self._unread = ByteBudget(UNREAD_BYTES, UNREAD_SHARE)
        self._max_connections = max_connections or settings.max_connections
        self._rare = Rare()
        self._delayed = 0  # refusals that wait

    # Before the connection is made.

    def refusal(self, request: Request, peer: str, *, stream: bool) -> Page | None:
        """Return the answer that refuses a request, None if it is allowed.

        `stream` says that the request is for a path of WebSockets. One with a wrong Origin is
        allowed here, and `foreign_origin` returns it.
        """
        host = _only(request.headers.get_all("Host"))
        if not self._host_allowed(host):
            return text_page(
                HTTPStatus.FORBIDDEN,
                "this Host is not allowed; the setting `hosts` lists those that are",
            )
        if not stream:
            return None
        if self.foreign_origin(request) is not None:
            return self._too_many(None, self.address(request, peer))
        # A client without a token here may still send one in `hello`.
        shown = from_header(request.headers.get_all("Authorization"))
        if self.is_wrong(shown):
            return unauthorized()
        return self._too_many(self.token(shown), self.address(request, peer))

    def page_refusal(self, request: Request, peer: str) -> Page | None:
        """Return TOO_MANY_PAGES for a plain GET too many of an address, None for one it may."""
        allowed = self._pages.spend(self.address(request, peer), 1, time.monotonic())
        return None if allowed else TOO_MANY_PAGES

    async def delay(self) -> None:
        """Wait before TOO_MANY_PAGES is sent, unless very many wait."""
        if self._delayed < MAX_DELAYED:
            self._delayed += 1
            try:
                await asyncio.sleep(REFUSED_AFTER_S)
            finally:
                self._delayed -= 1

    def hold(self, request: Request, peer: str, size: int) -> Callable[[], None] | None:
        """Count an answer that waits for its reader; return what ends that, None for one too many.

        `size` is that of the answer in bytes.
        """
        address = self.address(request, peer)
        if not self._unread.fits(address, size):
            return None
        self._unread.add(address, size)
        return partial(self._unread.add, address, -size)

    # Origins.

    def foreign_origin(self, request: Request) -> str | None:
        """Return a request's Origin if its pages may not connect, else None."""
        host, origin = _only(request.headers.get_all("Host")), _origin(request)
        return None if self._origins.allow(origin, host) else origin

    def reader(self, request: Request) -> str | None:
        """Return a request's Origin if its pages may read what is for listed origins, else None."""
        origin = _origin(request)
        return origin if origin is not None and self._origins.list(origin) else None

    def refuse_origin(self, origin: str) -> str:
        """Log that pages of an origin are refused; return the reason that they are told."""
        if self._is_to_tell(origin):
            flags = flags_for(origin, self._settings.origins, local=self._local)
            advice = "start with " + flags if flags else "no setting can"
            log.warning("refused a page of the origin %.200r; to let it in, %s", origin, advice)
        flags = flags_for(origin, None, local=self._local)
        reason = f"pages of this origin are refused; start the gateway with {flags}"
        fits = len(reason.encode()) <= MAX_REASON_BYTES
        return reason if flags and fits else "pages of this origin are refused; the log says more"

    def _is_to_tell(self, origin: str) -> bool:
        """Return whether to log a refused origin: once in LOG_EVERY_S, and for MAX_TOLD of them."""
        now = time.monotonic()
        while (oldest := next(iter(self._told), None)) and self._told[oldest] < now - LOG_EVERY_S:
            del self._told[oldest]
        if origin in self._told or len(self._told) >= MAX_TOLD:
            return False
        self._told[origin] = now
        return True

    def _host_allowed(self, host: str | None) -> bool:
        if self._settings.unix is not None and not self._hosts:
            return host is not None  # no page can reach a Unix socket; the proxy checks names
        return host_allowed(host, self._settings.host, self._hosts)

    def _too_many(self, token: Token | None, address: str) -> Page | None:
        if self.draining:
            return _later(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is stopping")
        if self._all >= self._max_connections:
            if self._rare.now():
                said = counted(self._all, "connection", are=True)
                log.warning("%s open, and no more may be", said)
            return _later(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        if self._by_address[address] >= self._settings.max_connections_per_address:
            return _later(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address")
        if token is not None and self.is_full(token):
            return _later(HTTPStatus.TOO_MANY_REQUESTS, "too many connections with this token")
        return None

    # Tokens.

    def token(self, secret: str | None) -> Token | None:
        """Return the valid token with this secret, None if there is none."""
        return self.tokens.find(secret, datetime.now(UTC))

    def is_wrong(self, secret: str | None) -> bool:
        """Return whether tokens are required and the one that was sent is not valid."""
        return bool(self.tokens) and secret is not None and self.token(secret) is None

    def is_full(self, token: Token) -> bool:
        """Return whether a token has as many connections as it may have."""
        most = token.max_connections or self._settings.max_connections_per_token
        return self._by_token[token.name] >= most

    # Counts.

    def address(self, request: Request, peer: str) -> str:
        """Return what the client's address is counted as; X-Forwarded-For only from proxies."""
        forwarded = request.headers.get_all("X-Forwarded-For")
        return counted_as(client_address(peer, forwarded, self._proxies))

    def enter(self, address: str) -> CloseCode | None:
        """Count a connection; over a limit, return a close code instead, and don't count it."""
        if self._all >= self._max_connections:
            return CloseCode.OVERLOADED
        if self._by_address[address] >= self._settings.max_connections_per_address:
            return CloseCode.TOO_MANY
        self._all += 1
        self._by_address.add(address)
        return None

    def leave(self, address: str) -> None:
        """Stop counting a connection of this address."""
        self._all -= 1
        self._by_address.remove(address)

    def enter_with(self, token: Token) -> bool:
        """Count a connection of a token; over its limit, return False, and don't count it."""
        if self.is_full(token):
            return False
        self._by_token.add(token.name)
        return True

    def leave_with(self, token: Token) -> None:
        """Stop counting a connection of this token."""
        self._by_token.remove(token.name)


def unauthorized() -> Page:
    """Return the answer to a token that is missing or wrong."""
    reason = "a valid token is required"
    return text_page(HTTPStatus.UNAUTHORIZED, reason, {"WWW-Authenticate": "Bearer"})


def too_much_unread() -> Page:
    """Return the answer to a GET of an address for which too many answers wait."""
    return _later(HTTPStatus.TOO_MANY_REQUESTS, "read the answers before you ask for more")


def _later(status: HTTPStatus, reason: str) -> Page:
    return text_page(status, reason, {"Retry-After": str(RETRY_AFTER_S)})


TOO_MANY_PAGES = _later(HTTPStatus.TOO_MANY_REQUESTS, "too many requests from this address")


def _origin(request: Request) -> str | None:
    return _only(request.headers.get_all("Origin"))


def _only(values: Sequence[str]) -> str | None:
    """Return a header's value, None if it is absent, "" if it occurs more than once."""
    return values[0] if len(values) == 1 else "" if values else None
