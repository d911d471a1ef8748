"""What polite clients see: their text, its gaps, the way to and back of their pings."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway.protocol.frames import JSON_PROTOCOL, Generate, Ping
from tests.support.servers import Wire

PING_EVERY_S = 0.02
MEMORY_EVERY_S = 0.1
LATE_S = 0.005  # how often this process looks whether it is late itself
LONG_S = 0.5
LOST = (OSError, WebSocketException, TimeoutError, AssertionError)


@dataclass(frozen=True)
class Question:
    """What a polite client asks, over and over: fields of `generate`, and what is to come."""

    fields: Callable[[int], dict]  # by the number of the question
    expected: Callable[[int], str]
    tokens: float = 1.0  # for each character of the answer


@dataclass
class Seen:
    """What was seen in some seconds. Times in seconds, memory in bytes.

    With `ServerTime`, all of them are without what the server has waited for a processor.
    """

    seconds: float = 0.0
    gap: float = 0.0  # the longest between two pieces of one answer
    first: float = 0.0  # the longest until the first piece of an answer
    ping: float = 0.0  # the longest from a ping to its pong
    late: float = 0.0  # the longest that this process itself was late
    tokens: float = 0.0
    answers: int = 0
    wrong: int = 0
    memory: int = 0  # the most that the server and its children have taken on
    alone: int = 0  # the most that the server has, without its children
    unserved: float = 0.0  # what the server has waited for a processor, where that is counted
    failures: Counter = field(default_factory=Counter)
    waits: dict = field(default_factory=lambda: defaultdict(list))  # all gaps, firsts, pings

    @property
    def rate(self):
        return self.tokens / self.seconds

    def usual(self, what):
        """Return the time within which nine of ten waits of a kind were over."""
        ordered = sorted(self.waits[what])
        return ordered[len(ordered) * 9 // 10] if ordered else 0.0


def slower(one, other):
    """Return the worse of what was seen in two quiet runs."""
    rate = min(one.rate, other.rate)
    both = {what: [*one.waits[what], *other.waits[what]] for what in one.waits | other.waits}
    worse = {
        what: max(getattr(one, what), getattr(other, what)) for what in ("gap", "first", "ping")
    }
    return replace(one, tokens=rate * one.seconds, waits=defaultdict(list, both), **worse)


class ServerTime:
    """The time without that in which a server's event loop was ready and had no processor.

    Other programs take that time, and the attacker and the measuring process do. It is right where
    the server is one thread: what its threads take from each other must not be left out. On systems
    that don't count it, and for no process, it is the time.
    """

    def __init__(self, pid):
        self._file, self._last = None, 0.0
        with suppress(OSError):
            self._file = None if pid is None else os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)

    def unserved(self):
        """Return for how many seconds it has waited for a processor."""
        with suppress(OSError, ValueError, IndexError):  # it has ended
            if self._file is not None:
                self._last = int(os.pread(self._file, 100, 0).split()[1]) / 1e9
        return self._last

    def now(self):
        return time.monotonic() - self.unserved()

    def close(self):
        if self._file is not None:
            os.close(self._file)


def memory_of(pid, *, children=True):
    """Return the resident bytes of a process, and of its children."""
    pages, left = 0, [pid]
    while left:
        one = left.pop()
        with suppress(OSError, ValueError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
            for task in Path(f"/proc/{one}/task").iterdir() if children else ():
                left += map(int, (task / "children").read_text().split())
    return pages * 4096


async def connected(port, secret, **options):
    """Return a client that has been let in."""
    shown = {"Authorization": f"Bearer {secret}"} if secret else {}
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1/stream",
        subprotocols=[JSON_PROTOCOL],
        additional_headers=shown,
        compression=None,
        ping_interval=None,
        close_timeout=0.2,
        max_size=None,
        **options,
    )
    wire = Wire(socket)
    assert (await wire.receive())["type"] == "ready"
    return wire


@asynccontextmanager
async def connection(port, secret):
    """Connect for a while, and leave nothing behind."""
    wire = await connected(port, secret)
    try:
        yield wire
    finally:
        wire.socket.transport.abort()


class Watch:
    """Clients that stream, ping and measure, while something else goes on.

    `one_thread` says that the server is, so that ServerTime is right for it.
    """

    def __init__(self, port, secret, question, pid=None, clients=1, *, one_thread=False):
        self.seen = Seen()
        self._time = ServerTime(pid if one_thread else None)
        self.got = []  # when text came, and how many tokens
        self.long = []  # when a wait of more than LONG_S ended, how long it was, and for what
        self._port, self._secret, self._question = port, secret, question
        self._clients = clients
        self._pid = pid
        self._since = {}  # of each client: when it asked or last got text, and which

    async def during(self, event, tail=0.3):
        """Measure until an awaitable is done, and a little longer."""
        measures = [self._ping(), self._lateness(), self._memory()]
        measures += [self._stream(number) for number in range(self._clients)]
        before, alone = memory_of(self._pid), memory_of(self._pid, children=False)
        begin, unserved = self._time.now(), self._time.unserved()
        tasks = [asyncio.create_task(one) for one in measures]
        try:
            result = await event
            await asyncio.sleep(tail)
        finally:
            self.seen.seconds = self._time.now() - begin
            self.seen.unserved = self._time.unserved() - unserved
            for what, then in list(self._since.values()):
                self._wait(what, self._time.now() - then)
            self._time.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.seen.memory = max(0, self.seen.memory - before)
            self.seen.alone = max(0, self.seen.alone - alone)
        return result

    def _wait(self, what, seconds):
        self.seen.waits[what].append(seconds)
        self._longest(what, seconds)

    def _longest(self, what, seconds):
        if seconds > LONG_S:
            self.long.append((time.monotonic(), seconds, what))
        setattr(self.seen, what, max(getattr(self.seen, what), seconds))

    def _mark(self, client, what):
        """Count the time since a client's last mark; wait for `what` from now on."""
        now, before = self._time.now(), self._since.pop(client, None)
        if before is not None:
            self._wait(before[0], now - before[1])
        if what is not None:
            self._since[client] = what, now

    async def _stream(self, client):
        number = client * 1_000_000
        while True:
            try:
                async with connection(self._port, self._secret) as wire:
                    while True:
                        await self._ask(wire, client, number)
                        number += 1
            except LOST as error:
                self.seen.failures[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    async def _ask(self, wire, client, number):
        question, text = self._question, ""
        self._mark(client, "first")
        await wire.send(Generate(id="a", **question.fields(number)))
        while True:
            frame = wire.codec.decode_fields(await wire.socket.recv())
            match frame["type"]:
                case "chunk":
                    text += frame["text"]
                    self._mark(client, "gap")
                    tokens = len(frame["text"]) * question.tokens
                    self.seen.tokens += tokens
                    self.got.append((time.monotonic(), tokens))
                case "done":
                    self._mark(client, None)
                    self.seen.answers += 1
                    self.seen.wrong += text != question.expected(number)
                    return
                case "error":
                    self._since.pop(client, None)
                    self.seen.failures[frame["code"]] += 1
                    await asyncio.sleep(min(frame.get("retry_after") or 0.1, 1.0))
                    return

    async def _ping(self):
        while True:
            try:
                async with connection(self._port, self._secret) as wire:
                    while True:
                        self._mark("ping", "ping")
                        await wire.send(Ping(nonce="p"))
                        await wire.socket.recv()
                        self._mark("ping", None)
                        await asyncio.sleep(PING_EVERY_S)
            except LOST as error:
                self.seen.failures[f"ping {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def _lateness(self):
        while True:
            begin = time.monotonic()
            await asyncio.sleep(LATE_S)
            self._longest("late", time.monotonic() - begin - LATE_S)

    async def _memory(self):
        while self._pid is not None:
            self.seen.memory = max(self.seen.memory, memory_of(self._pid))
            self.seen.alone = max(self.seen.alone, memory_of(self._pid, children=False))
            await asyncio.sleep(MEMORY_EVERY_S)


async def asked(port, secret, **fields):
    """Ask once; return the text, and the last frame, which is `done` or `error`."""
    wire = await connected(port, secret)
    await wire.send(Generate(id="a", **fields))
    frames = await wire.until("done", "error")
    await wire.socket.close()
    return "".join(f["text"] for f in frames if f["type"] == "chunk"), frames[-1]


async def answer_alone(port, secret, fields):
    """Return the text of one answer, and how many tokens a character has."""
    text, done = await asked(port, secret, **fields)
    return text, done["usage"]["completion_tokens"] / len(text)
