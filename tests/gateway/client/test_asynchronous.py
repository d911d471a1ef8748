import asyncio
import hashlib
import itertools
import json
import math
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import serve as listen
from websockets.exceptions import InvalidStatus

from gateway.client import (
    ConnectionLostError,
    GatewayClient,
    GatewayError,
    UnauthorizedError,
    connect,
)
from gateway.client.asynchronous import FIRST_PAUSE_S, MAX_PAUSE_S, WINDOW, pauses
from gateway.configuration.settings import Settings
from gateway.dialects.native import codec_for, server_frame
from gateway.protocol.codes import CloseCode, NotAFrame
from gateway.protocol.frames import (
    JOINED_PROTOCOL,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    Chunk,
    Generate,
    Ready,
    ToolCall,
)
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens
from provider import MLXProvider
from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Pause, Reason, Say, ScriptedProvider
from tests.support.proxy import proxied
from tests.support.servers import TIMEOUT, eventually, running, scripted, stream_url


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL, JOINED_PROTOCOL])
async def test_chunks_then_done(protocol):
    async with running(scripted(Say("a b"), Call("add", {}))) as gateway:
        async with connect(stream_url(gateway), protocol) as client:
            assert client.ready.models == ["scripted"]
            async with client.generate(prompt="hi") as run:
                text = "".join([chunk.text async for chunk in run])
            assert text == "a b"
            assert run.done.finish_reason == "tool_calls"
            assert run.started.model == "scripted"
            assert [call.name for call in run.tool_calls] == ["add"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_parts_of_a_call_are_put_together(stream):
    arguments = {"to": "Bralume", "text": "a b c"}
    script = [Say("Now."), Call("send", arguments), Call("add", {})]
    async with running(scripted(*script)) as gateway, connect(stream_url(gateway)) as client:
        run = client.generate(prompt="hi", stream=stream)
        parts = [frame async for frame in run.frames() if isinstance(frame, ToolCall)]
        assert bool(parts) == stream
        assert [call.name for call in run.tool_calls] == ["send", "add"]
        assert json.loads(run.tool_calls[0].arguments) == arguments
        assert run.broken_calls == []


@pytest.mark.parametrize("stream", [True, False])
async def test_several_answers_are_told_apart(stream):
    provider = MLXProvider({"max_tokens": 12, "temperature": 1.2, "seed": 1})
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = client.generate(prompt="Tell me a story", n=3, stream=stream)
        done = await run.result()
        assert sorted(run.others) == [1, 2]
        assert len({run.text, *run.others.values()}) == 3
        assert [one["finish_reason"] for one in done.choices] == ["length"] * 3
        assert done.usage.completion_tokens == 36
    await provider.aclose()


async def test_leaving_the_block_cancels():
    provider = scripted(Say("a b c"), Pause(3600))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        async with client.generate(prompt="hi") as run:
            async for _ in run:
                break
        assert run.done.finish_reason == "cancelled"
        assert not provider.live


async def test_leaving_the_loop_cancels_too():
    provider = scripted(Say("a b c"), Pause(3600))
    async with running(provider) as gateway, GatewayClient(stream_url(gateway)) as client:
        async for chunk in client.generate(prompt="hi"):
            assert chunk.text == "a "
            break
        await eventually(lambda: provider.requests and not provider.live)
        await eventually(lambda: client._runs == {})


async def test_leaving_the_client_does_not_wait_for_a_gateway_that_reads_nothing():
    async with running(scripted()) as gateway, proxied(gateway) as proxy:
        client = connect(proxy.url, close_timeout_s=0.1)
        await client.__aenter__()
        socket = client._socket
        proxy.stall()
        sending = asyncio.create_task(client.ping("x" * 16_000_000))
        await eventually(lambda: socket.paused)
        leaving = asyncio.create_task(client.__aexit__())
        _, pending = await asyncio.wait([leaving], timeout=TIMEOUT / 4)
        socket.transport.abort()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        assert not pending


@asynccontextmanager
async def reading_nothing():
    """Serve connections that get `ready`, and then read nothing more; yield the address."""
    leaving = asyncio.Event()
    ready = Ready(protocol="", server="", epoch="", connection="", models=["m"], limits={})

    async def serve(socket):
        await socket.recv()
        await socket.send(codec_for(JSON_PROTOCOL).encode(ready), text=True)
        socket.transport.pause_reading()
        await leaving.wait()
        socket.transport.abort()

    async with listen(serve, "127.0.0.1", 0, subprotocols=[JSON_PROTOCOL]) as server:
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            leaving.set()


async def entered(run):
    async with run:
        await run.result()


async def test_no_generation_waits_for_a_gateway_that_reads_nothing():
    async with reading_nothing() as url:
        async with connect(url, write_timeout_s=0.5, close_timeout_s=0.1, give_up_s=0) as client:
            socket = client._socket
            large = asyncio.create_task(client.generate(prompt="x" * 16_000_000).result())
            await eventually(lambda: socket.paused)
            small = asyncio.create_task(entered(client.generate(prompt="hi")))
            done, _ = await asyncio.wait([large, small], timeout=TIMEOUT / 4)
            for task in (large, small):
                task.cancel()
            ends = await asyncio.gather(large, small, return_exceptions=True)
            assert len(done) == 2
            assert [type(end) for end in ends] == [ConnectionLostError] * 2


async def test_a_generation_left_while_the_gateway_reads_nothing_ends_too():
    """The frame that fills the socket is cancelled, so no write waits any more."""
    async with reading_nothing() as url:
        async with connect(url, write_timeout_s=0.5, close_timeout_s=0.1, give_up_s=0) as client:
            waiting, socket = client.generate(prompt="hi"), client._socket
            async with asyncio.timeout(TIMEOUT / 4):
                with pytest.raises(ConnectionLostError):
                    async with waiting:
                        large = asyncio.create_task(client.ping("x" * 16_000_000))
                        await eventually(lambda: socket.paused)
                        large.cancel()
                        await waiting.result()


async def test_two_runs_on_one_connection_keep_apart():
    provider = ScriptedProvider(script=lambda r: [Say(r.prompt)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:

        async def ask(prompt):
            async with client.generate(prompt=prompt) as run:
                return "".join([chunk.text async for chunk in run])

        assert await asyncio.gather(ask("one"), ask("two")) == ["one", "two"]


async def test_an_id_that_another_run_has_is_refused_and_that_run_goes_on():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate), Say("y"))) as gateway:
        async with connect(stream_url(gateway)) as client, asyncio.timeout(TIMEOUT):
            async with client.generate(id="a", prompt="hi") as run:
                second = client.generate(id="a", prompt="hi")
                for _ in range(2):
                    with pytest.raises(GatewayError, match="already running") as caught:
                        await second.result()
                    assert caught.value.code == "duplicate_id"
                    await client.leave(second)
                gate.set()
                await run.result()
                assert run.text == "xy"
            await second.result()
            assert second.text == "xy"


async def test_an_error_is_raised_with_its_code():
    async with running(scripted(Say("x"), Fail(GenerationError("broken")))) as gateway:
        async with connect(stream_url(gateway)) as client, client.generate(prompt="hi") as run:
            with pytest.raises(GatewayError, match="broken") as caught:
                async for _ in run:
                    pass
    assert (caught.value.code, caught.value.retryable) == ("model_error", False)


async def test_a_lost_connection_is_an_error_of_its_own():
    async with running(scripted(Say("x"), Pause(3600))) as gateway:
        connecting = connect(stream_url(gateway), give_up_s=0)
        async with connecting as client, client.generate(prompt="hi", resumable=False) as run:
            with pytest.raises(ConnectionLostError):
                async for _ in run:
                    client._socket.transport.abort()


async def test_a_request_too_large_for_the_gateway_is_refused_before_it_ends_the_connection():
    async with (
        running(scripted(Say("hi")), max_frame_bytes=4096) as gateway,
        connect(stream_url(gateway)) as client,
    ):
        with pytest.raises(GatewayError, match="takes at most 4,096") as caught:
            await client.generate(prompt="x" * 5000).result()
        assert caught.value.code == "invalid_request"
        assert (await client.generate(prompt="x").result()).finish_reason == "stop"
        assert client.connections == 1


class Counting:
    """A codec that counts what it encodes."""

    def __init__(self, codec):
        self._codec = codec
        self.encoded = Counter()

    def encode(self, frame):
        self.encoded[type(frame)] += 1
        return self._codec.encode(frame)

    def __getattr__(self, name):
        return getattr(self._codec, name)


async def test_a_request_is_encoded_once():
    async with running(scripted(Say("hi"))) as gateway, connect(stream_url(gateway)) as client:
        client._codec = counting = Counting(client._codec)
        await client.generate(prompt="x" * 5000).result()
        assert counting.encoded[Generate] == 1


async def test_a_ping_is_answered_in_order():
    async with running(scripted()) as gateway, connect(stream_url(gateway)) as client:
        await client.ping("n")


async def test_a_token_is_shown_and_its_absence_is_an_error_of_its_own():
    tokens = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])
    async with running(scripted(Say("x")), tokens) as gateway:
        async with connect(stream_url(gateway), token="sesame") as client:
            assert client.ready.models == ["scripted"]
        for token in (None, "wrong"):
            with pytest.raises(UnauthorizedError):
                async with connect(stream_url(gateway), token=token):
                    pass


async def test_a_generation_goes_on_over_a_new_connection():
    gate = asyncio.Event()
    provider = scripted(Reason("hm"), Say("a b"), Gate(gate), Say(" c"))
    async with running(provider) as gateway, proxied(gateway) as proxy:
        async with connect(proxy.url) as client, client.generate(prompt="hi") as run:
            got = []
            async for chunk in run:
                got.append((chunk.channel, chunk.text))
                if len(got) == 2:
                    proxy.cut()
                    gate.set()
            assert (run.text, run.reasoning) == ("a b c", "hm")
            assert "".join(text for channel, text in got if channel is None) == "a b c"
            assert (client.connections, client.resumed) == (2, 1)
    assert len(provider.requests) == 1


async def test_a_client_that_comes_back_names_the_gateway_that_has_its_generation():
    gate = asyncio.Event()
    script = [Say("x"), Gate(gate), Say("y")]
    async with running(scripted(*script), node="one.local") as gateway, proxied(gateway) as proxy:
        async with connect(proxy.url) as client, client.generate(prompt="hi") as run:
            await eventually(lambda: run.text)
            assert client.ready.node == "one.local"
            assert "node" not in client._socket.request.path
            proxy.cut()
            gate.set()
            await run.result()
            assert run.text == "xy"
            assert client._socket.request.path.endswith("?node=one.local")


async def test_a_gateway_that_was_started_anew_knows_no_tickets():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as first:
        async with connect(stream_url(first)) as client, client.generate(prompt="hi") as run:
            async for _ in run:
                break
            epoch, port = client.ready.epoch, first.port
            await first.close()
            async with Gateway(provider, Settings(port=port)):
                assert (await run.result()).finish_reason == "cancelled"  # told before the end
                async with client.generate(prompt="hi") as again:
                    async for chunk in again:
                        assert chunk.text == "x"
                        break
                assert client.ready.epoch != epoch


async def test_a_generation_left_while_there_is_no_connection_is_cancelled_after_all():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, proxied(gateway) as proxy:
        there = proxy.port
        async with connect(proxy.url) as client:
            async with client.generate(prompt="hi", window=1) as run:
                async for _ in run:
                    break
                proxy.port = 9  # nobody is there, until the run has been left
                proxy.cut()
                await eventually(lambda: client._socket is None)
            proxy.port = there
            await eventually(lambda: not provider.live)
            await eventually(lambda: client._runs == {})


async def test_generations_give_up_a_gateway_that_stays_away_and_the_client_does_not():
    provider = scripted(Say("x"), Pause(3600))
    states = []
    async with running(provider) as gateway, proxied(gateway) as proxy:
        there = proxy.port
        options = {"give_up_s": 0.3, "on_state": lambda *state: states.append(state)}
        async with connect(proxy.url, **options) as client:
            async with client.generate(prompt="hi") as run:
                async for _ in run:
                    proxy.port = 9  # nobody is there
                    proxy.cut()
                    break
                with pytest.raises(ConnectionLostError, match=r"no connection for 0\.3 s"):
                    await run.result()
            unsent = client.generate(prompt="hi")
            with pytest.raises(ConnectionLostError, match=r"no connection for 0\.3 s"):
                await unsent.result()
            assert (client.state, client._runs) == ("waiting", {})
            proxy.port = there
            await eventually(lambda: client.state == "open")
            async for chunk in unsent:
                assert chunk.text == "x"
                break
        assert [state for state, _ in states] == ["open", "waiting", "open", "closed"]
        assert "the connection was lost" in states[1][1]
    assert len(provider.requests) == 2


async def test_a_generation_waits_for_a_gateway_that_is_away_for_a_while():
    provider = scripted(Say("x"))
    async with running(provider) as gateway, proxied(gateway) as proxy:
        there = proxy.port
        async with connect(proxy.url) as client:
            proxy.port = 9
            proxy.cut()
            await eventually(lambda: client.state == "waiting")
            waiting = asyncio.create_task(client.generate(prompt="hi").result())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            proxy.port = there
            assert (await waiting).finish_reason == "stop"
    assert len(provider.requests) == 1


async def test_a_generation_cancelled_while_it_waits_for_a_connection_is_cancelled_there():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, proxied(gateway) as proxy:
        there = proxy.port
        async with connect(proxy.url) as client:
            proxy.port = 9
            proxy.cut()
            await eventually(lambda: client.state == "waiting")
            run = client.generate(prompt="hi")
            waiting = asyncio.create_task(run.result())
            await eventually(lambda: run.started_here)
            await run.cancel()
            proxy.port = there
            async with asyncio.timeout(TIMEOUT):
                assert (await waiting).finish_reason == "cancelled"
            await eventually(lambda: not provider.live)
            assert client._to_cancel == set()


async def test_a_generation_cancelled_while_it_waits_in_vain_is_forgotten():
    async with running(scripted(Say("x"))) as gateway, proxied(gateway) as proxy:
        there = proxy.port
        async with connect(proxy.url, give_up_s=0.1) as client:
            proxy.port = 9
            proxy.cut()
            await eventually(lambda: client.state == "waiting")
            run = client.generate(prompt="hi")
            waiting = asyncio.create_task(run.result())
            await eventually(lambda: run.started_here)
            await run.cancel()
            with pytest.raises(ConnectionLostError, match="no connection"):
                await waiting
            proxy.port = there
            await eventually(lambda: client.state == "open")
            assert client._to_cancel == set()
            assert (await run.result()).finish_reason == "stop"


async def test_a_first_connection_waits_for_a_gateway_that_starts_later(tmp_path):
    states, file = [], str(tmp_path / "socket")
    options = {"wait_s": TIMEOUT, "on_state": lambda *state: states.append(state)}
    client = connect(f"unix:{file}", **options)
    entering = asyncio.create_task(client.__aenter__())
    await eventually(lambda: states)
    assert (states[0][0], client.connections) == ("waiting", 0)
    assert "no connection yet" in states[0][1]
    async with running(scripted(Say("a b")), unix=file):
        assert await asyncio.wait_for(entering, TIMEOUT) is client
        run = client.generate(prompt="hi")
        await run.result()
        await client.__aexit__()
    assert (run.text, client.connections) == ("a b", 1)
    assert [state for state, _ in states[-2:]] == ["open", "closed"]


async def test_a_gateway_behind_a_proxy_that_is_there_before_it_is_waited_for():
    """Such as that of a container whose program is starting: it accepts and closes at once."""
    states = []
    options = {"wait_s": math.inf, "on_state": lambda *state: states.append(state)}
    async with running(scripted()) as gateway, proxied(gateway) as proxy:
        there, proxy.port = proxy.port, 9  # nobody is there
        entering = asyncio.create_task(connect(proxy.url, **options).__aenter__())
        await eventually(lambda: states)
        proxy.port = there
        client = await asyncio.wait_for(entering, TIMEOUT)
        assert client.state == "open"
        await client.__aexit__()


@pytest.mark.parametrize("wait_s", [0.0, 0.2])
async def test_a_gateway_that_does_not_come_in_time_is_the_error_of_the_last_attempt(
    tmp_path, wait_s
):
    states = []
    options = {"wait_s": wait_s, "on_state": lambda state, reason: states.append(state)}
    client = connect(f"unix:{tmp_path / 'socket'}", **options)
    with pytest.raises(FileNotFoundError):
        await client.__aenter__()
    assert client.state == "closed"
    assert set(states) == ({"waiting", "closed"} if wait_s else set())


@pytest.mark.parametrize(
    ("status", "tries"), [(HTTPStatus.SERVICE_UNAVAILABLE, 2), (HTTPStatus.NOT_FOUND, 1)]
)
async def test_only_an_answer_that_may_change_is_waited_for(status, tries):
    asked = []

    def refuse(socket, request):
        asked.append(request.path)
        return socket.respond(status if len(asked) == 1 else HTTPStatus.FORBIDDEN, "")

    async with listen(None, "127.0.0.1", 0, process_request=refuse) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(InvalidStatus):
            await connect(url, wait_s=math.inf).__aenter__()
    assert len(asked) == tries


async def test_a_gateway_that_refuses_the_token_is_not_waited_for():
    tokens = Tokens([Token("alice", hashlib.sha256(b"secret").hexdigest())])
    async with running(scripted(), tokens) as gateway:
        for token in (None, "wrong"):
            with pytest.raises(UnauthorizedError):
                await connect(stream_url(gateway), token=token, wait_s=math.inf).__aenter__()


def test_the_pauses_between_attempts_have_a_bound_and_no_end():
    """The ten thousandth attempt comes after seven hours."""
    asked = list(itertools.islice(pauses(), 10_000))
    assert asked[0] <= FIRST_PAUSE_S
    assert MAX_PAUSE_S / 2 < max(asked) <= MAX_PAUSE_S


@asynccontextmanager
async def saying_nothing():
    """Serve connections that get no `ready`; yield the address."""
    leaving = asyncio.Event()

    async def serve(socket):
        await leaving.wait()

    async with listen(serve, "127.0.0.1", 0, subprotocols=[JSON_PROTOCOL]) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            leaving.set()


async def test_the_cookies_of_a_load_balancer_are_shown_when_the_client_comes_back():
    shown = []
    ready = Ready(protocol="", server="", epoch="", connection="", models=["m"], limits={})

    def mark(connection, request, response):
        shown.append(request.headers.get("Cookie"))
        for cookie in (f"gateway={len(shown)}; HttpOnly", "zone=a"):
            response.headers["Set-Cookie"] = cookie

    async def serve(socket):
        await socket.recv()
        await socket.send(codec_for(JSON_PROTOCOL).encode(ready), text=True)
        if len(shown) < 3:
            await socket.close(CloseCode.RESTART)
        await socket.wait_closed()

    options = {"subprotocols": [JSON_PROTOCOL], "process_response": mark}
    async with listen(serve, "127.0.0.1", 0, **options) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(url):
            await eventually(lambda: len(shown) >= 3)
    assert shown[:3] == [None, "gateway=1; zone=a", "gateway=2; zone=a"]


async def test_a_client_that_is_refused_for_good_when_it_comes_back_does_not_try_again():
    connections = []
    ready = Ready(protocol="", server="", epoch="", connection="", models=["m"], limits={})

    async def serve(socket):
        connections.append(socket)
        await socket.recv()
        if len(connections) > 1:
            await socket.close(CloseCode.FORBIDDEN, "not from here")
            return
        await socket.send(codec_for(JSON_PROTOCOL).encode(ready), text=True)
        await socket.close(CloseCode.RESTART)

    async with listen(serve, "127.0.0.1", 0, subprotocols=[JSON_PROTOCOL]) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(url) as client:
            await eventually(lambda: client.state == "closed")
            with pytest.raises(ConnectionLostError, match=r"refused for good: .*not from here"):
                await client.generate(prompt="hi").result()
    assert len(connections) == 2


async def test_a_gateway_that_says_nothing_is_not_waited_for():
    async with saying_nothing() as url, asyncio.timeout(TIMEOUT / 4):
        with pytest.raises(TimeoutError):
            async with connect(url, open_timeout_s=0.2):
                pass


async def test_another_client_follows_a_generation_over_a_new_connection_too():
    gate = asyncio.Event()
    provider = scripted(Say("a b"), Gate(gate), Say(" c"))
    async with running(provider) as gateway, proxied(gateway) as proxy:
        async with connect(stream_url(gateway)) as client, connect(proxy.url) as other:
            run = client.generate(prompt="hi")
            reading = asyncio.create_task(run.result())
            await eventually(lambda: run.ticket)
            follower, got = other.follow(run.ticket, window=2), []
            async for chunk in follower:
                got.append(chunk.text)
                if len(got) == 2:
                    proxy.cut()
                    gate.set()
            done = await reading
            assert ("".join(got), follower.text) == ("a b c", run.text)
            assert (follower.done.seq, follower.done.usage) == (done.seq, done.usage)
            assert (other.connections, other.resumed) == (2, 1)


async def test_a_ticket_of_another_gateway_is_followed_on_a_connection_of_its_own():
    """The gateway stands for both, since a load balancer alone would tell them apart."""
    gate = asyncio.Event()
    async with running(scripted(Say("a"), Gate(gate), Say(" b")), node="one") as gateway:
        async with connect(gateway.url) as client, connect(gateway.url) as other:
            run = client.generate(prompt="hi")
            reading = asyncio.create_task(run.result())
            await eventually(lambda: run.ticket)
            other.ready = replace(other.ready, node="two")  # as if it were there
            followers = [other.follow(run.ticket) for _ in range(2)]
            results = [asyncio.create_task(follower.result()) for follower in followers]
            await eventually(lambda: all(follower.text for follower in followers))
            beside = other._elsewhere["one"]._client
            assert beside._socket.request.path.endswith("?node=one")
            assert len(gateway._connections) == 3
            gate.set()
            await asyncio.gather(reading, *results)
            assert [follower.text for follower in followers] == ["a b", "a b"]
        await eventually(lambda: not gateway._connections)


async def test_a_follower_that_leaves_its_loop_stops_nothing():
    gate = asyncio.Event()
    async with running(scripted(Say("a b"), Gate(gate), Say(" c"))) as gateway:
        async with connect(gateway.url) as client, connect(gateway.url) as other:
            run = client.generate(prompt="hi")
            reading = asyncio.create_task(run.result())
            await eventually(lambda: run.ticket)
            async with other.follow(run.ticket, after=0) as follower:
                async for chunk in follower:
                    assert chunk.text == "a "
                    break
            assert follower.done.finish_reason == "cancelled"
            assert other._runs == {}
            gate.set()
            assert (await reading).finish_reason == "stop"
            assert run.text == "a b c"


async def test_a_generation_that_has_ended_is_forgotten():
    async with running(scripted(Say("x"))) as gateway, connect(gateway.url) as client:
        run = client.generate(prompt="hi")
        await run.result()
        await run.cancel()
        assert (client._runs, client._to_cancel) == ({}, set())


async def test_a_window_is_acknowledged_as_chunks_are_used():
    provider = scripted(Say("word " * 100))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        async with client.generate(prompt="hi", window=2) as run:
            async for _ in run:
                assert provider.requests[0].produced < 100 or run.last > 90
            assert run.text == "word " * 100


async def test_a_reader_that_stops_holds_up_its_own_run_and_no_other():
    def script(request):
        return [Say("word " * 2_000)] if request.prompt == "long" else [Say("short")]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, outbox_bytes=1) as gateway, connect(stream_url(gateway)) as client:
        async with client.generate(prompt="long") as unread:
            await eventually(lambda: unread.started or unread.last >= WINDOW - 1)
            for _ in range(3):
                assert (await client.generate(prompt="short").result()).finish_reason == "stop"
            assert unread._frames.qsize() <= WINDOW
            await stands_still(lambda: provider.requests[0].produced)
            assert provider.requests[0].produced < 2_000
            assert unread._frames.qsize() <= WINDOW
            assert (await unread.result()).finish_reason == "stop"
            assert unread.text == "word " * 2_000


def all_came(gateway, run):
    """Return whether a run's window is closed and all that was sent has been received."""
    return any(
        generation.window_closed and generation._sent_seq == run.last
        for connection in gateway._connections
        for generation in connection._session.generations
    )


@pytest.mark.parametrize("resume_bytes", [1 << 20, 2048])
async def test_a_reader_that_stops_has_no_more_to_read_after_each_new_connection(resume_bytes):
    limits = {"outbox_bytes": 1, "resume_bytes": resume_bytes}
    provider = scripted(*[Reason("hm "), Say("word ")] * 200)  # which no gateway merges
    async with running(provider, **limits) as gateway:
        async with proxied(gateway) as proxy, connect(proxy.url) as client:
            run = client.generate(prompt="long")
            async with run, aclosing(run.frames()) as frames:
                for _ in range(10):
                    await anext(frames)
                await eventually(lambda: all_came(gateway, run))
                for resumed in (1, 2):
                    proxy.cut()
                    await eventually(
                        lambda n=resumed: (
                            gateway._generations.metrics.resumed == n and all_came(gateway, run)
                        )
                    )
                if resume_bytes > 2048:  # which are enough for the frames of a window
                    assert run._frames.qsize() <= WINDOW
                async for _ in frames:
                    pass
            assert run.done.finish_reason == "stop"
            assert (run.text, run.reasoning) == ("word " * 200, "hm " * 200)


async def test_a_cancel_is_sent_again_where_unread_frames_were_asked_for_in_vain():
    provider = scripted(*[Reason("hm "), Say("word ")] * 200)  # which no gateway merges
    states, cancels = [], []

    def cancel(state, reason):
        """Cancel after the gateway was asked for the frames, and before it has answered."""
        states.append(state)
        if states == ["open", "waiting", "open"]:
            cancels.append(asyncio.create_task(run.cancel()))

    async with running(provider, outbox_bytes=1, resume_bytes=2048) as gateway:
        async with proxied(gateway) as proxy, connect(proxy.url, on_state=cancel) as client:
            run = client.generate(prompt="long")
            async with aclosing(run.frames()) as frames:
                for _ in range(10):
                    await anext(frames)
                await eventually(lambda: all_came(gateway, run))
                proxy.cut()
                await eventually(lambda: cancels and not provider.live)
                async for _ in frames:
                    pass
            assert run.done.finish_reason == "cancelled"
            assert len(cancels) == 1


async def test_a_run_that_nobody_reads_can_be_cancelled_and_is_forgotten():
    provider = scripted(Say("word " * 2_000))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = client.generate(prompt="long")
        await client.start(run)
        await eventually(lambda: run.last >= WINDOW - 1)
        await run.cancel()
        await eventually(lambda: run.over and client._runs == {})
        assert not provider.live


async def test_a_cancel_is_sent_though_its_task_is_cancelled_while_the_socket_is_full():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = client.generate(prompt="hi")
        reading = asyncio.create_task(run.result())
        await eventually(lambda: run.text)
        client._socket.pause_writing()  # every write waits, as it does behind many bytes
        reading.cancel()
        await eventually(lambda: client._to_cancel or run.over)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await eventually(lambda: not provider.live)
        client._socket.resume_writing()
        await eventually(lambda: run.over and client._runs == {})


@pytest.mark.parametrize("enters", [True, False])
async def test_a_generation_that_is_cancelled_while_it_is_sent_is_cancelled_there(enters):
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        client._socket.pause_writing()  # every write waits, as it does behind many bytes
        run = client.generate(prompt="hi")
        asking = asyncio.create_task(entered(run) if enters else run.result())
        await eventually(lambda: provider.live)
        asking.cancel()
        await eventually(lambda: not provider.live)
        client._socket.resume_writing()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(lambda: run.over and client._runs == {})


async def test_acknowledgements_are_few():
    async with running(scripted(Say("word " * 1000))) as gateway:
        async with connect(stream_url(gateway)) as client:
            run = client.generate(prompt="hi")
            await run.result()
            assert run.last > WINDOW
            received = gateway._generations.metrics.received_frames
            assert received <= 3 + run.last // (WINDOW // 2)


async def stands_still(number):
    """Wait until a number does not change any more."""
    async with asyncio.timeout(TIMEOUT):
        before = None
        while before != number():
            before = number()
            await asyncio.sleep(0.2)


class Raising:
    """A codec with a fault of its own."""

    text = True

    def server_frames(self, data):
        raise ZeroDivisionError("of the codec")


async def test_a_fault_of_the_clients_own_ends_its_runs_and_does_not_leave_them_waiting():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate), Say("y"))) as gateway:
        async with connect(stream_url(gateway)) as client:
            async with client.generate(prompt="hi") as run:
                await eventually(lambda: run.text == "x")
                client._codec = Raising()
                gate.set()
                with pytest.raises(ConnectionLostError, match="ZeroDivisionError"):
                    await run.result()
            with pytest.raises(ConnectionLostError, match="ZeroDivisionError"):
                await client.generate(prompt="hi").result()


@pytest.mark.parametrize("code", [[], {}, 3, None])
def test_an_errors_code_that_is_no_text_is_like_an_unknown_one(code):
    error = {"type": "error", "code": code, "message": "m", "retryable": True}
    assert server_frame(error).code == "internal"


def test_frames_of_a_later_version_are_no_trouble():
    assert server_frame({"type": "novelty", "id": "a"}) is None
    chunk = {"type": "chunk", "id": "a", "seq": 1, "text": "x", "novelty": 1}
    assert server_frame(chunk) == Chunk(id="a", seq=1, text="x")
    error = {"type": "error", "code": "novelty", "message": "m", "retryable": True}
    assert server_frame(error).code == "internal"
    with pytest.raises(NotAFrame):
        server_frame({"type": "chunk", "id": 3})
