"""Plain GETs of a gateway."""

import asyncio
import contextlib
import ssl
from hashlib import sha256

import pytest

from gateway.protocol.address import address_of
from gateway.server.tokens import Token, Tokens
from provider.interface import ModelInfo
from provider.replicas.probe import MAX_BYTES, get, models_of, readiness, tls_context
from provider.scripted import CONTEXT_WINDOW, MODEL_NAME, ScriptedProvider
from tests.support.servers import running


async def test_a_gateway_says_whether_it_is_ready_and_what_it_serves():
    secret = Tokens([Token("front", sha256(b"s").hexdigest())])
    async with running(ScriptedProvider(), secret) as gateway:
        address = address_of(gateway.url)
        assert await readiness(address) == ""
        assert await models_of(address, "s") == [ModelInfo(MODEL_NAME, CONTEXT_WINDOW)]
        with pytest.raises(ValueError, match="401"):
            await models_of(address, None)
        gateway._generations.draining = True
        assert await readiness(address) == "the gateway is stopping"


async def test_a_socket_file_is_asked_too(tmp_path):
    path = str(tmp_path / "s")
    async with running(ScriptedProvider(), unix=path):
        assert await readiness(address_of(f"unix:{path}")) == ""


@pytest.mark.parametrize("path", ["/behind", "/behind/v1/stream"])
async def test_a_gateway_behind_a_path_is_asked_there(path):
    asked = []

    async def answer(reader, writer):
        asked.append((await reader.readuntil(b"\r\n")).decode().split()[1])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await readiness(address_of(f"127.0.0.1:{port}{path}")) == ""
    assert asked == ["/behind/readyz"]


def test_a_replica_that_is_looked_at_each_second_has_one_context_for_tls():
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context is tls_context()


async def test_what_is_no_gateway_raises():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = address_of(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ValueError, match="no answer"):
            await get(address, "/readyz")
    with pytest.raises(ConnectionRefusedError):
        await get(address, "/readyz")


async def test_an_answer_without_end_is_not_read_to_its_end():
    sent = 0

    async def answer(reader, writer):
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
                sent += 1 << 20
        writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = address_of(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ValueError, match="more than"):
            await get(address, "/readyz")
    assert sent < 16 * MAX_BYTES
