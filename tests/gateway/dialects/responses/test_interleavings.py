"""Lanes over real sockets, and whatever a client does with them."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import strategies as st

from provider.scripted import Gate, Pause, Say, ScriptedProvider
from tests.gateway.dialects.interleavings import TEXTS, cut_off, many, some, teller
from tests.gateway.dialects.responses.clients import ENDS, responding, text_of
from tests.support.servers import eventually, running


def scripted(script):
    return ScriptedProvider(script=script, tokens_per_second=None)


def asked(request):
    return request.options["messages"][-1]["content"]


async def test_responses_without_a_lane_come_one_after_the_other():
    async with running(scripted(lambda request: [Say(asked(request))])) as gateway:
        async with responding(gateway) as client:
            for n in range(4):
                await client.send("response.create", input=f"{n} and {n}")
            turns = [await client.until_end() for _ in range(4)]
    assert [text_of(turn[-1]["response"]) for turn in turns] == [f"{n} and {n}" for n in range(4)]
    for turn in turns:
        assert len({e["response"]["id"] for e in turn if "response" in e}) == 1


async def test_lanes_run_beside_each_other_and_each_in_its_order():
    gates = {name: asyncio.Event() for name in "abc"}
    gates["b"].set()

    def script(request):
        return [Say("one "), Gate(gates[asked(request)[0]]), Say("two")]

    async with running(scripted(script)) as gateway, responding(gateway) as client:
        for given_ in ("a1", "b1", "a2"):
            await client.send("response.create", input=given_, stream_id=f"lane-{given_[0]}")
        events = await client.until(*ENDS)
        assert events[-1]["stream_id"] == "lane-b"
        gates["a"].set()
        events = [*await client.until_end(), *await client.until_end()]
    assert {event["stream_id"] for event in events} == {"lane-a"}
    numbers = [event["sequence_number"] for event in events]
    assert numbers.count(0) == 1 or numbers[0] > 0
    assert [event["type"] for event in events if event["type"] in ENDS] == [ENDS[0]] * 2


async def test_so_many_run_on_a_connection_and_the_others_wait():
    gate = asyncio.Event()
    provider = scripted([Say("a"), Gate(gate)])
    async with running(provider, max_generations=2) as gateway, responding(gateway) as client:
        for lane in "abc":
            await client.send("response.create", input="hi", stream_id=lane)
        await eventually(lambda: len(provider.requests) == 2)
        gate.set()
        ends = [(await client.until_end())[-1] for _ in range(3)]
    assert {end["stream_id"] for end in ends} == set("abc")
    assert {end["type"] for end in ends} == {"response.completed"}


async def test_a_cancel_ends_what_runs_and_its_lane_goes_on():
    provider = scripted(lambda request: [Say("a"), Pause(3600 if asked(request) == "1" else 0)])
    async with running(provider) as gateway, responding(gateway) as client:
        for given_ in "12":
            await client.send("response.create", input=given_)
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        first, second = [(await client.until_end())[-1] for _ in range(2)]
    assert (first["response"]["status"], second["type"]) == ("cancelled", "response.completed")


async def test_what_runs_and_what_waits_is_counted_until_it_ends():
    gate = asyncio.Event()
    async with running(scripted([Say("a"), Gate(gate)]), request_bytes=1 << 16) as gateway:
        held = gateway._generations.unbuilt
        async with responding(gateway) as client:
            for _ in range(2):
                await client.send("response.create", input="x" * 2000)
            await client.until("response.output_text.delta")
            assert 4000 < held.held < 5000
            (error,) = await client.create("x" * 20_000, stream_id="b")
            assert (error["status"], error["error"]["headers"]) == (503, {"retry-after": "1"})
            gate.set()
            ends = [(await client.until_end())[-1]["type"] for _ in range(2)]
            assert ends == ["response.completed"] * 2
            assert held.held == 0
            gate.clear()
            for _ in range(2):
                await client.send("response.create", input="x" * 2000)
            await client.until("response.output_text.delta")
        await eventually(lambda: held.held == 0)


async def test_an_error_comes_when_its_turn_has_come():
    gate = asyncio.Event()
    async with running(scripted([Say("a"), Gate(gate)])) as gateway:
        async with responding(gateway) as client:
            await client.send("response.create", input="1")
            await client.send("response.create", temperature="hot")
            await client.send("response.create", input="2", stream_id="b")
            await client.until("response.output_text.delta")
            gate.set()
            ends = [(await client.until_end())[-1] for _ in range(3)]
    without = [end["type"] for end in ends if "stream_id" not in end]
    assert without == ["response.completed", "error"]


@pytest.mark.parametrize(
    ("lanes", "code", "told"),
    [
        (["a b"], "invalid_stream_id", None),
        ([f"{n}" for n in range(33)], "websocket_stream_limit_reached", "32"),
    ],
)
async def test_lanes_have_plain_names_and_are_few(lanes, code, told):
    async with running(scripted([Say("a")])) as gateway, responding(gateway) as client:
        for lane in lanes:
            await client.send("response.create", input="hi", stream_id=lane)
        ends = [(await client.until_end())[-1] for _ in lanes]
    (error,) = [end for end in ends if end["type"] == "error"]
    assert (error["error"]["code"], error.get("stream_id")) == (code, told)


async def test_a_message_of_too_many_values_is_refused_in_its_lane():
    async with running(scripted([Say("a")]), max_values=1024) as gateway:
        async with responding(gateway) as client:
            values = [{"role": "user", "content": "x"}] * 2000
            (error,) = await client.create(stream_id="lane", input=values)
            assert (error["status"], error["stream_id"]) == (400, "lane")
            deep = {"a": {}}
            for _ in range(100):
                deep = {"a": deep}
            (error,) = await client.create("hi", stream_id="lane", tools=[deep])
            assert (error["error"]["param"], error["stream_id"]) == ("tools", "lane")


LANES = st.sampled_from([None, "a", "b"])
STEP = st.one_of(
    st.tuples(st.just("create"), LANES, st.sampled_from(["short", "long", "wrong"])),
    st.tuples(st.just("cancel"), LANES, st.sampled_from(["lane", "first", "nobody"])),
    st.tuples(st.just("read"), LANES, st.integers(1, 9)),
)


@some(STEP)
def test_whatever_comes_each_response_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


@many(STEP)
def test_whatever_comes_for_long_each_response_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


async def interleaved(steps, *, cut):
    events, created = [], []
    async with running(teller()) as gateway, responding(gateway) as client:
        for kind, lane, how in steps:
            where = {} if lane is None else {"stream_id": lane}
            if kind == "create":
                fields = {"input": how} if how in TEXTS else {"temperature": "hot"}
                await client.send("response.create", **fields, **where)
                created.append((lane, how))
            elif kind == "read" and len(ends_of(events)) < len(created):
                events.append(await client.receive())
            elif kind == "cancel":
                first = [e["response"]["id"] for e in events if "response" in e][:1]
                own = {
                    "nobody": {"response_id": "x"},
                    "first": {"response_id": (first or ["y"])[0]},
                }
                await client.send("response.cancel", **own.get(how, where))
        if cut:
            await cut_off(client, gateway)
            return
        while len(ends_of(events)) < len(created):
            events.append(await client.receive())
        await client.nothing_comes()
    for lane in (None, "a", "b"):
        of_lane = [event for event in events if event.get("stream_id") == lane]
        check_lane([how for where, how in created if where == lane], of_lane)


def ends_of(events):
    return [event for event in events if event["type"] in ENDS]


def check_lane(asked_for, events):
    """Check that the events of a lane are those of its responses, in order."""
    turns = []
    for before, event in pairwise([None, *events]):
        if before is None or before["type"] in ENDS:
            turns.append([])
        turns[-1].append(event)
    assert len(turns) == len(asked_for)
    for how, turn in zip(asked_for, turns, strict=True):
        end = turn[-1]
        assert [event["sequence_number"] for event in turn] == list(range(len(turn)))
        if how == "wrong":
            assert (end["type"], len(turn)) == ("error", 1)
            continue
        deltas = "".join(e["delta"] for e in turn if e["type"].endswith("text.delta"))
        assert text_of(end["response"]) == deltas
        if end["type"] == "response.completed":
            assert deltas == TEXTS[how]
        else:
            assert end["response"]["status"] == "cancelled"
            assert TEXTS[how].startswith(deltas)
