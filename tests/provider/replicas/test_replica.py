"""One replica's connection, from its first attempt to its loss and back."""

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha256

from gateway.server.tokens import Token, Tokens
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
