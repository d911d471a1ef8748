"""What a client may have of the event loop's time, by a scripted clock, and over real sockets."""

import asyncio
import gc
import hashlib
import heapq
import itertools
import json
import socket
import time
import weakref
import zlib
from contextlib import ExitStack, asynccontextmanager

import pytest
from websockets.frames import Opcode

from gateway.protocol.frames import Cancel, Generate
from gateway.server.accepting import ACCEPT_S
from gateway.server.loop_share import BURST_S, LOOK_S, MAX_REST_S, LoopShare, timed
from gateway.server.reading import PIECE_S
from gateway.server.tokens import Token, Tokens
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import TIMEOUT, eventually, raw, raw_frame, running, wired

SHARE = 0.1


class Clock:
    """A clock that stands still but for `run`."""

    def __init__(self):
        self.now = 1000.0
        self.calls = []
        self._numbers = itertools.count()

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        call = Call(self.now + delay, callback)
        heapq.heappush(self.calls, (call.at, next(self._numbers), call))
        return call

    def run(self, seconds):
        end = self.now + seconds
        while self.calls and self.calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self.calls)
            if call.callback is not None:
                call.callback()
        self.now = end


class Call:
    def __init__(self, at, callback):
        self.at, self.callback = at, callback

    def cancel(self):
        self.callback = None


class Reader:
    """A connection that always has more to be read, in pieces that cost as much; or little."""

    def __init__(self, share, clock, client, cost):
        self.share, self.clock, self.client, self.cost = share, clock, client, cost
        self.pieces, self.spent, self.last, self.longest = 0, 0.0, clock.now, 0.0
        self.owed = []

    def read(self, owes=False):
        self.longest, self.last = max(self.longest, self.clock.now - self.last), self.clock.now
        self.owed += [owes]
        self.pieces += 1
        cost = self.cost / 50 if owes else self.cost
        self.spent += cost
        if self.share.spend(self.client, cost, self.clock.now):
            self.share.rest(self.client, self.read, self.clock)
        else:
            self.clock.call_later(self.cost, self.read)


def readers(count, cost, share=None, client="a"):
    clock, share = Clock(), share or LoopShare(SHARE, lambda client: True)
    made = [Reader(share, clock, client, cost) for _ in range(count)]
    for reader in made:
        reader.read()
    return clock, share, made


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("cost", [0.0005, 0.004, 0.05])
def test_beside_others_a_client_has_its_share_on_all_connections_together(count, cost):
    clock, _, made = readers(count, cost)
    clock.run(20.0)
    spent = sum(reader.spent for reader in made)
    begun = SHARE * BURST_S + count * cost
    assert 0.9 * SHARE * 20.0 <= spent <= 1.001 * (SHARE * 20.0 + begun)


def test_connections_of_a_client_are_read_one_after_the_other():
    clock, _, made = readers(5, 0.004)
    clock.run(20.0)
    pieces = [reader.pieces for reader in made]
    assert max(pieces) - min(pieces) <= SHARE * BURST_S / 0.004


def test_alone_a_client_has_all_and_is_not_held_for_it_later():
    others = False
    share = LoopShare(SHARE, lambda client: others)
    clock, _, [reader] = readers(1, 0.01, share)
    clock.run(10.0)
    assert reader.pieces >= 999
    others = True
    assert not share.spend("a", SHARE * BURST_S * 0.9, clock.now)


def test_once_others_are_served_no_more_all_connections_are_read_soon():
    others = True
    share = LoopShare(SHARE, lambda client: others)
    clock, _, made = readers(10, 0.4, share)
    clock.run(1.0)
    before = [reader.pieces for reader in made]
    others = False
    clock.run(LOOK_S + 0.1)
    assert all(reader.pieces > then for reader, then in zip(made, before, strict=True))


def test_no_connection_waits_for_too_long_whatever_its_client_has_used():
    clock, share, [reader] = readers(1, 0.001)
    share.spend("a", 1000.0, clock.now)
    clock.run(20.0)
    assert MAX_REST_S <= reader.longest < MAX_REST_S + 2 * LOOK_S
    assert reader.owed[-1], "it may be read only a little"


def test_what_one_client_uses_is_not_taken_from_another_or_from_nobody_in_particular():
    _, share, _ = readers(1, 10.0, client="a")
    assert not share.spend("b", 0.05, 1000.0)
    assert not share.spend(None, 100.0, 1000.0)


def test_a_share_of_all_counts_nothing():
    share = LoopShare(1.0, lambda client: True)
    assert not share.spend("a", 100.0, 0.0)


def test_what_is_given_back_is_as_if_it_had_not_been_used():
    share = LoopShare(SHARE, lambda client: True)
    assert share.spend("a", 5.0, 1000.0)
    share.give_back("a", 5.0, 1000.0)
    assert not share.spend("a", 0.0, 1000.0)
    share.give_back("b", 5.0, 1000.0)
    assert share.spend("b", SHARE * BURST_S + 0.01, 1000.0), "nobody gets more than a burst"


def test_what_was_used_is_remembered_until_it_is_made_up_for():
    share = LoopShare(SHARE, lambda client: True)
    share.spend("a", 1.0, 1000.0)
    assert share.spend("a", 0.0, 1008.0)
    assert not share.spend("a", 0.0, 1010.0)


def test_a_connection_that_is_withdrawn_is_forgotten_and_the_next_one_is_read():
    clock, share = Clock(), LoopShare(SHARE, lambda client: True)
    share.spend("a", 0.15, clock.now)
    over = []
    first = share.rest("a", lambda owes: over.append("first"), clock)
    share.rest("a", lambda owes: over.append("second"), clock)
    share.withdraw(first)
    clock.run(1.0)
    assert over == ["second"]
    last = share.rest("a", lambda owes: over.append("last"), clock)
    share.withdraw(last)
    clock.run(1.0)
    assert over == ["second"]
    assert not share._lines


# The steps of a coroutine.


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def test_the_steps_of_a_coroutine_are_timed_and_what_runs_between_them_is_not():
    spent = []

    async def work():
        burn(0.002)
        await asyncio.sleep(0)
        burn(0.002)
        return "done"

    async def other():
        burn(0.1)

    beside = asyncio.create_task(other())
    assert await timed(work(), spent.append) == "done"
    await beside
    assert len(spent) == 2
    assert 0.004 <= sum(spent) < 0.1


async def test_errors_and_cancelling_pass_through_what_is_timed():
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await timed(fails(), lambda seconds: None)
    left = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            left.append(True)

    task = asyncio.create_task(timed_as_task(waits()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left

    async def times_out():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await timed(times_out(), lambda seconds: None)


async def test_an_error_that_passed_through_is_freed_at_once():
    freed = []

    async def fails():
        await asyncio.Event().wait()

    task = asyncio.create_task(timed_as_task(fails()))
    await asyncio.sleep(0)
    gc.disable()
    try:
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            weakref.finalize(error, freed.append, True)
        del task
        await asyncio.sleep(0)
        assert freed
    finally:
        gc.enable()


async def timed_as_task(work):
    await timed(work, lambda seconds: None)


# Over real sockets.


def token(name):
    return Token(name, hashlib.sha256(name.encode()).hexdigest())


TOKENS = Tokens([token("greedy"), token("other")])
PING = json.dumps({"type": "ping", "nonce": 1}).encode()
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
LEAST = 0.01  # the smallest share there may be
GREEDY = "Authorization: Bearer greedy"


@asynccontextmanager
async def beside_an_answer(**changes):
    """Run a gateway, and return it, its share, and what ends the one answer that it makes."""
    provider = ScriptedProvider(script=[Say("x"), Pause(1000)], tokens_per_second=None)
    async with running(provider, TOKENS, client_loop_share=LEAST, **changes) as gateway:
        headers = {"Authorization": "Bearer other"}
        async with wired(gateway, additional_headers=headers) as other:

            async def ask():
                await other.send(Generate(id="a", prompt="x"))
                await other.until("chunk")

            async def end():
                await other.send(Cancel(id="a"))
                await other.until("done")

            await ask()
            yield gateway, gateway._generations.loop_share, end


def sockets_of(gateway, client):
    return [one._socket for one in gateway._connections if one._socket._client == client]


def use_up(share, client, more=0.0):
    """Let a client have used what it may use at once, and more perhaps."""
    share.spend(client, LEAST * BURST_S + more, asyncio.get_running_loop().time())


async def pongs(wire, count):
    for _ in range(count):
        opcode, content = await wire.receive()
        assert (opcode, json.loads(content)["type"]) == (Opcode.TEXT, "pong")


async def test_a_client_beyond_its_share_is_read_later_and_nothing_is_lost():
    async with beside_an_answer() as (gateway, share, end), raw(gateway, GREEDY) as wire:
        await wire.receive()
        [socket] = sockets_of(gateway, "token greedy")
        use_up(share, "token greedy")
        wire.writer.write(raw_frame(PING) * 500)
        await eventually(lambda: socket._rest and not socket.transport.is_reading())
        await end()
        await pongs(wire, 500)
        assert not share._lines


async def test_what_is_read_late_counts_as_the_answer_to_a_ping():
    async with beside_an_answer() as (gateway, share, end), raw(gateway, GREEDY) as wire:
        await wire.receive()
        [socket] = sockets_of(gateway, "token greedy")
        answered = await socket.ping()  # which this client never answers
        assert (await wire.receive())[0] == Opcode.PING
        wire.writer.write(raw_frame(PING))
        await pongs(wire, 1)
        assert not answered.done()
        use_up(share, "token greedy", 100.0)
        wire.writer.write(raw_frame(PING))
        await eventually(lambda: socket._rest)
        wire.writer.write(raw_frame(PING))
        await end()
        await pongs(wire, 2)
        assert answered.done()


async def test_beside_nobody_a_client_is_read_as_fast_as_it_sends():
    async with running(ScriptedProvider(), TOKENS, client_loop_share=LEAST) as gateway:
        async with raw(gateway, GREEDY) as wire:
            await wire.receive()
            wire.writer.write(raw_frame(PING) * 500)
            await pongs(wire, 500)
            assert len(gateway._generations.loop_share._rates) == 0


async def test_beside_its_own_answers_a_client_is_read_as_fast_as_it_sends():
    async with beside_an_answer() as (gateway, share, end), raw(gateway, GREEDY) as wire:
        await wire.receive()
        ask = {"type": "generate", "id": "a", "prompt": "x"}
        wire.writer.write(raw_frame(json.dumps(ask).encode()))
        await eventually(lambda: gateway.live == 2)
        await end()
        await eventually(lambda: gateway.live == 1)
        assert not share._beside("token greedy")
        assert share._beside("token other")


def deflated(data):
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def test_a_message_whose_client_is_beyond_its_share_is_inflated_later():
    bomb = raw_frame(deflated(b" " * (2**23 - len(PING)) + PING), compressed=True)
    async with (
        beside_an_answer(compression=True) as (gateway, share, end),
        raw(gateway, GREEDY, DEFLATE) as wire,
    ):
        await wire.receive()
        [socket] = sockets_of(gateway, "token greedy")
        use_up(share, "token greedy")
        wire.writer.write(bomb + raw_frame(PING))
        await eventually(lambda: socket._rest and socket._inflation and not socket._slices._steps)
        await end()
        assert [(await wire.receive())[0] for _ in range(2)] == [Opcode.TEXT] * 2


async def test_an_address_beyond_its_share_has_new_sockets_read_later():
    async with beside_an_answer() as (gateway, share, end):
        use_up(share, "guest 127.0.0.1", 100.0)
        opening = asyncio.create_task(opened(gateway))
        await eventually(lambda: share._lines.get("guest 127.0.0.1"))
        assert not opening.done()
        await end()
        async with asyncio.timeout(TIMEOUT):
            await opening


def plain_socket(gateway):
    return socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT)


async def test_what_it_takes_to_accept_a_socket_and_each_piece_of_its_request_counts():
    async with running(ScriptedProvider()) as gateway:
        with plain_socket(gateway) as own:
            await eventually(lambda: len(gateway._door._made) == 1)
            (made,) = gateway._door._made
            await eventually(lambda: made._cost >= ACCEPT_S)
            for count in range(1, 11):
                own.sendall(b"G")
                await eventually(lambda count=count: len(made.protocol.reader.buffer) == count)
            assert made._cost >= ACCEPT_S + 10 * PIECE_S


async def test_sockets_of_an_address_beyond_its_share_are_accepted_later():
    async with beside_an_answer() as (gateway, share, _):
        listening, server = gateway._listening, gateway._server
        use_up(share, "guest 127.0.0.1", 100.0)
        before = len(server.handler_tasks)
        assert not listening.rests
        with ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(plain_socket(gateway))
            await eventually(lambda: listening.rests)
            assert len(server.handler_tasks) < before + 12
            await eventually(lambda: len(server.handler_tasks) == before + 12)
            await eventually(lambda: not listening.rests)
            stack.enter_context(plain_socket(gateway))
            await eventually(lambda: listening.rests)
            await gateway.close()
            assert not listening.rests


async def test_sockets_that_are_refused_count_for_their_address_too():
    async with beside_an_answer() as (gateway, share, _):
        listening = gateway._listening
        gateway._door._guests._most = 0  # so that an address has one
        use_up(share, "guest 127.0.0.1", 100.0)
        with plain_socket(gateway):
            await eventually(lambda: listening.rests)
            await eventually(lambda: not listening.rests)
            with plain_socket(gateway) as refused:
                await eventually(lambda: listening.rests)
                answer = await asyncio.to_thread(refused.recv, 1024)
                assert answer.startswith(b"HTTP/1.1 503 ")


async def opened(gateway):
    async with raw(gateway, GREEDY):
        pass


async def test_what_a_client_costs_until_it_is_let_in_is_its_own():
    async with beside_an_answer() as (gateway, share, _), raw(gateway, GREEDY) as wire:
        await wire.receive()
        left = {key: rate._left for key, rate in share._rates._recent.items()}
        assert left["token greedy"] < LEAST * BURST_S
        assert left["guest 127.0.0.1"] > left["token greedy"]


async def test_a_client_that_leaves_while_it_waits_leaves_nothing():
    async with beside_an_answer() as (gateway, share, _):
        async with raw(gateway, GREEDY) as wire:
            await wire.receive()
            [socket] = sockets_of(gateway, "token greedy")
            use_up(share, "token greedy", 100.0)
            wire.writer.write(raw_frame(PING))
            await eventually(lambda: socket._rest)
            socket.transport.abort()  # which is how the server notes that a paused socket is gone
        await eventually(lambda: len(gateway._connections) == 1)
        assert not share._lines
