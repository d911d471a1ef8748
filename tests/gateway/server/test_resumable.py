"""Lost connections over real sockets, and clients that come back for the rest."""

import asyncio

import pytest

from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Ack, Cancel, Generate, Resume
from provider.scripted import Call, Gate, Pause, Reason, Say, ScriptedProvider
from tests.support.servers import eventually, running, wired

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
