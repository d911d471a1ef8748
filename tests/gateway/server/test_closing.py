"""Every end has its bound, whatever a client or a provider does."""

import asyncio

import pytest

from gateway.protocol.frames import Generate
from gateway.server.closing import all_end, ended_within
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import TIMEOUT, eventually, running, wired

QUICK = {"close_timeout_s": 0.2, "kernel_buffer_bytes": 1024}


class NeverCloses(ScriptedProvider):
    """A provider whose streams begin to close, and never come to an end of it."""

    def __init__(self):
        super().__init__(script=[Say("a"), Pause(3600)], tokens_per_second=None)

    async def generate_async(self, *arguments, **options):
        stream = await super().generate_async(*arguments, **options)

        async def stuck():
            try:
                async for response in stream:
                    yield response
            finally:
                await asyncio.Event().wait()

        return stuck()


async def let_a_write_get_stuck(gateway, wire):
    """Ask for more than the client takes; return when the gateway waits for it."""
    await wire.send(Generate(id="a", prompt="hi"))
    (connection,) = gateway._connections
    await eventually(lambda: connection._sending and connection._socket.paused)
    return connection


def much():
    return ScriptedProvider(script=[Say("x" * 4000)] * 3000, tokens_per_second=None)


async def test_tasks_are_waited_for_so_long_and_no_longer():
    quick, slow = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(3600))
    assert await all_end([], 0)
    assert await all_end([quick], TIMEOUT)
    assert not await all_end([quick, slow], 0.01)
    slow.cancel()
    assert await all_end([slow], TIMEOUT)


async def test_a_cancelled_connection_does_not_wait_for_a_client_that_reads_nothing():
    async with running(much(), **QUICK) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await let_a_write_get_stuck(gateway, wire)
            tasks = set(gateway._server.handler_tasks)
            for task in tasks:
                task.cancel()
            ended = await all_end(tasks, TIMEOUT / 4)
            wire.socket.transport.abort()
            assert ended


async def test_a_connection_that_fails_does_not_wait_for_a_client_that_reads_nothing():
    async with running(much(), **QUICK) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            connection = await let_a_write_get_stuck(gateway, wire)
            connection._dialect.decode = lambda message: 1 / 0
            tasks = set(gateway._server.handler_tasks)
            await wire.socket.send("{}")
            ended = await all_end(tasks, TIMEOUT / 4)
            wire.socket.transport.abort()
            assert ended


async def test_a_gateway_closes_although_a_client_reads_nothing():
    async with running(much(), **QUICK) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await let_a_write_get_stuck(gateway, wire)
            closing = asyncio.create_task(gateway.close())
            ended = await all_end([closing], TIMEOUT / 4)
            wire.socket.transport.abort()
            assert ended
            closing.result()


async def test_a_block_that_takes_too_long_is_left_and_its_connection_aborted():
    async with running(much()) as gateway, wired(gateway) as wire:
        async with ended_within(TIMEOUT, wire.socket):
            await wire.socket.ping()
        assert not wire.socket.transport.is_closing()
        async with ended_within(0.01, wire.socket):
            await asyncio.Event().wait()
        assert wire.socket.transport.is_closing()


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_gateway_closes_although_a_stream_does_not(resumable):
    provider = NeverCloses()
    async with running(provider, **QUICK) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi", resumable=resumable))
        await wire.until("chunk")
        wire.socket.transport.abort()
        await eventually(lambda: not gateway._connections or not resumable)
        closing = asyncio.create_task(gateway.close())
        ended = await all_end([closing], TIMEOUT / 4)
        for task in asyncio.all_tasks() - {asyncio.current_task(), closing}:
            task.cancel()
        assert ended


async def test_a_gateway_closes_while_a_connection_waits_for_its_last_streams():
    provider = NeverCloses()
    async with running(provider, **{**QUICK, "close_timeout_s": 0.5}) as gateway:
        async with wired(gateway) as wire:
            for name, resumable in (("a", True), ("b", False)):
                await wire.send(Generate(id=name, prompt="hi", resumable=resumable))
                await wire.until("chunk")
            (connection,) = gateway._connections
            wire.socket.transport.abort()
            await eventually(lambda: not connection._tasks)
            assert gateway._connections
            closing = asyncio.create_task(gateway.close())
            ended = await all_end([closing], TIMEOUT / 4)
            for task in asyncio.all_tasks() - {asyncio.current_task(), closing}:
                task.cancel()
            assert ended
            closing.result()


async def test_a_gateway_closes_after_a_closing_that_was_cancelled_with_all_else():
    async with running(NeverCloses(), **QUICK) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        closing = asyncio.create_task(gateway.close())
        await eventually(lambda: gateway._server.close_task)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([closing])
        again = asyncio.create_task(gateway.close())
        assert await all_end([again], TIMEOUT / 4)
        again.result()
