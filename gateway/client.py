"""An asyncio client of the gateway, for the command line, scripts and tests.

    async with connect("ws://127.0.0.1:8765/v1/stream") as client:
        async with client.generate(messages=[{"role": "user", "content": "Hello"}]) as run:
            async for chunk in run:
                print(chunk["text"], end="")
        print(run.done["usage"])

Leaving the inner block before the end cancels that generation, and waits for its `done`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.frames import (
    JSON_PROTOCOL,
    Cancel,
    ClientFrame,
    CloseCode,
    Codec,
    Generate,
    Hello,
    Ping,
    codec_for,
)

__all__ = [
    "ConnectionLostError",
    "GatewayClient",
    "GatewayError",
    "Run",
    "UnauthorizedError",
    "connect",
]

MAX_FRAME_BYTES = 64 * 1024 * 1024  # of a server that the user chose; a bound all the same


class GatewayError(Exception):
    """The gateway refused a request or ended a generation with an error."""

    def __init__(self, frame: dict[str, Any]):
        super().__init__(frame.get("message", "unknown error"))
        self.code: str = frame.get("code", "internal")
        self.retryable: bool = bool(frame.get("retryable"))


class UnauthorizedError(GatewayError):
    """The gateway wants a token, or another one."""

    def __init__(self) -> None:
        super().__init__({"message": "the gateway wants a token", "code": "unauthorized"})


class ConnectionLostError(GatewayError):
    """The connection ended before the generation did."""

    def __init__(self, reason: str):
        super().__init__({"message": reason, "code": "connection_lost", "retryable": True})


class Run:
    """One generation: an async iterator of its chunks, as dicts with `text` and maybe `channel`."""

    def __init__(self, client: GatewayClient, frame: Generate):
        self.id = frame.id
        self.started: dict[str, Any] | None = None
        self.done: dict[str, Any] | None = None  # the last frame, once it is there
        self.tool_calls: list[dict[str, Any]] = []
        self._client = client
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Iterate over the chunks. Raises GatewayError, ConnectionLostError."""
        return self._chunks()

    async def cancel(self) -> None:
        """Ask the gateway to stop; the iteration ends with its `done`."""
        await self._client.send(Cancel(id=self.id))

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        while self.done is None:
            frame = await self._frames.get()
            match frame.get("type"):
                case "chunk":
                    yield frame
                case "started":
                    self.started = frame
                case "tool_call":
                    self.tool_calls.append(frame)
                case "done":
                    self.done = frame
                case "error":
                    self.done = frame
                    if frame["code"] == "connection_lost":
                        raise ConnectionLostError(frame["message"])
                    raise GatewayError(frame)

    async def finish(self) -> None:
        """Cancel if it still runs, and take what is left."""
        if self.done is None:
            try:
                await self.cancel()
                async for _ in self:
                    pass
            except (GatewayError, ConnectionClosed):
                return

    def receive(self, frame: dict[str, Any]) -> None:
        """Take a frame of this generation."""
        self._frames.put_nowait(frame)


class GatewayClient:
    """One connection, many generations. Made by `connect`."""

    def __init__(self, socket: ClientConnection, codec: Codec):
        self.ready: dict[str, Any] = {}
        self._socket = socket
        self._codec = codec
        self._runs: dict[str, Run] = {}
        self._ids = itertools.count(1)

    @asynccontextmanager
    async def generate(self, **fields: Any) -> AsyncIterator[Run]:
        """Start a generation with the fields of a `generate` frame; leaving the block ends it."""
        frame = Generate(id=fields.pop("id", None) or f"g{next(self._ids)}", **fields)
        run = self._runs[frame.id] = Run(self, frame)
        await self.send(frame)
        try:
            yield run
        finally:
            await run.finish()
            self._runs.pop(run.id, None)

    async def ping(self, nonce: str) -> None:
        """Send a ping; the connection answers it in order with everything else."""
        await self.send(Ping(nonce=nonce))

    async def send(self, frame: ClientFrame) -> None:
        """Send one frame. Raises websockets' ConnectionClosed."""
        await self._socket.send(self._codec.encode(frame), text=self._codec.text)

    async def first(self) -> dict[str, Any]:
        """Return the first frame. Raises websockets' ConnectionClosed."""
        return self._codec.decode_fields(await self._socket.recv())

    async def read(self) -> None:
        """Give each generation its frames until the connection ends."""
        reason = "the connection was closed"
        try:
            async for message in self._socket:
                frame = self._codec.decode_fields(message)
                run = self._runs.get(frame.get("id") or "")
                if run is not None:
                    run.receive(frame)
        except ConnectionClosed as error:
            reason = f"the connection was lost: {error}"
        lost = {"type": "error", "code": "connection_lost", "message": reason, "retryable": True}
        for run in self._runs.values():
            run.receive(lost)


@asynccontextmanager
async def connect(
    url: str, protocol: str = JSON_PROTOCOL, token: str | None = None
) -> AsyncIterator[GatewayClient]:
    """Connect to a gateway, with a token if it wants one; `ready` is in `client.ready`.

    Raises OSError or websockets' InvalidHandshake if there is no gateway at `url`,
    UnauthorizedError if it wants another token.
    """
    opening = connect_socket(
        url,
        subprotocols=[Subprotocol(protocol)],
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        compression=None,
        max_size=MAX_FRAME_BYTES,
    )
    async with AsyncExitStack() as stack:
        client = await _open(stack, opening, token)
        reader = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def _open(stack: AsyncExitStack, opening: connect_socket, token: str | None) -> GatewayClient:
    """Return a client that has its `ready`. Raises UnauthorizedError."""
    try:
        socket = await stack.enter_async_context(opening)
        client = GatewayClient(socket, codec_for(socket.subprotocol))
        if token is None:  # a gateway that wants one says so now, and not after a while
            await client.send(Hello())
        client.ready = await client.first()
    except InvalidStatus as error:
        if error.response.status_code == HTTPStatus.UNAUTHORIZED:
            raise UnauthorizedError from error
        raise
    except ConnectionClosed as error:
        if error.rcvd is not None and error.rcvd.code == CloseCode.NOT_AUTHENTICATED:
            raise UnauthorizedError from error
        raise
    return client
