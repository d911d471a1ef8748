"""The asyncio shell of a session: one reader, one writer, one task a generation.

Rule 1: the task that pulls a generator is the task that closes it; to stop one, its task is
cancelled, and awaited before the connection ends. A slow close holds up nobody.
Rule 2: while more than `outbox_bytes` of text wait for the client, no generator is pulled.
Rule 3: while more than MOST_WAITING frames wait for the client, nothing more is read from it.
Rule 4: a client that takes nothing for `write_timeout_s` is aborted, not closed politely: a close
would wait behind the bytes that it does not read.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from gateway.frames import (
    BadFrame,
    CloseCode,
    ErrorCode,
    Generate,
    Hello,
    NotAFrame,
    Ready,
    codec_for,
)
from gateway.session import Begin, Command, Session, Stop
from gateway.settings import Settings
from provider import interface
from provider.interface import AbstractLLMInterface, FileData, GenerateResponse

__all__ = ["Connection"]

log = logging.getLogger(__name__)

MOST_WAITING = 256  # frames; a client that asks and never reads is not to fill the memory

SAMPLING = (
    "enable_thinking",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "messages",
    "min_p",
    "model",
    "presence_penalty",
    "repetition_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
)

# The first class that fits gives the code; what fits none is our own fault.
CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (interface.ContextWindowExceededError, ErrorCode.CONTEXT_TOO_LONG),
    (interface.InvalidRequestError, ErrorCode.INVALID_REQUEST),
    (interface.FileProcessingError, ErrorCode.INVALID_REQUEST),
    (interface.UnsupportedFeatureError, ErrorCode.UNSUPPORTED),
    (interface.UnsupportedModelError, ErrorCode.UNKNOWN_MODEL),
    (interface.ModelNotFoundError, ErrorCode.UNKNOWN_MODEL),
    (interface.MemoryExceededError, ErrorCode.INVALID_REQUEST),  # later is no better
    (interface.ResourceExceededError, ErrorCode.OVERLOADED),
    (interface.GenerationError, ErrorCode.MODEL_ERROR),
)


class Connection:
    """One client, from its `ready` to its end."""

    def __init__(
        self,
        socket: ServerConnection,
        provider: AbstractLLMInterface,
        ready: Ready,
        settings: Settings,
        authenticate: Callable[[str | None], object | None] | None = None,
    ):
        self._authenticate = authenticate  # None: nothing has to be shown any more
        self._socket = socket
        self._provider = provider
        self._settings = settings
        self._codec = codec_for(socket.subprotocol)
        self._session = Session(ready, max_generations=settings.max_generations)
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of live generations, by id
        self._closing: set[asyncio.Task[None]] = set()  # cancelled, not yet gone
        self._wake_writer = asyncio.Event()
        self._room = asyncio.Event()  # set while generators may be pulled
        self._room.set()
        self._wake_writer.set()  # `ready` waits already
        self._flushed = asyncio.Event()  # set when everything queued has been written
        self._writing = False  # while there is a writer
        self._draining = False

    async def run(self) -> None:
        """Serve the client until it leaves. Cancelling ends every generation of it."""
        if not await self._admit():
            return
        self._writing = True
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            writer.cancel()
            await self._stop_all()
            await asyncio.gather(writer, return_exceptions=True)

    async def drain(self) -> None:
        """Stop every generation, let the client have its `done` frames, close with 1001.

        Bounded by `close_timeout_s`; a client that does not take them is aborted.
        """
        self._draining = True
        try:
            async with asyncio.timeout(self._settings.close_timeout_s):
                for frame_id in list(self._tasks):
                    self._carry_out(self._session.cancel(frame_id, time.monotonic()))
                await self._flush()
                await self._socket.close(CloseCode.GOING_AWAY, "the gateway is stopping")
        except TimeoutError:
            self._socket.transport.abort()

    async def _admit(self) -> bool:
        """Let in who has shown a token, or does so in a first `hello`; close for all others."""
        if self._authenticate is None:
            return True
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                frame = self._codec.decode(await self._socket.recv())
        except TimeoutError:
            await self._close(CloseCode.NO_HELLO, "no `hello` with a token came in time")
            return False
        except NotAFrame as error:
            await self._close(CloseCode.NOT_A_FRAME, str(error))
            return False
        except (BadFrame, ConnectionClosed):
            frame = None
        if isinstance(frame, Hello) and self._authenticate(frame.token) is not None:
            return True
        await self._close(CloseCode.NOT_AUTHENTICATED, "a token is needed, in the first frame")
        return False

    # Reading.

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if not await self._receive(message):
                    return
        except ConnectionClosed:
            pass  # without a close frame, or with an error code: the end all the same

    async def _receive(self, message: str | bytes) -> bool:
        """Act on one message; return False if the connection is to end."""
        try:
            frame = self._codec.decode(message)
        except NotAFrame as error:
            await self._close(CloseCode.NOT_A_FRAME, str(error))
            return False
        except BadFrame as error:
            self._session.reject(error)
        else:
            if isinstance(frame, Generate) and self._draining:
                self._session.refuse(frame.id, ErrorCode.SHUTTING_DOWN, "the gateway is stopping")
            else:
                self._carry_out(self._session.receive(frame, time.monotonic()))
        self._wake_writer.set()
        if self._session.waiting_frames > MOST_WAITING:
            await self._flush()
        return True

    async def _close(self, code: CloseCode, reason: str) -> None:
        try:
            async with asyncio.timeout(self._settings.close_timeout_s):
                await self._socket.close(code, reason)
        except TimeoutError:
            self._socket.transport.abort()

    async def _flush(self) -> None:
        """Wait until everything that is queued now has been written, or can't be any more."""
        if self._writing:
            self._flushed.clear()
            self._wake_writer.set()
            await self._flushed.wait()

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Begin(frame):
                    self._tasks[frame.id] = asyncio.create_task(self._generate(frame))
                case Stop(frame_id):
                    self._stop(frame_id)
        self._wake_writer.set()

    def _stop(self, frame_id: str) -> None:
        task = self._tasks.pop(frame_id, None)
        if task is not None:
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            task.cancel()

    async def _stop_all(self) -> None:
        for frame_id in list(self._tasks):
            self._stop(frame_id)
        await asyncio.gather(*self._closing, return_exceptions=True)

    # Generating.

    async def _generate(self, frame: Generate) -> None:
        begin = time.monotonic()
        try:
            async with aclosing(await self._call(frame)) as responses:
                async for response in responses:
                    self._session.respond(frame.id, response, time.monotonic())
                    self._wake_writer.set()
                    if self._session.waiting_bytes > self._settings.outbox_bytes:
                        self._room.clear()
                        await self._room.wait()  # not pulling is the backpressure
            self._session.ended(frame.id, time.monotonic())
            end = "done"
        except Exception as error:  # noqa: BLE001 - a generation's fault ends that generation alone
            code, message = _describe(error)
            self._session.failed(frame.id, code, message, _retry_after(error))
            end = code
        self._tasks.pop(frame.id, None)
        self._wake_writer.set()
        log.info(
            "generation %s: %s after %.0f ms", frame.id, end, (time.monotonic() - begin) * 1000
        )

    async def _call(self, frame: Generate) -> AsyncGenerator[GenerateResponse, None]:
        """Call the provider with what the frame says and nothing else."""
        given = {name: getattr(frame, name) for name in SAMPLING}
        files: list[Any] = [FileData(f.name, f.mime, f.data) for f in frame.files or ()]
        responses = await self._provider.generate_async(
            frame.prompt or "",
            frame.system_prompt,
            files or None,
            stream=True,
            tools=list(frame.tools) if frame.tools else None,
            events=True,
            **{name: value for name, value in given.items() if value is not None},
        )
        return responses if isinstance(responses, AsyncGenerator) else _as_stream(responses)

    # Writing.

    async def _write(self) -> None:
        try:
            while True:
                await self._wake_writer.wait()
                self._wake_writer.clear()
                frames = self._session.take()
                for frame in frames:
                    data = self._codec.encode(frame)
                    async with asyncio.timeout(self._settings.write_timeout_s):
                        await self._socket.send(data, text=self._codec.text)
                self._room.set()
                if not self._session.waiting_frames:
                    self._flushed.set()
                await asyncio.sleep(0)  # `send` may never yield; others want their turn
        except TimeoutError:
            log.info("a client took nothing for %g s", self._settings.write_timeout_s)
            self._socket.transport.abort()
        except ConnectionClosed:
            pass  # the reader sees it too, and ends everything
        except Exception:
            log.exception("cannot write to a client")
            self._socket.transport.abort()
        finally:
            self._writing = False  # nobody is to wait for a writer that is gone
            self._flushed.set()
            self._room.set()


async def _as_stream(whole: GenerateResponse) -> AsyncGenerator[GenerateResponse, None]:
    """Take a provider that gives a whole answer, streaming or not, as it is."""
    yield whole


def _describe(error: Exception) -> tuple[ErrorCode, str]:
    """Return the code and the message that the client may see of a provider's error."""
    for kind, code in CODES:
        if isinstance(error, kind):
            path = _path(error)
            return code, f"`{path}`: {error}" if path else str(error)
    request = uuid.uuid4().hex[:12]
    log.error("internal error %s", request, exc_info=error)
    return ErrorCode.INTERNAL, f"internal error {request}"


def _retry_after(error: Exception) -> float | None:
    details = getattr(error, "details", None)
    seconds = details.get("retry_after") if isinstance(details, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _path(error: Exception) -> str | None:
    if isinstance(error, interface.InvalidParameterError):
        return f"$.{error.parameter}"
    return "$.files" if isinstance(error, interface.FileProcessingError) else None
