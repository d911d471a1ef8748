"""The paths of the server and the wire language of each."""

from __future__ import annotations

from gateway.dialects import native
from gateway.dialects.agui import dialect as agui
from gateway.dialects.base import Route
from gateway.dialects.chat import dialect as chat
from gateway.dialects.realtime import dialect as realtime
from gateway.dialects.responses import dialect as responses

__all__ = ["ROUTES"]

ROUTES: tuple[Route, ...] = (
    native.ROUTE,
    responses.ROUTE,
    realtime.ROUTE,
    chat.ROUTE,
    agui.ROUTE,
)
