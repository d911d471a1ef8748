"""Closes connections and ends tasks in bounded time, whatever a client or a provider does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from websockets.asyncio.server import ServerConnection

__all__ = ["all_end", "close"]


async def close(socket: ServerConnection, seconds: float, code: int, reason: str = "") -> None:
    """Close a connection with a close frame, and abort it if that takes longer than `seconds`.

    The library's own time limit has no effect for a client that reads nothing, because the close
    frame waits behind the bytes that were sent before.
    """
    try:
        async with asyncio.timeout(seconds):
            await socket.close(code, reason)
    except TimeoutError:
        socket.transport.abort()


async def all_end(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> bool:
    """Wait at most `seconds` until tasks end in any way; return whether all have ended."""
    running = set(tasks)
    if running:
        _, running = await asyncio.wait(running, timeout=seconds)
    return not running
