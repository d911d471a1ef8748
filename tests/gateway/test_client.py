import asyncio

import pytest

from gateway.client import ConnectionLostError, GatewayError, connect
from gateway.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL
from provider.interface import GenerationError
from provider.scripted import Call, Fail, Pause, Say, ScriptedProvider
from tests.support.servers import running, stream_url


def scripted(*script):
    return ScriptedProvider(script=script, tokens_per_second=None)


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_chunks_then_done(protocol):
    async with running(scripted(Say("a b"), Call("add", {}))) as gateway:
        async with connect(stream_url(gateway), protocol) as client:
            assert client.ready["models"] == ["scripted"]
            async with client.generate(prompt="hi") as run:
                text = "".join([chunk["text"] async for chunk in run])
            assert text == "a b"
            assert run.done["finish_reason"] == "tool_calls"
            assert run.started["model"] == "scripted"
            assert [call["name"] for call in run.tool_calls] == ["add"]


async def test_leaving_the_block_cancels():
    provider = scripted(Say("a b c"), Pause(3600))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        async with client.generate(prompt="hi") as run:
            async for _ in run:
                break
        assert run.done["finish_reason"] == "cancelled"
        assert not provider.live


async def test_two_runs_on_one_connection_keep_apart():
    provider = ScriptedProvider(script=lambda r: [Say(r.prompt)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:

        async def ask(prompt):
            async with client.generate(prompt=prompt) as run:
                return "".join([chunk["text"] async for chunk in run])

        assert await asyncio.gather(ask("one"), ask("two")) == ["one", "two"]


async def test_an_error_is_raised_with_its_code():
    async with running(scripted(Say("x"), Fail(GenerationError("broken")))) as gateway:
        async with connect(stream_url(gateway)) as client, client.generate(prompt="hi") as run:
            with pytest.raises(GatewayError, match="broken") as caught:
                async for _ in run:
                    pass
    assert (caught.value.code, caught.value.retryable) == ("model_error", False)


async def test_a_lost_connection_is_an_error_of_its_own():
    async with running(scripted(Say("x"), Pause(3600))) as gateway:
        async with connect(stream_url(gateway)) as client, client.generate(prompt="hi") as run:
            with pytest.raises(ConnectionLostError):
                async for _ in run:
                    client._socket.transport.abort()


async def test_a_ping_is_answered_in_order():
    async with running(scripted()) as gateway, connect(stream_url(gateway)) as client:
        await client.ping("n")
