"""What networks do, staged by a real proxy: nothing is lost, and nothing comes twice."""

import asyncio
import random

import pytest

from gateway.client import ConnectionLostError, connect
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL
from provider.scripted import Call, Pause, Reason, Say, ScriptedProvider
from tests.support.proxy import proxied
from tests.support.servers import TIMEOUT, eventually, running, stream_url


def script(request):
    """A text, a thought and calls that follow from the prompt; with pauses to be cut in."""
    chance = random.Random(request.prompt)
    steps = [Reason(f"thought of {request.prompt} ")]
    for n in range(chance.randrange(3, 12)):
        steps.append(Say(" ".join(f"{request.prompt}.{n}.{m} §" for m in range(5))))
        steps.append(Pause(chance.random() * 0.01))
    steps += [Call("f", {"n": n}) for n in range(chance.randrange(3))]
    return steps


def scripted():
    return ScriptedProvider(script=script, tokens_per_second=None)


async def outcome(client, prompt):
    """Ask until it is answered: a connection that is cut before the ticket came is said to be."""
    while True:
        try:
            async with client.generate(prompt=prompt) as run:
                done = await run.result()
        except ConnectionLostError:
            continue
        calls = [(call.name, call.arguments) for call in run.tool_calls]
        return run.text, run.reasoning, calls, done.finish_reason


async def answers(client, prompts):
    room = asyncio.Semaphore(60)

    async def ask(prompt):
        async with room:
            return await outcome(client, prompt)

    return await asyncio.gather(*map(ask, prompts))


@pytest.mark.parametrize(
    ("count", "least"),
    [(60, 15), pytest.param(250, 100, marks=pytest.mark.slow("hundreds of cuts take seconds"))],
)
@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_texts_are_whole_however_often_the_connection_is_cut(protocol, count, least):
    """Many generations, up to 60 at once, and a cut every few hundredths of a second."""
    provider, chance = scripted(), random.Random(protocol)
    prompts = [f"p{n}" for n in range(count)]
    async with running(provider) as gateway, proxied(gateway) as proxy:

        async def cut():
            """Cut what is connected, so that a slow machine gets on between two cuts too."""
            while True:
                before = client.connections
                await asyncio.sleep(chance.random() * 0.12)
                proxy.piece = chance.choice([40, 1000, 65536])
                proxy.cut()
                await eventually(lambda n=before: client.connections > n)

        async with connect(stream_url(gateway), protocol) as client:
            expected = await answers(client, prompts)
        async with connect(proxy.url, protocol) as client:
            cutting = asyncio.create_task(cut())
            assert await answers(client, prompts) == expected
            while client.resumed <= least:  # it was too fast to be cut often
                assert await answers(client, prompts) == expected
            cutting.cancel()


@pytest.mark.parametrize("fault", ["stall", "one byte at a time", "delay"])
async def test_a_bad_network_makes_it_slow_and_nothing_else(fault):
    provider = scripted()
    async with running(provider) as gateway, proxied(gateway) as proxy:
        async with connect(stream_url(gateway)) as client:
            expected = await outcome(client, "p")
        async with connect(proxy.url) as client:
            match fault:
                case "stall":
                    proxy.stall()
                    asyncio.get_running_loop().call_later(0.5, proxy.go_on)
                case "delay":
                    proxy.pause = 0.02
                case _:
                    proxy.piece = 1
            async with asyncio.timeout(TIMEOUT):
                assert await outcome(client, "p") == expected
            assert client.connections == 1


async def test_a_client_that_half_closes_is_answered_no_more_and_its_generation_waits():
    provider = ScriptedProvider(script=[Say("x"), Pause(3600)], tokens_per_second=None)
    async with running(provider, resume_ttl_s=0.2) as gateway, proxied(gateway) as proxy:
        async with connect(proxy.url, give_up_s=0) as client:
            async with client.generate(prompt="hi") as run:
                async for _ in run:
                    proxy.half_close()
                    break
                with pytest.raises(ConnectionLostError):
                    await run.result()
        await eventually(lambda: not provider.live)


async def test_a_network_that_goes_away_is_found_by_pings():
    provider = ScriptedProvider(script=[Say("x"), Pause(3600)], tokens_per_second=None)
    quick = {"ping_interval_s": 0.2, "ping_timeout_s": TIMEOUT / 4, "close_timeout_s": 0.2}
    async with running(provider, resume_ttl_s=0.2, **quick) as gateway, proxied(gateway) as proxy:
        async with connect(proxy.url, give_up_s=0) as client:
            async with client.generate(prompt="hi") as run:
                async for _ in run:
                    break
                proxy.stall()
                (connection,) = gateway._connections
                connection._socket.ping_timeout = 0.1  # of the next ping; all before that have time
                await eventually(lambda: not gateway.connections)
                await eventually(lambda: not provider.live)
                proxy.go_on()
                with pytest.raises(ConnectionLostError):
                    await run.result()
