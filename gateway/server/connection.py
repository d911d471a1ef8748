"""The asyncio shell of a session: one reader, one writer.

Rule 1: while a generation's share of `outbox_bytes` of text waits for the client, or its window is
closed, its generator is not pulled.
Rule 2: while more than MOST_WAITING frames wait for the client, nothing more is read from it.
Rule 3: a client that takes nothing for `write_timeout_s` is aborted, not closed politely: a close
would wait behind the bytes that it does not read.
Rule 4: when a connection ends, its generations end with it, but for the resumable ones.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from gateway.dialects.base import Dialect, Message
from gateway.protocol.codes import BadFrame, CloseCode, ErrorCode, NotAFrame
from gateway.protocol.events import Refusal, Request
from gateway.protocol.frames import Hello, Ready, Resume
from gateway.protocol.generation import Generation
from gateway.protocol.session import Begin, Command, Session, Stop, TakeOver
from gateway.server.closing import all_end, close
from gateway.server.generation_task import GenerationTask
from gateway.server.generations import Generations
from gateway.server.logs import unexpected
from gateway.server.rates import Rate
from gateway.server.tokens import Token

__all__ = ["Connection"]

log = logging.getLogger(__name__)

MOST_WAITING = 256  # events; bounds the memory of a client that sends and never reads
BURST = 10  # seconds' worth of frames and bytes allowed as a burst
LEAST_SHARE = 1024  # least bytes of text that each generation may let wait
NO_TICKET = (
    "unknown ticket: it has expired, or the gateway was restarted "
    "(then `epoch` in `ready` has changed)"
)


class Connection:
    """One client, from its `ready` to its end."""

    def __init__(
        self,
        socket: ServerConnection,
        generations: Generations,
        dialect: Dialect,
        ready: Ready,
        *,
        token: Token | None = None,
        authenticate: Callable[[str | None], Token | None] | None = None,
    ):
        self.token = token  # the client's token, once authenticated
        self._authenticate = authenticate  # None once authenticated
        self._socket = socket
        self._generations = generations
        self._settings = generations.settings
        self._dialect = dialect
        self._greeting = dialect.greet(ready)
        self._early: Sequence[Request] = ()  # further requests in the message of the first `hello`
        self._loop = asyncio.get_running_loop()
        now, settings = self._loop.time(), self._settings
        self._frames = Rate(settings.frame_rate, settings.frame_rate * BURST, now)
        self._bytes = Rate(settings.rate_bytes, settings.rate_bytes * BURST, now)
        self._session = Session(
            default_model=ready.models[0] if ready.models else "",
            new_ticket=lambda: secrets.token_urlsafe(16),
            keep_bytes=self._settings.resume_bytes,
            most_bytes=self._settings.max_frame_bytes,
            admit=lambda request, live: generations.refusal(request, live, self.token),
        )
        # Until their terminal frames are written.
        self._tasks: dict[Generation, GenerationTask] = {}
        self._stopped: set[GenerationTask] = set()  # cancelled tasks that may not have closed yet
        self._closing: set[asyncio.Task[None]] = set()
        self._wake_writer = asyncio.Event()
        self._flushed = asyncio.Event()  # set when everything queued has been written
        self._writing = False  # whether the writer task runs
        # Whether the writer waits for the client; True until the greeting is sent.
        self._sending = True
        self._sending_since: float | None = None  # start of the current write, on the loop's clock
        self._watchdog: asyncio.TimerHandle | None = None
        self._last_busy = self._loop.time()

    async def run(self) -> None:
        """Serve the client until it leaves."""
        self._writing = True
        tasks = [asyncio.create_task(self._write())]
        if self._settings.idle_timeout_s is not None:
            tasks.append(asyncio.create_task(self._end_when_idle(self._settings.idle_timeout_s)))
        try:
            self._act(self._early)
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await self._let_go()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._watchdog is not None:
                self._watchdog.cancel()

    async def drain(self, code: CloseCode) -> None:
        """Cancel every generation, send the client its `done` frames, and close.

        Bounded by `close_timeout_s`; a client that does not take them is aborted.
        """
        try:
            async with asyncio.timeout(self._settings.close_timeout_s):
                for generation in list(self._tasks):  # none once they were let go
                    self._carry_out(self._session.cancel(generation, time.monotonic()))
                await self._flush()
                await self._socket.close(code, "the gateway is stopping")
        except TimeoutError:
            self._socket.transport.abort()

    async def admit(self) -> bool:
        """Authenticate by the token of the upgrade or of a first `hello`; else close."""
        if self._authenticate is None:
            return True
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                first, *self._early = self._dialect.decode(await self._socket.recv()) or (None,)
        except TimeoutError:
            await self._close(CloseCode.NO_HELLO, "no `hello` with a token arrived in time")
            return False
        except NotAFrame as error:
            await self._close(CloseCode.NOT_A_FRAME, str(error))
            return False
        except (BadFrame, ConnectionClosed):
            first = None
        self.token = self._authenticate(first.token) if isinstance(first, Hello) else None
        if self.token is None:
            await self._close(
                CloseCode.NOT_AUTHENTICATED, "send a valid token in a first `hello` frame"
            )
        return self.token is not None

    def evict(self) -> None:
        """Close the connection, because its token is no longer valid."""
        closing = asyncio.create_task(
            self._close(CloseCode.NOT_AUTHENTICATED, "the token is no longer valid")
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _end_when_idle(self, seconds: float) -> None:
        while True:
            left = self._last_busy + seconds - self._loop.time()
            if left <= 0 and not self._tasks:
                break
            await asyncio.sleep(max(left, seconds / 10))
        await self._close(CloseCode.NORMAL, f"nothing asked for {seconds:g} s")

    # Reading.

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if not await self._receive(message):
                    return
                del message  # it may be large; don't hold it while waiting for the next
        except ConnectionClosed:
            pass  # closed in any way

    async def _receive(self, message: str | bytes) -> bool:
        """Act on one message; return False if the connection is to end."""
        self._last_busy = self._loop.time()
        self._generations.metrics.received_frames += 1
        self._generations.metrics.received_bytes += len(message)
        if not (
            self._frames.take(1, self._last_busy)
            and self._bytes.take(len(message), self._last_busy)
        ):
            await self._close(CloseCode.TOO_MANY, "too many frames or bytes a second")
            return False
        try:
            requests = self._dialect.decode(message)
        except NotAFrame as error:
            await self._close(CloseCode.NOT_A_FRAME, str(error))
            return False
        except BadFrame as error:
            self._session.reject(error)
        else:
            self._act(requests)
        self._wake_writer.set()
        if self._session.waiting > MOST_WAITING:
            await self._flush()
        return True

    def _act(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._carry_out(self._session.receive(request, time.monotonic()))

    async def _close(self, code: CloseCode, reason: str) -> None:
        await close(self._socket, self._settings.close_timeout_s, code, reason)

    async def _flush(self) -> None:
        """Wait until everything that is queued now is written, or the writer has ended."""
        if self._writing:
            self._flushed.clear()
            self._wake_writer.set()
            await self._flushed.wait()

    def _carry_out(self, commands: list[Command]) -> None:
        owner = self.token
        for command in commands:
            match command:
                case Begin(generation, frame):
                    self._tasks[generation] = self._generations.begin(
                        generation, frame, self, owner
                    )
                case Stop(generation):
                    self._stop(self._tasks[generation])
                case TakeOver(frame):
                    self._take_over(frame, owner)
        self._wake_writer.set()

    def _stop(self, task: GenerationTask) -> None:
        self._stopped.add(task)
        if task.asyncio_task is not None:
            task.asyncio_task.add_done_callback(lambda _: self._stopped.discard(task))
        task.stop()

    # Resuming.

    def _take_over(self, frame: Resume, owner: Token | None) -> None:
        task = self._generations.resume_store.find(
            frame.ticket, frame.id, owner.name if owner else None
        )
        if task is None:
            refusal: Refusal | None = Refusal(ErrorCode.NOT_RESUMABLE, NO_TICKET)
        else:
            refusal = self._session.adopt(task.generation, frame.after)
        if refusal is not None or task is None:
            known = any(one.id == frame.id for one in self._session.generations)
            assert refusal is not None
            self._session.refuse(None if known else frame.id, refusal)
            return
        self._generations.metrics.resumed += 1
        if task.subscriber is not self:
            task.subscriber.lose(task)
            task.subscriber = self
        self._tasks[task.generation] = task
        task.look()

    def lose(self, task: GenerationTask) -> None:
        """Let go of a generation that another connection has taken over."""
        self._tasks.pop(task.generation, None)
        why = Refusal(ErrorCode.NOT_RESUMABLE, "another connection has taken it over")
        self._session.lose(task.generation, why)
        self._wake_writer.set()

    async def _let_go(self) -> None:
        """Leave resumable generations to the resume store; stop the others, and wait for them.

        Bounded by `close_timeout_s`; a generator that takes longer to close goes on alone.
        """
        # A page that is left says so with 1001, and can't come back: its tickets are gone.
        code = self._socket.close_code
        gone = self._generations.draining or code in {
            CloseCode.GOING_AWAY,
            CloseCode.NOT_AUTHENTICATED,
        }
        for task in list(self._tasks.values()):
            generation = task.generation
            if generation.resumable and not gone:
                self._generations.resume_store.keep(task)
            else:
                generation.cancel(time.monotonic())
                self._generations.resume_store.drop(task)
                self._stop(task)
        self._tasks.clear()
        tasks = [task.asyncio_task for task in self._stopped if task.asyncio_task is not None]
        await all_end(tasks, self._settings.close_timeout_s)

    # A subscriber.

    def heard(self, task: GenerationTask) -> None:
        """Send the events of a generation that has new ones."""
        self._session.heard(task.generation)
        self._write_now()

    def has_enough(self, generation: Generation) -> bool:
        """Return whether too much of this generation waits for the client."""
        if generation.window_closed:
            return True
        share = self._settings.outbox_bytes // max(1, len(self._tasks))
        return generation.waiting_bytes > max(LEAST_SHARE, share)

    # Writing.

    def _write_now(self) -> None:
        """Write what may be sent while the socket takes it at once; the writer does the rest.

        A token then goes from the provider to the socket without another task's turn.
        """
        session, transport = self._session, self._socket.transport
        encode, alone = self._dialect.encode, (self._socket,)
        metrics = self._generations.metrics
        while session.waiting and self._writing and not self._sending:
            if transport.get_write_buffer_size():
                self._wake_writer.set()
                return
            events, generation = session.take()
            for event in events:
                messages = encode(event)
                metrics.sent_frames += len(messages)
                for message in messages:
                    metrics.sent_bytes += len(message.data)
                    broadcast(alone, message.data, text=message.text)
            self._after(generation)

    async def _write(self) -> None:
        try:
            await self._send(self._greeting)
            while True:
                while self._session.waiting:
                    events, generation = self._session.take()
                    for event in events:
                        await self._send(self._dialect.encode(event))
                    self._after(generation)
                self._flushed.set()
                await self._wake_writer.wait()
                self._wake_writer.clear()
        except ConnectionClosed:
            pass  # the reader sees it too and ends the connection
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost
            unexpected(log, "cannot write to a client", error)
            self._socket.transport.abort()
        finally:
            self._writing = False  # releases those who wait in `_flush`
            self._flushed.set()

    async def _send(self, messages: Sequence[Message]) -> None:
        """Write messages, waiting while the client does not take them."""
        self._sending = True
        for message in messages:
            self._sending_since = self._loop.time()
            self._watch()
            self._generations.metrics.sent_bytes += len(message.data)
            self._generations.metrics.sent_frames += 1
            await self._socket.send(message.data, text=message.text)
        self._sending = False
        self._sending_since = None

    def _after(self, generation: Generation | None) -> None:
        """Let a generation go on after its events were written."""
        task = self._tasks.get(generation) if generation is not None else None
        if task is None:
            return
        if task.generation.over:
            del self._tasks[task.generation]
            self._generations.resume_store.keep(task)
            self._last_busy = self._loop.time()
        else:
            task.look()

    def _watch(self) -> None:
        """Start the timer that bounds a write; one timer serves many writes."""
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._settings.write_timeout_s, self._look_after)

    def _look_after(self) -> None:
        self._watchdog = None
        if self._sending_since is None:
            return
        left = self._sending_since + self._settings.write_timeout_s - self._loop.time()
        if left <= 0:
            self._generations.metrics.slow_clients += 1
            log.debug(
                "disconnecting a client that took no bytes for %g s", self._settings.write_timeout_s
            )
            self._socket.transport.abort()
        else:
            self._watchdog = self._loop.call_later(left, self._look_after)
