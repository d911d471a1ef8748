"""Who is let in, and who is told what instead, over real sockets."""

import asyncio
import base64
import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.configuration.settings import Settings
from gateway.dialects.native import BEARER_PROTOCOL
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Generate, Hello, Ping
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import TIMEOUT, Wire, eventually, get, running, stream_url, wired

SECRET = "open sesame"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
BOTH = [Token("other", "0" * 64), Token("alice", DIGEST)]
TOKENS = Tokens(BOTH)


def scripted(*script):
    return ScriptedProvider(script=script, tokens_per_second=None)


def bearer(secret):
    return BEARER_PROTOCOL + base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


async def close_code(socket):
    async with asyncio.timeout(TIMEOUT):
        await socket.wait_closed()
    return socket.close_code


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


async def test_plain_gets_are_answered():
    async with running(scripted()) as gateway:
        status, body, headers = await get(gateway, "/")
        assert status == 200
        assert b"<!doctype html>" in body
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert (await get(gateway, "/healthz?x=1"))[0] == 200
        assert (await get(gateway, "/nope"))[0] == 404
        status, body, headers = await get(gateway, "/v1/stream")
        assert (status, headers["Upgrade"]) == (426, "websocket")
        assert b"/protocol" in body


@pytest.mark.parametrize("headers", ["", "Host: localhost\r\nHost: localhost\r\n"])
async def test_no_host_and_two_hosts_are_refused(headers):
    async with running(scripted()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"GET / HTTP/1.1\r\n{headers}\r\n".encode())
        assert b"403" in (await reader.read()).splitlines()[0]
        writer.close()


async def test_other_methods_are_refused_and_head_has_no_body():
    async with running(scripted()) as gateway:
        for method, status in (("HEAD", b"200"), ("DELETE", b"405")):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert status in head.splitlines()[0]
            assert body == b"" or method != "HEAD"
            writer.close()


async def test_listed_pages_and_names_are_let_in():
    options = {"origins": "https://app.example", "hosts": "chat.example"}
    async with running(scripted(), **options) as gateway:
        async with connect(stream_url(gateway), origin="https://app.example"):
            pass
        assert (await get(gateway, "/healthz", Host="chat.example:8765"))[0] == 200
        assert (await get(gateway, "/healthz", Host="evil.example"))[0] == 403


# Other ways to listen. --------------------------------------------------------------------------


async def test_tls_and_a_new_certificate_without_a_restart(tmp_path):
    authority, later = trustme.CA(), trustme.CA()
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}

    def write(of):
        issued = of.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(files["tls_cert"])
        issued.private_key_pem.write_to_path(files["tls_key"])

    async def greet(gateway, trusted):
        context = ssl.create_default_context()
        trusted.configure_trust(context)
        url = stream_url(gateway).replace("ws:", "wss:")
        async with connect(url, ssl=context) as socket:
            return (await Wire(socket).receive())["type"]

    write(authority)
    async with running(scripted(), **files) as gateway:
        assert gateway.url.startswith("https://")
        assert await greet(gateway, authority) == "ready"
        write(later)
        gateway.renew_certificate()
        assert await greet(gateway, later) == "ready"
        with pytest.raises(ssl.SSLError):
            await greet(gateway, authority)


def test_a_certificate_that_cannot_be_read_is_an_error_before_listening(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Gateway(scripted(), Settings(tls_cert=str(tmp_path / "none.pem")))
    with pytest.raises(ValueError, match="`tls_key` without `tls_cert`"):
        Gateway(scripted(), Settings(tls_key="key.pem"))


async def test_a_socket_file_is_listened_on_and_taken_away(tmp_path):
    path = tmp_path / "gateway.sock"
    async with running(scripted(Say("x")), unix=str(path)) as gateway:
        assert gateway.url == f"unix:{path}"
        async with unix_connect(str(path), uri="ws://chat.example/v1/stream") as socket:
            wire = Wire(socket)
            assert (await wire.receive())["type"] == "ready"
            await wire.send(Generate(id="a", prompt="hi"))
            assert (await wire.until("done"))[-1]["finish_reason"] == "stop"
    assert not path.exists()


async def test_messages_are_compressed_for_who_asks_if_that_is_set():
    for compression in (False, True):
        async with running(scripted(), compression=compression) as gateway:
            async with connect(stream_url(gateway), compression="deflate") as socket:
                assert bool(socket.protocol.extensions) is compression


# Tokens. ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("first", [Hello(token="wrong"), Hello(), Ping(), "nonsense frame"])
async def test_a_first_frame_without_the_token_ends_the_connection(first):
    async with running(scripted(), TOKENS) as gateway, connect(stream_url(gateway)) as socket:
        if isinstance(first, str):
            await socket.send('{"type": "nonsense"}')
        else:
            await Wire(socket).send(first)
        assert await close_code(socket) == CloseCode.NOT_AUTHENTICATED
        with pytest.raises(ConnectionClosed):
            await socket.recv()  # no `ready` came before


async def test_a_wrong_token_among_the_subprotocols_is_told_by_a_close_code():
    """A browser can read a close code, but no HTTP status."""
    async with running(scripted(), TOKENS) as gateway:
        for offer in (bearer("wrong"), f"{BEARER_PROTOCOL}!!"):
            async with connect(stream_url(gateway), subprotocols=[JSON_PROTOCOL, offer]) as socket:
                assert await close_code(socket) == CloseCode.NOT_AUTHENTICATED


async def test_no_hello_in_time_and_what_is_no_frame_have_their_own_codes():
    async with running(scripted(), TOKENS, hello_timeout_s=0.5) as gateway:
        async with connect(stream_url(gateway)) as socket:
            assert await close_code(socket) == CloseCode.NO_HELLO
        async with connect(stream_url(gateway)) as socket:
            await socket.send("{")
            assert await close_code(socket) == CloseCode.NOT_A_FRAME


async def test_an_expired_token_is_no_token():
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with running(scripted(), Tokens([Token("alice", DIGEST, past)])) as gateway:
        with pytest.raises(InvalidStatus):
            async with connect(
                stream_url(gateway), additional_headers={"Authorization": f"Bearer {SECRET}"}
            ):
                pass


async def test_what_is_served_is_said_to_those_with_a_token_only():
    async with running(scripted(), TOKENS) as gateway:
        assert (await get(gateway, "/v1/models"))[0] == 401
        authorized = {"Authorization": f"Bearer {SECRET}"}
        assert (await get(gateway, "/v1/models", **authorized))[0] == 200
        for path in ("/", "/client.js", "/healthz", "/readyz", "/protocol"):
            assert (await get(gateway, path))[0] == 200


async def test_new_tokens_take_the_place_of_the_old_ones():
    provider = scripted(Say("x"), Pause(3600))
    authorized = {"Authorization": f"Bearer {SECRET}"}
    bob = Token("bob", hashlib.sha256(b"new").hexdigest())
    tokens = Tokens([*BOTH, bob])
    async with running(provider, tokens) as gateway:
        async with (
            wired(gateway, additional_headers=authorized) as alice,
            wired(gateway, additional_headers={"Authorization": "Bearer new"}) as other,
        ):
            await alice.send(Generate(id="a", prompt="hi"))
            await alice.until("chunk")
            gateway.tokens = Tokens([bob])
            assert await close_code(alice.socket) == CloseCode.NOT_AUTHENTICATED
            await eventually(lambda: not provider.live)
            await other.send(Ping(nonce="n"))
            assert (await other.receive())["nonce"] == "n"
        assert (await get(gateway, "/v1/models", **authorized))[0] == 401
        assert (await get(gateway, "/v1/models", Authorization="Bearer new"))[0] == 200


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
