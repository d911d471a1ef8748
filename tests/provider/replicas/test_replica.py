"""One replica's connection, from its first attempt to its loss and back."""

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha256
from http import HTTPStatus

import msgspec
import pytest
from websockets.asyncio.server import serve
from websockets.typing import Subprotocol

from gateway.dialects.native import codec_for
from gateway.protocol.frames import JOINED_PROTOCOL, NUMBERS, Generate, Ready
from gateway.server.tokens import Token, Tokens
from provider.replicas import replica as module
from provider.replicas.replica import Replica
from provider.scripted import MODEL_NAME, ScriptedProvider
from tests.support.proxy import Proxy
from tests.support.servers import eventually, running


@asynccontextmanager
async def kept(url, token=None):
    told = []
    replica = Replica(url, token, lambda one: told.append((one.link is not None, one.trouble)))
    task = asyncio.create_task(replica.run())
    try:
        yield replica, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_replica_takes_generations_once_it_says_that_it_is_ready():
    async with running(ScriptedProvider()) as gateway:
        gateway._generations.draining = True
        async with kept(gateway.url) as (replica, told):
            await eventually(lambda: replica.trouble == "the gateway is stopping")
            assert replica.link is not None
            assert not replica.takes
            gateway._generations.draining = False
            await eventually(lambda: replica.takes)
            assert [model.id for model in replica.models] == [MODEL_NAME]
            assert replica.link.most == gateway.settings.max_generations
        assert told[-1][0] is False
    assert told[1] == (True, "")


async def test_a_lost_connection_is_made_again_as_another_link():
    async with running(ScriptedProvider()) as gateway:
        proxy = Proxy(gateway.port)
        await proxy.start()
        try:
            async with kept(proxy.address) as (replica, told):
                await eventually(lambda: replica.takes)
                first = replica.link
                proxy.cut()
                await eventually(lambda: replica.takes and replica.link is not first)
                assert replica.link.key != first.key
                assert replica.lost == 1
                assert (False, "the connection was lost") in told
        finally:
            await proxy.stop()


async def test_a_wrong_token_is_said_and_a_right_one_is_shown():
    secret = Tokens([Token("front", sha256(b"s").hexdigest())])
    async with running(ScriptedProvider(), secret) as gateway:
        async with kept(gateway.url, "other") as (replica, _):
            await eventually(lambda: replica.trouble == "it wants another token")
        async with kept(gateway.url, "s") as (replica, _):
            await eventually(lambda: replica.takes)
        async with kept(f"{gateway.url}#token=s") as (replica, _):
            await eventually(lambda: replica.takes)
            assert "s" not in replica.name.split(":")


async def test_nobody_at_the_address_is_tried_again():
    async with kept("127.0.0.1:1") as (replica, told):
        await eventually(lambda: told)
        assert replica.link is None
        assert "1" in replica.trouble


READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
MODELS = '{"data": [{"id": "m"}]}'


class Lying:
    """A server that says what it is told to, on plain GETs and on WebSockets."""

    def __init__(self):
        self.pages = {"/readyz": "ready", "/v1/models": MODELS}
        self.first = codec_for(JOINED_PROTOCOL).encode(READY)
        self.answers = asyncio.Event()  # set while plain GETs are answered
        self.answers.set()
        self.asked = self.connections = 0
        self.leaves = asyncio.Event()  # set to close all connections
        self.answer = None  # to each `generate`

    async def page(self, connection, request):
        if (body := self.pages.get(request.path)) is None:
            return None
        self.asked += 1
        await self.answers.wait()
        return connection.respond(HTTPStatus.OK, body)

    async def talk(self, socket):
        self.connections += 1
        await socket.send(self.first)
        if self.answer is not None:
            async for message in socket:
                if msgspec.msgpack.decode(message)[0] == NUMBERS[Generate]:
                    await socket.send(self.answer)
        await self.leaves.wait()


@asynccontextmanager
async def lying():
    one = Lying()
    agreed = [Subprotocol(JOINED_PROTOCOL)]
    async with serve(
        one.talk, "127.0.0.1", 0, process_request=one.page, subprotocols=agreed
    ) as server:
        one.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield one
        finally:
            one.leaves.set()
            one.answers.set()


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr(module, "HEALTH_S", 0.01)


@pytest.mark.parametrize("body", ['{"data": [{}]}', "{}", "[]", '{"data": 5}', "no JSON"])
async def test_a_replica_that_lists_no_models_is_asked_again(body):
    async with lying() as one:
        one.pages["/v1/models"] = body
        async with kept(one.url) as (replica, _):
            await eventually(lambda: one.connections > 1)
            assert replica.link is None
            assert replica.trouble != "not connected yet"
            one.pages["/v1/models"] = MODELS
            await eventually(lambda: replica.takes)


@pytest.mark.parametrize("first", [b"\xc1", b"\x90", b"\x94\x10\x05\x05\x05"])
async def test_a_replica_that_says_what_is_no_ready_is_asked_again(first):
    async with lying() as one:
        right, one.first = one.first, first
        async with kept(one.url) as (replica, _):
            await eventually(lambda: one.connections > 1)
            assert replica.link is None
            one.first = right
            await eventually(lambda: replica.takes)


async def test_a_replica_that_does_not_answer_gets_nothing_new_until_it_does(
    looks_often, monkeypatch
):
    async with lying() as one, kept(one.url) as (replica, _):
        await eventually(lambda: replica.takes)
        link, usual = replica.link, module.PROBE_S
        one.answers.clear()
        monkeypatch.setattr(module, "PROBE_S", 0.01)
        await eventually(lambda: replica.trouble == "no answer for 0.01 s")
        assert replica.link is link  # what it makes goes on
        assert not replica.takes
        monkeypatch.setattr(module, "PROBE_S", usual)
        one.answers.set()
        await eventually(lambda: replica.takes)


async def test_a_lost_connection_is_seen_while_the_replica_does_not_answer(looks_often):
    async with lying() as one, kept(one.url) as (replica, told):
        await eventually(lambda: replica.takes)
        one.answers.clear()
        asked = one.asked
        await eventually(lambda: one.asked > asked)
        one.leaves.set()
        await eventually(lambda: replica.link is None)
        assert told[-1] == (False, "the connection was lost")
        assert replica.lost == 1
