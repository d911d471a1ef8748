"""Runs a `Session` on a WebSocket, with one task that reads and one that writes.

Rule 1: while more than a generation's share of `outbox_bytes`, or of what is left for all clients,
waits for the client, or its window is closed, no response is taken from its provider. An answer
that is not streamed ends where there is no room for more.
Rule 2: while more than MAX_WAITING events, or MAX_WAITING_BYTES of answers to its frames, wait for
the client, nothing is read from the client.
Rule 3: a client that takes no bytes for `write_timeout_s` is aborted, without a close frame, which
would wait behind the bytes that the client does not read.
Rule 4: when a connection ends, its generations are cancelled, except the resumable ones.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from gateway.dialects.base import Dialect, Message
from gateway.protocol.answer import size_of
from gateway.protocol.codes import BadFrame, CloseCode, ErrorCode, NotAFrame
from gateway.protocol.events import Event, Refusal, Request
from gateway.protocol.follower import Follower
from gateway.protocol.frames import Done, Hello, Ready, Resume
from gateway.protocol.generation import Generation
from gateway.protocol.session import Begin, Command, Session, Stop, TakeOver
from gateway.server.closing import all_end, close, ended_within
from gateway.server.generation_task import GenerationTask
from gateway.server.generations import Generations, client_name
from gateway.server.limits import RETRY_AFTER_S
from gateway.server.logs import unexpected
from gateway.server.reading import MeteredConnection
from gateway.server.send_turns import MAX_AT_ONCE
from gateway.server.tokens import Token

__all__ = ["Connection"]

log = logging.getLogger(__name__)

LARGE = 8 * 1024  # bytes of a message; smaller ones are decoded within two milliseconds
MAX_WAITING = 256  # events; bounds the memory for a client that sends and never reads
MAX_WAITING_BYTES = 64 * 1024  # of pongs and refusals, which may quote what the client sent
# As how many frames a piece counts of an event that is prepared to be sent. Each takes as long.
PIECE_FRAMES = 32
LARGE_AGAIN = 256 * 1024  # bytes of what is sent again, beyond which it is counted until it is sent
MIN_SHARE = 1024  # bytes of waiting text allowed to each generation, however many there are
MAX_FOLLOWERS = 16  # of one generation
# Bytes by which an answer that is not streamed, or what is kept to be sent again, may have grown
# before it is counted anew.
STEP = 4096
NO_ROOM = "answers that are not streamed hold too much; ask for a stream, or for less at once"
TOO_MUCH_AGAIN = "too many frames a second are sent again to this client"
NO_TICKET = (
    "unknown ticket: it has expired, or the gateway was restarted "
    "(then `epoch` in `ready` has changed)"
)


class Connection:
    """One client's connection, which it serves from the `ready` frame to its end."""

    def __init__(
        self,
        socket: MeteredConnection,
        generations: Generations,
        dialect: Dialect,
        ready: Ready,
        *,
        address: str,
        token: Token | None = None,
        authenticate: Callable[[str | None], Token | None] | None = None,
    ):
        self.token = token  # the client's token, once authenticated
        self._address = address  # the client's, "" if it is not known
        self._authenticate = authenticate  # None once authenticated
        self._socket = socket
        self._generations = generations
        self._settings = generations.settings
        self._dialect = dialect
        self._greeting = dialect.greet(ready)
        self._early: Sequence[Request] = ()  # requests that came in one message with `hello`
        self._loop = asyncio.get_running_loop()
        self._session = Session(
            default_model=ready.models[0] if ready.models else "",
            new_ticket=self._new_ticket,
            keep_bytes=self._settings.resume_bytes,
            max_bytes=self._settings.max_frame_bytes,
            binary=dialect.binary,
            admit=lambda request, live: generations.refusal(
                request, live, self.token, address, socket.taken
            ),
        )
        # The tasks of generations whose terminal event is not written yet.
        self._tasks: dict[Generation, GenerationTask] = {}
        self._followed: dict[Follower, GenerationTask] = {}
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
        self._joins = dialect.join is not None
        self._write_is_due = False  # whether `_write_joined` is about to be called
        self._noted: list[GenerationTask] = []  # whose text is counted once it is written
        # What is taken out of the line, and the writer is to write before all else.
        self._taken: tuple[list[Event], Generation | Follower | None, bool] | None = None
        self._sent = 0  # events that the writer has written
        self._sent_in_turn = 0  # of many frames, since the writer has waited for its turn
        self._rest: asyncio.TimerHandle | None = None  # while its followers rest

    async def run(self) -> None:
        """Serve the client until it leaves."""
        self._writing = True
        tasks = [asyncio.create_task(self._write())]
        if self._settings.idle_timeout_s is not None:
            tasks.append(asyncio.create_task(self._end_when_idle(self._settings.idle_timeout_s)))
        try:
            self._act(self._early)
            self._ask_dialect()
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            self._dialect.close()
            await self._release_generations()
            await asyncio.gather(*tasks, return_exceptions=True)
            for timer in (self._watchdog, self._rest):
                if timer is not None:
                    timer.cancel()

    async def drain(self, code: CloseCode) -> None:
        """Cancel every generation, send the client its `done` frames, and close.

        Bounded by `close_timeout_s`; a client that does not take them is aborted.
        """
        async with ended_within(self._settings.close_timeout_s, self._socket):
            live: list[Generation | Follower] = [*self._tasks, *self._followed]
            for one in live:  # none once they are released
                self._carry_out(self._session.cancel(one, time.monotonic()))
            await self._flush()
            await self._socket.close(code, "the gateway is stopping")

    @property
    def is_to_show_token(self) -> bool:
        """Whether a token is required, and the client has not shown one yet."""
        return self._authenticate is not None and self.token is None

    async def admit(self) -> bool:
        """Wait for a `hello` with a valid token if one is still required.

        Returns False if none came; then the connection is closed.
        """
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
        if self.token is not None:
            self._socket.let_in(client_name(self.token, self._address))
        else:
            await self._close(
                CloseCode.NOT_AUTHENTICATED, "send a valid token in a first `hello` frame"
            )
        return self.token is not None

    def evict(self, now: datetime) -> None:
        """Close the connection, because its token is no longer valid, and begin nothing more."""
        if self.token is not None:
            self.token = replace(self.token, expires=now)
        self._close_soon(CloseCode.NOT_AUTHENTICATED, "the token is no longer valid")

    async def _end_when_idle(self, seconds: float) -> None:
        while True:
            left = self._last_busy + seconds - self._loop.time()
            if left <= 0 and not (self._tasks or self._followed):
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
        """Act on one message; return False if the connection was closed because of it."""
        self._last_busy = self._loop.time()
        self._generations.metrics.received_frames += 1
        self._generations.metrics.received_bytes += len(message)
        try:
            requests = await self._decode(message)
        except NotAFrame as error:
            await self._close(CloseCode.NOT_A_FRAME, str(error))
            return False
        except BadFrame as error:
            self._session.reject(error)
        else:
            self._act(requests)
        if self._session.answers_alone and not self._joins:
            self._write_now()  # which takes half as long as waking the writer
        else:
            self._wake_writer.set()
        waiting_bytes = self._session.waiting_bytes + self._dialect.waiting_bytes
        if self._session.waiting > MAX_WAITING or waiting_bytes > MAX_WAITING_BYTES:
            await self._flush()
        return True

    async def _decode(self, message: str | bytes) -> Sequence[Request]:
        """Return the requests in a message. Raises NotAFrame or BadFrame.

        Large messages of all connections are decoded one at a time, and each is followed by as long
        a pause, so that they take half of the event loop's time at most.
        """
        if len(message) <= LARGE:
            return self._dialect.decode(message)
        async with self._generations.decoding:
            for _ in self._dialect.check(message):
                await asyncio.sleep(0)
            begin = self._loop.time()
            try:
                return self._dialect.decode(message)
            finally:
                await asyncio.sleep(self._loop.time() - begin)

    def _act(self, requests: Sequence[Request]) -> None:
        """Pass requests to the session, and carry out the commands that it returns."""
        for request in requests:
            self._carry_out(self._session.receive(request, time.monotonic()))

    def _close_soon(self, code: int, reason: str) -> None:
        closing = asyncio.create_task(self._close(code, reason))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, code: int, reason: str) -> None:
        await close(self._socket, self._settings.close_timeout_s, code, reason)

    async def _flush(self) -> None:
        """Wait until all waiting events are written, or the writer has ended."""
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
                        generation, frame, self, owner, self._address, self._socket.taken
                    )
                case Stop(generation):
                    self._stop(self._tasks[generation])
                case TakeOver(frame):
                    self._take_over(frame, owner)

    def _stop(self, task: GenerationTask) -> None:
        task.held.settle(task.generation.waiting_bytes)
        self._stopped.add(task)
        if task.asyncio_task is not None:
            task.asyncio_task.add_done_callback(lambda _: self._stopped.discard(task))
        task.stop()

    # Resuming.

    def _take_over(self, frame: Resume, owner: Token | None) -> None:
        task = self._generations.resume_store.find(
            frame.ticket, None if frame.follow else frame.id, owner.name if owner else None
        )
        seconds = self._socket.charge(0)
        if seconds:
            refusal: Refusal | None = Refusal(ErrorCode.RATE_LIMITED, TOO_MUCH_AGAIN, seconds)
        elif task is None:
            refusal = Refusal(ErrorCode.NOT_RESUMABLE, NO_TICKET)
        elif frame.follow:
            refusal = self._follow(task, frame)
        else:
            refusal = self._session.adopt(task.generation, frame.after)
            if refusal is None:
                self._socket.charge(task.generation.newest - frame.after)
        if refusal is not None or task is None:
            known = any(one.id == frame.id for one in self._session.generations)
            assert refusal is not None
            self._session.refuse(None if known else frame.id, refusal)
            return
        if frame.follow:
            return
        self._generations.metrics.resumed += 1
        if task.subscriber is not self:
            task.subscriber.lose(task)
            task.subscriber = self
        self._tasks[task.generation] = task
        task.held.join(self._generations.outbox, task.generation.waiting_bytes)
        task.wake()

    def _follow(self, task: GenerationTask, frame: Resume) -> Refusal | None:
        if len(task.followers) >= MAX_FOLLOWERS:
            return Refusal(ErrorCode.RATE_LIMITED, f"{MAX_FOLLOWERS} clients follow it already")
        follower = self._session.follow(task.generation, frame)
        if isinstance(follower, Refusal):
            return follower
        self._followed[follower] = task
        follower.resting = self._rest is not None
        task.join(follower, self._notify_follower)
        return None

    def _notify_follower(self, follower: Follower) -> None:
        if follower.sendable:
            self._session.enqueue(follower)
            self._write_now()

    def _charge(self, follower: Follower, frames: int) -> None:
        """Count frames of a follower; all of them rest once the client's rate is used up."""
        seconds = self._socket.charge(frames)
        if seconds and self._rest is None:
            self._rest = self._loop.call_later(seconds, self._end_rest)
            if follower in self._followed:  # it comes last after the rest
                self._followed[follower] = self._followed.pop(follower)
            for one in self._followed:
                one.resting = True

    def _end_rest(self) -> None:
        self._rest = None
        for follower in self._followed:
            follower.resting = False
        for follower in list(self._followed):  # the first may use the rate up again
            self._notify_follower(follower)

    def _part(self, follower: Follower) -> None:
        task = self._followed.pop(follower, None)
        if task is not None:
            task.part(follower)

    def lose(self, task: GenerationTask) -> None:
        """Stop sending a generation that another connection has taken over."""
        self._tasks.pop(task.generation, None)
        task.held.join(None)
        why = Refusal(ErrorCode.NOT_RESUMABLE, "another connection has taken it over")
        self._session.lose(task.generation, why)
        self._wake_writer.set()

    def _new_ticket(self) -> str:
        """Return a secret, behind the name of this gateway if it has one."""
        secret, node = secrets.token_urlsafe(16), self._settings.node
        return secret if node is None else f"{node}.{secret}"

    async def _release_generations(self) -> None:
        """Give resumable generations to the resume store; stop the others, and wait for them.

        Waits for `close_timeout_s` at most; a generator that takes longer closes in the background.
        """
        for follower in list(self._followed):
            self._part(follower)
        code = self._socket.close_code
        gone = self._generations.draining or code == CloseCode.NOT_AUTHENTICATED
        # A browser closes with 1001 when its page is left, and most pages lose their tickets then.
        left = code == CloseCode.GOING_AWAY
        for task in list(self._tasks.values()):
            generation = task.generation
            task.held.join(None)
            if generation.resumable and not gone and (generation.keep_on_close or not left):
                self._generations.resume_store.keep(task)
            else:
                generation.cancel(time.monotonic())
                self._generations.resume_store.drop(task)
                self._stop(task)
        self._tasks.clear()
        tasks = [task.asyncio_task for task in self._stopped if task.asyncio_task is not None]
        await all_end(tasks, self._settings.close_timeout_s)

    # The methods of a Subscriber.

    def notify(self, task: GenerationTask) -> None:
        """Send the new events of a generation, at once if the socket can take them."""
        self._session.enqueue(task.generation)
        if not self._joins:
            self._write_now()
        else:
            self._write_soon()
            if task.generation.waiting_bytes <= MIN_SHARE:
                self._noted.append(task)  # mostly, nothing is left to be counted then
                return
        self._count_if_changed(task)

    def must_wait(self, generation: Generation) -> bool:
        """Return whether the window is closed, or too much text waits for the client."""
        if generation.window_closed:
            return True
        if generation.waiting_bytes <= MIN_SHARE or generation.unsent_bytes:
            return False
        share = self._settings.outbox_bytes // max(1, len(self._tasks))
        return generation.waiting_bytes > self._generations.outbox.share(share)

    def _count_if_changed(self, task: GenerationTask) -> None:
        if task.generation.waiting_bytes + task.held.leaving != task.held.size:
            self._count(task)

    def _count(self, task: GenerationTask) -> None:
        """Count text that waits; an answer that is not streamed ends where there is no room."""
        generation, held = task.generation, task.held
        if generation.unsent_bytes:
            grown = generation.waiting_bytes + held.leaving - held.size
            if 0 < grown < STEP:
                return
            if not self._generations.outbox.fits(task.client, grown):
                generation.failed(Refusal(ErrorCode.OVERLOADED, NO_ROOM, RETRY_AFTER_S))
        held.settle(generation.waiting_bytes)

    # Writing.

    def _write_now(self) -> None:
        """Write waiting events while the socket takes them at once; the writer task does the rest.

        So a token goes from the provider to the socket without waiting for another task's turn.
        """
        session, transport = self._session, self._socket.transport
        encode, alone = self._dialect.encode, (self._socket,)
        metrics, turns = self._generations.metrics, self._generations.send_turns
        while session.waiting and self._writing and not self._sending:
            if transport.get_write_buffer_size() or (turns.is_full and session.is_behind):
                self._wake_writer.set()
                return
            again = session.is_behind
            events, generation = session.pop_events()
            if events and self._is_for_writer(events, again=again):
                self._leave_to_writer(events, generation, again=again)
                return
            if len(events) > 1:
                turns.spend(len(events))
            for event in events:
                messages = encode(event)
                metrics.sent_frames += len(messages)
                for message in messages:
                    metrics.sent_bytes += len(message.data)
                    broadcast(alone, message.data, text=message.text)
            self._after_write(generation, len(events))

    def _is_for_writer(self, events: list[Event], *, again: bool) -> bool:
        """Whether events can't be written at once: they are large, or are to be prepared."""
        last = events[-1]
        if type(last) is Done and self._dialect.prepare(last) is not None:
            return True
        return again and _large(events) > 0

    def _leave_to_writer(
        self, events: list[Event], generation: Generation | Follower | None, *, again: bool
    ) -> None:
        """Let the writer write what is taken out of the line, and nobody else until then."""
        self._note_leaving(generation)
        self._taken = events, generation, again
        self._sending = True
        self._wake_writer.set()

    def _write_soon(self) -> None:
        """Write what waits together with what the generations that wake now have."""
        if not self._write_is_due:
            self._write_is_due = True
            self._loop.call_soon(self._write_joined)

    def _write_joined(self) -> None:
        self._write_is_due = False
        self._write_several()
        noted, self._noted = self._noted, []
        for task in noted:
            self._count_if_changed(task)

    def _write_several(self) -> None:
        """Do what `_write_now` does, with one message for the events of all generations."""
        session, transport, join = self._session, self._socket.transport, self._dialect.join
        turns = self._generations.send_turns
        while session.waiting and self._writing and not self._sending:
            if transport.get_write_buffer_size() or (turns.is_full and session.is_behind):
                self._wake_writer.set()
                return
            assert join is not None
            messages: list[Message] = []
            written: list[tuple[Generation | Follower | None, int]] = []
            while session.waiting and len(messages) < MAX_AT_ONCE:
                if messages and turns.is_full and session.is_behind:
                    break
                again = session.is_behind
                events, generation = session.pop_events()
                if events and self._is_for_writer(events, again=again):
                    self._leave_to_writer(events, generation, again=again)
                    break
                if len(events) > 1:
                    turns.spend(len(events))
                for event in events:
                    messages += self._dialect.encode(event)
                written.append((generation, len(events)))
            if messages:
                data = join(messages).data
                self._generations.metrics.sent_frames += len(messages)
                self._generations.metrics.sent_bytes += len(data)
                broadcast((self._socket,), data, text=False)
            for generation, count in written:
                self._after_write(generation, count)
            if len(messages) >= MAX_AT_ONCE and session.waiting:
                self._write_soon()
                return

    async def _write(self) -> None:
        try:
            await self._send(self._greeting)
            while True:
                while self._taken or self._session.waiting:
                    events, generation, again = self._next_events()
                    if again and (size := _large(events)):
                        async with self._room(size):
                            await self._send_all(events)
                    else:
                        await self._send_all(events)
                    self._after_write(generation, len(events))
                self._flushed.set()
                await self._wake_writer.wait()
                self._wake_writer.clear()
        except ConnectionClosed:
            pass  # the reader sees it too and ends the connection
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost
            unexpected(log, "cannot write to a client", error)
            self._socket.transport.abort()
        finally:
            self._writing = False  # so that `_flush` does not wait for a writer that has ended
            self._flushed.set()

    async def _send_all(self, events: list[Event]) -> None:
        for event in events:
            if len(events) > 1:
                await self._take_turn()
            await self._send(await self._encoded(event))
            self._sent += 1
            if not self._sent % MAX_AT_ONCE:
                await self._let_others_run()

    def _next_events(self) -> tuple[list[Event], Generation | Follower | None, bool]:
        """Return what is to be written, and whether it is sent again."""
        if self._taken is not None:
            taken, self._taken = self._taken, None
            return taken
        again = self._session.is_behind
        events, generation = self._session.pop_events()
        self._note_leaving(generation)
        return events, generation, again

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for so many bytes on their way, and have it meanwhile."""
        granted = asyncio.Event()
        client = client_name(self.token, self._address)
        claim = self._generations.again.claim(client, size, granted.set)
        try:
            if claim.waits:
                self._sending = True
                await granted.wait()
            yield
        finally:
            self._generations.again.withdraw(claim)

    async def _take_turn(self) -> None:
        """Wait until one of many frames may be sent."""
        turns = self._generations.send_turns
        while turns.must_wait(self._sent_in_turn):
            self._sent_in_turn = 0
            self._sending = True  # so that nothing is written between these events
            await turns.wait()
        turns.spend(1)
        self._sent_in_turn += 1

    async def _encoded(self, event: Event) -> Sequence[Message]:
        """Return the messages for an event, which is prepared in pieces before if that takes long.

        One piece of all connections is made in a turn of the event loop, and counts against the
        client's rate.
        """
        steps = self._dialect.prepare(event) if type(event) is Done else None
        if steps is None:
            return self._dialect.encode(event)
        self._sending = True
        return self._dialect.encode(await self._prepared(steps))

    async def _prepared(self, steps: Generator[None, None, Done]) -> Done:
        ready: Done | None = None
        while ready is None:
            async with self._generations.preparing:
                self._socket.charge(PIECE_FRAMES)
                try:
                    next(steps)
                except StopIteration as end:
                    ready = end.value
                await asyncio.sleep(0)  # also after the last piece: the next is for another turn
        return ready

    def _note_leaving(self, generation: Generation | Follower | None) -> None:
        """Note what was taken out of a generation's waiting text, which counts until written."""
        if isinstance(generation, Generation) and (task := self._tasks.get(generation)):
            task.held.leave(generation.waiting_bytes)

    async def _let_others_run(self) -> None:
        self._sending = True  # so that nothing is written between these events
        await asyncio.sleep(0)
        self._sending = False

    async def _send(self, messages: Sequence[Message]) -> None:
        """Write messages, waiting while the client does not take them."""
        self._sending = True
        for message in messages:
            self._sending_since = self._loop.time()
            self._start_watchdog()
            self._generations.metrics.sent_bytes += len(message.data)
            self._generations.metrics.sent_frames += 1
            await self._socket.send(message.data, text=message.text)
        self._sending = False
        self._sending_since = None

    def _after_write(self, generation: Generation | Follower | None, count: int) -> None:
        """Wake a generation's task after events were written, or forget it if it is over."""
        task = self._tasks.get(generation)  # type: ignore[arg-type]
        if task is None:
            if isinstance(generation, Follower):
                self._charge(generation, count)
                if generation.over:
                    self._part(generation)
            self._ask_dialect()
            return
        if task.held.size and not task.generation.unsent_bytes:
            task.held.left(task.generation.waiting_bytes)
        if not -STEP < task.generation.kept_bytes - task.kept_bytes < STEP:
            self._generations.resume_store.count_kept(task)
        over = not task.generation.live and task.generation.over
        if over:
            del self._tasks[task.generation]
            self._generations.resume_store.keep(task)
            self._last_busy = self._loop.time()
        else:
            task.wake()
        if task.followers:
            task.tell_followers()
        if over or self._dialect.asks:
            self._ask_dialect()

    def _ask_dialect(self) -> None:
        """Carry out what the language asks for now, and close the connection if it says so.

        It is closed, too, where the language can't say: what it was about to begin would never end.
        The caller may be the task of another generation, which has no part in that.
        """
        try:
            requests = self._dialect.next_requests()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost
            unexpected(log, "a language cannot go on", error)
            if not self._closing:
                self._close_soon(CloseCode.INTERNAL, "internal error")
            return
        if requests:
            self._act(requests)
            self._wake_writer.set()
        farewell = self._dialect.farewell
        if farewell is not None and not self._closing:
            self._close_soon(*farewell)

    def _start_watchdog(self) -> None:
        """Start the timer that bounds a write; one timer serves many writes."""
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(
                self._settings.write_timeout_s, self._check_write_time
            )

    def _check_write_time(self) -> None:
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
            self._watchdog = self._loop.call_later(left, self._check_write_time)


def _large(events: Sequence[Event]) -> int:
    """Return the size of events together in bytes, 0 if they are small."""
    size = sum(map(size_of, events))
    return size if size > LARGE_AGAIN else 0
