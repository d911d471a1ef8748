"""A real chat model behind the gateway, asked over sockets."""

import asyncio

import pytest

from gateway.client import GatewayClient
from tests.support.proxy import proxied
from tests.support.servers import running, stream_url

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SKY = "Why is the sky blue?"


@pytest.fixture
async def gateway(provider):
    async with running(provider) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway):
    async with GatewayClient(stream_url(gateway)) as client:
        yield client


async def text_of(run):
    return "".join([chunk.text async for chunk in run])


async def test_an_answer_is_streamed_as_it_is_made(client, reference):
    run = client.generate(prompt=SKY)
    chunks = [chunk.text async for chunk in run]
    assert "".join(chunks) == reference.text(SKY)
    assert len(chunks) > 5
    assert run.done.finish_reason == "length"
    assert run.done.usage.completion_tokens == 20


async def choices_of(run):
    texts = dict.fromkeys(range(3), "")
    async for chunk in run:
        texts[chunk.choice] += chunk.text
    return texts


async def test_several_answers_of_one_prompt_differ_and_come_again_with_their_seed(client):
    asked = {"prompt": "Name an animal.", "n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 12}
    texts = await choices_of(client.generate(**asked))
    assert len(set(texts.values())) == 3
    assert await choices_of(client.generate(**asked)) == texts


async def test_a_cancelled_answer_ends_at_once_and_others_go_on(client, reference):
    other = asyncio.create_task(text_of(client.generate(prompt=SKY)))
    run = client.generate(prompt="Tell me everything about the sea.", max_tokens=500)
    async for _ in run:
        await run.cancel()
    assert run.done.finish_reason == "cancelled"
    assert run.done.usage.completion_tokens < 20
    assert await other == reference.text(SKY)


async def test_an_answer_goes_on_after_a_lost_connection(gateway, reference):
    async with proxied(gateway) as proxy, GatewayClient(proxy.url) as client:
        text, cuts = "", 0
        async for chunk in client.generate(prompt=SKY):
            text += chunk.text
            if cuts < 2 and len(text) > 20 * (cuts + 1):
                cuts += 1
                proxy.cut()
    assert cuts == 2
    assert text == reference.text(SKY)
