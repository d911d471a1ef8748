"""Limits: how many and how fast, counted and over real sockets."""

import asyncio
import hashlib
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    Ack,
    Cancel,
    Generate,
    Hello,
    Ping,
)
from gateway.server.handshake import MAX_DELAYED, REFUSED_AFTER_S
from gateway.server.rates import Counts, Rate, Rates
from gateway.server.tokens import Token, Tokens
from provider.scripted import Gate, Pause, Prefill, Say, ScriptedProvider
from tests.support.servers import (
    TIMEOUT,
    Wire,
    eventually,
    get,
    running,
    scripted,
    stream_url,
    wired,
)

SECRET = "sesame"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
BEARER = {"Authorization": f"Bearer {SECRET}"}


async def close_code(socket):
    async with asyncio.timeout(TIMEOUT):
        await socket.wait_closed()
    return socket.close_code


def test_counts_keep_nothing_of_keys_that_have_none():
    counts = Counts()
    counts.add("a")
    counts.add("a")
    counts.remove("a")
    assert counts["a"] == 1
    counts.remove("a")
    assert counts["a"] == 0
    counts.add("b", 3)
    counts.remove("b", 3)
    assert not counts._counts


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second():
    rate = Rate(2.0, 10.0, now=100.0)
    assert all(rate.spend(1, 100.0) for _ in range(10))
    assert not rate.spend(1, 100.0)
    assert not rate.spend(1, 100.5)  # what was too much has to be made up for
    assert rate.spend(1, 101.5)
    assert rate.spend(10, 200.0)
    assert not rate.spend(1, 200.0)


def test_each_key_has_a_rate_and_what_is_refused_costs_nothing():
    rates = Rates(2.0, 10.0, now=100.0)
    assert all(rates.spend("a", 1, 100.0) for _ in range(10))
    assert not any(rates.spend("a", 1, 100.0) for _ in range(1000))
    assert rates.spend("b", 1, 100.0)
    assert rates.spend("a", 1, 100.5)
    assert not rates.spend("a", 1, 100.5)


def test_rates_of_keys_that_are_idle_are_forgotten():
    rates = Rates(2.0, 10.0, now=100.0)
    for now in range(100, 200):
        rates.spend("busy", 1, now)
        for key in range(50):
            rates.spend((now, key), 1, now)
        assert len(rates) <= 1 + 50 * 2 * 7  # those of twice the seconds of a burst, and one
    rates.spend("busy", 9, 200)
    assert not rates.spend("busy", 9, 200)  # though its rate was made long ago


def allow_pages(gateway, burst):
    """Let each address have so many plain GETs, and then, as long as a test takes, no more."""
    gateway._handshake._pages = Rates(1e-6, burst, time.monotonic())


async def test_an_address_has_so_many_plain_gets_and_probes_have_no_limit():
    async with running(scripted(), trusted_proxies="127.0.0.0/8") as gateway:
        allow_pages(gateway, 10)
        paths = ["/asyncapi.json", "/v1/stream", "/nowhere"]
        seen = [await get(gateway, paths[n % 3]) for n in range(11)]
        assert [status for status, _, _ in seen[:3]] == [200, 426, 404]
        status, _, headers = seen[-1]
        assert (status, headers["Retry-After"]) == (429, "5")
        assert (await get(gateway, "/healthz"))[0] == (await get(gateway, "/readyz"))[0] == 200
        assert (await get(gateway, "/", **{"X-Forwarded-For": "203.0.113.7"}))[0] == 200
        async with wired(gateway):
            pass


@pytest.mark.parametrize(
    ("tokens", "options", "first"),
    [
        (False, {"origin": "https://elsewhere.example"}, None),
        (True, {"additional_headers": {"Authorization": "Bearer wrong"}}, 401),
        (True, {}, None),  # to be shown in `hello`
    ],
)
async def test_websockets_that_are_not_let_in_count_as_plain_gets(tokens, options, first):
    given = Tokens([Token("a", DIGEST)] if tokens else [])
    async with running(scripted(), given) as gateway:
        allow_pages(gateway, 3)
        seen = [await status_of(gateway, **options) for _ in range(4)]
        assert seen == [first] * 3 + [429]
        shown = {"additional_headers": BEARER} if tokens else {}
        async with wired(gateway, **shown):
            pass


async def test_all_addresses_of_a_home_count_as_one():
    async with running(scripted(), trusted_proxies="127.0.0.0/8") as gateway:
        allow_pages(gateway, 10)

        async def status(address):
            return (await get(gateway, "/", **{"X-Forwarded-For": address}))[0]

        homes = [await status(f"2001:db8:0:1::{number:x}") for number in range(11)]
        assert homes == [200] * 10 + [429]
        assert await status("2001:db8:0:2::1") == 200
        mapped = [await status("::ffff:203.0.113.7") for _ in range(10)]
        assert mapped == [200] * 10
        assert await status("203.0.113.7") == 429


async def test_one_get_too_many_waits_before_it_is_refused_and_others_do_not():
    async with running(scripted()) as gateway:
        allow_pages(gateway, 0)
        begin = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 429 ")
        assert time.monotonic() - begin >= REFUSED_AFTER_S
        writer.close()
        assert gateway._handshake._delayed == 0
        gateway._handshake._delayed = MAX_DELAYED
        async with asyncio.timeout(TIMEOUT):
            await gateway._handshake.delay()
        assert gateway._handshake._delayed == MAX_DELAYED, "it did not wait"


async def test_an_answer_that_is_abandoned_while_it_is_delayed_is_not_counted():
    async with running(scripted()) as gateway:
        allow_pages(gateway, 0)
        handshake = gateway._handshake
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: handshake._delayed == 1)
        writer.transport.abort()
        await eventually(lambda: handshake._delayed == 0)
        await eventually(lambda: not handshake._unread.held)


async def status_of(gateway, **options):
    """Return the status with which a WebSocket is refused, None if it is made."""
    try:
        async with connect(stream_url(gateway), **options):
            return None
    except InvalidStatus as error:
        return error.response.status_code


async def refused(gateway, **options):
    with pytest.raises(InvalidStatus) as caught:
        async with connect(stream_url(gateway), **options):
            pass
    response = caught.value.response
    return response.status_code, response.headers.get("Retry-After")


async def test_one_connection_too_many_is_refused_until_another_ends():
    async with running(scripted(), max_connections=2) as gateway:
        async with wired(gateway):
            async with wired(gateway):
                assert await refused(gateway) == (503, "5")
            await eventually(lambda: gateway.connections == 1)
            async with wired(gateway):
                pass


async def test_an_address_has_its_own_limit_behind_a_trusted_proxy_and_only_there():
    far = {"additional_headers": {"X-Forwarded-For": "203.0.113.7"}}
    lies = {"additional_headers": {"X-Forwarded-For": "203.0.113.7, 203.0.113.8"}}
    options = {"max_connections_per_address": 1, "trusted_proxies": "127.0.0.0/8"}
    async with running(scripted(), **options) as gateway:
        async with wired(gateway, **far), wired(gateway), wired(gateway, **lies):
            assert await refused(gateway, **far) == (429, "5")
            assert await refused(gateway) == (429, "5")
    async with running(scripted(), max_connections_per_address=1) as gateway, wired(gateway):
        assert (await refused(gateway, **far))[0] == 429


@pytest.mark.parametrize("own", [None, 1])
async def test_a_token_has_its_own_limit(own):
    tokens = Tokens([Token("alice", DIGEST, max_connections=own)])
    limit = {} if own else {"max_connections_per_token": 1}
    async with running(scripted(), tokens, **limit) as gateway:
        async with wired(gateway, additional_headers=BEARER):
            assert await refused(gateway, additional_headers=BEARER) == (429, "5")
            async with connect(stream_url(gateway)) as socket:
                await Wire(socket).send(Hello(token=SECRET))
                assert await close_code(socket) == CloseCode.TOO_MANY
        await eventually(lambda: gateway.connections == 0)
        async with wired(gateway, additional_headers=BEARER):
            pass


async def test_too_many_generations_with_one_token_or_in_all_may_be_asked_for_later():
    provider = scripted(Pause(3600))
    tokens = Tokens([Token("alice", DIGEST, max_generations=2)])
    both = {"additional_headers": BEARER}
    async with running(provider, tokens) as gateway:
        async with wired(gateway, **both) as first, wired(gateway, **both) as second:
            for frame_id in "ab":
                await first.send(Generate(id=frame_id, prompt="x"))
            await eventually(lambda: len(provider.live) == 2)
            await second.send(Generate(id="c", prompt="x"))
            error = await second.receive()
            assert (error["code"], error["retry_after"]) == ("rate_limited", 1.0)
            for frame_id in "ab":
                await first.send(Cancel(id=frame_id))
            await eventually(lambda: not provider.live)
            await second.send(Generate(id="d", prompt="x", n=3))
            error = await second.receive()
            assert (error["id"], error["code"]) == ("d", "invalid_request")
            assert error["message"].startswith("`$.n`: must be at most 2")
            await second.send(Generate(id="e", prompt="x", n=2))
            await eventually(lambda: len(provider.live) == 1)
            await first.send(Generate(id="f", prompt="x"))
            assert (await first.until("error"))[-1]["code"] == "rate_limited"
    async with running(provider, max_generations_in_all=1) as gateway:
        async with wired(gateway) as first, wired(gateway) as second:
            await first.send(Generate(id="a", prompt="x"))
            await eventually(lambda: len(provider.live) == 1)
            await second.send(Generate(id="a", prompt="x"))
            error = await second.receive()
            assert (error["code"], error["retryable"]) == ("overloaded", True)
            await first.socket.close()
            await eventually(lambda: not provider.live)
            await second.send(Generate(id="a", prompt="x"))
            assert (await second.receive())["type"] == "started"


async def test_answers_and_prompts_have_a_longest():
    provider = scripted(Prefill(1, 5), Say("x"))
    options = {"max_answer_tokens": 10, "max_prompt_tokens": 1}
    async with running(provider, **options) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="x", max_tokens=11))
        error = await wire.receive()
        assert error["code"] == "invalid_request"
        assert error["message"].startswith("`$.max_tokens`")
        await wire.send(Generate(id="a", prompt="two words", max_tokens=10))
        error = (await wire.until("error"))[-1]
        assert error["code"] == "context_too_long"
        await wire.send(Generate(id="a", prompt="word"))
        assert (await wire.until("done"))[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(("config", "words"), [({}, 3), ({"max_tokens": 2}, 2)])
async def test_who_names_no_length_gets_no_longer_answer_than_may_be(config, words):
    provider = ScriptedProvider(config, script=[Say("a b c d e")], tokens_per_second=None)
    async with running(provider, max_answer_tokens=3) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="x", stream=False))
        *_, done = await wire.until("done")
    assert (done["finish_reason"], len(done["text"].split())) == ("length", words)


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_a_frame_is_nested_so_deep_and_no_deeper(protocol):
    def tools(depth):
        schema = {}
        for _ in range(depth - 3):  # in a list, in a tool
            schema = {"not": schema}
        return [{"name": "f", "parameters": schema}]

    async with running(scripted(Say("x")), max_depth=10) as gateway:
        async with wired(gateway, protocol) as wire:
            await wire.send(Generate(id="a", prompt="x", tools=tools(40)))
            error = await wire.receive()
            assert (error["id"], error["code"]) == ("a", "invalid_request")
            assert error["message"] == "`$.tools`: nested deeper than 10"
            await wire.send(Generate(id="a", prompt="x", tools=tools(10)))
            assert (await wire.until("done", "error"))[-1]["type"] == "done"


@pytest.mark.parametrize("limit", [{"frame_rate": 2.0}, {"rate_bytes": 1024}])
async def test_who_sends_too_fast_is_cut_off_and_told(limit):
    async with running(scripted(), **limit) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            for _ in range(25):
                await wire.send(Generate(id="a", prompt="x" * 800))
            with pytest.raises(ConnectionClosed):
                while True:
                    await wire.receive()
            assert await close_code(wire.socket) == CloseCode.TOO_MANY
            await other.send(Ping(nonce="n"))
            assert (await other.receive())["nonce"] == "n"


async def test_a_generation_has_its_time_and_ends_with_what_it_has():
    provider = scripted(Say("so far"), Pause(3600))
    async with running(provider, generation_timeout_s=0.2) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="x"))
        *_, done = await wire.until("done", "error")
        assert (done["type"], done["finish_reason"]) == ("done", "length")
        await eventually(lambda: not provider.live)


async def test_a_client_that_lets_the_time_run_out_is_told_that_it_was_slow():
    provider = scripted(Say("word " * 100))
    async with running(provider, generation_timeout_s=0.2) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="x", window=1))
        await eventually(lambda: provider.requests and not provider.live)
        frames = [await wire.receive()]
        while frames[-1]["type"] != "error":
            await wire.send(Ack(id="a", seq=frames[-1]["seq"]))
            frames.append(await wire.receive())
        assert (frames[-1]["code"], frames[-1]["retryable"]) == ("slow_client", True)


async def test_an_idle_connection_is_closed_if_that_is_set():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate)), idle_timeout_s=0.6) as gateway:
        async with wired(gateway) as busy:
            await busy.send(Generate(id="a", prompt="x"))
            async with wired(gateway) as wire:
                assert await close_code(wire.socket) == CloseCode.NORMAL
            gate.set()
            assert (await busy.until("done"))[-1]["finish_reason"] == "stop"
            assert await close_code(busy.socket) == CloseCode.NORMAL
