"""Who is let in, and who is told what instead, over real sockets."""

import asyncio
import base64
import hashlib
import logging
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.configuration.settings import Settings
from gateway.dialects.native import BEARER_PROTOCOL
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Generate, Hello, Ping
from gateway.server.handshake import MAX_TOLD, UNREAD_SHARE, Handshake
from gateway.server.tokens import Token, Tokens
from provider.scripted import Pause, Say
from tests.support.servers import (
    UPGRADE,
    Wire,
    close_code,
    eventually,
    get,
    running,
    scripted,
    stream_url,
    wired,
)

SECRET = "open sesame"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
BOTH = [Token("other", "0" * 64), Token("alice", DIGEST)]
TOKENS = Tokens(BOTH)


def bearer(secret):
    return BEARER_PROTOCOL + base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


@asynccontextmanager
async def from_page(gateway, origin, **options):
    async with connect(stream_url(gateway), origin=origin, **options) as socket:
        yield socket


@pytest.mark.parametrize("dev", [False, True])
async def test_a_page_of_another_origin_is_told_so_and_served_nothing(dev):
    provider = scripted(Say("x"))
    async with running(provider, dev=dev) as gateway:
        for offered in (None, [JSON_PROTOCOL], [bearer("wrong")]):
            async with from_page(gateway, "http://evil.example", subprotocols=offered) as socket:
                with suppress(ConnectionClosed):
                    await Wire(socket).send(Generate(id="a", prompt="hi"))
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == CloseCode.FORBIDDEN
                assert "start the gateway with `--origins http://evil.ex" in socket.close_reason
        metrics = gateway._generations.metrics
        assert (gateway.connections, sum(metrics.opened.values())) == (0, 0)
        assert metrics.refused == {"4403": 3}
        assert provider.requests == []
        async with from_page(gateway, f"http://127.0.0.1:{gateway.port}") as socket:
            assert (await Wire(socket).receive())["type"] == "ready"


async def test_a_refused_page_is_logged_once_a_minute_with_the_flag_to_add(caplog):
    caplog.set_level(logging.WARNING)
    async with running(scripted(), origins="https://a.example") as gateway:
        for origin in [
            "http://localhost:5173",
            "null",
            "http://localhost:5173",
            "http://b.example",
        ]:
            async with from_page(gateway, origin) as socket:
                await close_code(socket)
    flags = "`--dev` or `--origins https://a.example,http://localhost:5173`"
    first, second, third = [record.getMessage() for record in caplog.records]
    assert (
        first
        == f"refused a page of the origin 'http://localhost:5173'; to let it in, start with {flags}"
    )
    assert "'null'; to let it in, no setting can" in second
    assert "http://b.example" in third


async def test_refused_pages_of_many_origins_are_not_all_logged(caplog):
    caplog.set_level(logging.WARNING)
    handshake = Handshake(Settings(), Tokens())
    told = {handshake.refuse_origin(f"http://{'a' * number}.example") for number in range(1, 200)}
    assert len(caplog.records) == MAX_TOLD
    assert max(len(reason) for reason in told) <= 123


async def test_a_refused_page_counts_against_the_limits_before_it_is_told():
    async with running(scripted(), max_connections_per_address=1) as gateway:
        async with connect(stream_url(gateway)) as first:
            assert (await Wire(first).receive())["type"] == "ready"
            with pytest.raises(InvalidStatus) as caught:
                async with from_page(gateway, "http://evil.example"):
                    pass
            assert caught.value.response.status_code == 429


async def test_in_development_pages_of_this_machine_are_let_in_and_rebinding_is_not():
    async with running(scripted(), dev=True) as gateway:
        for origin in ("http://localhost:5173", "http://127.0.0.1:3000"):
            async with from_page(gateway, origin) as socket:
                assert (await Wire(socket).receive())["type"] == "ready"
        for path in ("/", "/v1/stream", "/healthz"):
            assert (await get(gateway, path, Host="evil.example"))[0] == 403
        name = f"evil.example:{gateway.port}"
        request = UPGRADE.replace("127.0.0.1:{port}", name) + f"Origin: http://{name}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request.encode())
        assert b"403" in (await reader.read()).splitlines()[0]
        writer.close()


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"unix": "a"}, {"host": "box.lan"}])
def test_development_needs_a_gateway_on_loopback(settings):
    with pytest.raises(ValueError, match="must be loopback"):
        Handshake(Settings(dev=True, **settings), Tokens())


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
        async with from_page(gateway, "https://app.example") as socket:
            assert (await Wire(socket).receive())["type"] == "ready"
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
    soon = datetime.now(UTC) + timedelta(hours=1)
    async with running(scripted(Say("x")), Tokens([Token("alice", DIGEST, soon)])) as gateway:
        async with wired(gateway, additional_headers=AUTHORIZED) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await wire.until("done")
            (connection,) = gateway._connections
            connection.token = replace(connection.token, expires=datetime.now(UTC))  # an hour later
            await wire.send(Generate(id="a", prompt="hi"))
            last = (await wire.until("done", "error"))[-1]
            assert (last["code"], last["retryable"]) == ("unauthorized", False)


async def test_answers_that_nobody_reads_are_bounded_for_each_address():
    async with (
        running(scripted(), trusted_proxies="127.0.0.0/8") as gateway,
        AsyncExitStack() as stack,
    ):
        unread, kept = gateway._handshake._unread, []

        async def ask(address):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
            stack.callback(writer.transport.abort)
            kept.append(writer)
            lines = f"GET /screenshot.png HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}"
            writer.write(f"{lines}\r\n\r\n".encode())
            return (await reader.readline()).split()[1]

        assert await ask("1.2.3.4") == b"200"
        size = unread.held
        assert size > 100_000
        most = int(unread.limit * UNREAD_SHARE / size)
        for _ in range(most - 1):
            assert await ask("1.2.3.4") == b"200"
        assert await ask("1.2.3.4") == b"429"
        assert await ask("5.6.7.8") == b"200"
        for writer in kept[:2]:
            writer.transport.abort()
        await eventually(lambda: unread.of_client("1.2.3.4") == (most - 2) * size)
        assert await ask("1.2.3.4") == b"200"
    assert unread.held == 0
