"""Whatever a client of Realtime does, over real sockets."""

import asyncio

import pytest
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from gateway.protocol.codes import CloseCode
from provider.scripted import Gate, Say, ScriptedProvider
from tests.gateway.dialects.interleavings import TEXTS, cut_off, many, some, teller
from tests.gateway.dialects.realtime.clients import realtime, text_of, user
from tests.support.servers import eventually, running

STEP = st.one_of(
    st.tuples(st.just("item"), st.sampled_from(list(TEXTS))),
    st.tuples(st.just("create"), st.just("")),
    st.tuples(st.just("beside"), st.sampled_from([*TEXTS, "wrong"])),
    st.tuples(st.just("cancel"), st.sampled_from(["active", "first", "nobody"])),
    st.tuples(st.just("read"), st.just("")),
)


@some(STEP)
def test_whatever_comes_each_response_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


@many(STEP)
def test_whatever_comes_for_long_each_response_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


async def interleaved(steps, *, cut):
    events, asked = [], 0
    async with running(teller()) as gateway, realtime(gateway) as client:
        await client.add(user("short"))
        for kind, how in steps:
            if kind == "item":
                await client.send("conversation.item.create", item=user(how))
            elif kind == "create":
                await client.send("response.create", event_id="create")
            elif kind == "beside":
                own = {"input": [user(how)]} if how in TEXTS else {"temperature": "hot"}
                beside = {"conversation": "none", **own}
                await client.send("response.create", event_id="create", response=beside)
            elif kind == "cancel":
                first = [e["response"]["id"] for e in events if "response" in e][:1]
                own = {"nobody": "x", "first": (first or ["y"])[0]}.get(how)
                await client.send("response.cancel", **({"response_id": own} if own else {}))
            elif answered(events) < asked:
                events.append(await client.receive())
            asked += kind in {"create", "beside"}
        if cut:
            await cut_off(client, gateway)
            return
        while answered(events) < asked:
            events.append(await client.receive())
        await client.send("conversation.item.delete", event_id="last", item_id="x")
        while events[-1:] == [] or events[-1].get("error", {}).get("event_id") != "last":
            events.append(await client.receive())
    assert answered(events) == asked
    check(events)


def answered(events):
    """Return how many responses have ended, or were refused."""
    refused = [e for e in events if e["type"] == "error" and e["error"]["event_id"] == "create"]
    return len(refused) + sum(event["type"] == "response.done" for event in events)


def check(events):
    """Check that each response is whole: its first event, its texts and its only end."""
    ids = [event["event_id"] for event in events]
    assert len(ids) == len(set(ids))
    created = [e["response"]["id"] for e in events if e["type"] == "response.created"]
    assert len(created) == len(set(created))
    for own in created:
        told = [e for e in events if e.get("response", {}).get("id", e.get("response_id")) == own]
        assert told[0]["type"] == "response.created"
        assert [e["type"] for e in told].count("response.done") == 1
        end = told[-1]
        deltas = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
        assert text_of(end) == deltas
        if end["response"]["status"] == "completed":
            assert deltas in TEXTS.values()
        else:
            assert end["response"]["status"] == "cancelled"
            assert any(text.startswith(deltas) for text in TEXTS.values())


async def test_a_gateway_that_stops_ends_what_runs():
    gate = asyncio.Event()
    provider = ScriptedProvider(script=[Say("a"), Gate(gate)], tokens_per_second=None)
    async with running(provider, shutdown_grace_s=0) as gateway, realtime(gateway) as client:
        await client.add(user("hi"))
        await client.send("response.create")
        await client.until("response.output_text.delta")
        await gateway.close()
        end = (await client.until("response.done"))[-1]["response"]
        assert end["status"] == "cancelled"
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.RESTART


async def test_a_reader_that_stops_holds_the_provider_up_and_gets_all_later():
    provider = ScriptedProvider(script=[Say("x" * 1000)] * 3000, tokens_per_second=None)
    limits = {"outbox_bytes": 4096, "kernel_buffer_bytes": 1024}
    reader = {"max_queue": 1, "max_size": None}
    async with running(provider, **limits) as gateway, realtime(gateway, **reader) as client:
        await client.add(user("hi"))
        await client.send("response.create")
        await eventually(lambda: provider.live)
        (request,) = provider.requests
        before = -1
        while before != request.produced:
            before = request.produced
            await asyncio.sleep(0.05)
        assert request.produced < 3000
        assert len(text_of((await client.until("response.done"))[-1])) == 3_000_000
