"""Closes connections and ends tasks in bounded time, whatever a client or a provider does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection

__all__ = ["all_end", "close", "ended_within"]


@asynccontextmanager
async def ended_within(seconds: float, socket: ServerConnection) -> AsyncIterator[None]:
    """Leave the block, and abort the connection, if the block takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        socket.transport.abort()


async def close(socket: ServerConnection, seconds: float, code: int, reason: str = "") -> None:
    """Close a connection with a close frame, and abort it if that takes longer than `seconds`.

    The library's own time limit has no effect for a client that reads nothing, because the close
    frame waits behind the bytes that were sent before.
    """
    async with ended_within(seconds, socket):
        await socket.close(code, reason)


async def all_end(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> bool:
    """Wait at most `seconds` until tasks end in any way; return whether all have ended."""
    running = set(tasks)
    if running:
        _, running = await asyncio.wait(running, timeout=seconds)
    return not running
