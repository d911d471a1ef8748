"""A second wire language over the same sessions, added by a file and a line."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.dialects.routes import ROUTES
from gateway.protocol.codes import CloseCode
from gateway.server.server import Gateway
from provider.interface import InvalidParameterError
from provider.scripted import Fail, Pause, Prefill, Queue, Reason, Say
from tests.gateway.dialects import toy
from tests.support.servers import (
    TIMEOUT,
    TOKENS,
    eventually,
    get,
    scripted,
    settings,
    stream_url,
    wired,
)


@asynccontextmanager
async def running(provider, tokens=None, **changes):
    routes = (*ROUTES, toy.ROUTE)
    async with Gateway(provider, settings(**changes), tokens, routes) as gateway:
        yield gateway


@asynccontextmanager
async def talking(gateway, **options):
    async with connect(f"ws://127.0.0.1:{gateway.port}/toy", **options) as socket:
        assert await heard(socket) == "welcome"
        assert await heard(socket) == "models scripted"
        yield socket


async def heard(socket):
    async with asyncio.timeout(TIMEOUT):
        return await socket.recv()


async def until_end(socket):
    """Return what comes to the end of a generation, asking for more as it comes."""
    messages = [await heard(socket)]
    while not str(messages[-1]).startswith(("end", "failed")):
        if isinstance(messages[-1], bytes):
            await socket.send("more a")
        messages.append(await heard(socket))
    return messages


async def test_an_event_may_be_two_messages_or_none():
    provider = scripted(Queue(1), Prefill(1, 2), Say("Grüße"))
    async with running(provider) as gateway, talking(gateway) as socket:
        await socket.send("chat a hi")
        assert await until_end(socket) == ["size a 7", "Grüße".encode(), "end a stop"]


async def test_both_languages_are_spoken_side_by_side():
    async with running(scripted(Say("one two"))) as gateway:
        async with talking(gateway) as socket, wired(gateway) as wire:
            await wire.socket.send('{"type": "generate", "id": "a", "prompt": "x"}')
            await socket.send("chat a hi")
            assert (await wire.until("done"))[-1]["finish_reason"] == "stop"
            assert (await until_end(socket))[-1] == "end a stop"


async def test_a_message_may_be_two_requests():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, talking(gateway) as socket:
        for name in ("a", "b"):
            await socket.send(f"chat {name} hi")
            assert [await heard(socket), await heard(socket)] == [f"size {name} 1", b"x"]
        await socket.send("stop *")
        assert {await heard(socket), await heard(socket)} == {"end a cancelled", "end b cancelled"}
        await eventually(lambda: not provider.live)


async def test_a_request_may_wait_for_the_end_of_another_or_for_its_refusal():
    provider = scripted(Say("x"))
    async with running(provider, max_answer_tokens=5) as gateway, talking(gateway) as socket:
        for said in ("chat a hi", "then b longest=9 no", "then c hi"):
            await socket.send(said)
        said = [await heard(socket) for _ in range(7)]
        assert said[2] == "end a stop"
        assert said[3].startswith("failed b invalid_request")
        assert said[4:] == ["size c 1", b"x", "end c stop"]
        assert [request.prompt for request in provider.requests] == ["hi", "hi"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("chat a longest=9 hi", "failed a invalid_request [longest] must be at most 5"),
        ("chat a longest=x hi", "failed a invalid_request [longest] not a number"),
        ("dance a", "failed a invalid_frame [verb] no such verb"),
        ("chat a longest=1 bad", "failed a invalid_request [longest] will not do"),
    ],
)
async def test_a_refusal_names_fields_as_the_language_does(said, answer):
    error = InvalidParameterError("max_tokens", 1, "`max_tokens` will not do")
    async with running(scripted(Fail(error)), max_answer_tokens=5) as gateway:
        async with talking(gateway) as socket:
            await socket.send(said)
            assert await heard(socket) == answer


async def test_a_name_in_use_is_refused_in_its_words_and_leaves_the_first_alone():
    async with running(scripted(Say("x"), Pause(3600))) as gateway, talking(gateway) as socket:
        await socket.send("chat a hi")
        assert [await heard(socket), await heard(socket)] == ["size a 1", b"x"]
        await socket.send("chat a again")
        assert await heard(socket) == "failed a duplicate_id [name] `a` is already running"


async def test_its_window_holds_the_provider_up():
    provider = scripted(*[step for _ in range(50) for step in (Say("x"), Reason("y"))])
    async with running(provider, outbox_bytes=1) as gateway, talking(gateway) as socket:
        await socket.send("slow a hi")
        assert await heard(socket) == "size a 1"
        await eventually(lambda: provider.live)
        before = provider.requests[0].produced
        assert before < 10
        await heard(socket)
        assert (await until_end_of_window(socket)) == "end a stop"
        assert provider.requests[0].produced == 100


async def until_end_of_window(socket):
    while True:
        await socket.send("more a")
        message = await heard(socket)
        if str(message).startswith("end"):
            return message


async def test_a_reader_that_stops_holds_the_provider_up():
    provider = scripted(*[Say("x" * 2000)] * 4000)
    limits = {"outbox_bytes": 4096, "kernel_buffer_bytes": 4096, "write_timeout_s": 60.0}
    async with running(provider, **limits) as gateway:
        async with talking(gateway, max_queue=1) as socket:
            await socket.send("chat a hi")
            await eventually(lambda: provider.live)
            await eventually(lambda: gateway._generations.live == 1)
            await eventually(lambda: provider.requests[0].produced)
            before = None
            while before != provider.requests[0].produced:
                before = provider.requests[0].produced
                await asyncio.sleep(0.1)
            assert 0 < before < 4000
            socket.transport.abort()
        await eventually(lambda: not provider.live)


async def test_its_end_ends_its_generations():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway:
        async with talking(gateway) as socket:
            await socket.send("chat a hi")
            await heard(socket)
        await eventually(lambda: not provider.live)


async def test_what_it_cannot_read_at_all_ends_the_connection():
    async with running(scripted()) as gateway, talking(gateway) as socket:
        await socket.send(b"\x00")
        with pytest.raises(ConnectionClosed):
            await heard(socket)
        assert socket.close_code == CloseCode.NOT_A_FRAME


async def test_the_limits_of_frames_and_generations_are_its_own_too():
    provider = scripted(Say("x"), Pause(3600))
    limits = {"max_generations": 1, "max_frame_bytes": 2048}
    async with running(provider, **limits) as gateway, talking(gateway) as socket:
        await socket.send("chat a hi")
        await heard(socket)
        await heard(socket)
        await socket.send("chat b hi")
        assert (await heard(socket)).startswith("failed b rate_limited at most 1 generation")
        await socket.send("chat c " + "x" * 4096)
        with pytest.raises(ConnectionClosed):
            await heard(socket)
        assert socket.close_code == CloseCode.TOO_BIG


async def test_it_shows_a_token_in_its_own_way():
    async with running(scripted(Say("x")), TOKENS) as gateway:
        async with talking(gateway, subprotocols=["toy.v1.lines", "key-sesame"]) as socket:
            assert socket.subprotocol == "toy.v1.lines"
            await socket.send("chat a hi")
            assert (await until_end(socket))[-1] == "end a stop"
        with pytest.raises(ConnectionClosed, match="4401"):
            async with talking(gateway, subprotocols=["key-wrong"]):
                pass


async def test_a_first_message_may_show_a_token_and_ask_for_more():
    async with running(scripted(), TOKENS) as gateway:
        async with connect(f"ws://127.0.0.1:{gateway.port}/toy") as socket:
            await socket.send("secret-and-ping sesame")
            said = [await heard(socket) for _ in range(3)]
            assert said == ["welcome", "models scripted", "pong sesame"]
        async with connect(f"ws://127.0.0.1:{gateway.port}/toy") as socket:
            await socket.send("chat a hi")
            with pytest.raises(ConnectionClosed):
                await heard(socket)
            assert socket.close_code == CloseCode.NOT_AUTHENTICATED


async def test_a_language_without_hello_wants_its_token_in_the_handshake():
    routes = [replace(toy.ROUTE, says_hello=False)]
    async with Gateway(scripted(), settings(), TOKENS, routes) as gateway:
        with pytest.raises(InvalidStatus, match="401"):
            async with talking(gateway):
                pass
        headers = {"Authorization": "Bearer sesame"}
        async with talking(gateway, additional_headers=headers) as socket:
            await socket.send("secret-and-ping sesame")
            assert await heard(socket) == "pong sesame"


async def test_a_plain_get_of_its_path_is_told_what_it_is():
    async with running(scripted()) as gateway:
        status, body, _ = await get(gateway, "/toy")
        assert (status, body) == (426, b"speak lines here\n")


async def test_a_path_without_a_language_is_no_websocket():
    async with running(scripted()) as gateway:
        with pytest.raises(InvalidStatus):
            async with connect(stream_url(gateway).replace("stream", "other")):
                pass


async def test_its_connections_are_counted_by_its_name():
    async with running(scripted()) as gateway, talking(gateway):
        _, body, _ = await get(gateway, "/metrics")
        assert b'connections_opened_total{codec="lines"} 1.0' in body
