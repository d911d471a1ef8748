"""Generations that another gateway of several has, read on a connection of their own to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway.client.errors import ConnectionLostError
from gateway.client.run import Run, Sender
from gateway.protocol.codes import NotAFrame
from gateway.protocol.frames import ServerFrame

__all__ = ["Elsewhere"]


class Client(Sender, Protocol):
    """What is needed of a client: a context manager that connects when it is entered."""

    @property
    def state(self) -> str:
        """Whether it is connected: `closed` if it connects no more."""

    async def __aenter__(self) -> object:
        """Connect. Raises OSError, InvalidHandshake, UnauthorizedError."""

    async def __aexit__(self, *details: object) -> None:
        """Close the connection."""


class Elsewhere:
    """Sends for runs by a client of its own, which `connect` makes when the first one starts.

    A run that is cancelled or left while the connection is being made is cancelled once it is.
    """

    def __init__(self, connect: Callable[[], Client]):
        self._connect = connect
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        # The runs that wait for the connection, each with whether it was cancelled meanwhile.
        self._waiting: dict[Run, bool] = {}

    async def start(self, run: Run) -> None:
        """Connect if need be, and send the run's frame.

        Raises ConnectionLostError if the gateway can't be reached, and GatewayError.
        """
        self._waiting.setdefault(run, False)
        try:
            client = await self._connected()
        finally:
            cancelled = self._waiting.pop(run, False)
        await client.start(run)
        if cancelled:  # only now, because the gateway did not know of it before
            await client.cancel(run)

    async def _connected(self) -> Client:
        async with self._opening:
            if self._client is None or self._client.state == "closed":
                await self._disconnect()
                self._check_open()
                client = self._connect()
                try:
                    await client.__aenter__()
                except (OSError, InvalidHandshake, ConnectionClosed, NotAFrame) as error:
                    said = f"the gateway that has the generation can't be reached: {error}"
                    raise ConnectionLostError(said) from error
                self._client = client
                if self._closed:
                    await self._disconnect()
            self._check_open()
            return self._client

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLostError("the client was closed")

    async def acknowledge(self, run: Run, frame: ServerFrame) -> None:
        """Note that the run's frames up to this one were read."""
        if self._client is not None:
            await self._client.acknowledge(run, frame)

    async def cancel(self, run: Run) -> None:
        """End the reading."""
        if run in self._waiting:
            self._waiting[run] = True
        elif self._client is not None:
            await self._client.cancel(run)

    async def leave(self, run: Run) -> None:
        """End the reading, and wait for its end if there is a connection."""
        if run in self._waiting:
            self._waiting[run] = True
        elif self._client is not None:
            await self._client.leave(run)

    async def close(self) -> None:
        """Close the connection, if there is one, and make no other; runs that still read end.

        One that is being made is closed once it is.
        """
        self._closed = True
        await self._disconnect()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)
