"""A client's WebSocket connection that is aborted when the gateway takes no bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol

__all__ = ["WatchedConnection", "WriteWatchdog"]

LOOKS = 4  # in the time after which a connection is aborted


class WriteWatchdog:
    """Aborts a transport whose bytes have waited for `timeout_s` without becoming fewer.

    A large frame on a slow line may take longer, because part of it is taken again and again.
    """

    def __init__(self, transport: asyncio.WriteTransport, timeout_s: float):
        self._transport = transport
        self._pause_s = timeout_s / LOOKS
        self._writers = 0  # writes that have not returned
        self._size = 0  # bytes that waited at the last look
        self._looks = 0  # looks since bytes were last taken
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch during a write, and after it for as long as bytes wait."""
        self._writers += 1
        if self._timer is None:
            self._looks, self._size = 0, self._transport.get_write_buffer_size()
            self._look_later()
        try:
            yield
        finally:
            self._writers -= 1

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self.look)

    def look(self) -> None:
        """Abort the transport if no bytes were taken since LOOKS looks; a timer calls it."""
        self._timer = None
        size, before = self._transport.get_write_buffer_size(), self._size
        self._size = size
        if self._transport.is_closing() or not (size or self._writers):
            return
        # Fewer bytes are progress. More are not: such as the pongs, which wait behind the others.
        self._looks = 0 if size < before or not size else self._looks + 1
        if self._looks < LOOKS:
            self._look_later()
        else:
            self._transport.abort()


class WatchedConnection(ClientConnection):
    """A connection whose writes end in bounded time, with ConnectionClosed if it is aborted.

    The library's keepalive does not see to that: its pings wait behind the bytes that wait.
    """

    def __init__(self, protocol: ClientProtocol, *, write_timeout_s: float, **options: Any):
        super().__init__(protocol, **options)
        self._write_timeout_s = write_timeout_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport; asyncio calls it."""
        super().connection_made(transport)
        self._watchdog = WriteWatchdog(self.transport, self._write_timeout_s)

    async def send(self, message: Any, *, text: bool | None = None) -> None:
        """Send one message. Raises ConnectionClosed."""
        with self._watchdog.watching():
            await super().send(message, text=text)
