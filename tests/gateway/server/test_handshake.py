"""Who is let in, and who is told what instead, over real sockets."""

import asyncio
import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.dialects.native import BEARER_PROTOCOL
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Generate, Hello, Ping
from gateway.server.tokens import Token, Tokens
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import Wire, close_code, eventually, get, running, stream_url, wired

SECRET = "open sesame"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
BOTH = [Token("other", "0" * 64), Token("alice", DIGEST)]
TOKENS = Tokens(BOTH)


def scripted(*script):
    return ScriptedProvider(script=script, tokens_per_second=None)


def bearer(secret):
    return BEARER_PROTOCOL + base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


async def test_a_page_of_another_origin_is_refused():
    async with running(scripted()) as gateway:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(stream_url(gateway), origin="http://evil.example"):
                pass
        assert caught.value.response.status_code == 403
        async with connect(stream_url(gateway), origin=f"http://127.0.0.1:{gateway.port}"):
            pass


async def test_a_foreign_host_is_refused_on_every_path():
    async with running(scripted()) as gateway:
        for path in ("/", "/v1/stream", "/healthz"):
            assert (await get(gateway, path, Host="evil.example"))[0] == 403


async def test_a_token_among_the_subprotocols_is_not_echoed():
    offered = ["mlx-gateway.bearer.c2VjcmV0", "mlx-gateway.v1.json"]
    async with running(scripted()) as gateway:
        async with connect(stream_url(gateway), subprotocols=offered) as socket:
            assert socket.subprotocol == "mlx-gateway.v1.json"


@pytest.mark.parametrize("headers", ["", "Host: localhost\r\nHost: localhost\r\n"])
async def test_no_host_and_two_hosts_are_refused(headers):
    async with running(scripted()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"GET / HTTP/1.1\r\n{headers}\r\n".encode())
        assert b"403" in (await reader.read()).splitlines()[0]
        writer.close()


async def test_listed_pages_and_names_are_let_in():
    options = {"origins": "https://app.example", "hosts": "chat.example"}
    async with running(scripted(), **options) as gateway:
        async with connect(stream_url(gateway), origin="https://app.example"):
            pass
        assert (await get(gateway, "/healthz", Host="chat.example:8765"))[0] == 200
        assert (await get(gateway, "/healthz", Host="evil.example"))[0] == 403


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
@pytest.mark.parametrize("way", ["header", "subprotocol", "hello"])
async def test_a_token_lets_in_by_each_of_the_three_ways(way, protocol):
    offered = [protocol, *([bearer(SECRET)] if way == "subprotocol" else [])]
    headers = {"Authorization": f"Bearer {SECRET}"} if way == "header" else None
    async with (
        running(scripted(Say("x")), TOKENS) as gateway,
        connect(stream_url(gateway), subprotocols=offered, additional_headers=headers) as socket,
    ):
        assert socket.subprotocol == protocol
        wire = Wire(socket)
        if way == "hello":
            await wire.send(Hello(token=SECRET))
        assert (await wire.receive())["type"] == "ready"
        await wire.send(Generate(id="a", prompt="hi"))
        assert (await wire.until("done"))[-1]["finish_reason"] == "stop"


async def test_a_wrong_token_in_the_header_is_refused_before_the_connection_is_made():
    async with running(scripted(), TOKENS) as gateway:
        for shown in ("Bearer wrong", "Basic abc"):
            with pytest.raises(InvalidStatus) as caught:
                async with connect(
                    stream_url(gateway), additional_headers={"Authorization": shown}
                ):
                    pass
            assert caught.value.response.status_code == 401
            assert caught.value.response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_wrong_token_among_the_subprotocols_is_told_by_a_close_code():
    """A browser can read a close code, but no HTTP status."""
    async with running(scripted(), TOKENS) as gateway:
        for offer in (bearer("wrong"), f"{BEARER_PROTOCOL}!!"):
            async with connect(stream_url(gateway), subprotocols=[JSON_PROTOCOL, offer]) as socket:
                assert await close_code(socket) == CloseCode.NOT_AUTHENTICATED


async def test_an_expired_token_is_no_token():
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with running(scripted(), Tokens([Token("alice", DIGEST, past)])) as gateway:
        with pytest.raises(InvalidStatus):
            async with connect(
                stream_url(gateway), additional_headers={"Authorization": f"Bearer {SECRET}"}
            ):
                pass


AUTHORIZED = {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("seconds", [-1, 0])
async def test_a_new_list_in_which_a_token_has_expired_closes_its_connections(seconds):
    provider = scripted(Say("x"), Pause(3600))
    then = datetime.now(UTC) + timedelta(seconds=seconds)
    async with running(provider, Tokens([Token("alice", DIGEST)])) as gateway:
        async with wired(gateway, additional_headers=AUTHORIZED) as alice:
            await alice.send(Generate(id="a", prompt="hi"))
            await alice.until("chunk")
            gateway.tokens = Tokens([Token("alice", DIGEST, then)])
            assert await close_code(alice.socket) == CloseCode.NOT_AUTHENTICATED
            await eventually(lambda: not provider.live)


async def test_a_new_list_with_other_limits_holds_for_open_connections():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, Tokens([Token("alice", DIGEST)])) as gateway:
        async with wired(gateway, additional_headers=AUTHORIZED) as alice:
            for most, frame_id in ((1, "b"), (None, "c")):
                gateway.tokens = Tokens([Token("alice", DIGEST, max_generations=2)])
                await alice.send(Generate(id=f"{frame_id}1", prompt="hi"))
                await alice.until("chunk")
                gateway.tokens = Tokens([Token("alice", DIGEST, max_generations=most)])
                await alice.send(Generate(id=f"{frame_id}2", prompt="hi"))
                kind = (await alice.until("chunk", "error"))[-1]["type"]
                assert kind == ("chunk" if most is None else "error")
            soon = datetime.now(UTC) + timedelta(hours=1)
            gateway.tokens = Tokens([Token("alice", DIGEST, soon)])
            await alice.send(Ping(nonce="still here"))
            await alice.until("pong")


async def test_who_has_still_to_show_a_token_is_measured_by_the_new_list():
    async with running(scripted(), Tokens([Token("alice", "0" * 64)])) as gateway:
        async with connect(stream_url(gateway)) as socket:
            await eventually(lambda: gateway.connections == 1)
            gateway.tokens = Tokens([Token("alice", DIGEST)])
            await Wire(socket).send(Hello(token=SECRET))
            assert (await Wire(socket).receive())["type"] == "ready"


async def test_a_token_that_expires_meanwhile_asks_for_nothing_more():
    soon = datetime.now(UTC) + timedelta(seconds=3)
    authorized = {"Authorization": f"Bearer {SECRET}"}
    async with running(scripted(Say("x")), Tokens([Token("alice", DIGEST, soon)])) as gateway:
        async with wired(gateway, additional_headers=authorized) as wire:
            while True:
                await wire.send(Generate(id="a", prompt="hi"))
                last = (await wire.until("done", "error"))[-1]
                if last["type"] == "error":
                    break
                await asyncio.sleep(0.05)
            assert (last["code"], last["retryable"]) == ("unauthorized", False)
