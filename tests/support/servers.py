"""Gateways for tests: in this process over real sockets, or as the command in its own process."""

import asyncio
import gc
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

from websockets.asyncio.client import connect
from websockets.frames import Opcode

from gateway.configuration.settings import Settings
from gateway.dialects.native import codec_for
from gateway.protocol.frames import JSON_PROTOCOL, Generate
from gateway.server.metrics import BURST
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens
from provider.scripted import ScriptedProvider
from tests.support.programs import GATEWAY, Program, interpreter
from tests.support.timeouts import STARTING, TIMEOUT

# Of one client, whose secret is `sesame`.
TOKENS = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])


def scripted(*script):
    """Return a provider that plays a script at once."""
    return ScriptedProvider(script=script, tokens_per_second=None)


def settings(**changes):
    return Settings(port=0, **changes)


@asynccontextmanager
async def running(provider, tokens=None, **changes):
    async with Gateway(provider, settings(**changes), tokens) as gateway:
        yield gateway


def stream_url(gateway):
    return f"ws://127.0.0.1:{gateway.port}/v1/stream"


async def get(gateway, path, *, tls=None, **headers):
    """Return status, body and headers of a plain GET; `tls` is the context for one by HTTPS."""

    def fetch():
        scheme = "https" if tls else "http"
        address = f"{scheme}://127.0.0.1:{gateway.port}{path}"
        request = urllib.request.Request(address, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=tls) as response:
                return response.status, response.read(), dict(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    return await asyncio.to_thread(fetch)


async def metrics_of(gateway, **headers):
    """Return the answer of `/metrics` as of now; many requests would get an earlier one."""
    gateway._generations._metrics_text._left = BURST
    return await get(gateway, "/metrics", **headers)


UPGRADE = """GET /v1/stream HTTP/1.1\r
Host: 127.0.0.1:{port}\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r
Sec-WebSocket-Version: 13\r
"""


def raw_frame(data, opcode=Opcode.TEXT, *, end=True, compressed=False):
    """Return the bytes of a client's frame."""
    head = bytes([end << 7 | compressed << 6 | opcode])
    if len(data) < 126:
        size = bytes([0x80 | len(data)])
    elif len(data) < 2**16:
        size = b"\xfe" + len(data).to_bytes(2, "big")
    else:
        size = b"\xff" + len(data).to_bytes(8, "big")
    return head + size + bytes(4) + data  # a mask of zeros


class RawWire:
    """A client that sends any bytes, and does nothing of its own."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def receive(self):
        """Return the opcode and the content of the next frame."""
        async with asyncio.timeout(TIMEOUT):
            head, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return head & 15, await self.reader.readexactly(size)

    async def close_code(self):
        """Return the code of the close frame, which comes after other frames."""
        opcode = None
        while opcode != Opcode.CLOSE:
            opcode, content = await self.receive()
        return int.from_bytes(content[:2], "big")


@asynccontextmanager
async def raw(gateway, *headers, holds=None):
    """Connect, and show the headers given as lines; the kernel `holds` so many unread bytes."""
    own = socket.socket()
    if holds is not None:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, holds)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=own)
    try:
        lines = "".join(f"{header}\r\n" for header in headers)
        writer.write((UPGRADE.format(port=gateway.port) + lines + "\r\n").encode())
        async with asyncio.timeout(TIMEOUT):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield RawWire(reader, writer)
    finally:
        writer.transport.abort()


class Turns:
    """The longest turn of the event loop so far, by the CPU time of its thread.

    A busy machine makes a turn longer, but not its CPU time.
    """

    def __init__(self):
        self.longest = 0.0

    async def watch(self):
        while True:
            begin = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - begin)


@asynccontextmanager
async def watched_turns():
    """Measure turns, without those in which the garbage of other tests would be looked for."""
    turns = Turns()
    task = asyncio.create_task(turns.watch())
    gc.disable()
    try:
        yield turns
    finally:
        gc.enable()
        task.cancel()


class Wire:
    """A client that sees every frame, as dicts."""

    def __init__(self, socket):
        self.socket = socket
        self.codec = codec_for(socket.subprotocol)

    async def send(self, frame):
        await self.socket.send(self.codec.encode(frame), text=self.codec.text)

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            return self.codec.decode_fields(await self.socket.recv())

    async def until(self, *kinds):
        """Return the frames up to and with the first of these types."""
        frames = [await self.receive()]
        while frames[-1]["type"] not in kinds:
            frames.append(await self.receive())
        return frames


@asynccontextmanager
async def wired(gateway, protocol=JSON_PROTOCOL, query="", **options):
    async with connect(
        stream_url(gateway) + query, subprotocols=[protocol] if protocol else None, **options
    ) as socket:
        wire = Wire(socket)
        assert (await wire.receive())["type"] == "ready"
        yield wire


async def close_code(socket):
    """Wait until a client's connection is closed, and return the code."""
    async with asyncio.timeout(TIMEOUT):
        await socket.wait_closed()
    return socket.close_code


def free_ports(count):
    """Return consecutive ports that nobody takes as his own end of a connection in the meantime.

    Tests that run at the same time have ports of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    lowest = 20000 + 1000 * worker  # below the ports that systems give to connections
    while True:
        first = random.randrange(lowest, lowest + 1000 - count)
        ports = list(range(first, first + count))
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports


async def eventually(condition):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


class Command:
    """`mlx-gateway serve` in a process of its own; with `program`, the one that is installed there.

    `python` are the arguments of the interpreter, and `fresh` gives it a new one, for what happens
    while it starts.
    """

    def __init__(self, *arguments, program=None, python=GATEWAY, fresh=False, env=None, cwd=None):
        if fresh:
            program = [sys.executable, *GATEWAY]
        environment = {**(os.environ if env is None else env), "NO_COLOR": "1"}
        out, theirs = os.pipe()
        self.stdout = os.fdopen(out, encoding="utf-8")
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see finish
        streams = [subprocess.DEVNULL, theirs, self._stderr.fileno()]
        options = {"env": environment, "cwd": cwd}
        try:
            if program is None:
                self.process = Program([*python, "serve", *arguments], streams, **options)
            else:
                self.process = interpreter([*program, "serve", *arguments], streams, **options)
        finally:
            os.close(theirs)

    def wait_for_address(self):
        line = self.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"no address: {line!r} {self.finish()}"
        return found[0]

    def finish(self, number=None):
        """Send a signal, if any, and return status, standard output and standard error.

        A process that does not end in time is killed. Raises TimeoutExpired.
        """
        if number is not None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(STARTING)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            raise
        with self.stdout, self._stderr:
            self._stderr.seek(0)
            return status, self.stdout.read(), self._stderr.read()


@contextmanager
def served(*arguments, **options):
    command = Command("--port", "0", *arguments, **options)
    try:
        yield command.wait_for_address()
    finally:
        if command.process.poll() is None:
            command.finish(signal.SIGTERM)


async def native(gateway, messages, max_tokens):
    """Return the `done` of a request in the native language."""
    async with wired(gateway) as wire:
        await wire.send(Generate(id="a", messages=messages, max_tokens=max_tokens, stream=False))
        return (await wire.until("done"))[-1]
