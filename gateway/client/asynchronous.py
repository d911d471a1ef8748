"""An asyncio client of the gateway, for the command line, scripts and tests.

    async with GatewayClient("http://127.0.0.1:8765/") as client:
        run = client.generate(messages=[{"role": "user", "content": "Hello"}])
        async for chunk in run:  # leaving the loop cancels the generation
            print(chunk.text, end="")
        print(run.done.usage)

Used as a context manager, a generation is cancelled at the end of the block, and its `done` is
awaited. The client reconnects when the connection is lost, however long that takes. A generation
that has received its ticket is then resumed, and gets each frame exactly once, unless it has waited
for `give_up_s` seconds; one without a ticket ends with ConnectionLostError. The client never sends
a prompt again by itself.

Each generation has a window of WINDOW frames, which are acknowledged as they are read. One that is
not read waits on the gateway, without delaying others on the connection, until the gateway ends it
after its `generation_timeout`. So each generation should be read, cancelled or left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, Self

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.typing import Subprotocol

from gateway.client.elsewhere import Elsewhere
from gateway.client.errors import ConnectionLostError, GatewayError, UnauthorizedError
from gateway.client.run import Run, Sender
from gateway.client.watched_connection import WatchedConnection
from gateway.dialects.native import codec_for, server_frame
from gateway.protocol.address import Address, address_of, node_of
from gateway.protocol.codes import CloseCode, ErrorCode, NotAFrame
from gateway.protocol.frames import (
    JSON_PROTOCOL,
    Ack,
    Cancel,
    ClientFrame,
    Error,
    Generate,
    Hello,
    Ping,
    Ready,
    Resume,
    ServerFrame,
)

__all__ = [
    "WINDOW",
    "ConnectionState",
    "GatewayClient",
    "connect",
]


MAX_FRAME_BYTES = 64 * 1024 * 1024  # largest frame accepted from a server

# The most unread frames of one generation. Not reading the socket instead would delay all
# generations on the connection, and would deadlock a caller that reads the others first.
WINDOW = 64
GIVE_UP_S = 60.0  # the server's default `resume_ttl`
OPEN_TIMEOUT_S = 10.0  # for the handshake, and again for `ready`
CLOSE_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 30.0  # the server's default `write_timeout`

FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0  # seconds between attempts to reconnect

ConnectionState = Literal["open", "waiting", "closed"]

ENDS_FOR_GOOD = {CloseCode.NOT_A_FRAME, CloseCode.NOT_AUTHENTICATED, CloseCode.FORBIDDEN}


class GatewayClient:
    """A client with many generations on one connection; an async context manager.

    `url` is what the gateway prints when it starts, or another form that `address_of` takes; its
    constructor raises ValueError for any other. `token` authenticates the client, or the token in
    `url`. After a lost connection it tries to reconnect until it is left or refused. Meanwhile each
    generation waits for `give_up_s` seconds, and then ends with ConnectionLostError; with 0 the
    client does not reconnect. A connection is lost if the gateway takes no bytes for
    `write_timeout_s` seconds; an attempt to connect fails if there is no answer for
    `open_timeout_s` seconds. Leaving the context takes `close_timeout_s` seconds at most.

    With `wait_s`, entering waits up to so many seconds (`math.inf` for no bound) for a gateway that
    is not up yet; an attempt that is being made then is not cut short.

    `on_state` is called with each new `state`, and with the reason: "waiting" while there is no
    connection, "open", and "closed" at the end.
    """

    def __init__(
        self,
        url: str | Address,
        protocol: str = JSON_PROTOCOL,
        token: str | None = None,
        *,
        wait_s: float = 0.0,
        give_up_s: float = GIVE_UP_S,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        on_state: Callable[[ConnectionState, str], None] | None = None,
    ):
        self.state: ConnectionState = "closed"
        self.ready = Ready(protocol="", server="", epoch="", connection="", models=[], limits={})
        self.connections = 0  # connections made so far
        self.resumed = 0  # generations resumed so far
        self._address = url if isinstance(url, Address) else address_of(url)
        self._protocol = protocol
        self._token = token or self._address.token
        self._wait_s = wait_s
        self._give_up_s = give_up_s
        self._open_timeout_s = open_timeout_s
        self._close_timeout_s = close_timeout_s
        self._write_timeout_s = write_timeout_s
        self._on_state = on_state
        self._codec = codec_for(protocol)
        self._cookies: dict[str, str] = {}
        self._socket: ClientConnection | None = None
        self._open = asyncio.Event()
        self._down = asyncio.Event()  # set while there is no connection
        self._failure: GatewayError | None = None  # the reason why reconnecting was given up
        self._runs: dict[str, Run] = {}
        self._to_cancel: set[str] = set()  # generations to cancel once there is a connection
        self._elsewhere: dict[str, Elsewhere] = {}  # by the names of other gateways
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        """Connect. Raises OSError, InvalidHandshake, UnauthorizedError."""
        await self._open_within(self._wait_s)
        self._living = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *details: object) -> None:
        """Close the connection; generations that still run end with ConnectionLostError.

        If that takes longer than `close_timeout_s`, the connection is aborted.
        """
        await asyncio.gather(*(other.close() for other in self._elsewhere.values()))
        socket = self._socket
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)
        if socket is not None:
            await self._close(socket)

    async def _close(self, socket: ClientConnection) -> None:
        # websockets' own limit does not hold if the gateway reads nothing: the close frame waits
        # behind the bytes that were sent before.
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await socket.close()
        except TimeoutError:
            socket.transport.abort()

    def generate(self, *, resumable: bool = True, **fields: Any) -> Run:
        """Return a generation with the fields of a `generate` frame.

        It starts when it is iterated over or entered, and waits for a connection if there is none.
        With `window=None`, any number of unread frames may wait here.
        """
        fields.setdefault("window", WINDOW)
        number = f"g{next(self._ids)}"
        frame = Generate(id=fields.pop("id", None) or number, resumable=resumable, **fields)
        return Run(self, frame)

    def follow(self, ticket: str, *, after: int = -1, window: int | None = WINDOW) -> Run:
        """Return a generation that another client has, from the frame after the number `after`.

        It is only read: cancelling or leaving it ends the reading, and the generation goes on. A
        reader that is too slow gets a GatewayError with the code `slow_client`. If the ticket names
        another gateway than the one of this connection, that is connected to beside it, by the same
        address with `?node=`.
        """
        frame = Resume(
            id=f"g{next(self._ids)}", ticket=ticket, after=after, follow=True, window=window
        )
        return Run(self._sender_to(ticket), frame)

    def _sender_to(self, ticket: str) -> Sender:
        """Return what sends to the gateway that has a ticket's generation."""
        node = node_of(ticket)
        if not node or self.ready.node in {None, node}:
            return self
        if node not in self._elsewhere:
            self._elsewhere[node] = Elsewhere(partial(self._another, ticket))
        return self._elsewhere[node]

    def _another(self, ticket: str) -> GatewayClient:
        """Return a client like this one for the gateway that has a ticket's generation."""
        return GatewayClient(
            dataclasses.replace(self._address, url=self._address.url_of(ticket)),
            self._protocol,
            self._token,
            give_up_s=self._give_up_s,
            open_timeout_s=self._open_timeout_s,
            close_timeout_s=self._close_timeout_s,
            write_timeout_s=self._write_timeout_s,
        )

    async def start(self, run: Run) -> None:
        """Send a generation's first frame, unless it was sent before.

        Raises ConnectionLostError, and GatewayError for an id that another one has, and for a
        frame over the gateway's size limit, which would end the connection with all its
        generations. Cancelling it cancels one that was sent.
        """
        if run.started_here:
            return
        run.started_here = True
        try:
            socket = await self._connected()
            message = self._encode(run.frame)
        except BaseException:
            run.started_here = False
            self._forget(run)
            raise
        self._runs[run.id] = run  # only now, so that a lost connection can't end an unsent one
        try:
            await socket.send(message, text=self._codec.text)
        except ConnectionClosed as error:
            lost = ConnectionLostError(f"the connection was lost: {error}")
            self._fail(run, lost)
            raise lost from error
        except BaseException:  # its bytes are on their way, so the gateway will begin it
            await self.cancel(run)
            raise
        if run.id in self._to_cancel:  # since before it was sent, when the gateway did not know it
            await self.cancel(run)

    def _encode(self, frame: Generate | Resume) -> bytes:
        """Return a run's first frame as bytes.

        Raises GatewayError for an id that another run has, because the gateway's refusal could not
        say of which one it is, and for a frame over the gateway's size limit.
        """
        if frame.id in self._runs:
            raise GatewayError(ErrorCode.DUPLICATE_ID, f"`{frame.id}` is already running")
        message = self._codec.encode(frame)
        size, most = len(message), self.ready.limits.get("max_frame_bytes")
        if most is not None and size > most:
            said = f"the request has {size:,} bytes; the gateway takes at most {most:,}"
            raise GatewayError("invalid_request", f"{said} (its `max_frame_bytes`)")
        return message

    async def ping(self, nonce: str) -> None:
        """Send a ping; its pong comes in order with all other frames."""
        await self.send(Ping(nonce=nonce))

    async def cancel(self, run: Run) -> None:
        """Cancel a generation; while there is no connection, do so after reconnecting."""
        if run.over:
            return
        self._to_cancel.add(run.id)
        socket = self._socket
        if socket is not None:
            frames: list[ClientFrame] = [Cancel(id=run.id)]
            if run.window is not None:  # its `done` must pass a closed window
                frames.append(Ack(id=run.id, seq=max(run.last, 0)))
            # A task that is cancelled while it waits for a full socket still sends all of them.
            writes = [self._write(socket, frame) for frame in frames]
            await asyncio.shield(asyncio.gather(*writes, return_exceptions=True))

    async def acknowledge(self, run: Run, frame: ServerFrame) -> None:
        """Note that frames up to this one were read; send an `ack` for each half of the window."""
        socket, seq = self._socket, getattr(frame, "seq", None)
        if seq is None:
            return
        run.read = seq
        if socket is None or run.window is None or run.over:
            return
        if seq - run.acknowledged >= max(1, run.window // 2):
            run.acknowledged = seq
            with suppress(ConnectionClosed):
                await self._write(socket, Ack(id=run.id, seq=seq))

    async def send(self, frame: ClientFrame) -> None:
        """Send one frame, once there is a connection. Raises ConnectionLostError."""
        socket = await self._connected()
        try:
            await self._write(socket, frame)
        except ConnectionClosed as error:
            raise ConnectionLostError(f"the connection was lost: {error}") from error

    async def _connected(self) -> ClientConnection:
        """Wait for a connection that is open. Raises ConnectionLostError after `give_up_s`."""
        try:
            async with asyncio.timeout(self._give_up_s):
                while True:
                    await self._open.wait()
                    if self._failure is not None:
                        raise self._failure
                    if self._socket is not None and self._socket.state is State.OPEN:
                        return self._socket
                    self._open.clear()  # the connection is lost, and the reader has not noticed yet
        except TimeoutError:
            raise self._given_up() from None

    def _given_up(self) -> ConnectionLostError:
        return ConnectionLostError(f"there was no connection for {self._give_up_s:g} s")

    async def _write(self, socket: ClientConnection, frame: ClientFrame) -> None:
        await socket.send(self._codec.encode(frame), text=self._codec.text)

    async def leave(self, run: Run) -> None:
        """Cancel a generation if it was sent and still runs, and wait for its end.

        While there is no connection, it does not wait, and cancels after reconnecting.
        """
        try:
            if run.started_here and not run.over:
                await self.cancel(run)
                await _first_of(run.result(), self._down.wait())
        finally:
            if run.over or run.ticket is None:
                self._forget(run)

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.id, run) is run:  # and no other one has its id
            self._runs.pop(run.id, None)
            self._to_cancel.discard(run.id)

    # The connection.

    async def _open_within(self, seconds: float) -> None:
        """Connect, and try again for so long if the gateway may be starting. Raises as `open`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            for pause in pauses():
                try:
                    return await self.open()
                except Exception as error:
                    if loop.time() + pause >= end or not _may_be_starting(error):
                        raise
                    self._become("waiting", f"no connection yet: {error}")
                await asyncio.sleep(pause)
        except BaseException as error:
            if self.state == "waiting":
                self._become("closed", str(error))
            raise

    async def open(self) -> None:
        """Connect. Raises OSError, InvalidHandshake, UnauthorizedError."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if self._cookies:  # by which a load balancer finds the gateway that has the generations
            headers["Cookie"] = "; ".join(
                f"{name}={value}" for name, value in self._cookies.items()
            )
        made = partial(WatchedConnection, write_timeout_s=self._write_timeout_s)
        tickets = (run.ticket for run in self._runs.values())
        file = self._address.socket_file
        place: dict[str, Any] = {} if file is None else {"unix": True, "path": file}
        try:
            socket = await connect_socket(
                self._address.url_of(next(filter(None, tickets), "")),
                subprotocols=[Subprotocol(self._protocol)],
                additional_headers=headers,
                compression=None,
                open_timeout=self._open_timeout_s,
                max_size=MAX_FRAME_BYTES,
                create_connection=made,  # type: ignore[arg-type] # any factory will do
                **place,
            )
        except InvalidStatus as error:
            if error.response.status_code == HTTPStatus.UNAUTHORIZED:
                raise UnauthorizedError from error
            raise
        self._keep_cookies(socket)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await self._greet(socket)
        except BaseException:
            socket.transport.abort()
            raise

    def _keep_cookies(self, socket: ClientConnection) -> None:
        """Keep what the handshake's cookies say, not how long they are good for."""
        answered = socket.response.headers.get_all("Set-Cookie") if socket.response else []
        for cookie in answered:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value.strip()

    async def _greet(self, socket: ClientConnection) -> None:
        """Receive `ready`, and resume the generations of the lost connection."""
        self._codec = codec_for(socket.subprotocol)
        try:
            if self._token is None:  # a gateway that requires a token then closes at once
                await self._write(socket, Hello())
            ready = server_frame(self._codec.decode_fields(await socket.recv()))
            if not isinstance(ready, Ready):
                raise NotAFrame("the server at this address is not an mlx-gateway")
            same = ready.epoch == self.ready.epoch
            self.ready = ready
            for run in list(self._runs.values()):
                await self._resume(socket, run, same=same)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == CloseCode.NOT_AUTHENTICATED:
                raise UnauthorizedError from error
            raise
        self._socket = socket
        self.connections += 1
        self._down.clear()
        self._open.set()
        self._become("open")

    def _become(self, state: ConnectionState, reason: str = "") -> None:
        self.state = state
        if self._on_state is not None:
            self._on_state(state, reason)

    async def _resume(self, socket: ClientConnection, run: Run, *, same: bool) -> None:
        if run.over or run.ticket is None:
            return
        if not same:
            self._fail(run, ConnectionLostError("the gateway was restarted meanwhile"))
            return
        cancelled = run.id in self._to_cancel
        # A window counts from `after`. So unread frames are requested again; if `after` were the
        # newest received one, a whole window could come on top of them.
        after = run.last if run.window is None or cancelled else run.read
        await self._resume_after(socket, run, after)
        self.resumed += 1
        if cancelled:
            await self._write(socket, Cancel(id=run.id))

    async def _resume_after(self, socket: ClientConnection, run: Run, after: int) -> None:
        assert run.ticket is not None
        run.acknowledged, run.rewound = after, after < run.last
        frame = Resume(id=run.id, ticket=run.ticket, after=after)
        if isinstance(run.frame, Resume):
            frame = replace(run.frame, after=after)
        await self._write(socket, frame)

    async def _live(self) -> None:
        """Read from the connection, and reconnect whenever it is lost."""
        reason = ""
        try:
            reason = await self._read_while_possible()
        except Exception as error:  # noqa: BLE001 - nobody may wait forever for a generation
            reason = f"the client failed: {type(error).__name__}: {error}"
            if self._socket is not None:
                self._socket.transport.abort()
        finally:
            self._socket = None
            self._down.set()
            self._failure = self._failure or ConnectionLostError(reason or "the client was closed")
            self._open.set()
            for run in list(self._runs.values()):
                self._fail(run, self._failure)
            self._become("closed", str(self._failure))

    def _fail(self, run: Run, error: GatewayError) -> None:
        run.fail(error)
        self._forget(run)

    async def _read_while_possible(self) -> str:
        """Read until there can be no other connection; return the reason."""
        while True:
            assert self._socket is not None
            reason, code = await self._read(self._socket)
            self._socket = None
            self._open.clear()
            self._down.set()
            for run in list(self._runs.values()):
                if run.ticket is None:
                    self._fail(run, ConnectionLostError(reason))
            if code in ENDS_FOR_GOOD or not self._give_up_s:
                return reason
            self._become("waiting", reason)
            if not await self._open_again():
                return reason

    async def _read(self, socket: ClientConnection) -> tuple[str, int | None]:
        """Deliver frames to their generations until the connection ends; return why it ended."""
        try:
            async for message in socket:
                for frame in self._codec.server_frames(message):
                    await self._receive(socket, frame)
        except NotAFrame as error:
            socket.transport.abort()
            return f"the connection broke: {error}", None
        except ConnectionClosed:
            pass
        return f"the connection was lost, code {socket.close_code}", socket.close_code

    async def _receive(self, socket: ClientConnection, frame: ServerFrame) -> None:
        """Deliver a frame to its generation, if that is still there."""
        run = self._runs.get(getattr(frame, "id", None) or "")
        if run is None or (run.rewound and await self._resumed_again(socket, run, frame)):
            return
        run.receive(frame)
        if run.id in self._to_cancel:
            await self.acknowledge(run, frame)
        if run.over:
            self._forget(run)

    async def _resumed_again(self, socket: ClientConnection, run: Run, frame: ServerFrame) -> bool:
        """Resume a run after its last received frame, if `frame` says that it can't be resumed.

        That happens when its unread frames were requested again, and the gateway no longer keeps
        all of them. A cancel meanwhile was of a generation that the connection did not have, so it
        is sent again. Returns whether the run was resumed.
        """
        run.rewound = False
        if not isinstance(frame, Error) or frame.code != ErrorCode.NOT_RESUMABLE:
            return False
        await self._resume_after(socket, run, run.last)
        if run.id in self._to_cancel:
            await self._write(socket, Cancel(id=run.id))
        return True

    async def _open_again(self) -> bool:
        """Try to reconnect until it works; return False if the gateway refuses the client."""
        giving_up = asyncio.get_running_loop().call_later(self._give_up_s, self._give_up)
        try:
            for pause in pauses():
                await asyncio.sleep(pause)
                with suppress(OSError, InvalidHandshake, NotAFrame):
                    if await self._opened():
                        break
        except GatewayError as error:
            self._failure = error
            return False
        finally:
            giving_up.cancel()
        return True

    async def _opened(self) -> bool:
        """Connect, and return whether that worked.

        Raises as `open`, and ConnectionLostError where every further attempt would end the same.
        """
        try:
            await self.open()
        except ConnectionClosed as error:
            if _may_be_starting(error):
                return False
            raise ConnectionLostError(f"the client is refused for good: {error}") from error
        return True

    def _give_up(self) -> None:
        """End the generations that have waited for a connection long enough."""
        for run in list(self._runs.values()):
            self._fail(run, self._given_up())


def pauses() -> Iterator[float]:
    """Yield the seconds before each attempt to reconnect, without end.

    They are random, so that the clients of a gateway do not come back all at once.
    """
    most = FIRST_PAUSE_S
    while True:
        yield random.uniform(0, most)  # noqa: S311 - no secret
        most = min(MAX_PAUSE_S, 2 * most)


def _may_be_starting(error: Exception) -> bool:
    """Return whether an attempt to connect that failed so may succeed later, unchanged."""
    match error:
        case InvalidStatus():
            status = error.response.status_code
            return (
                status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
            )
        case ConnectionClosed():
            return error.rcvd is None or error.rcvd.code not in ENDS_FOR_GOOD
    return isinstance(error, OSError | InvalidHandshake)


def connect(
    url: str, protocol: str = JSON_PROTOCOL, token: str | None = None, **options: Any
) -> GatewayClient:
    """Return a client that connects when it is entered; see GatewayClient."""
    return GatewayClient(url, protocol, token, **options)


async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of some coroutines ends in any way, and cancel the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
