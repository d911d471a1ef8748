"""Finds a request's route by its path, and the token that it carries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request
from websockets.typing import Subprotocol

from gateway.dialects.base import Route
from gateway.server.pages import Page, text_page
from gateway.server.tokens import from_header

__all__ = ["Routing", "path_of", "query_of", "upgrade_required"]


class Routing:
    """The paths that speak WebSocket."""

    def __init__(self, routes: Iterable[Route]):
        self._by_path = {route.path: route for route in routes}

    def find(self, request: Request) -> Route | None:
        """Return the route of a request's path, None if the path is not for WebSockets."""
        return self._by_path.get(path_of(request))

    def select_subprotocol(
        self, connection: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        """Return the first offered subprotocol that the route has, never one with a token."""
        route = self.find(connection.request) if connection.request is not None else None
        return next((name for name in offered if route and name in route.subprotocols), None)

    def secret(self, request: Request) -> str | None:
        """Return a request's token, "" if it can't be decoded, None if there is none."""
        secret = from_header(request.headers.get_all("Authorization"))
        route = self.find(request)
        if secret is not None or route is None:
            return secret
        offers = request.headers.get_all("Sec-WebSocket-Protocol")
        return route.secret_in(name.strip() for offer in offers for name in offer.split(","))


def path_of(request: Request) -> str:
    """Return the path that a request is for, "" if its target is malformed."""
    try:
        return urlsplit(request.path).path
    except ValueError:
        return ""


def query_of(request: Request) -> str:
    """Return the query of a request's target, which is well-formed, "" without one."""
    return urlsplit(request.path).query


def upgrade_required(route: Route) -> Page:
    """Return the answer to a plain GET of a route's path."""
    return text_page(HTTPStatus.UPGRADE_REQUIRED, route.hint, {"Upgrade": "websocket"})
