"""What clients send is read in pieces and counted, whatever it is."""

import asyncio
import hashlib
import json
import zlib
from contextlib import AsyncExitStack

import pytest
from websockets.frames import Opcode

from gateway.configuration.settings import Settings
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import Ping
from gateway.server import reading
from gateway.server.inflating import END
from gateway.server.reading import ClientRates, MeteredConnection
from gateway.server.tokens import Token, Tokens
from provider.scripted import Say, ScriptedProvider
from tests.support.servers import (
    TIMEOUT,
    eventually,
    raw,
    raw_frame,
    running,
    watched_turns,
    wired,
)

SECRET = "sesame"
TOKENS = Tokens([Token("a", hashlib.sha256(SECRET.encode()).hexdigest())])
HELLO = json.dumps({"type": "hello", "token": SECRET}).encode()
PING = json.dumps({"type": "ping", "nonce": 1}).encode()
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
LARGE = raw_frame(json.dumps({"type": "generate", "id": "a", "prompt": "x" * 300_000}).encode())


def scripted():
    return ScriptedProvider(script=[Say("x")], tokens_per_second=None)


async def all_is_well(gateway, **options):
    async with wired(gateway, **options) as wire:
        await wire.send(Ping(nonce="n"))
        assert (await wire.receive())["nonce"] == "n"


def connection_of(gateway):
    (connection,) = gateway._connections
    return connection._socket


# Before a token.


NAMES = [f"Sec-WebSocket-Protocol: {'a,' * 3900}a"]


async def test_a_request_whose_headers_are_large_is_answered_before_they_have_come():
    async with running(scripted(), TOKENS) as gateway:
        async with raw(gateway, *NAMES):
            pass
        with pytest.raises(AssertionError, match=" 431 "):
            async with raw(gateway, *NAMES * 3):
                pass
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET / HTTP/1.1\r\n" + f"{NAMES[0]}\r\n".encode() * 3)
        async with asyncio.timeout(TIMEOUT):
            assert b" 431 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("first", [LARGE, raw_frame(b"x" * 300_000, Opcode.BINARY)])
async def test_before_a_token_a_large_frame_is_closed_unread(first):
    async with running(scripted(), TOKENS) as gateway, raw(gateway) as wire:
        await eventually(lambda: gateway.connections)
        socket = connection_of(gateway)
        wire.writer.write(first)
        assert await wire.close_code() == CloseCode.TOO_BIG
        assert len(socket._reader.buffer) <= reading.SMALL_PIECE


async def test_before_a_token_a_frame_in_parts_is_no_larger():
    parts = [raw_frame(b"x" * 1000, Opcode.TEXT, end=False)]
    parts += [raw_frame(b"x" * 1000, Opcode.CONT, end=False)] * 3
    async with running(scripted(), TOKENS) as gateway, raw(gateway) as wire:
        wire.writer.write(b"".join(parts))
        assert await wire.close_code() == CloseCode.TOO_BIG


@pytest.mark.parametrize("cut", [1, 2, 7, len(LARGE) - 3, None])
async def test_what_follows_a_hello_at_once_may_be_large(cut):
    async with running(scripted(), TOKENS) as gateway, raw(gateway) as wire:
        sent = raw_frame(HELLO) + LARGE + raw_frame(PING)
        for piece in (sent[:cut], sent[cut:]) if cut else (sent,):
            wire.writer.write(piece)
            await asyncio.sleep(0.01)
        kinds = []
        while "done" not in kinds:
            opcode, content = await wire.receive()
            assert opcode == Opcode.TEXT
            kinds.append(json.loads(content)["type"])
    assert kinds[0] == "ready"


async def test_who_shows_a_token_in_the_handshake_may_send_large_frames_at_once():
    async with running(scripted(), TOKENS) as gateway:
        async with raw(gateway, f"Authorization: Bearer {SECRET}") as wire:
            wire.writer.write(LARGE)
            opcode = None
            while opcode != "done":
                opcode = json.loads((await wire.receive())[1])["type"]


async def test_before_a_token_few_frames_are_answered():
    async with running(scripted(), TOKENS) as gateway, raw(gateway) as wire:
        wire.writer.write(raw_frame(b"", Opcode.PING) * 1000)
        assert await wire.close_code() == CloseCode.TOO_MANY
        await all_is_well(gateway, additional_headers={"Authorization": f"Bearer {SECRET}"})


async def test_before_a_token_nothing_is_decompressed_to_more():
    bomb = deflated(b" " * 2**20)
    assert len(bomb) < reading.MAX_FIRST_BYTES
    async with running(scripted(), TOKENS, compression=True) as gateway:
        async with raw(gateway, DEFLATE) as wire:
            wire.writer.write(raw_frame(bomb, compressed=True))
            assert await wire.close_code() == CloseCode.TOO_BIG


def deflated(data):
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH))[:-4]


# Rates.

PONG = raw_frame(b"", Opcode.PONG)
FLOODS = {
    "pings": raw_frame(b"", Opcode.PING) * 2000,
    "pongs": PONG * 2000,
    "parts": raw_frame(b"", Opcode.TEXT, end=False) + raw_frame(b"", Opcode.CONT, end=False) * 2000,
    "messages": raw_frame(PING) * 2000,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_every_kind_of_frame_counts_against_the_rate(flood):
    async with running(scripted(), frame_rate=100.0) as gateway, raw(gateway) as wire:
        wire.writer.write(FLOODS[flood])
        assert await wire.close_code() == CloseCode.TOO_MANY
        await all_is_well(gateway)


async def test_a_compressed_message_counts_by_what_it_becomes():
    bomb = raw_frame(deflated(PING + b" " * 50_000), compressed=True)
    limits = {"compression": True, "rate_bytes": 10_000}
    async with running(scripted(), **limits) as gateway, raw(gateway, DEFLATE) as wire:
        wire.writer.write(bomb)
        for _ in ("ready", "pong"):
            assert (await wire.receive())[0] == Opcode.TEXT
        wire.writer.write(bomb * 2)
        assert await wire.close_code() == CloseCode.TOO_MANY


async def test_a_compressed_message_that_becomes_less_counts_by_what_was_sent():
    nothing = (b"\0" + END) * 10_000  # blocks without content
    limits = {"compression": True, "rate_bytes": 10_000}
    async with running(scripted(), **limits) as gateway, raw(gateway, DEFLATE) as wire:
        wire.writer.write(raw_frame(nothing + deflated(PING), compressed=True))
        for _ in ("ready", "pong"):
            assert (await wire.receive())[0] == Opcode.TEXT
        wire.writer.write(raw_frame(nothing * 2 + deflated(PING), compressed=True))
        assert await wire.close_code() == CloseCode.TOO_MANY


async def test_a_client_that_is_cut_off_and_goes_on_sending_is_aborted():
    async with running(scripted(), frame_rate=10.0, close_timeout_s=0.1) as gateway:
        async with raw(gateway) as wire:
            wire.writer.write(PONG * 1000)
            assert await wire.close_code() == CloseCode.TOO_MANY
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(TIMEOUT):
                    while True:
                        wire.writer.write(PONG * 100)
                        await wire.writer.drain()
                        await asyncio.sleep(0.01)
        await eventually(lambda: not gateway.connections)


async def test_pongs_that_nobody_reads_are_few_in_memory():
    limits = {"frame_rate": 1e9, "rate_bytes": 10**9, "kernel_buffer_bytes": 1024}
    async with running(scripted(), **limits) as gateway, raw(gateway) as wire:
        await eventually(lambda: gateway.connections)
        transport, most = connection_of(gateway).transport, 0
        wire.reader._transport.pause_reading()
        for _ in range(1_000_000):
            wire.writer.write(raw_frame(b"x" * 125, Opcode.PING) * 50)
            await asyncio.sleep(0)
            most = max(most, transport.get_write_buffer_size())
            if not gateway.connections:
                break
        assert not gateway.connections
        assert most < 4 * reading.MAX_UNREAD_PONGS


# Pieces.


async def test_a_burst_of_small_frames_is_read_in_turns_that_are_short():
    limits = {"frame_rate": 1e9, "rate_bytes": 10**9}
    async with running(scripted(), **limits) as gateway, raw(gateway) as wire:
        await wire.receive()
        async with watched_turns() as turns:
            wire.writer.write(PONG * 40_000 + raw_frame(PING))
            await wire.receive()
    assert turns.longest < 0.1  # all of it takes a multiple


async def test_one_message_at_a_time_is_in_memory():
    async with running(scripted()) as gateway, raw(gateway) as wire:
        await wire.receive()
        socket, most = connection_of(gateway), 0
        put = socket.recv_messages.put

        def watched_put(frame):
            nonlocal most
            put(frame)
            most = max(most, len(socket.recv_messages.frames))

        socket.recv_messages.put = watched_put
        bad = raw_frame(json.dumps({"type": "ping", "nonce": "x" * 200_000}).encode())
        wire.writer.write(bad * 20)
        for _ in range(20):
            await wire.receive()
        assert most == 1


async def test_large_frames_are_read_in_large_pieces():
    async with running(scripted()) as gateway, raw(gateway) as wire:
        await wire.receive()
        socket, pieces = connection_of(gateway), []
        updated = socket.buffer_updated
        socket.buffer_updated = lambda count: pieces.append(count) or updated(count)
        wire.writer.write(raw_frame(json.dumps({"type": "ping", "nonce": "x" * 2**20}).encode()))
        await wire.receive()
        assert len(pieces) < 200
        assert sum(pieces) == 2**20 + len('{"type": "ping", "nonce": ""}') + 14


async def test_a_close_is_answered_though_messages_wait():
    async with running(scripted(), close_timeout_s=60.0) as gateway, raw(gateway) as wire:
        close = raw_frame(CloseCode.NORMAL.to_bytes(2, "big"), Opcode.CLOSE)
        wire.writer.write(raw_frame(b"no frame") * 5)
        assert await wire.close_code() == CloseCode.NOT_A_FRAME
        wire.writer.write(raw_frame(PING) * 500 + close)
        async with asyncio.timeout(TIMEOUT):
            assert await wire.reader.read() == b""
        wire.writer.close()
        await eventually(lambda: not gateway.connections)


async def test_while_a_close_is_awaited_frames_are_read_in_small_pieces():
    async with running(scripted(), close_timeout_s=60.0) as gateway, raw(gateway) as wire:
        await wire.receive()
        socket, sizes = connection_of(gateway), []
        wire.writer.write(raw_frame(b"no frame"))
        assert await wire.close_code() == CloseCode.NOT_A_FRAME
        get_buffer = socket.get_buffer

        def noted(hint):
            sizes.append(len(get_buffer(hint)))
            return socket._piece

        socket.get_buffer = noted
        wire.writer.write(raw_frame(PING) * 1000)
        await eventually(lambda: len(sizes) > 5)
        assert max(sizes) == reading.CLIENT_BYTES


async def test_while_a_close_is_awaited_nothing_is_decompressed_to_more():
    limits = {"compression": True, "close_timeout_s": 60.0}
    async with running(scripted(), **limits) as gateway, raw(gateway, DEFLATE) as wire:
        wire.writer.write(raw_frame(b"no frame"))
        assert await wire.close_code() == CloseCode.NOT_A_FRAME
        socket = connection_of(gateway)
        wire.writer.write(raw_frame(deflated(b" " * 2**23), compressed=True) * 3)
        wire.writer.write(raw_frame(CloseCode.NORMAL.to_bytes(2, "big"), Opcode.CLOSE))
        async with asyncio.timeout(TIMEOUT):
            assert await wire.reader.read() == b""  # the end, long before the time for a close
        assert (socket._inflation, socket._later) == (None, [])


BLANKS = b" " * 2**23  # as large as a message may be


async def test_a_large_compressed_message_is_inflated_in_turns_and_what_follows_waits():
    bomb = raw_frame(deflated(BLANKS[: -len(PING)] + PING), compressed=True)
    async with running(scripted(), compression=True) as gateway, raw(gateway, DEFLATE) as wire:
        await wire.receive()
        socket, turns, pongs = connection_of(gateway), 0, []
        wire.writer.write(bomb + raw_frame(PING))
        async with wired(gateway) as other:
            await eventually(lambda: socket._inflation)
            while socket._inflation is not None:
                if turns % 10 == 0:
                    await other.send(Ping(nonce=turns))
                    pongs.append((await other.receive())["nonce"])
                await asyncio.sleep(0)
                turns += 1
        assert pongs, "others are served meanwhile"
        assert turns >= 64
        assert [(await wire.receive())[0] for _ in range(2)] == [Opcode.TEXT] * 2
    assert socket._later == []


@pytest.mark.parametrize("end", [True, False])
async def test_what_becomes_too_large_is_closed_with_the_code_for_that(end):
    limits = {"compression": True, "max_frame_bytes": 2**20}
    part = raw_frame(deflated(b" " * 600_000) + END, end=False, compressed=True)
    rest = raw_frame(deflated(b" " * 600_000), Opcode.CONT)
    whole = raw_frame(deflated(b" " * (2**20 + 1)), compressed=True)
    async with running(scripted(), **limits) as gateway, raw(gateway, DEFLATE) as wire:
        wire.writer.write(whole if end else part + rest)
        assert await wire.close_code() == CloseCode.TOO_BIG
        await eventually(lambda: not gateway._generations.arriving.held)
        await all_is_well(gateway)


async def test_what_cannot_be_inflated_is_a_protocol_error():
    async with running(scripted(), compression=True) as gateway, raw(gateway, DEFLATE) as wire:
        wire.writer.write(raw_frame(b"\xff" * 100, compressed=True) + raw_frame(PING))
        assert await wire.close_code() == reading.PROTOCOL_ERROR


async def test_a_client_may_end_each_message_with_a_final_block():
    by = zlib.compressobj(wbits=-12)
    final = raw_frame(by.compress(PING) + by.flush(zlib.Z_FINISH) + b"\0", compressed=True)
    keeps = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    async with running(scripted(), compression=True) as gateway, raw(gateway, keeps) as wire:
        await wire.receive()
        wire.writer.write(final * 3)
        for _ in range(3):
            assert (await wire.receive())[0] == Opcode.TEXT


async def test_a_client_that_leaves_while_its_message_is_inflated_leaves_nothing():
    bomb = raw_frame(deflated(BLANKS), compressed=True)
    async with running(scripted(), compression=True) as gateway:
        async with raw(gateway, DEFLATE) as wire:
            await wire.receive()
            socket = connection_of(gateway)
            wire.writer.write(bomb)
            await eventually(lambda: socket._inflation)
        await eventually(lambda: not gateway.connections)
        await eventually(lambda: not socket._slices._steps)
        assert gateway._generations.arriving.held == 0


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_connection_that_is_lost_while_a_frame_waits_behind_what_is_inflated(compressed):
    bomb = raw_frame(deflated(BLANKS), compressed=True)
    large = deflated(PING + b" " * 50_000)
    behind = raw_frame(large if compressed else PING, compressed=compressed)
    async with running(scripted(), compression=True) as gateway:
        async with raw(gateway, DEFLATE) as wire:
            await wire.receive()
            socket = connection_of(gateway)
            wire.writer.write(bomb[:-99])
            await eventually(lambda: socket._reader.missing == 99)
            wire.writer.write(bomb[-99:] + behind)  # which are read in one piece
            async with asyncio.timeout(TIMEOUT):
                while not socket._later:
                    await asyncio.sleep(0)
            socket.transport.abort()
            await eventually(lambda: not gateway.connections)
            await eventually(lambda: not socket._slices._steps)
        assert gateway._generations.arriving.held == 0
        async with raw(gateway, DEFLATE) as other:
            await other.receive()
            other.writer.write(raw_frame(deflated(BLANKS[: -len(PING)] + PING), compressed=True))
            assert (await other.receive())[0] == Opcode.TEXT, "others are inflated"


async def test_while_a_close_is_awaited_frames_count_as_before():
    limits = {"frame_rate": 10.0, "close_timeout_s": 60.0}
    async with running(scripted(), **limits) as gateway, raw(gateway) as wire:
        wire.writer.write(raw_frame(b"no frame"))
        assert await wire.close_code() == CloseCode.NOT_A_FRAME
        wire.writer.write(raw_frame(PING) * 200)
        await eventually(lambda: not gateway.connections)  # it is aborted


async def test_a_turn_has_so_many_bytes_and_the_next_one_as_many():
    turn, loop = reading.Turn(), asyncio.get_running_loop()
    assert turn.piece("a") == reading.CLIENT_BYTES
    assert turn.piece(None) == reading.SMALL_PIECE
    turn.spend(reading.CLIENT_BYTES - 100, "a", loop)
    assert turn.piece("a") == 100
    turn.spend(100, "a", loop)
    assert turn.piece("a") == 1
    assert turn.piece("b") == reading.CLIENT_BYTES
    turn.spend(reading.TURN_BYTES, None, loop)
    assert turn.piece("b") == turn.piece(None) == reading.MIN_PIECE
    await asyncio.sleep(0)
    assert turn.piece("a") == reading.CLIENT_BYTES
    turn.spend(reading.TURN_BYTES, "b", loop)
    assert turn.piece("a") == reading.MIN_PIECE


def client_of(number):
    """Return a header with the token of a client of its own."""
    return f"Authorization: Bearer {number}"


MANY = Tokens([Token(str(n), hashlib.sha256(str(n).encode()).hexdigest()) for n in range(12)])
UNLIMITED = {"frame_rate": 1e9, "client_frame_rate": 1e9, "rate_bytes": 10**9}
UNLIMITED["client_rate_bytes"] = 10**9


async def test_many_clients_that_fill_their_sockets_share_a_turn():
    turns = await bytes_of_turns(20, MANY, lambda number: [client_of(number % 12)])
    assert max(turns) < reading.TURN_BYTES + reading.SMALL_PIECE + 20 * reading.MIN_PIECE


async def test_a_client_with_many_connections_has_one_share_of_a_turn():
    turns = await bytes_of_turns(60, None, lambda _: [])
    assert max(turns) < reading.CLIENT_BYTES + 60


async def bytes_of_turns(connections, tokens, headers):
    """Fill the sockets of so many connections; return the bytes read in each turn of the loop."""
    async with running(scripted(), tokens, **UNLIMITED) as gateway, AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(raw(gateway, *headers(number)))
            for number in range(connections)
        ]
        for wire in wires:
            await wire.receive()
        counts = []
        for connection in gateway._connections:
            connection._socket.buffer_updated = noted(connection._socket.buffer_updated, counts)
        for wire in wires:
            wire.writer.write(PONG * 1000 + raw_frame(PING))
        turns = []
        while sum(turns) < connections * (1000 * len(PONG) + len(raw_frame(PING))):
            await asyncio.sleep(0)
            turns.append(sum(counts))
            counts.clear()
        for wire in wires:
            await wire.receive()
    return turns


def noted(updated, counts):
    return lambda count: counts.append(count) or updated(count)


# Room for large messages.

PART = json.dumps(
    {"type": "ping", "nonce": "x" * 18_000}
).encode()  # too long a nonce, but no flood
ROOM = {"request_bytes": 80_000, "max_frame_bytes": 20_000}


async def connections_of(gateway, stack, count, *headers):
    """Return so many wires, after their greeting."""
    wires = [
        await stack.enter_async_context(raw(gateway, client_of(number), *headers))
        for number in range(count)
    ]
    for wire in wires:
        await wire.receive()
    return wires


def in_memory(gateway):
    """Return the bytes that the gateway has received and not decoded."""
    sockets = [connection._socket for connection in gateway._connections]
    frames = [frame for one in sockets for frame in one.recv_messages.frames.queue]
    return sum(len(one._reader.buffer) for one in sockets) + sum(len(one.data) for one in frames)


@pytest.mark.parametrize("pieces", [1, 12])
async def test_large_messages_of_all_connections_share_a_room(pieces):
    step = len(PART) // pieces + 1
    parts = [PART[at : at + step] for at in range(0, len(PART), step)]
    frames = [
        raw_frame(part, Opcode.CONT if n else Opcode.TEXT, end=n == len(parts) - 1)
        for n, part in enumerate(parts)
    ]
    sent = b"".join(frames)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(scripted(), MANY, **ROOM))
        budget = gateway._generations.arriving
        wires = await connections_of(gateway, stack, 12)
        for wire in wires:
            wire.writer.write(sent[:-9])
        await eventually(lambda: budget.contended)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert in_memory(gateway) <= budget.limit + 12 * reading.SMALL_PIECE + len(PART)
        for wire in wires:
            wire.writer.write(sent[-9:])
        if pieces == 1:  # what waits with a part of its message in memory is cut off in the end
            for wire in wires:
                assert json.loads((await wire.receive())[1])["type"] == "error"
            await eventually(lambda: not budget.held)
    assert (budget.held, budget.contended) == (0, False)


async def timer_of_message(connection):
    """Wait until a large message is being received; return the timer of its end."""
    await eventually(lambda: connection._socket._slow)
    return connection._socket._slow


async def test_who_takes_long_for_a_large_message_is_cut_off_while_others_wait():
    sent = raw_frame(PART)
    async with AsyncExitStack() as stack:
        options = {**ROOM, "message_timeout_s": 0.1}
        gateway = await stack.enter_async_context(running(scripted(), MANY, **options))
        slow = await connections_of(gateway, stack, 2)
        for wire in slow:
            wire.writer.write(sent[:-9])
        first = [await timer_of_message(connection) for connection in gateway._connections]
        for timer, connection in zip(first, gateway._connections, strict=True):
            await eventually(lambda t=timer, c=connection: c._socket._slow not in (t, None))
        assert gateway.connections == 2, "nobody waits"
        (*_, other) = await connections_of(gateway, stack, 3)
        other.writer.write(sent)
        assert await slow[0].close_code() == CloseCode.TOO_MANY
        assert json.loads((await other.receive())[1])["type"] == "error"


async def test_a_message_that_may_become_larger_has_room_for_that():
    noise = hashlib.shake_128(b"").hexdigest(4000)
    message = json.dumps({"type": "ping", "nonce": noise}).encode()
    large = raw_frame(deflated(message), compressed=True)
    async with AsyncExitStack() as stack:
        options = {**ROOM, "compression": True}
        gateway = await stack.enter_async_context(running(scripted(), MANY, **options))
        (wire,) = await connections_of(gateway, stack, 1, DEFLATE)
        wire.writer.write(large[:-9])
        budget = gateway._generations.arriving
        await eventually(lambda: budget.held)
        assert budget.held == ROOM["max_frame_bytes"]
        wire.writer.write(large[-9:])
        assert (await wire.receive())[0] == Opcode.TEXT  # an error, compressed
        await eventually(lambda: not budget.held)


# Rates of clients.


async def test_a_clients_connections_share_its_rate_and_are_read_slowly_beyond_it():
    answers = []

    async def answered(wire):
        while True:
            answers.append(await wire.receive())

    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(scripted(), MANY, client_frame_rate=20.0))
        tasks = []
        for _ in range(4):
            wire = await stack.enter_async_context(raw(gateway, client_of(0)))
            await wire.receive()
            wire.writer.write(raw_frame(PING) * 200)
            tasks.append(asyncio.create_task(answered(wire)))
        await all_is_well(gateway, additional_headers={"Authorization": "Bearer 1"})
        await eventually(lambda: len(answers) >= 200)
        await asyncio.sleep(0.2)
        assert len(answers) < 600, "of 800"
        assert gateway.connections == 4, "nobody is cut off"
        for task in tasks:
            task.cancel()


def test_the_debt_of_a_client_is_paid_with_time():
    rates = ClientRates(Settings(client_frame_rate=10.0, client_rate_bytes=1024))
    assert [rates.spend("a", 0, 1.0) for _ in range(100)] == [0.0] * 100
    assert rates.spend("a", 0, 1.0) == pytest.approx(0.1)
    assert rates.spend("b", 0, 1.0) == 0.0
    assert rates.spend("a", 0, 2.0) == 0.0
    assert rates.spend("b", 10 * 1024 + 512, 1.0) == pytest.approx(0.5)
    assert rates.spend("b", 2**20, 1.0) == reading.MAX_PAUSE_S


# Memory.


async def test_the_headers_of_a_served_connection_are_freed():
    async with running(scripted()) as gateway, wired(gateway) as wire:
        await all_is_well(gateway)
        connections = [connection._socket for connection in gateway._connections]
        assert connections
        assert all(not list(one.request.headers.raw_items()) for one in connections)
        assert {one.request.path for one in connections} == {"/v1/stream"}
        await wire.send(Ping(nonce="n"))
        assert (await wire.receive())["nonce"] == "n"


async def test_a_connection_has_no_attribute_of_its_own_in_the_dictionary_of_the_library():
    async with running(scripted()) as gateway, wired(gateway):
        (connection,) = gateway._connections
        assert not set(MeteredConnection.__slots__) & set(vars(connection._socket))
