"""One connection's reader and writer, over real sockets."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import Generate, Ping
from provider.scripted import Gate, Pause, Say, ScriptedProvider
from tests.support.servers import TIMEOUT, eventually, running, stream_url, wired


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
