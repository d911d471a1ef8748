"""A little of `make fuzz`, and some of its inputs over real sockets."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.dialects.native import JsonCodec, MsgpackCodec
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Ping
from provider.scripted import Say, ScriptedProvider
from tests.gateway.dialects.fuzz import Fuzz
from tests.support.servers import TIMEOUT, Wire, running, stream_url, wired

ENDS = {4400, 1003, 1007}  # not a frame; and what the library says of text that is not UTF-8


@pytest.mark.parametrize("seed", range(2))
def test_whatever_bytes_come_only_documented_errors_follow(seed):
    counts = Fuzz(seed).run(5000)
    assert counts["not a frame"] > 500
    assert counts["bad frame"] > 500
    assert counts["Generate"] > 200


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_over_a_socket_nonsense_is_answered_or_ends_its_own_connection(protocol):
    fuzz = Fuzz(protocol)
    provider = ScriptedProvider(script=[Say("x")], tokens_per_second=None)
    kind = JsonCodec if protocol == JSON_PROTOCOL else MsgpackCodec
    async with running(provider) as gateway, wired(gateway) as other:
        for _ in range(80):
            async with connect(stream_url(gateway), subprotocols=[protocol]) as socket:
                wire = Wire(socket)
                await wire.receive()
                try:
                    for _ in range(5):
                        await socket.send(fuzz.input(kind), text=kind is JsonCodec)
                    await wire.send(Ping(nonce="still here"))
                    async with asyncio.timeout(TIMEOUT):
                        while (await wire.receive()).get("nonce") != "still here":
                            pass
                except ConnectionClosed:
                    assert socket.close_code in ENDS
        await other.send(Ping(nonce="n"))
        assert (await other.receive())["nonce"] == "n"
