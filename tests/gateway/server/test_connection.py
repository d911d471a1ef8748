"""One connection's reader and writer, over real sockets."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from gateway.dialects.base import Route
from gateway.dialects.native import NativeDialect, codec_for
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import MSGPACK_PROTOCOL, Generate, Ping
from gateway.server.server import Gateway
from provider.scripted import Gate, Pause, Say, ScriptedProvider
from tests.support.servers import (
    TIMEOUT,
    eventually,
    raw,
    raw_frame,
    running,
    settings,
    stream_url,
    watched_turns,
    wired,
)

MSGPACK = f"Sec-WebSocket-Protocol: {MSGPACK_PROTOCOL}"


def scripted(*script):
    return ScriptedProvider(script=script, tokens_per_second=None)


async def test_the_greeting_comes_before_the_answer_to_what_was_sent_early():
    async with running(scripted()) as gateway:
        async with connect(stream_url(gateway)) as socket:
            for number in range(20):
                await socket.send(json.dumps({"type": "ping", "nonce": number}))
            async with asyncio.timeout(TIMEOUT):
                frames = [json.loads(await socket.recv()) for _ in range(21)]
    assert frames[0]["type"] == "ready"
    assert [frame["nonce"] for frame in frames[1:]] == list(range(20))


async def test_an_idle_connection_is_closed_and_one_that_generates_is_not():
    gate = asyncio.Event()
    provider = scripted(Say("x"), Gate(gate), Say("y"))
    async with running(provider, idle_timeout_s=0.1) as gateway:
        async with wired(gateway) as busy, wired(gateway) as idle:
            await busy.send(Generate(id="a", prompt="hi"))
            with pytest.raises(ConnectionClosed):
                await idle.receive()
            assert idle.socket.close_code == CloseCode.NORMAL
            gate.set()
            assert (await busy.until("done"))[-1]["finish_reason"] == "stop"


async def test_a_client_that_takes_nothing_is_aborted_and_its_generation_freed():
    provider = scripted(*[Say("x" * 4000)] * 3000, Pause(3600))
    limits = {"write_timeout_s": 0.2, "kernel_buffer_bytes": 1024, "outbox_bytes": 4096}
    async with running(provider, **limits) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await eventually(lambda: gateway._generations.metrics.slow_clients == 1)
            await eventually(lambda: not provider.live and gateway.connections == 0)


async def test_generations_share_what_may_wait_for_one_client():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, outbox_bytes=8192) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        (connection,) = gateway._connections
        (generation,) = connection._session.generations
        generation.waiting_bytes = 5000
        assert not connection.must_wait(generation)
        await wire.send(Generate(id="b", prompt="hi"))
        await wire.until("chunk")
        assert connection.must_wait(generation)
        generation.waiting_bytes = 0


async def test_a_fault_of_the_writer_ends_its_connection_and_no_other():
    async with running(scripted()) as gateway, wired(gateway) as broken, wired(gateway) as other:
        await broken.send(Ping(nonce="n"))
        await broken.receive()
        await other.send(Ping(nonce="n"))
        await other.receive()
        first = next(
            one
            for one in gateway._connections
            if one._socket.remote_address == broken.socket.local_address
        )
        first._dialect.encode = lambda event: 1 / 0
        await broken.send(Ping(nonce="n"))
        with pytest.raises(ConnectionClosed):
            await broken.receive()
        await other.send(Ping(nonce="m"))
        assert (await other.receive())["nonce"] == "m"


@pytest.mark.parametrize("headers", [(), (MSGPACK,)], ids=["json", "msgpack"])
async def test_a_frame_of_millions_of_values_is_refused_in_turns_that_are_short(headers):
    count = 2**20
    if headers:
        data = b"\x94\x02\xa1a\xc0\xdd" + count.to_bytes(4, "big") + b"\x80" * count
    else:
        data = b'{"type":"generate","id":"a","messages":[' + b"{}," * (count - 1) + b"{}]}"
    frame = raw_frame(data, Opcode.BINARY if headers else Opcode.TEXT)
    codec = codec_for(MSGPACK_PROTOCOL if headers else None)
    async with running(scripted()) as gateway, raw(gateway, *headers) as wire:
        await wire.receive()
        async with watched_turns() as turns:
            wire.writer.write(frame)
            _, content = await wire.receive()
    error = codec.decode_fields(content.decode() if codec.text else content)
    assert (error["id"], error["code"]) == ("a", "invalid_request")
    assert error["message"] == "`$`: must have at most 16384 keys and values"
    assert turns.longest < 0.1  # it takes a multiple to decode


class Patient(NativeDialect):
    """Checks large messages until a small one has been decoded, and notes what it does."""

    def __init__(self, notes):
        super().__init__(codec_for(None))
        self._notes = notes

    def check(self, message):
        self._notes.append("check")
        while "small" not in self._notes:
            yield
        yield

    def decode(self, message):
        self._notes.append("small" if len(message) < 1000 else "large")
        return super().decode(message)


async def test_large_frames_are_decoded_one_at_a_time_and_small_ones_meanwhile():
    notes = []
    route = Route("/v1/stream", lambda protocol, limits: Patient(notes))
    async with Gateway(scripted(Say("x")), settings(), routes=[route]) as gateway:
        async with wired(gateway) as one, wired(gateway) as two, wired(gateway) as small:
            for wire in (one, two):
                await wire.send(Generate(id="a", prompt="x" * 20_000))
            await eventually(lambda: notes)
            await small.send(Ping(nonce="n"))
            await small.receive()
            for wire in (one, two):
                await wire.until("done")
    assert notes == ["check", "small", "large", "check", "large"]
