"""One connection's reader and writer, over real sockets."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from gateway.dialects.base import Route
from gateway.dialects.native import CODECS, NativeDialect, codec_for
from gateway.protocol.answer import is_packed_as
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import (
    JOINED_PROTOCOL,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    Ack,
    Cancel,
    Done,
    Generate,
    Hello,
    Ping,
    Resume,
)
from gateway.server.connection import MAX_AT_ONCE, STEP
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens
from provider.scripted import Gate, Pause, Say, ScriptedProvider
from tests.support.servers import (
    TIMEOUT,
    Wire,
    close_code,
    eventually,
    raw,
    raw_frame,
    running,
    scripted,
    settings,
    stream_url,
    watched_turns,
    wired,
)

MSGPACK = f"Sec-WebSocket-Protocol: {MSGPACK_PROTOCOL}"


SECRET = "open sesame"
TOKENS = Tokens([Token("alice", hashlib.sha256(SECRET.encode()).hexdigest())])


async def test_the_greeting_comes_before_the_answer_to_what_was_sent_early():
    async with running(scripted()) as gateway:
        async with connect(stream_url(gateway)) as socket:
            for number in range(20):
                await socket.send(json.dumps({"type": "ping", "nonce": number}))
            async with asyncio.timeout(TIMEOUT):
                frames = [json.loads(await socket.recv()) for _ in range(21)]
    assert frames[0]["type"] == "ready"
    assert [frame["nonce"] for frame in frames[1:]] == list(range(20))


async def test_an_idle_connection_is_closed_and_one_that_generates_is_not():
    gate = asyncio.Event()
    provider = scripted(Say("x"), Gate(gate), Say("y"))
    async with running(provider, idle_timeout_s=0.5) as gateway:
        async with wired(gateway) as busy:
            await busy.send(Generate(id="a", prompt="hi"))
            async with wired(gateway) as idle:
                with pytest.raises(ConnectionClosed):
                    await idle.receive()
                assert idle.socket.close_code == CloseCode.NORMAL
            gate.set()
            assert (await busy.until("done"))[-1]["finish_reason"] == "stop"


async def test_a_client_that_takes_nothing_is_aborted_and_its_generation_freed():
    provider = scripted(*[Say("x" * 4000)] * 3000, Pause(3600))
    limits = {"write_timeout_s": 0.2, "kernel_buffer_bytes": 1024, "outbox_bytes": 4096}
    async with running(provider, **limits) as gateway:
        async with wired(gateway, max_queue=1, close_timeout=0.1) as wire:
            await wire.send(Generate(id="a", prompt="hi"))
            await eventually(lambda: gateway._generations.metrics.slow_clients == 1)
            await eventually(lambda: not provider.live and gateway.connections == 0)


async def test_generations_share_what_may_wait_for_one_client():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, outbox_bytes=8192) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        (connection,) = gateway._connections
        (generation,) = connection._session.generations
        generation.waiting_bytes = 5000
        assert not connection.must_wait(generation)
        await wire.send(Generate(id="b", prompt="hi"))
        await wire.until("chunk")
        assert connection.must_wait(generation)
        generation.waiting_bytes = 0


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, JOINED_PROTOCOL])
async def test_what_waits_for_all_clients_is_counted_and_bounds_what_waits_for_each(protocol):
    provider = scripted(*[Say("x" * 1000)] * 12_000, Pause(3600))
    limits = {"outbox_bytes": 40_000, "outbox_total_bytes": 40_000, "kernel_buffer_bytes": 1024}
    async with running(provider, **limits) as gateway, AsyncExitStack() as stack:
        outbox = gateway._generations.outbox

        def tasks():
            return [task for one in gateway._connections for task in one._tasks.values()]

        def held():
            return [
                task.generation.waiting_bytes for task in tasks() if not task._may_read.is_set()
            ]

        for count in range(1, 5):
            wire = await stack.enter_async_context(
                wired(gateway, protocol, max_queue=1, close_timeout=0.1)
            )
            await wire.send(Generate(id="a", prompt="hi"))
            await eventually(lambda count=count: len(held()) == count)
            on_their_way = sum(task.held.leaving for task in tasks())
            assert outbox.held == sum(held()) + on_their_way
            assert outbox.held < outbox.limit + 1000
        # Whose socket took some more may have less by now, and asks for no more than its share.
        assert all(1000 < size <= 40_000 / 4 + 2 * 1000 for size in held())
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        await eventually(lambda: not gateway.connections)
        assert outbox.held == 0


def shown(name):
    return {"additional_headers": {"Authorization": f"Bearer {name}"}}


async def test_answers_that_are_not_streamed_are_counted_and_end_where_there_is_no_room():
    gate = asyncio.Event()
    provider = scripted(*[Say("x" * 1000)] * 8, Gate(gate), Say("end"))
    tokens = Tokens([Token(one, hashlib.sha256(one.encode()).hexdigest()) for one in "ab"])
    async with running(provider, tokens, outbox_total_bytes=28_000) as gateway:
        outbox = gateway._generations.outbox
        async with wired(gateway, **shown("a")) as wire, wired(gateway, **shown("b")) as other:
            for number in (1, 2):
                await wire.send(Generate(id=str(number), prompt="hi", stream=False))
                await eventually(lambda number=number: outbox.held > number * (8000 - STEP))
            await wire.send(Generate(id="3", prompt="hi", stream=False))
            *_, refused = await wire.until("error")
            assert (refused["id"], refused["code"]) == ("3", "overloaded")
            assert refused["retry_after"] > 0
            await other.send(Generate(id="4", prompt="hi", stream=False))
            await eventually(lambda: outbox.of_client("token b") > 8000 - STEP)
            gate.set()
            frames = [*await wire.until("done"), *await wire.until("done")]
            frames += await other.until("done")
            whole = [frame["text"] for frame in frames if frame["type"] == "done"]
            assert whole == ["x" * 8000 + "end"] * 3
        await eventually(lambda: outbox.held == 0)


async def test_an_answer_that_is_not_streamed_ends_where_it_has_grown_too_large_alone():
    provider = scripted(*[Say("x" * 1000)] * 100)
    async with running(provider, outbox_total_bytes=28_000) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi", stream=False))
        assert (await wire.until("done", "error"))[-1].get("code") == "overloaded"
        assert gateway._generations.outbox.held == 0


async def test_an_answer_that_is_not_streamed_counts_until_it_is_read_also_if_it_is_cancelled():
    provider = scripted(*[Say("x" * 100_000)] * 60, Pause(3600))
    async with running(provider) as gateway, wired(gateway, max_size=None) as wire:
        outbox = gateway._generations.outbox
        await wire.send(Generate(id="a", prompt="hi", stream=False))
        await eventually(lambda: outbox.held == 6_000_000)
        wire.socket.transport.pause_reading()
        await wire.send(Cancel(id="a"))
        (connection,) = gateway._connections
        await eventually(lambda: connection._sending_since is not None)
        assert outbox.held == 6_000_000
        wire.socket.transport.resume_reading()
        (*_, done) = await wire.until("done")
        assert (done["finish_reason"], len(done["text"])) == ("cancelled", 6_000_000)
        await eventually(lambda: outbox.held == 0)


async def test_text_counts_for_the_connection_that_takes_it_over_until_it_is_read():
    provider = scripted(*[Say("x" * 4000)] * 500)
    limits = {"outbox_bytes": 40_000, "resume_bytes": 8 << 20, "kernel_buffer_bytes": 1024}
    async with running(provider, **limits) as gateway:
        outbox = gateway._generations.outbox
        async with wired(gateway, max_queue=1, close_timeout=0.1) as stalled:
            await stalled.send(Generate(id="a", prompt="hi", resumable=True))
            started = await stalled.receive()
            await eventually(lambda: outbox.held > 30_000)
            async with wired(gateway) as other:
                await other.send(Resume(id="a", ticket=started["ticket"], after=-1))
                frames = await other.until("done")
                assert sum(len(frame.get("text", "")) for frame in frames) == 500 * 4000
                await eventually(lambda: outbox.held == 0)


async def test_a_fault_of_the_writer_ends_its_connection_and_no_other():
    async with running(scripted()) as gateway, wired(gateway) as broken, wired(gateway) as other:
        await broken.send(Ping(nonce="n"))
        await broken.receive()
        await other.send(Ping(nonce="n"))
        await other.receive()
        first = next(
            one
            for one in gateway._connections
            if one._socket.remote_address == broken.socket.local_address
        )
        first._dialect.encode = lambda event: 1 / 0
        await broken.send(Ping(nonce="n"))
        with pytest.raises(ConnectionClosed):
            await broken.receive()
        await other.send(Ping(nonce="m"))
        assert (await other.receive())["nonce"] == "m"


@pytest.mark.parametrize("headers", [(), (MSGPACK,)], ids=["json", "msgpack"])
async def test_a_frame_of_millions_of_values_is_refused_in_turns_that_are_short(headers):
    count = 2**20
    if headers:
        data = b"\x94\x02\xa1a\xc0\xdd" + count.to_bytes(4, "big") + b"\x80" * count
    else:
        data = b'{"type":"generate","id":"a","messages":[' + b"{}," * (count - 1) + b"{}]}"
    frame = raw_frame(data, Opcode.BINARY if headers else Opcode.TEXT)
    codec = codec_for(MSGPACK_PROTOCOL if headers else None)
    async with running(scripted()) as gateway, raw(gateway, *headers) as wire:
        await wire.receive()
        async with watched_turns() as turns:
            wire.writer.write(frame)
            _, content = await wire.receive()
    error = codec.decode_fields(content.decode() if codec.text else content)
    assert (error["id"], error["code"]) == ("a", "invalid_request")
    assert error["message"] == f"`$`: must have at most 16384 {codec.COUNTED}"
    assert turns.longest < 0.1  # it takes a multiple to decode


class Patient(NativeDialect):
    """Checks large messages until a small one has been decoded, and notes what it does."""

    def __init__(self, notes):
        super().__init__(codec_for(None))
        self._notes = notes

    def check(self, message):
        self._notes.append("check")
        while "small" not in self._notes:
            yield
        yield

    def decode(self, message):
        self._notes.append("small" if len(message) < 1000 else "large")
        return super().decode(message)


async def test_large_frames_are_decoded_one_at_a_time_and_small_ones_meanwhile():
    notes = []
    route = Route("/v1/stream", lambda limits: lambda opening: Patient(notes))
    async with Gateway(scripted(Say("x")), settings(), routes=[route]) as gateway:
        async with wired(gateway) as one, wired(gateway) as two, wired(gateway) as small:
            for wire in (one, two):
                await wire.send(Generate(id="a", prompt="x" * 20_000))
            await eventually(lambda: notes)
            await small.send(Ping(nonce="n"))
            await small.receive()
            for wire in (one, two):
                await wire.until("done")
    assert notes == ["check", "small", "large", "check", "large"]


class Stuck(NativeDialect):
    """Cannot say what to do next once a generation has ended."""

    def __init__(self):
        super().__init__(codec_for(None))
        self._ended = False

    def encode(self, event):
        self._ended = self._ended or isinstance(event, Done)
        return super().encode(event)

    def next_requests(self):
        if self._ended:
            raise LookupError("next")
        return ()


async def test_a_language_that_cannot_go_on_ends_its_connection_and_no_other(caplog):
    gate = asyncio.Event()
    route = Route("/v1/stream", lambda limits: lambda opening: Stuck())
    provider = ScriptedProvider(
        script=lambda request: [Say("x"), Gate(gate)] * (request.prompt == "wait"),
        tokens_per_second=None,
    )
    async with Gateway(provider, settings(), routes=[route]) as gateway:
        async with wired(gateway) as other, wired(gateway) as wire:
            for one in (other, wire):
                await one.send(Generate(id="a", prompt="wait"))
                await one.until("chunk")
            await wire.send(Generate(id="b", prompt="end"))
            (*_, done) = await wire.until("done")
            assert done["id"] == "b"
            assert await close_code(wire.socket) == CloseCode.INTERNAL
            await eventually(lambda: len(provider.live) == 1)
            gate.set()
            (*_, done) = await other.until("done")
            assert (done["id"], done["finish_reason"]) == ("a", "stop")
    assert "a language cannot go on: LookupError" in caplog.text


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


async def test_no_hello_in_time_and_what_is_no_frame_have_their_own_codes():
    async with running(scripted(), TOKENS, hello_timeout_s=0.1) as gateway:
        async with connect(stream_url(gateway)) as socket:
            assert await close_code(socket) == CloseCode.NO_HELLO
    async with running(scripted(), TOKENS) as gateway:
        async with connect(stream_url(gateway)) as socket:
            await socket.send("{")
            assert await close_code(socket) == CloseCode.NOT_A_FRAME


@pytest.mark.parametrize("message", ["nonsense", "[]", "[" * 10_000, b"\x00"])
async def test_what_is_no_frame_closes_with_4400(message):
    async with running(scripted()) as gateway, wired(gateway) as wire:
        await wire.socket.send(message)
        assert await close_code(wire.socket) == CloseCode.NOT_A_FRAME


async def test_what_is_sent_after_the_token_is_answered_after_the_greeting():
    async with running(scripted(Say("x")), TOKENS) as gateway:
        async with connect(stream_url(gateway)) as socket:
            wire = Wire(socket)
            await wire.send(Hello(token=SECRET))
            await wire.send(Ping(nonce="n"))
            frames = [await wire.receive() for _ in range(2)]
            assert [frame["type"] for frame in frames] == ["ready", "pong"]


async def test_a_client_that_leaves_before_its_token_is_none():
    async with running(scripted(), TOKENS) as gateway:
        async with connect(stream_url(gateway)):
            await eventually(lambda: gateway.connections == 1)
        await eventually(lambda: gateway.connections == 0)


async def test_a_connection_whose_token_is_withdrawn_is_closed():
    async with running(scripted(), TOKENS) as gateway:
        authorized = {"Authorization": f"Bearer {SECRET}"}
        async with wired(gateway, additional_headers=authorized) as wire:
            (connection,) = gateway._connections
            connection.evict(datetime.now(UTC))
            assert not connection.token.valid_at(datetime.now(UTC))
            assert await close_code(wire.socket) == CloseCode.NOT_AUTHENTICATED


@pytest.mark.parametrize("limit", [{"frame_rate": 0.1}, {"rate_bytes": 1024}])
async def test_a_client_that_sends_too_much_is_closed(limit):
    async with running(scripted(), **limit) as gateway, wired(gateway) as wire:
        with pytest.raises(ConnectionClosed):
            while True:
                await wire.send(Ping(nonce="x" * 200))
                await wire.receive()
        assert await close_code(wire.socket) == CloseCode.TOO_MANY


async def test_a_frame_that_is_wrong_is_refused_and_the_next_one_answered():
    async with running(scripted()) as gateway, wired(gateway) as wire:
        await wire.socket.send('{"type": "generate", "id": "a", "prompt": 3}')
        await wire.send(Ping(nonce="n"))
        refused, answered = [await wire.receive() for _ in range(2)]
        assert (refused["type"], refused["id"], refused["code"]) == (
            "error",
            "a",
            "invalid_request",
        )
        assert answered["nonce"] == "n"


async def test_draining_a_connection_tells_how_its_generations_end_before_it_closes():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi"))
        await wire.until("chunk")
        (connection,) = gateway._connections
        await connection.drain(CloseCode.RESTART)
        assert (await wire.until("done"))[-1]["finish_reason"] == "cancelled"
        assert await close_code(wire.socket) == CloseCode.RESTART
        await eventually(lambda: not provider.live)


async def resumable(wire, **fields):
    """Start a resumable generation, and return its ticket once it has said something."""
    await wire.send(Generate(id="a", prompt="hi", resumable=True, **fields))
    frames = await wire.until("chunk")
    return next(frame["ticket"] for frame in frames if frame["type"] == "started")


async def test_a_connection_that_takes_a_generation_over_gets_the_rest_of_it():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate), Say("y"))) as gateway:
        async with wired(gateway) as first, wired(gateway) as second:
            ticket = await resumable(first)
            await second.send(Resume(id="a", ticket=ticket, after=-1))
            lost = (await first.until("error"))[-1]
            assert (lost["id"], lost["code"]) == ("a", "not_resumable")
            gate.set()
            frames = await second.until("done")
            assert "".join(f["text"] for f in frames if f["type"] == "chunk") == "xy"
        assert gateway._generations.metrics.resumed == 1


async def test_a_ticket_that_is_unknown_leaves_a_generation_of_that_id_alone():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate))) as gateway, wired(gateway) as wire:
        await wire.send(Resume(id="a", ticket="none", after=0))
        refused = await wire.receive()
        assert (refused["id"], refused["code"]) == ("a", "not_resumable")
        await resumable(wire)
        await wire.send(Resume(id="a", ticket="none", after=0))
        assert "id" not in await wire.receive()
        gate.set()
        assert (await wire.until("done"))[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("code", "keep_on_close", "kept"),
    [
        (CloseCode.NORMAL, False, 1),
        (CloseCode.GOING_AWAY, False, 0),
        (CloseCode.GOING_AWAY, True, 1),
    ],
)
async def test_a_page_that_is_left_leaves_only_what_is_to_be_kept(code, keep_on_close, kept):
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway:
        async with wired(gateway) as wire:
            await resumable(wire, keep_on_close=keep_on_close)
            await wire.socket.close(code)
        await eventually(lambda: gateway.connections == 0)
        assert (gateway.resumable, len(provider.live)) == (kept, kept)


async def test_frames_that_are_sent_again_leave_the_event_loop_to_others():
    turns, words = 0, 4 * MAX_AT_ONCE
    provider = ScriptedProvider(script=[Say("word " * words)], tokens_per_second=None)

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running(provider) as gateway:
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", prompt="x", resumable=True))
            started, *sent = await wire.until("done")
        async with wired(gateway) as wire:
            await eventually(lambda: gateway.connections == 1)
            (first,) = gateway._connections
            send, seen = first._send, []

            async def noted(messages):
                seen.append(turns)
                await send(messages)

            first._send = noted
            await wire.send(Resume(id="a", ticket=started["ticket"], after=started["seq"]))
            counting = asyncio.create_task(count())
            again = await wire.until("done")
            counting.cancel()
    assert again == sent
    assert len(set(seen)) >= len(sent) // MAX_AT_ONCE


class Noting(NativeDialect):
    """Notes in which turn of the event loop it prepares a piece of an event, or a whole one."""

    turn = 0

    def __init__(self, codec, turns):
        super().__init__(codec)
        self._turns = turns

    def prepare(self, event):
        steps = super().prepare(event)
        return None if steps is None else self._noted(steps)

    def _noted(self, steps):
        while True:
            self._turns.append(Noting.turn)
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            yield

    def encode(self, event):
        if isinstance(event, Done):
            assert is_packed_as(event, binary=self.binary), "this takes a whole event's time"
        return super().encode(event)

    @classmethod
    async def count(cls):
        while True:
            await asyncio.sleep(0)
            cls.turn += 1


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (JSON_PROTOCOL, MSGPACK_PROTOCOL),
        (MSGPACK_PROTOCOL, JSON_PROTOCOL),
        (JSON_PROTOCOL, JOINED_PROTOCOL),
        (JOINED_PROTOCOL, JSON_PROTOCOL),
    ],
)
async def test_an_answer_in_another_encoding_is_transcoded_in_pieces(before, after, ended):
    gate, turns, words = asyncio.Event(), [], 200
    provider = scripted(Say("word " * words, 20), Gate(gate))
    route = Route(
        "/v1/stream",
        lambda limits: lambda opening: Noting(codec_for(opening.subprotocol), turns),
        subprotocols=tuple(CODECS),
    )
    async with Gateway(provider, settings(), routes=[route]) as gateway:
        async with wired(gateway, before) as first, AsyncExitStack() as others:
            await first.send(Generate(id="a", prompt="hi", stream=False, resumable=True))
            started = (await first.until("started"))[-1]
            (task,) = gateway._generations._tasks
            await eventually(lambda: task.generation.unsent_bytes >= words * 21 * 64)
            if ended:
                gate.set()
                (whole,) = await first.until("done")
            counting = asyncio.create_task(Noting.count())
            second = await others.enter_async_context(wired(gateway, after))
            third = await others.enter_async_context(wired(gateway, after))
            await second.send(Resume(id="a", ticket=started["ticket"], after=-1))
            assert (await second.receive())["type"] == "started"
            await third.send(Resume(id="b", ticket=started["ticket"], after=-1, follow=True))
            assert (await third.receive())["type"] == "started"
            for wire in (second, third):
                await wire.send(Ping(nonce="n"))
            if not ended:
                gate.set()
            for wire, name in ((second, "a"), (third, "b")):
                frames = [await wire.receive(), await wire.receive()]
                done, pong = sorted(frames, key=lambda frame: frame["type"])
                assert (done["id"], done["seq"], pong["nonce"]) == (name, 1, "n")
                assert len(done["logprobs"]) == words
                if ended:
                    assert given(done) == given({**whole, "id": name})
            counting.cancel()
    assert len(turns) > 2 * 2
    assert len(set(turns)) == len(turns), "one piece of all connections in a turn"


def given(frame):
    """Return a frame without fields of null, which msgpack has."""
    return {name: value for name, value in frame.items() if value is not None}


async def test_little_text_that_waits_for_a_joined_connection_is_counted_until_it_leaves():
    provider = scripted(Say("x" * 50), Pause(3600))
    async with running(provider) as gateway, wired(gateway, JOINED_PROTOCOL) as wire:
        outbox = gateway._generations.outbox
        await wire.send(Generate(id="a", prompt="hi", window=1))
        await eventually(lambda: outbox.held == 50)  # the window has no room for the first text
        await wire.send(Ack(id="a", seq=0))
        await eventually(lambda: outbox.held == 0)


async def test_what_generations_have_at_one_time_goes_in_one_message():
    gate = asyncio.Event()
    provider = scripted(Gate(gate), Say("hello"))
    async with running(provider) as gateway:
        async with connect(stream_url(gateway), subprotocols=[JOINED_PROTOCOL]) as socket:
            codec = codec_for(socket.subprotocol)
            await socket.recv()
            for number in range(8):
                frame = Generate(id=f"{number}", prompt="x")
                await socket.send(codec.encode(frame), text=False)
            frames, messages = [], 0
            while sum(frame["type"] == "started" for frame in frames) < 8:
                frames += codec.frames_in(await socket.recv())
            gate.set()
            while sum(frame["type"] == "done" for frame in frames) < 8:
                frames += codec.frames_in(await socket.recv())
                messages += 1
    for number in range(8):
        own = [frame for frame in frames if frame["id"] == f"{number}"]
        assert [frame["seq"] for frame in own] == list(range(len(own)))
        assert "".join(frame["text"] for frame in own if frame["type"] == "chunk") == "hello"
    assert messages < 8  # for 16 frames and more
