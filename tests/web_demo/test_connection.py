"""client.js where connections are lost, and signals that outlive runs, in Node."""

import asyncio

import pytest

from provider.scripted import Gate, Pause, Reason, Say
from tests.support.proxy import proxied
from tests.support.servers import eventually, stream_url
from tests.web_demo.conftest import closed_at, in_node, scripted_gateway, wants_node

pytestmark = wants_node


@pytest.mark.parametrize(
    ("stop", "end"), [("run.cancel()", "cancelled"), ("controller.abort()", "AbortError")]
)
async def test_a_cancel_is_sent_again_where_unread_frames_were_asked_for_in_vain(stop, end):
    words = [Reason("hm "), Say("word ")] * 50  # which no gateway merges
    async with scripted_gateway(*words, outbox_bytes=1, resume_bytes=600) as gateway:
        asking = asyncio.ensure_future(
            in_node(
                "client.js",
                """
                let go, over, asked = 0;
                const held = new Promise((resolve) => (go = resolve));
                const ended = new Promise((resolve) => (over = resolve));
                const controller = new AbortController(), {signal} = controller;
                const onframe = ({type}, way) => {
                    if (type === "done") over();
                    if (type !== "resume" || asked++) return;
                    queueMicrotask(() => { %s; go(); }); // before the gateway has answered
                };
                Math.random = () => 0; // so that it tries again at once
                const client = m.connect(url, {onframe});
                const run = client.generate({prompt: "hi", window: 4, signal});
                try { for await (const chunk of run) await held; } catch {}
                const end = await run.result.then((r) => r.finishReason, (e) => e.name);
                await ended;
                client.close();
                console.log(JSON.stringify([end, asked]));
                """
                % stop,
                stream_url(gateway),
            )
        )
        await eventually(lambda: closed_at(gateway, 3))
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        assert await asking == [end, 2]
        await eventually(lambda: not gateway.provider.live)


async def test_a_run_that_was_cancelled_before_it_could_be_sent_never_is():
    async with scripted_gateway(Say("a")) as gateway:
        ends = await in_node(
            "client.js",
            """
            const sockets = [];
            class Noted extends WebSocket {
                constructor(...given) {
                    super(...given);
                    sockets.push(this);
                }
            }
            const client = m.connect(url, {WebSocket: Noted});
            await client.ready;
            sockets[0].close(4000); // which the client has not heard of yet
            const run = client.generate({prompt: "first"});
            const later = client.generate({prompt: "second"});
            run.cancel();
            const ends = await Promise.all([run.result, later.result]);
            client.close();
            console.log(JSON.stringify(ends.map(({finishReason}) => finishReason)));
            """,
            stream_url(gateway),
        )
    assert ends == ["cancelled", "stop"]
    assert [request.prompt for request in gateway.provider.requests] == ["second"]


async def test_a_run_that_is_joined_after_the_client_has_given_up_fails_in_its_turn():
    said = await in_node(
        "client.js",
        """
        const client = m.connect("ws://127.0.0.1:9/v1/stream", {giveUpMs: 50});
        const ends = [];
        for (const join of ["follow", "resume", "follow"]) {
            const run = client[join]({id: "a", ticket: "t"});
            ends.push(await run.result.catch((error) => error.name));
        }
        client.close();
        console.log(JSON.stringify(ends));
        """,
    )
    assert said == ["ConnectionLostError"] * 3


LOOKING = """
    let blocked = false;
    const onframe = ({type}, way) => {
        if (type !== "ping" || blocked) return;
        blocked = true;
        queueMicrotask(() => { %s });
    };
    Math.random = () => 0; // so that it tries again at once
    const states = [], onstate = (state) => states.push(state);
    const client = m.connect(url, {quietMs: %d, onframe, onstate});
    const {text} = await client.generate({prompt: "hi"}).result;
    client.close();
    console.log(JSON.stringify([text, states]));
"""
ASLEEP = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000)"


async def test_a_connection_that_is_gone_without_a_word_is_left_and_the_run_goes_on():
    gate = asyncio.Event()
    async with scripted_gateway(Say("a "), Gate(gate), Say("b")) as gateway:
        async with proxied(gateway) as proxy:
            program = LOOKING % ("", 100)
            asking = asyncio.ensure_future(in_node("client.js", program, proxy.url))
            metrics = gateway._generations.metrics
            await eventually(lambda: gateway.provider.live and metrics.received_frames >= 3)
            proxy.stall()
            await eventually(lambda: len(proxy._pairs) == 2)
            proxy.go_on()
            await eventually(lambda: metrics.resumed == 1)
            gate.set()
            text, states = await asking
    assert text == "a b"
    assert states == ["open", "waiting", "connecting", "open", "closed"]


async def test_a_gateway_that_only_answers_pings_is_there_also_for_a_program_that_slept():
    gate = asyncio.Event()
    async with scripted_gateway(Say("a "), Gate(gate), Say("b")) as gateway:
        program = LOOKING % (ASLEEP, 500)
        asking = asyncio.ensure_future(in_node("client.js", program, stream_url(gateway)))
        await eventually(lambda: gateway._generations.metrics.received_frames >= 5)
        gate.set()
        assert await asking == ["a b", ["open", "closed"]]


async def test_a_gateway_is_not_asked_for_no_run():
    async with scripted_gateway(Say("a")) as gateway:
        await in_node(
            "client.js",
            """
            const client = m.connect(url, {quietMs: 10});
            await client.generate({prompt: "hi"}).result;
            await new Promise((resolve) => setTimeout(resolve, 200));
            client.close();
            console.log("0");
            """,
            stream_url(gateway),
        )
        assert gateway._generations.metrics.received_frames == 2  # `hello` and the request


async def test_a_signal_does_not_keep_the_runs_that_it_could_have_stopped():
    async with scripted_gateway(Say("a"), Pause(0.01)) as gateway:
        listeners = await in_node(
            "client.js",
            """
            const {getEventListeners} = await import("node:events");
            const client = m.connect(url), {signal} = new AbortController(), counts = [];
            for (const id of ["a", "b", "b"]) {
                const run = client.generate({id, prompt: "hi", signal});
                counts.push(getEventListeners(signal, "abort").length);
                const again = client.generate({id, prompt: "hi", signal}); // which is refused
                await Promise.allSettled([run.result, again.result]);
            }
            counts.push(getEventListeners(signal, "abort").length);
            client.close();
            console.log(JSON.stringify(counts));
            """,
            stream_url(gateway),
        )
    assert listeners == [1, 1, 1, 0]
