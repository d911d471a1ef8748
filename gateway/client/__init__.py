"""The Python clients, with asyncio and without, and the loop that calls tools."""

from __future__ import annotations

from gateway.client.asynchronous import GatewayClient, connect
from gateway.client.errors import ConnectionLostError, GatewayError, UnauthorizedError
from gateway.client.run import Run

__all__ = [
    "ConnectionLostError",
    "GatewayClient",
    "GatewayError",
    "Run",
    "UnauthorizedError",
    "connect",
]
