"""Lost connections over real sockets, and clients that come back for the rest."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from gateway.dialects.native import codec_for
from gateway.protocol.frames import (
    JOINED_PROTOCOL,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    Ack,
    Cancel,
    Generate,
    Resume,
)
from gateway.protocol.generation import AT_ONCE
from gateway.server.connection import MAX_AT_ONCE, MAX_FOLLOWERS, STEP
from gateway.server.resumable import ENDED_BYTES, MIN_HELD
from gateway.server.tokens import Token, Tokens
from provider.scripted import Call, Gate, Pause, Reason, Say, ScriptedProvider
from tests.support.servers import (
    TIMEOUT,
    eventually,
    raw,
    raw_frame,
    running,
    stream_url,
    wired,
)

WORDS = "".join(f"word{n} " for n in range(200))


def scripted(*script, rate=None):
    return ScriptedProvider(script=script, tokens_per_second=rate)


def text_of(frames, channel=None):
    return "".join(
        f["text"] for f in frames if f["type"] == "chunk" and f.get("channel") == channel
    )


def numbers_of(frames):
    return [f["seq"] for f in frames if f.get("seq") is not None]


async def lose(wire):
    wire.socket.transport.abort()
    await wire.socket.wait_closed()


async def begin(wire, *kinds, **fields):
    """Start a resumable generation and return its first frames, the ticket among them."""
    await wire.send(Generate(id="a", prompt="hi", resumable=True, **fields))
    frames = await wire.until(*kinds or ("chunk",))
    started = next(f for f in frames if f["type"] == "started")
    assert len(started["ticket"]) >= 22  # 128 bits in base64
    return frames, started["ticket"]


@pytest.mark.parametrize("back", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_a_lost_client_comes_back_for_the_rest_exactly_once(back):
    gate = asyncio.Event()
    provider = scripted(Reason("hm hm "), Say(WORDS), Gate(gate), Say("end"), Call("f", {"x": 1}))
    async with running(provider) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            await lose(wire)
        gate.set()
        await eventually(lambda: not provider.live)  # it went on without its client
        async with wired(gateway, back) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
            frames += await wire.until("done")
    assert text_of(frames) == f"{WORDS}end"
    assert text_of(frames, "reasoning") == "hm hm "
    assert numbers_of(frames) == list(range(len(numbers_of(frames))))
    assert [f["name"] for f in frames if f["type"] == "tool_call"] == ["f"]


async def test_answers_that_go_on_without_their_clients_share_what_they_may_hold():
    provider = scripted(Say("x"), *[Say("y" * 4000)] * 400, Pause(3600))
    async with running(provider, resume_total_bytes=1_400_000) as gateway:
        store = gateway._generations.resume_store

        def held():
            paused = [task for task in store._disconnected if not task._may_read.is_set()]
            return [task.generation.held_bytes for task in paused]

        for count in range(1, 4):
            async with wired(gateway) as wire:
                _, ticket = await begin(wire)
                await lose(wire)
            await eventually(lambda count=count: len(held()) == count)
        assert sum(held()) == store._live.held < 1_400_000
        assert max(held()) - min(held()) < 200_000
        assert MIN_HELD < min(held()) < 400_000
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=-1))
            await wire.until("chunk")
            assert store._live.held == sum(held()[:2])


async def test_what_is_kept_for_clients_that_are_there_is_counted_and_bounded():
    gate = asyncio.Event()
    provider = scripted(*[Say("y" * 1000)] * 150, Gate(gate))
    async with running(provider, resume_total_bytes=400_000, client_share=0.5) as gateway:
        store = gateway._generations.resume_store
        async with wired(gateway) as wire:
            kept = []
            for number in range(4):
                resumable = Generate(id=str(number), prompt="hi", resumable=True)
                await wire.send(resumable)
                read = 0
                while read < 150_000:
                    read += len((await wire.until("chunk"))[-1]["text"])
                (connection,) = gateway._connections
                tasks = list(connection._tasks.values())
                assert store._connected.held == sum(task.kept_bytes for task in tasks)
                kept.append(tasks[-1].generation.kept_bytes)
            assert kept[0] > 150_000
            assert max(kept[2:]) < MIN_HELD + 2 * STEP, "there is no room for more"
            gate.set()
            for _ in kept:
                await wire.until("done")
            await eventually(lambda: len(store._disconnected) == 4)
        assert store._connected.held == 0


def of(name):
    return {"additional_headers": {"Authorization": f"Bearer {name}"}}


async def test_of_those_that_have_ended_the_client_that_holds_most_loses_its_oldest():
    tokens = Tokens([Token(one, hashlib.sha256(one.encode()).hexdigest()) for one in "ab"])
    async with running(scripted(Say("x")), tokens, resume_total_bytes=10 * ENDED_BYTES) as gateway:
        store, tickets = gateway._generations.resume_store, {}
        for client, count in (("b", 1), ("a", 12)):
            async with wired(gateway, **of(client)) as wire:
                for number in range(count):
                    _, tickets[client, number] = await begin(wire, "done")
            await eventually(lambda: not gateway.connections)
        assert 8 < len(store) == len(store._disconnected) < 10
        for client, number, answer in (("b", 0, "done"), ("a", 0, "error"), ("a", 11, "done")):
            async with wired(gateway, **of(client)) as wire:
                await wire.send(Resume(id="a", ticket=tickets[client, number], after=-1))
                assert (await wire.until("done", "error"))[-1]["type"] == answer
        store.close()
        assert store._ended._held == 0
        assert not store._ended._bytes


async def test_what_was_sent_is_sent_again_to_who_asks_for_all():
    provider = scripted(Say(WORDS), Pause(3600))
    async with running(provider) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            while text_of(frames) != WORDS:
                frames.append(await wire.receive())
            await lose(wire)
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=-1))
            again = [await wire.receive() for _ in numbers_of(frames)]
            assert again == [f for f in frames if f.get("seq") is not None]
            await wire.send(Cancel(id="a"))
            assert (await wire.until("done"))[-1]["finish_reason"] == "cancelled"
        await eventually(lambda: not provider.live)


async def test_what_has_ended_can_be_resumed_too():
    async with running(scripted(Say("x"))) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire, "done")
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=0))
            assert await wire.until("done") == frames[1:]
            await wire.send(Generate(id="a", prompt="again"))
            assert text_of(await wire.until("done")) == "x"


async def test_a_second_client_takes_over_and_the_first_is_told():
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate), Say("y"))) as gateway:
        async with wired(gateway) as first, wired(gateway) as second:
            frames, ticket = await begin(first)
            await second.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
            error = (await first.until("error"))[-1]
            assert (error["id"], error["code"]) == ("a", "not_resumable")
            gate.set()
            assert text_of(await second.until("done")) == "y"
            await first.send(Generate(id="a", prompt="the id is free"))
            assert text_of(await first.until("done")) == "xy"


async def test_a_client_that_does_not_come_back_has_its_generation_cancelled():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, resume_ttl_s=0.2) as gateway:
        async with wired(gateway) as wire:
            _, ticket = await begin(wire)
            await lose(wire)
        await eventually(lambda: not provider.live)
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=1))
            error = await wire.receive()
            assert (error["id"], error["code"]) == ("a", "not_resumable")
            assert "expired" in error["message"]


async def test_without_its_client_a_generation_goes_on_so_far_and_waits():
    provider = scripted(Say(WORDS * 100))
    small = {"resume_bytes": 16_384, "kernel_buffer_bytes": 4096}
    async with running(provider, **small) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            await lose(wire)
        (request,) = provider.requests
        produced = -1
        while produced != request.produced:
            produced = request.produced
            await asyncio.sleep(0.1)
        assert produced < 20_000, "the model went on for a client that was not there"
        async with wired(gateway) as wire:
            last = numbers_of(frames)[-1]
            await wire.send(Resume(id="a", ticket=ticket, after=last))
            rest = await wire.until("done", "error")
        if rest[-1]["type"] == "done":
            assert text_of([*frames, *rest]) == WORDS * 100
        else:
            assert f"frame {last + 1} is no longer kept" in rest[-1]["message"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ticket": "no"}, "unknown ticket"),
        ({"after": 99}, "no frame 99"),
        ({"id": "b"}, "unknown ticket"),
    ],
)
async def test_what_cannot_be_resumed_says_why_and_goes_on(changes, said):
    gate = asyncio.Event()
    async with running(scripted(Say("x"), Gate(gate))) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            await lose(wire)
        async with wired(gateway) as wire:
            right = {"id": "a", "ticket": ticket, "after": numbers_of(frames)[-1]}
            await wire.send(Resume(**{**right, **changes}))
            error = await wire.receive()
            assert error["code"] == "not_resumable"
            assert said in error["message"]
            await wire.send(Resume(**right))
            gate.set()
            assert (await wire.until("done"))[-1]["finish_reason"] == "stop"


class SlowToBegin(ScriptedProvider):
    """A provider that never comes to begin."""

    waiting = 0

    async def generate_async(self, *arguments, **options):
        self.waiting += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.waiting -= 1


async def test_what_has_not_started_ends_with_its_connection():
    provider = SlowToBegin()
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi", resumable=True))
        await eventually(lambda: provider.waiting == 1)
        await lose(wire)
        await eventually(lambda: provider.waiting == 0)


async def test_a_window_holds_the_model_back():
    provider = scripted(Say("word " * 1000))
    async with running(provider) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="a", prompt="hi", window=3))
        frames = [await wire.receive() for _ in range(3)]
        (request,) = provider.requests
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert request.produced < 1000 or provider.live
        held = request.produced
        assert held < 10
        while frames[-1]["type"] != "done":
            await wire.send(Ack(id="a", seq=frames[-1]["seq"]))
            frames.append(await wire.receive())
    assert text_of(frames) == "word " * 1000
    assert numbers_of(frames) == list(range(len(frames)))


async def test_a_window_goes_on_where_it_was_after_a_resume():
    async with running(scripted(Say("word " * 50))) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire, window=4)
            await lose(wire)
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
            while frames[-1]["type"] != "done":
                frames.append(await wire.receive())
                await wire.send(Ack(id="a", seq=frames[-1]["seq"]))
    assert text_of(frames) == "word " * 50


async def test_a_second_resume_with_nothing_left_amid_the_first_one_holds_up_nobody():
    gate = asyncio.Event()
    provider = scripted(*[Say("x" * 16_000)] * (3 * AT_ONCE), Gate(gate), Say("end"))
    limits = {"resume_bytes": 8 << 20, "kernel_buffer_bytes": 1024}
    async with running(provider, **limits) as gateway:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            while text_of(frames) != "x" * 16_000 * 3 * AT_ONCE:
                frames.append(await wire.receive())
            newest = numbers_of(frames)[-1]
        async with wired(gateway, max_queue=1) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=-1))
            (generation,) = (task.generation for task in gateway._generations._tasks)
            await eventually(lambda: generation.more_again)
            await wire.send(Resume(id="a", ticket=ticket, after=newest))
            await eventually(lambda: gateway._generations.metrics.resumed == 2)
            assert not generation.more_again, "the writer would ask for it for ever"
            gate.set()
            again = await wire.until("done")
    assert text_of(again).endswith("xend")
    assert len(numbers_of(again)) < newest


# Followers.


async def follow(wire, ticket, after=-1, name="b", **fields):
    await wire.send(Resume(id=name, ticket=ticket, after=after, follow=True, **fields))


def given(frames):
    """Return frames without fields of null, which msgpack has."""
    return [{name: value for name, value in f.items() if value is not None} for f in frames]


def told_to(name, frames):
    """Return numbered frames as another reader gets them."""
    return given({**f, "id": name} for f in frames if f.get("seq") is not None)


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_two_followers_read_the_same_frames_and_one_joins_in_the_middle(protocol):
    first_gate, gate = asyncio.Event(), asyncio.Event()
    script = [Reason("hm "), Say("a b "), Gate(first_gate), Say("c "), Gate(gate), Say("d")]
    async with running(scripted(*script, Call("f", {"x": 1}))) as gateway:
        async with (
            wired(gateway) as wire,
            wired(gateway, protocol) as other,
            wired(gateway) as late,
        ):
            frames, ticket = await begin(wire)
            await follow(other, ticket)
            read = await other.until("chunk")
            first_gate.set()
            while "c " not in text_of(frames):
                frames.append(await wire.receive())
            await follow(late, ticket, after=2)
            gate.set()
            frames += await wire.until("done")
            assert given(read + await other.until("done")) == told_to("b", frames)
            assert await late.until("done") == told_to("b", frames)[3:]
        await eventually(lambda: gateway.resumable == 1)


async def test_a_follower_that_leaves_or_cancels_has_no_effect():
    gate = asyncio.Event()
    async with running(scripted(Say("x "), Gate(gate), Say("y"))) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            frames, ticket = await begin(wire)
            async with wired(gateway) as lost:
                await follow(lost, ticket)
                await lost.until("chunk")
                await lose(lost)
            await follow(other, ticket)
            await other.until("chunk")
            await other.send(Cancel(id="b"))
            done = await other.receive()
            assert (done["type"], done["finish_reason"]) == ("done", "cancelled")
            await follow(other, ticket, after=done["seq"] - 1)  # the id is free again
            gate.set()
            frames += await wire.until("done")
            assert (text_of(frames), frames[-1]["finish_reason"]) == ("x y", "stop")
            assert text_of(await other.until("done")) == "y"


async def test_a_cancel_of_the_first_client_reaches_its_followers():
    async with running(scripted(Say("x"), Pause(3600))) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            frames, ticket = await begin(wire)
            await follow(other, ticket)
            await wire.send(Cancel(id="a"))
            frames += await wire.until("done")
            assert await other.until("done") == told_to("b", frames)


async def test_a_client_follows_its_own_generation():
    gate = asyncio.Event()
    async with (
        running(scripted(Say("x "), Gate(gate), Say("y"))) as gateway,
        wired(gateway) as wire,
    ):
        _, ticket = await begin(wire)
        await follow(wire, ticket)
        gate.set()
        frames = await wire.until("done")
        frames += await wire.until("done")
        own = [f for f in frames if f["id"] == "b"]
        assert (text_of(own), own[-1]["finish_reason"]) == ("x y", "stop")


async def test_a_follower_reads_on_while_the_first_client_is_away_which_then_gets_the_same():
    gates = [asyncio.Event(), asyncio.Event()]
    script = [Say("a "), Gate(gates[0]), Say("b "), Gate(gates[1]), Say("c")]
    async with running(scripted(*script)) as gateway, wired(gateway) as other:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire)
            await follow(other, ticket)
            await lose(wire)
        read = await other.until("chunk")
        gates[0].set()
        while text_of(read) != "a b ":
            read.append(await other.receive())
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
            gates[1].set()
            frames += await wire.until("done")
        read += await other.until("done")
        assert text_of(frames) == "a b c"
        assert read == told_to("b", frames)


async def test_a_generation_that_is_forgotten_ends_its_followers_too():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, resume_ttl_s=0.1) as gateway, wired(gateway) as other:
        async with wired(gateway) as wire:
            _, ticket = await begin(wire)
            await follow(other, ticket)
            await follow(other, ticket, name="c", window=1)  # which takes no more
            await lose(wire)
        ends = [f for f in await other.until("error") if f["type"] in {"done", "error"}]
        assert [(f["id"], f.get("finish_reason"), f.get("code")) for f in ends] == [
            ("b", "cancelled", None),
            ("c", None, "not_resumable"),
        ]
        await eventually(lambda: not provider.live)


async def test_a_follower_that_reads_nothing_holds_up_nobody_and_is_told():
    words = WORDS * 2
    async with running(scripted(Say(words)), resume_bytes=16_384) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            frames, ticket = await begin(wire)
            await follow(other, ticket, window=1)
            frames += await wire.until("done")
            assert text_of(frames) == words
            await other.until("started")
            await other.send(Ack(id="b", seq=0))
            error = await other.receive()
            assert (error["id"], error["code"]) == ("b", "slow_client")


async def test_what_followers_are_sent_takes_few_frames_of_each_turn():
    words, most = 2 * MAX_AT_ONCE, 0

    async def watch(metrics):
        nonlocal most
        before = metrics.sent_frames
        while True:
            await asyncio.sleep(0)
            most, before = max(most, metrics.sent_frames - before), metrics.sent_frames

    async with running(scripted(Say("word " * words))) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            frames, ticket = await begin(wire, "done")
            assert len(frames) > words
            watching = asyncio.create_task(watch(gateway._generations.metrics))
            for number in range(MAX_FOLLOWERS):
                await follow(other, ticket, name=f"b{number}")
            for _ in range(MAX_FOLLOWERS):
                await other.until("done")
            watching.cancel()
    assert most <= MAX_AT_ONCE + AT_ONCE


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, JOINED_PROTOCOL])
async def test_what_many_connections_are_sent_again_takes_few_frames_of_each_turn(protocol):
    words, readers, most = 3 * MAX_AT_ONCE, 8, 0

    async def watch(metrics):
        nonlocal most
        before = metrics.sent_frames
        while True:
            await asyncio.sleep(0)
            most, before = max(most, metrics.sent_frames - before), metrics.sent_frames

    async with running(scripted(Say("word " * words))) as gateway, AsyncExitStack() as others:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire, "done")
            sockets = [
                await others.enter_async_context(
                    connect(stream_url(gateway), subprotocols=[protocol])
                )
                for _ in range(readers)
            ]
            for socket in sockets:
                await socket.recv()
            codec = codec_for(protocol)
            watching = asyncio.create_task(watch(gateway._generations.metrics))
            for socket in sockets:
                ask = Resume(id="b", ticket=ticket, after=-1, follow=True)
                await socket.send(codec.encode(ask), text=codec.text)
            for socket in sockets:
                again = []
                while not again or again[-1]["type"] != "done":
                    async with asyncio.timeout(TIMEOUT):
                        again += codec.frames_in(await socket.recv())
                assert given(again) == told_to("b", frames)
            watching.cancel()
    assert most <= 2 * MAX_AT_ONCE  # the end of what a turn has, and what the next one has


async def test_followers_rest_once_the_rate_of_their_client_is_used_up():
    gate = asyncio.Event()
    provider = scripted(Say("word " * 60), Gate(gate), Say("end"))
    async with running(provider, client_frame_rate=1.0) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            frames, ticket = await begin(wire)
            while text_of(frames) != "word " * 60:
                frames.append(await wire.receive())
            sent = numbers_of(frames)
            await follow(other, ticket)
            assert [(await other.receive())["seq"] for _ in sent] == sent
            (reader,) = (one for one in gateway._connections if one._followed)
            assert reader._rest is not None
            gate.set()
            await wire.until("done")
            (follower,) = reader._followed
            assert not follower.sendable
            await follow(wire, ticket, name="c")
            error = await wire.receive()
            assert (error["id"], error["code"]) == ("c", "rate_limited")
            assert error["retry_after"] > 0
            reader._end_rest()
            assert text_of(await other.until("done")) == "end"
            for one in (wire, other):
                await lose(one)  # what they send is read slowly now


async def test_all_followers_rest_once_one_has_used_the_rate_up_and_take_turns():
    gate = asyncio.Event()
    provider = scripted(Say("x"), Gate(gate), Say("word " * 6 * AT_ONCE))
    async with running(provider, client_frame_rate=1.0) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            _, ticket = await begin(wire)
            for name in ("b", "c"):
                await follow(other, ticket, name=name)
                await other.until("chunk")
            (reader,) = (one for one in gateway._connections if one._followed)
            followers, served = list(reader._followed), []
            gate.set()
            await wire.until("done")
            for _ in range(4):
                assert all(one.resting for one in followers)
                before = [one._sent for one in followers]
                reader._rest.cancel()
                reader._end_rest()
                await eventually(lambda: reader._rest and not reader._session.waiting)
                served.append(
                    [one._sent > sent for one, sent in zip(followers, before, strict=True)]
                )
            assert sorted(served[:2]) == sorted(served[2:]) == [[False, True], [True, False]]
            for one in (wire, other):
                await lose(one)  # what they send is read slowly now


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ticket": "no"}, "not_resumable"),
        ({"after": 99}, "not_resumable"),
        ({"name": "live"}, "duplicate_id"),
        ({"window": 0}, "invalid_frame"),
    ],
)
async def test_what_cannot_be_followed_says_why(changes, code):
    async with running(scripted(Say("x"), Pause(3600))) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other:
            _, ticket = await begin(wire)
            await other.send(Generate(id="live", prompt="hi"))
            await other.until("chunk")
            await follow(other, **{"ticket": ticket, **changes})
            assert (await other.receive())["code"] == code


async def test_the_limits_hold_for_followers():
    script = scripted(Say("x"), Pause(3600))
    async with running(script, max_generations=MAX_FOLLOWERS) as gateway:
        async with wired(gateway) as wire, wired(gateway) as other, wired(gateway) as third:
            _, ticket = await begin(wire)
            for n in range(MAX_FOLLOWERS):
                await follow(other, ticket, name=f"b{n}")
                assert (await other.until("chunk"))[-1]["id"] == f"b{n}"
            for client, said in ((other, "on one connection"), (third, "follow it already")):
                await follow(client, ticket)
                error = await client.receive()
                assert error["code"] == "rate_limited"
                assert said in error["message"]
            await other.send(Cancel(id="b0"))
            await other.until("done")
            await follow(third, ticket)
            await third.until("chunk")


async def test_a_ticket_lets_in_with_its_own_token_alone():
    owners = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("alice", "bob")}
    tokens = Tokens([Token(name, digest) for name, digest in owners.items()])
    headers = {name: {"Authorization": f"Bearer {name}"} for name in owners}
    async with running(scripted(Say("x"), Pause(3600)), tokens) as gateway:
        async with wired(gateway, additional_headers=headers["alice"]) as wire:
            _, ticket = await begin(wire)
            for name, kind in (("alice", "started"), ("bob", "error")):
                async with wired(gateway, additional_headers=headers[name]) as other:
                    await follow(other, ticket)
                    assert (await other.receive())["type"] == kind


async def test_large_frames_that_are_sent_again_to_clients_that_do_not_read_are_bounded():
    most, readers, size = 8 << 20, 12, 1_000_000
    limits = {"outbox_total_bytes": most, "client_share": 0.5}
    async with running(scripted(Say("x" * size)), **limits) as gateway, AsyncExitStack() as others:
        async with wired(gateway) as wire:
            frames, ticket = await begin(wire, "done", stream=False)
            assert len(frames[-1]["text"]) == size
        wires = [await others.enter_async_context(raw(gateway, holds=4096)) for _ in range(readers)]
        ask = {"type": "resume", "id": "b", "ticket": ticket, "after": 0, "follow": True}
        for one in wires:
            one.writer.write(raw_frame(json.dumps(ask).encode()))

        def on_its_way():
            return sum(
                one._socket.transport.get_write_buffer_size() for one in gateway._connections
            )

        await eventually(lambda: sum(len(one._followed) for one in gateway._connections) == 12)
        await eventually(lambda: gateway._generations.again.contended)
        assert 0 < on_its_way() <= gateway._generations.again.held <= most // 2
        for one in wires:
            kinds = []
            while "done" not in kinds:
                _, content = await one.receive()
                frame = json.loads(content)
                kinds.append(frame["type"])
            assert frame["text"] == "x" * size
            assert kinds == ["ready", "done"]
        await eventually(lambda: gateway._generations.again.held == 0)
