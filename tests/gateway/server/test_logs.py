"""What is logged, and what never is."""

import asyncio
import fcntl
import io
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from hashlib import sha256

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from gateway.protocol.frames import Cancel, Generate, Hello
from gateway.server import logs
from gateway.server.tokens import Token, Tokens
from provider.scripted import Fail, Pause, Say, ScriptedProvider
from tests.support.servers import Wire, eventually, get, running, stream_url, wired
from tests.support.timeouts import TIMEOUT

SECRET = "a-secret-prompt"
TOKEN = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.fixture
def logged():
    """Set logging up as `serve` does, and catch what it writes."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def start(level="info", line_format="json"):
        logs.set_up(level, line_format, stream)
        return stream

    yield start
    root.handlers[:], level = before
    root.setLevel(level)
    for name in (*logs.OWN, logs.LIBRARY):
        logging.getLogger(name).setLevel(logging.NOTSET)


async def one_of_each(gateway):
    async with wired(gateway) as wire:
        for frame_id, prompt in (("a", "say"), ("b", "fail"), ("c", "wait")):
            await wire.send(Generate(id=frame_id, prompt=f"{prompt} {SECRET}"))
            if prompt == "wait":
                await wire.until("chunk")
                await wire.send(Cancel(id=frame_id))
            await wire.until("done", "error")
        await wire.socket.send(f'{{"type": "generate", "id": "d", "{SECRET}": 1}}')
        await wire.until("error")
    await eventually(lambda: gateway.connections == 0)


def script(request):
    match request.prompt.split()[0]:
        case "say":
            return [Say(f"{SECRET} answer")]
        case "fail":
            return [Fail(RuntimeError(f"cannot say {SECRET}"))]
        case _:
            return [Say("x"), Pause(3600)]


async def test_a_connection_has_two_lines_and_a_generation_one(logged):
    stream = logged()
    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        await one_of_each(gateway)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    about = [line for line in lines if line["level"] == "info"]
    assert [line["message"].split()[0] for line in about] == [
        "connection",
        "generation",
        "generation",
        "generation",
        "connection",
    ]
    opened, stop, failed, cancelled, closed = about
    assert opened["connection"] == closed["connection"]
    assert (stop["reason"], stop["completion_tokens"]) == ("stop", 2)
    assert (failed["reason"], cancelled["reason"]) == ("internal", "cancelled")
    (error,) = [line for line in lines if line["level"] == "error"]
    assert error["error"] == "RuntimeError"
    assert re.search(r"internal error [0-9a-f]{12}", error["message"])


async def test_a_token_is_not_logged_even_for_debugging(logged):
    stream = logged("debug")
    tokens = Tokens([Token("alice", sha256(SECRET.encode()).hexdigest())])
    bearer = {"Authorization": f"Bearer {SECRET}"}
    async with running(ScriptedProvider(script=[Say("x")]), tokens) as gateway:
        async with wired(gateway, additional_headers=bearer):
            pass
        async with connect(stream_url(gateway)) as socket:
            await Wire(socket).send(Hello(token=SECRET))
            await socket.recv()
        for offered in (f"bearer.{SECRET}", f'"{SECRET}'):
            wrong = {"Sec-WebSocket-Protocol": f"mlx-gateway.v1.json, {offered}, ="}
            with pytest.raises(InvalidHandshake):
                async with connect(stream_url(gateway), additional_headers=wrong):
                    pass
        await get(gateway, f"/v1/models?token={SECRET}", Authorization=f"Bearer {SECRET}")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"GET /v1/stream?token={SECRET}\r\n\r\n".encode())
        await reader.read()
        writer.close()
        await eventually(lambda: gateway.connections == 0)
    said = stream.getvalue()
    assert "connection open" in said
    assert SECRET not in said


def test_the_librarys_errors_are_told_by_their_type(logged):
    stream = logged("debug")
    library = logging.getLogger(logs.LIBRARY)
    try:
        raise ValueError(SECRET)
    except ValueError:
        library.error("opening handshake failed", exc_info=True)
    library.debug("> %s", SECRET)
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert line["message"] == "opening handshake failed: ValueError"
    assert "exception" not in line


async def test_no_prompt_answer_or_token_is_logged(logged):
    stream = logged()
    tokens = Tokens([Token("alice", TOKEN)])
    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        await one_of_each(gateway)
        gateway.tokens = tokens
        async with connect(stream_url(gateway)) as socket:
            await Wire(socket).send(Hello(token=SECRET))
            with pytest.raises(ConnectionClosed, match="4401"):
                await socket.recv()
        with pytest.raises(InvalidStatus, match="401"):
            async with wired(gateway, additional_headers={"Authorization": f"Bearer {SECRET}"}):
                pass
    assert stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_lines_are_for_people_where_that_is_asked_for(logged):
    stream = logged(line_format="text")
    logging.getLogger("gateway.server").info("hello", extra=logs.fields(n=1))
    assert re.fullmatch(r"\d{4}-\S+ \S+ INFO hello\n", stream.getvalue())


def test_a_long_line_on_a_terminal_goes_on_between_words_below_its_text():
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
    said = "logging.getLogger('gateway').info('a-word and %s', 'more words ' * 12)"
    code = f"import logging; from gateway.server import logs; logs.set_up('info', 'auto'); {said}"
    subprocess.run([sys.executable, "-c", code], stderr=child, check=True, timeout=TIMEOUT)
    os.close(child)
    with os.fdopen(parent, "rb", buffering=0) as screen:
        lines = screen.read(4096).decode().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO a-word and more( more| words)+", lines[0])
    assert len(lines) == 3
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * len("00:00:00 ")) for line in lines[1:])


def test_debugging_tells_all(logged):
    stream = logged("debug")
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        logs.unexpected(logging.getLogger("gateway.server"), "what happened", error)
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert SECRET not in json.dumps(first)
    assert SECRET in second["exception"]


def test_an_id_cannot_forge_a_line(logged):
    stream = logged(line_format="text")
    logging.getLogger("gateway.server.generations").info("generation %r: x", "a\nINFO forged")
    assert len(stream.getvalue().splitlines()) == 1


def test_what_is_rare_is_so_for_a_minute(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    rare = logs.Rare()
    assert [rare.now(), rare.now()] == [True, False]
    now += logs.LOG_EVERY_S
    assert [rare.now(), rare.now()] == [True, False]
