"""The gateway over real sockets, with the scripted provider behind it."""

import asyncio
import base64
import hashlib
import json
import logging
import socket

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode as Standard

from gateway.client import GatewayError
from gateway.client import connect as connect_client
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    Cancel,
    File,
    Generate,
    Hello,
    Ping,
)
from gateway.server.connection import MAX_WAITING
from gateway.server.tokens import Token, Tokens
from provider import MLXProvider
from provider.interface import (
    ContextWindowExceededError,
    GenerateResponse,
    GenerationError,
    InvalidParameterError,
    MemoryExceededError,
    ModelLoadingError,
    ModelNotFoundError,
    ResourceExceededError,
    UnsupportedModelError,
)
from provider.scripted import Call, Fail, Gate, Pause, Prefill, Queue, Say, ScriptedProvider
from tests.support.servers import (
    Wire,
    close_code,
    eventually,
    get,
    raw_frame,
    running,
    scripted,
    stream_url,
    wired,
)
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import LLAMA, write_model
from tests.support.tiny_vision import picture, write_vision_model

ALICE, BOB = "open sesame", "new"
BOTH = [Token(name, hashlib.sha256(name.encode()).hexdigest()) for name in (ALICE, BOB)]
TOKENS = Tokens(BOTH)


def authorized(secret):
    return {"Authorization": f"Bearer {secret}"}


def text_of(frames):
    return "".join(f["text"] for f in frames if f["type"] == "chunk")


@pytest.mark.parametrize("protocol", [None, "mlx-gateway.v1.json", MSGPACK_PROTOCOL])
async def test_a_generation_streams_from_started_to_done(protocol):
    provider = scripted(Queue(2), Prefill(1, 2), Say("Hello to you."))
    async with running(provider) as gateway, wired(gateway, protocol) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        frames = await wire.until("done")
    kinds = [frame["type"] for frame in frames]
    assert kinds[:3] == ["queued", "started", "progress"]
    assert text_of(frames) == "Hello to you."
    numbered = [frame["seq"] for frame in frames if "seq" in frame]
    assert numbered == list(range(len(numbered)))
    assert frames[-1]["usage"]["completion_tokens"] == 3


async def test_many_generations_interleave_on_one_connection():
    gate = asyncio.Event()
    provider = ScriptedProvider(
        script=lambda request: [Say(request.prompt), Gate(gate), Say(" end")],
        tokens_per_second=None,
    )
    async with running(provider) as gateway, wired(gateway) as wire:
        for n in range(8):
            await wire.send(Generate(id=f"g{n}", prompt=f"text{n}"))
        await eventually(lambda: len(provider.live) == 8)
        gate.set()
        frames, done = [], 0
        while done < 8:
            frames.append(await wire.receive())
            done += frames[-1]["type"] == "done"
    for n in range(8):
        assert text_of([f for f in frames if f.get("id") == f"g{n}"]) == f"text{n} end"


async def test_a_cancel_ends_one_and_leaves_the_other():
    gate = asyncio.Event()
    provider = scripted(Say("a "), Gate(gate), Say("b"))
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="x", prompt="hi"))
        await wire.until("chunk")
        await wire.send(Generate(id="y", prompt="hi"))
        await wire.until("chunk")
        await wire.send(Cancel(id="x"))
        done = (await wire.until("done"))[-1]
        assert (done["id"], done["finish_reason"]) == ("x", "cancelled")
        assert provider.requests[0].ended.is_set()
        assert len(provider.live) == 1
        gate.set()
        assert (await wire.until("done"))[-1]["finish_reason"] == "stop"


class SlowToClose(ScriptedProvider):
    """A provider whose streams take their time to close."""

    def __init__(self, closing, **options):
        super().__init__(**options)
        self.closing = closing

    async def generate_async(self, *arguments, **options):
        stream = await super().generate_async(*arguments, **options)

        async def slow():
            try:
                async for response in stream:
                    yield response
            finally:
                await self.closing.wait()

        return slow()


async def test_a_slow_close_holds_up_neither_the_done_nor_anything_else():
    closing = asyncio.Event()
    provider = SlowToClose(closing, script=[Say("a"), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="x", prompt="hi"))
        await wire.until("chunk")
        await wire.send(Cancel(id="x"))
        assert (await wire.receive())["finish_reason"] == "cancelled"
        await wire.send(Ping(nonce="n"))
        assert (await wire.receive())["nonce"] == "n"
        await wire.send(Generate(id="x", prompt="again"))
        assert (await wire.until("chunk"))[-1]["text"] == "a"
        closing.set()


class Unreasoned(ScriptedProvider):
    """A provider that gives no finish_reason, or a whole answer where a stream was asked for."""

    whole = False

    async def generate_async(self, *arguments, **options):
        if self.whole:
            return GenerateResponse(content="whole", finish_reason="stop")

        async def stream():
            yield GenerateResponse(content="half")

        return stream()


@pytest.mark.parametrize(("whole", "text"), [(False, "half"), (True, "whole")])
async def test_a_provider_of_older_manners_is_served_all_the_same(whole, text):
    provider = Unreasoned()
    provider.whole = whole
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        frames = await wire.until("done")
    assert text_of(frames) == text
    assert frames[-1]["finish_reason"] == "stop"


async def test_a_client_that_only_asks_is_not_read_from_for_ever():
    settings = {"write_timeout_s": 60.0, "kernel_buffer_bytes": 4096, "frame_rate": 1e9}
    async with running(scripted(), **settings) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            ping = wire.codec.encode(Ping(nonce="x" * 64))

            async def flood():
                while True:
                    await wire.socket.send(ping, text=True)

            flooding = asyncio.create_task(flood())
            (connection,) = gateway._connections
            await eventually(lambda: connection._session.waiting > MAX_WAITING)
            for _ in range(20):
                await asyncio.sleep(0.02)
                assert connection._session.waiting <= MAX_WAITING + 1
            flooding.cancel()
            wire.socket.transport.abort()


async def test_an_id_can_be_used_again_after_its_end():
    async with running(scripted(Say("x"))) as gateway, wired(gateway) as wire:
        for _ in range(3):
            await wire.send(Generate(id="a", prompt="hi"))
            assert text_of(await wire.until("done")) == "x"


async def test_a_lost_connection_closes_its_generators():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway, wired(gateway) as wire:
        for n in range(3):
            await wire.send(Generate(id=f"g{n}", prompt="hi"))
        await eventually(lambda: len(provider.live) == 3)
        wire.socket.transport.abort()
        await eventually(lambda: not provider.live)


async def test_the_options_reach_the_provider_and_no_others():
    provider = scripted(Say("x"))
    async with running(provider) as gateway, wired(gateway, MSGPACK_PROTOCOL) as wire:
        messages = [{"role": "user", "content": "hi"}]
        await wire.send(
            Generate(
                id="a",
                messages=messages,
                system_prompt="Be brief.",
                temperature=0.0,
                stop=["END"],
                files=[File(name="a.txt", data=b"\x00\xff")],
                tools=[{"name": "add"}],
            )
        )
        await wire.until("done")
    (request,) = provider.requests
    assert request.options == {
        "messages": messages,
        "temperature": 0.0,
        "stop": ["END"],
        "events": True,
        "client": "address 127.0.0.1",
    }
    assert request.system_prompt == "Be brief."
    assert request.files[0].data == b"\x00\xff"
    assert request.tools == [{"name": "add"}]


async def test_a_model_that_is_asked_for_is_loaded_and_that_is_told(tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = MLXProvider({"model": ["embedded", f"other={other}"], "max_tokens": 3})
    async with running(provider) as gateway, wired(gateway) as wire:
        listed = json.loads((await get(gateway, "/v1/models"))[1])["data"]
        assert [(one["id"], one["loaded"]) for one in listed] == [
            ("embedded", False),
            ("other", False),
        ]
        await wire.send(Generate(id="a", prompt="hi", model="other"))
        loading, *frames = await wire.until("done")
        assert (loading["type"], loading["model"]) == ("loading", "other")
        assert "seq" not in loading
        started = next(frame for frame in frames if frame["type"] == "started")
        assert (started["model"], started["seq"]) == ("other", 0)
        await wire.send(Generate(id="b", prompt="hi", model="nobody"))
        *_, refused = await wire.until("error")
        assert refused["code"] == "unknown_model"
        assert "`nobody` is not served; `embedded`, `other` are" in refused["message"]
    await provider.aclose()


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_images_come_in_messages_and_files(tmp_path, protocol):
    folder = write_vision_model(tmp_path / "llava", "llava")
    provider = MLXProvider({"model": str(folder), "max_tokens": 8, "temperature": 0.0})
    data = picture("red")
    encoded = base64.b64encode(data).decode()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    part = {"type": "image", "data": encoded if protocol == JSON_PROTOCOL else data}
    said = {"type": "text", "text": "What is it?"}
    async with (
        running(provider) as gateway,
        connect_client(stream_url(gateway), protocol) as client,
    ):
        asked = [
            {"messages": [{"role": "user", "content": [url, said]}]},
            {"messages": [{"role": "user", "content": [part, said]}]},
            {"prompt": "What is it?", "files": [File(name="a.png", data=data)]},
        ]
        texts = [(await client.generate(stream=False, **fields).result()).text for fields in asked]
        assert len(set(texts)) == 1
        for bad in ("/etc/passwd", "https://example.org/a.png", "AAAA"):
            message = {"role": "user", "content": [{**part, "data": bad}]}
            with pytest.raises(GatewayError) as caught:
                await client.generate(messages=[message]).result()
            assert caught.value.code == "invalid_request"
    await provider.aclose()


async def test_tool_calls_are_frames():
    async with running(scripted(Call("add", {"a": 1}))) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        *frames, done = await wire.until("done")
    calls = [frame for frame in frames if frame["type"] == "tool_call"]
    assert calls[0]["name"] == "add"
    assert json.loads("".join(call.get("arguments", "") for call in calls)) == {"a": 1}
    assert calls[-1]["complete"]
    assert done["finish_reason"] == "tool_calls"


ERRORS = [
    (InvalidParameterError("temperature", 9), "invalid_request", "`$.temperature`", False),
    (ContextWindowExceededError(8, 9), "context_too_long", "9", False),
    (UnsupportedModelError("no such model"), "unknown_model", "no such model", False),
    (ResourceExceededError("full"), "overloaded", "full", True),
    (MemoryExceededError("too large"), "invalid_request", "too large", False),
    (GenerationError("broken"), "model_error", "broken", False),
    (ModelLoadingError("no secret", model_name="secret"), "model_error", "server's log", False),
    (ModelNotFoundError("/secret/x"), "unknown_model", "server's log", False),
    (RuntimeError("a secret"), "internal", "internal error", False),
]


async def test_a_provider_that_knows_when_to_come_back_is_passed_on():
    error = ResourceExceededError("full", details={"retry_after": 2.5})
    async with running(scripted(Fail(error))) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        frame = (await wire.until("error"))[-1]
    assert (frame["code"], frame["retry_after"]) == ("overloaded", 2.5)


@pytest.mark.parametrize(("error", "code", "message", "retryable"), ERRORS)
async def test_a_providers_error_becomes_one_error_frame(error, code, message, retryable):
    async with running(scripted(Say("x"), Fail(error))) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        frame = (await wire.until("error"))[-1]
        assert (frame["id"], frame["code"], frame["retryable"]) == ("a", code, retryable)
        assert message in frame["message"]
        assert "secret" not in frame["message"]
        await wire.send(Ping(nonce="still here"))
        assert (await wire.receive())["nonce"] == "still here"


async def test_who_names_a_place_is_told_what_is_wrong_with_it():
    error = ModelNotFoundError("owner/x", "no such model on the hub")
    async with running(scripted(Fail(error))) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi", model="owner/x"))
        frame = (await wire.until("error"))[-1]
    assert "no such model on the hub" in frame["message"]


async def test_a_bad_option_is_named_on_the_wire():
    async with running(scripted(Say("x"))) as gateway, wired(gateway) as wire:
        await wire.socket.send('{"type": "generate", "id": "a", "prompt": "x", "temprature": 1}')
        frame = await wire.receive()
    assert (frame["id"], frame["code"]) == ("a", "invalid_request")
    assert "temprature" in frame["message"]


async def test_an_answer_that_would_be_larger_than_a_frame_ends_and_its_stream_is_closed():
    provider = scripted(*[Say("word " * 100) for _ in range(100)])
    async with running(provider, max_frame_bytes=1024) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="x", stream=False))
        *_, done = await wire.until("done")
        await eventually(lambda: not provider.live)
    assert (done["finish_reason"], done["text"]) == ("length", "word " * 205)
    assert provider.requests[0].produced == 205


async def test_a_number_beyond_all_is_named_on_the_wire():
    async with running(scripted(Say("x"))) as gateway, wired(gateway) as wire:
        await wire.socket.send(
            '{"type": "generate", "id": "a", "prompt": "x", "temperature": 1e999}'
        )
        frame = await wire.receive()
        await wire.send(Ping(nonce="still here"))
        assert (await wire.receive())["nonce"] == "still here"
    assert (frame["id"], frame["code"]) == ("a", "invalid_request")
    assert frame["message"] == "`$.temperature`: must be in [0, 2], not inf"


async def test_a_frame_over_the_limit_closes_with_1009():
    async with running(scripted(), max_frame_bytes=1000) as gateway, wired(gateway) as wire:
        await wire.socket.send("x" * 2000)
        await wire.socket.wait_closed()
        assert wire.socket.close_code == Standard.MESSAGE_TOO_BIG


async def test_a_client_that_reads_slowly_gets_merged_chunks_and_every_word():
    words = "".join(f"word{n} " for n in range(30_000))
    provider = scripted(Say(words))
    small = {"kernel_buffer_bytes": 4096, "outbox_bytes": 8192}
    async with running(provider, **small) as gateway, wired(gateway, max_queue=1) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        produced = -1
        while produced != provider.requests[0].produced if provider.requests else True:
            produced = provider.requests[0].produced if provider.requests else -1
            await asyncio.sleep(0.2)
        assert produced < 30_000, "the model went on for a client that did not read"
        frames = await wire.until("done")
    assert text_of(frames) == words
    chunks = [f for f in frames if f["type"] == "chunk"]
    assert any(" " in f["text"].strip() for f in chunks)
    assert [f["seq"] for f in frames if "seq" in f] == list(range(len(chunks) + 2))


async def test_a_client_that_takes_nothing_is_cut_off_and_its_generator_closed():
    provider = scripted(Say("word " * 2_000_000))
    async with running(provider, write_timeout_s=0.5, kernel_buffer_bytes=4096) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await eventually(lambda: provider.requests and provider.requests[0].ended.is_set())
            assert provider.requests[0].produced < 2_000_000


async def test_closing_the_gateway_ends_generations_in_order():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        await gateway.close()
        assert (await wire.receive())["finish_reason"] == "cancelled"
        await wire.socket.wait_closed()
        assert wire.socket.close_code == CloseCode.RESTART
        assert not provider.live
        await gateway.close()


async def test_draining_lets_what_runs_finish_and_takes_nothing_new():
    gate = asyncio.Event()
    async with running(scripted(Say("a"), Gate(gate), Say("b"))) as gateway:
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await wire.until("chunk")
            draining = asyncio.create_task(gateway.drain())
            await asyncio.sleep(0)
            await wire.send(Generate(id="b", prompt="hi"))
            error = await wire.receive()
            assert (error["id"], error["code"]) == ("b", "shutting_down")
            assert error["retryable"]
            status, body, _ = await get(gateway, "/readyz")
            assert (status, body) == (503, b"the gateway is stopping\n")
            assert (await get(gateway, "/healthz"))[0] == 200
            with pytest.raises(InvalidStatus) as caught:
                async with connect(stream_url(gateway)):
                    pass
            assert caught.value.response.status_code == 503
            gate.set()
            assert (await wire.until("done"))[-1]["finish_reason"] == "stop"
            await draining


async def test_draining_ends_after_its_grace(caplog):
    caplog.set_level(logging.INFO)
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider, shutdown_grace_s=0.1) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        await gateway.drain()
        await gateway.close()
        assert (await wire.receive())["finish_reason"] == "cancelled"
    said = [record.getMessage() for record in caplog.records]
    assert "cancelling 1 generation that did not finish in time" in said
    assert any(" cancelled, 1 token for " in one for one in said)


async def test_closing_is_bounded_whatever_a_client_does():
    provider = scripted(Say("word " * 2_000_000))
    async with running(provider, close_timeout_s=0.3, kernel_buffer_bytes=4096) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await eventually(lambda: provider.live)
            async with asyncio.timeout(TIMEOUT):
                await gateway.close()
    assert not provider.live


async def test_the_kernel_holds_back_little_for_a_client():
    async with running(scripted()) as gateway, wired(gateway) as wire:
        assert wire.socket.transport.get_extra_info("socket").family == socket.AF_INET


async def test_a_client_that_vanishes_in_the_middle_of_a_frame_harms_nobody():
    async with running(scripted(Say("x"))) as gateway:
        async with wired(gateway) as wire:
            wire.socket.transport.write(b"\x81\xfe\x10")
            wire.socket.transport.abort()
            with pytest.raises(ConnectionClosed):
                await wire.socket.recv()
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            assert text_of(await wire.until("done")) == "x"


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


async def test_other_methods_are_refused_and_head_has_no_body():
    async with running(scripted()) as gateway:
        for method, status in (("HEAD", b"200"), ("DELETE", b"405")):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert status in head.splitlines()[0]
            assert body == b"" or method != "HEAD"
            writer.close()


UPGRADED = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
BODIES = [
    ("POST /v1/chat/completions", "Content-Length: 2\r\n", b"{}"),
    ("POST /v1/stream", "Content-Length: 2\r\n", b"{}"),
    ("POST /", "Content-Length: 500000\r\n", b"x" * 500_000),
    ("POST /", "Content-Length: 500000\r\nExpect: 100-continue\r\n", b""),
    ("PUT /", "Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    ("GET /", "content-length:2\r\n", b"{}"),
    ("GET /v1/stream", f"{UPGRADED}Content-Length: 6\r\n", raw_frame(b"")),
    ("POST /v1/stream", UPGRADED, b""),
]


@pytest.mark.parametrize(("request_line", "headers", "body"), BODIES)
async def test_a_request_with_a_body_is_answered(request_line, headers, body):
    async with running(scripted()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"{request_line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        writer.write(body)
        async with asyncio.timeout(TIMEOUT):
            head, _, said = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"405" in head.splitlines()[0]
        assert b"Allow: GET, HEAD" in head
        assert b"over a WebSocket, as /protocol describes" in said
        assert gateway.connections == 0


async def test_a_request_with_an_empty_body_is_as_one_without():
    async with running(scripted()) as gateway:
        assert (await get(gateway, "/healthz", **{"Content-Length": "0"}))[0] == 200


async def test_a_body_in_pieces_does_not_delay_its_answer():
    async with running(scripted()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        begin = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-"
        for piece in (begin, b"Length: 99\r\n\r\n", b"{"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(TIMEOUT):
            assert b"405" in await reader.readline()
        writer.close()


async def test_pages_of_listed_origins_may_read_what_is_for_them():
    page = "http://localhost:5173"
    async with running(scripted(), origins="http://localhost:*") as gateway:
        for path in ("/v1/models", "/readyz", "/asyncapi.json"):
            for origin, shown in ((page, page), ("http://evil.example", None), (None, None)):
                headers = {} if origin is None else {"Origin": origin}
                status, _, answer = await get(gateway, path, **headers)
                assert (status, answer["Vary"]) == (200, "Origin")
                assert answer.get("Access-Control-Allow-Origin") == shown
        for path in ("/", "/metrics", "/healthz", "/protocol"):
            _, _, answer = await get(gateway, path, Origin=page)
            assert "Access-Control-Allow-Origin" not in answer
        for path in ("/client.js", "/tool_loop.js"):
            _, _, answer = await get(gateway, path, Origin="http://evil.example")
            assert answer["Access-Control-Allow-Origin"] == "*"
            assert answer["Cross-Origin-Resource-Policy"] == "cross-origin"


async def test_a_page_may_ask_with_a_token_where_it_is_listed():
    async with running(scripted(), TOKENS, dev=True) as gateway:
        status, _, answer = await get(gateway, "/v1/models", Origin="http://localhost:1")
        allowed = answer["Access-Control-Allow-Origin"]
        assert (status, allowed) == (401, "http://localhost:1"), "so that the page can read it"
        for origin in ("http://localhost:1", "http://evil.example"):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            asked = f"OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"
            writer.write(asked.encode())
            head = (await reader.read()).partition(b"\r\n\r\n")[0].decode()
            assert " 200 " in head.splitlines()[0]
            assert "Access-Control-Allow-Headers: Authorization" in head
            listed = "Access-Control-Allow-Origin: http://localhost:1" in head
            assert listed is (origin == "http://localhost:1")
            writer.close()


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


async def test_what_is_served_is_said_to_those_with_a_token_only():
    async with running(scripted(), TOKENS) as gateway:
        assert (await get(gateway, "/v1/models"))[0] == 401
        assert (await get(gateway, "/v1/models", **authorized(ALICE)))[0] == 200
        for path in ("/", "/client.js", "/healthz", "/readyz", "/protocol"):
            assert (await get(gateway, path))[0] == 200


async def test_new_tokens_take_the_place_of_the_old_ones():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, TOKENS) as gateway:
        async with (
            wired(gateway, additional_headers=authorized(ALICE)) as alice,
            wired(gateway, additional_headers=authorized(BOB)) as bob,
        ):
            await alice.send(Generate(id="a", prompt="hi"))
            await alice.until("chunk")
            gateway.tokens = Tokens(BOTH[1:])
            assert await close_code(alice.socket) == CloseCode.NOT_AUTHENTICATED
            await eventually(lambda: not provider.live)
            await bob.send(Ping(nonce="n"))
            assert (await bob.receive())["nonce"] == "n"
        assert (await get(gateway, "/v1/models", **authorized(ALICE)))[0] == 401
        assert (await get(gateway, "/v1/models", **authorized(BOB)))[0] == 200


async def test_connections_are_limited_by_token_and_in_all_and_that_is_told():
    limits = {"max_connections": 2, "max_connections_per_token": 1}
    async with running(scripted(), TOKENS, **limits) as gateway:
        async with wired(gateway, additional_headers=authorized(ALICE)):
            async with connect(stream_url(gateway)) as second:  # its token comes late
                await Wire(second).send(Hello(token=ALICE))
                assert await close_code(second) == CloseCode.TOO_MANY
            await eventually(lambda: gateway.connections == 1)
            async with wired(gateway, additional_headers=authorized(BOB)):
                with pytest.raises(InvalidStatus, match="503"):
                    async with connect(stream_url(gateway)):
                        pass
        await eventually(lambda: gateway.connections == 0)
        async with wired(gateway, additional_headers=authorized(ALICE)):
            assert gateway.connections == 1


async def test_a_fault_in_one_connection_closes_it_with_1011_and_no_other():
    async with running(scripted()) as gateway, wired(gateway) as other:
        ready, gateway._ready = gateway._ready, lambda name: 1 / 0
        async with connect(stream_url(gateway)) as socket:
            assert await close_code(socket) == CloseCode.INTERNAL
        gateway._ready = ready
        await other.send(Ping(nonce="n"))
        assert (await other.receive())["nonce"] == "n"
        async with wired(gateway):
            assert gateway.connections == 2
