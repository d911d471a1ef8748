"""client.js by its public interface, run in a real page."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from gateway.client import connect
from gateway.protocol.codes import RETRYABLE
from gateway.server.pages import web_root
from provider.interface import GenerationError
from provider.scripted import (
    Call,
    Fail,
    Gate,
    Pause,
    Prefill,
    Queue,
    Reason,
    Say,
)
from tests.support.servers import eventually, running, stream_url
from tests.web_demo.conftest import closed_at, evaluate, scripted_gateway

pytestmark = pytest.mark.browser


async def test_chunks_join_to_the_result(blank_page):
    async with scripted_gateway(Reason("hm"), Say("a b c"), Call("add", {"a": 1})) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const seen = [];
            const run = client.generate({prompt: "hi", oncall: (call) => seen.push(call)});
            let text = "", channels = [];
            for await (const chunk of run) {
                channels.push(chunk.channel);
                if (chunk.channel === "answer") text += chunk.text;
            }
            return {text, channels, seen, ...(await run.result)};
            """,
        )
    assert result["text"] == "a b c"
    assert (result["channels"][0], result["reasoning"]) == ("reasoning", "hm")
    assert result["finishReason"] == "tool_calls"
    call = {"index": 0, "name": "add", "arguments": '{"a": 1}', "complete": True}
    call["id"] = result["toolCalls"][0]["id"]
    assert result["toolCalls"] == [call]
    assert result["brokenCalls"] == []
    assert result["seen"][-1] == call
    assert (result["model"], result["usage"]["completion_tokens"]) == ("scripted", 4)


async def test_a_request_too_large_for_the_gateway_is_refused_before_it_ends_the_connection(
    blank_page,
):
    async with scripted_gateway(Say("hi"), max_frame_bytes=4096) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const code = (prompt) => client.generate({prompt}).result.then(
                (result) => result.finishReason, (error) => error.code);
            const early = code("ü".repeat(2050)), small = code("ü".repeat(1500));
            await client.ready;
            return Promise.all([early, small, code("ü".repeat(2050)), client.state]);
            """,
        )
    assert result == ["invalid_request", "stop", "invalid_request", "open"]


@pytest.mark.parametrize(
    ("leave", "expected"),
    [
        ("run.cancel();", "cancelled"),
        ("break;", "cancelled"),
        ("throw new Error('mine');", "cancelled"),
        ("controller.abort();", "AbortError"),
        ("controller.abort(new Error('enough'));", "enough"),
    ],
)
async def test_every_way_to_leave_stops_the_model(blank_page, leave, expected):
    async with scripted_gateway(Say("a "), Pause(0.05), Say("b "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const controller = new AbortController();
            const run = client.generate({prompt: "hi", signal: controller.signal});
            try { for await (const chunk of run) { %s } } catch (error) {}
            return run.result.then((r) => r.finishReason,
                                   (e) => e.name === "AbortError" ? e.name : e.message);
            """
            % leave,
        )
        assert result == expected
        await eventually(lambda: not gateway.provider.live)


async def test_an_aborted_signal_never_sends(blank_page):
    async with scripted_gateway(Say("a")) as gateway:
        page = await blank_page(gateway)
        name = await evaluate(
            page,
            """const run = client.generate({prompt: "hi", signal: AbortSignal.abort()});
            return run.result.catch((error) => error.name);""",
        )
        assert name == "AbortError"
    assert gateway.provider.requests == []


async def test_errors_are_typed_and_hold_the_text_so_far(blank_page):
    async with scripted_gateway(Say("so far"), Fail(GenerationError("broken"))) as gateway:
        page = await blank_page(gateway)
        error = await evaluate(
            page,
            """return client.generate({prompt: "hi"}).result.catch((e) => (
                {is: e instanceof m.GatewayError, code: e.code, retryable: e.retryable,
                 message: e.message, text: e.text}));""",
        )
    assert error == {
        "is": True,
        "code": "model_error",
        "retryable": False,
        "message": "broken",
        "text": "so far",
    }


async def test_a_bad_field_is_an_error_with_its_path(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        error = await evaluate(
            page,
            """return client.generate({prompt: "hi", temperature: "hot"}).result.catch(
                (e) => [e.code, e.message]);""",
        )
    assert error[0] == "invalid_request"
    assert "$.temperature" in error[1]


async def test_a_lost_link_is_made_again_and_the_run_goes_on(blank_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("a "), Gate(gate), Say("b"), Call("f", {})) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(
            evaluate(
                page,
                """
                const states = [];
                client.events.addEventListener("state", () => states.push(client.state));
                Math.random = () => 0; // so that it tries again at once
                const run = client.generate({prompt: "first"});
                let text = "";
                try { for await (const chunk of run) globalThis.seen = text += chunk.text; }
                catch (error) { text += error.name; }
                const later = await client.generate({prompt: "second"}).result;
                return [text, (await run.result).toolCalls.length, later.text, states];
                """,
            )
        )
        await page.wait_for_function("() => globalThis.seen === 'a '")
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        await eventually(lambda: gateway._generations.metrics.resumed == 1)
        gate.set()
        first, calls, second, states = await asking
    assert (first, calls) == ("a b", 1)
    assert second == "a b"
    assert states[0:1] == ["open"]
    assert "waiting" in states
    prompts = [request.prompt for request in gateway.provider.requests]
    assert prompts == ["first", "second"], "a prompt was sent twice"


async def test_a_run_that_was_stopped_offline_is_stopped_at_the_gateway_too(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(
            evaluate(
                page,
                """
                const lost = new Promise((done) => {
                    const look = () => client.state === "waiting" && done();
                    client.events.addEventListener("state", look);
                });
                const run = client.generate({prompt: "first"});
                for await (const chunk of run) {
                    globalThis.seen = chunk.text;
                    await lost;
                    run.cancel();
                }
                return (await run.result).finishReason;
                """,
            )
        )
        await page.wait_for_function("() => globalThis.seen === 'a '")
        assert gateway.provider.live
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        assert await asking == "cancelled"
        await eventually(lambda: not gateway.provider.live)


async def test_a_page_that_is_left_stops_its_runs(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        await evaluate(page, "for await (const _ of client.generate({prompt: 'hi'})) return;")
        await evaluate(
            page, "const run = client.generate({prompt: 'hi'}); run.result.catch(() => {});"
        )
        await eventually(lambda: gateway.provider.live)
        await page.goto("about:blank")
        await eventually(lambda: not gateway.provider.live)


async def test_close_ends_runs_and_the_next_run_connects_again(blank_page):
    async with scripted_gateway(Say("a"), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            await client.ready;
            const run = client.generate({prompt: "hi"});
            for await (const chunk of run) { client.close(); client.close(); break; }
            const first = await run.result.catch((e) => e.name);
            const closed = client.state;
            const again = client.generate({prompt: "hi"});
            for await (const chunk of again) break;
            return [first, closed, (await again.result).finishReason, client.state];
            """,
        )
        assert result == ["AbortError", "closed", "cancelled", "open"]
        await eventually(lambda: not gateway.provider.live and gateway.connections == 1)


async def test_a_client_that_is_closed_while_it_connects_makes_one_connection_later(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        made, text, states = await evaluate(
            page,
            """
            let made = 0;
            class Counted extends WebSocket {
                constructor(...given) { super(...given); made += 1; }
            }
            const states = [], onstate = (state) => states.push(state);
            const token = () => new Promise((resolve) => setTimeout(resolve, 1, "t"));
            const other = m.connect(undefined, {WebSocket: Counted, token, onstate});
            other.close();
            const early = other.generate({prompt: "hi"});
            other.close();
            await early.result.catch(() => {});
            const {text} = await other.generate({prompt: "hi"}).result;
            await new Promise((done) => setTimeout(done, 20));
            return [made, text, states];
            """,
        )
    assert (made, text) == (1, "x")
    assert states == ["closed", "connecting", "closed", "connecting", "open"]


async def test_a_lazy_client_connects_for_its_first_run_or_when_it_is_told_to(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const [first, second] = [1, 2].map(() => m.connect(undefined, {lazy: true}));
            const before = [first.state, second.state];
            const {text} = await first.generate({prompt: "hi"}).result;
            second.open();
            return [before, text, (await second.ready).protocol, first.state, second.state];
            """,
        )
    assert result == [["closed", "closed"], "x", "mlx-gateway.v1", "open", "open"]


async def test_a_run_that_could_never_be_sent_fails_after_a_time(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const offline = m.connect("ws://127.0.0.1:9/v1/stream", {giveUpMs: 50});
            const error = await offline.generate({prompt: "hi"}).result.catch((e) => e);
            offline.close();
            return [error.name, error.retryable, error.message];
            """,
        )
    assert result == ["ConnectionLostError", True, "the gateway can't be reached"]


async def test_a_run_that_could_not_be_resumed_fails_after_a_time(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        failing = evaluate(
            page,
            """
            let made = 0, giveUp;
            const wait = globalThis.setTimeout;
            globalThis.setTimeout = (does, ms, ...more) =>
                ms === 4321 ? (giveUp = does) && 0 : wait(does, ms, ...more);
            class Lost extends WebSocket {
                constructor(...given) {
                    super(...given);
                    made += 1;
                    if (made > 1) wait(() => this.close());
                    if (made > 3) giveUp();
                }
            }
            Math.random = () => 0; // so that it tries again at once
            const other = m.connect(undefined, {WebSocket: Lost, giveUpMs: 4321});
            await other.ready;
            const run = other.generate({prompt: "hi"});
            run.result.catch(() => {});
            globalThis.run = run;
            const error = await run.result.catch((e) => e);
            other.close();
            return [error.name, error.text, made];
            """,
        )
        failing = asyncio.ensure_future(failing)
        await page.wait_for_function("() => globalThis.run?.text === 'a '")
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        assert await failing == ["ConnectionLostError", "a ", 4]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('"localhost:8821"', '"localhost:8821" is no URL; pass one such as http://'),
        ('"127.0.0.1:8821"', '"127.0.0.1:8821" is no URL'),
        ('"ftp://127.0.0.1"', "is no URL"),
        ('"http://"', "URL"),
        ("undefined, {WebSocket: null}", "there is no WebSocket here"),
    ],
)
async def test_what_can_never_connect_is_said_at_once(blank_page, given, said):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        hidden = "delete globalThis.WebSocket;" if "null" in given else ""
        name, message = await evaluate(
            page,
            "%s try { m.connect(%s); } catch (error) { return [error.name, error.message]; }"
            % (hidden, given),
        )
    assert name == "TypeError"
    assert said in message


async def test_a_run_may_have_an_id_of_the_callers_that_no_other_run_has(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const run = client.generate({id: "message 1", prompt: "hi"});
            const again = client.generate({id: "message 1", prompt: "hi"});
            const refused = await again.result.catch((error) => error.code);
            for await (const chunk of run) break;
            const {finishReason} = await run.result;
            const later = client.generate({id: "message 1", prompt: "hi"});
            for await (const chunk of later) return [run.id, refused, finishReason, chunk.text];
            """,
        )
        assert result == ["message 1", "duplicate_id", "cancelled", "a "]
        assert len(gateway.provider.requests) == 2


async def test_frames_can_be_looked_at(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        seen = await evaluate(
            page,
            """
            const seen = [];
            const onframe = (frame, way) => seen.push([way, frame.type]);
            await m.connect(undefined, {onframe}).generate({prompt: "hi"}).result;
            return seen;
            """,
        )
    types = ["ready", "generate", "started", "chunk", "done"]
    assert [kind for _, kind in seen if kind != "hello"] == types
    assert [way for way, _ in seen if way == "out"] == ["out"]


async def test_what_waits_for_a_connection_is_bounded(blank_page):
    async with scripted_gateway(Say("a")) as gateway:
        page = await blank_page(gateway)
        codes = await evaluate(
            page,
            """
            const offline = m.connect("ws://127.0.0.1:9/v1/stream");
            const runs = Array.from({length: 70}, () => offline.generate({prompt: "hi"}));
            const code = (run) => run.result.catch((error) => error.code);
            const late = await Promise.all(runs.slice(64).map(code));
            runs[0].cancel();
            const first = (await runs[0].result).finishReason;
            offline.close();
            return [first, ...late];
            """,
        )
    assert codes == ["cancelled"] + ["overloaded"] * 6


def source():
    return Path(web_root() / "client.js").read_text(encoding="utf-8")


def test_the_retry_table_is_the_servers():
    table = re.search(r"RETRYABLE = Object\.freeze\(\{(.*?)\}\)", source(), re.DOTALL)[1]
    found = dict(re.findall(r"(\w+): (true|false)", table))
    assert {name: value == "true" for name, value in found.items()} == {
        str(code): retryable for code, retryable in RETRYABLE.items()
    }


async def test_the_limits_of_its_type_are_those_that_a_gateway_tells(embedded):
    [fields] = re.findall(r"\* +limits: \{(.*?)\}", source(), re.DOTALL)
    most = {"max_prompt_tokens": 1000, "max_answer_tokens": 1000}
    async with running(embedded, **most) as gateway, connect(stream_url(gateway)) as client:
        assert set(re.findall(r"(\w+)\??:", fields)) == set(client.ready.limits)


async def test_several_answers_are_told_apart(blank_page, embedded):
    async with running(embedded) as gateway:
        page = await blank_page(gateway)
        for stream in ("true", "false"):
            result = await evaluate(
                page,
                """
                const options = {max_tokens: 12, temperature: 1.2, seed: 1, n: 3, stream: %s};
                return client.generate({prompt: "Tell me a story", ...options}).result;
                """
                % stream,
            )
            texts = [choice["text"] for choice in result["choices"]]
            assert len(set(texts)) == 3
            assert result["text"] == texts[0]


async def test_a_window_holds_the_model_back_for_a_loop_that_is_slow(blank_page):
    async with scripted_gateway(Say("word " * 50)) as gateway:
        page = await blank_page(gateway)
        seen, text = await evaluate(
            page,
            """
            const run = client.generate({prompt: "hi", window: 4});
            let seen = "";
            for await (const chunk of run) {
                if (!seen) await client.generate({prompt: "another"}).result;
                seen ||= run.text;
            }
            return [seen, (await run.result).text];
            """,
        )
        assert seen.count("word") <= 4
        assert text.count("word") == 50
        whole = "return (await client.generate({prompt: 'hi', window: 2}).result).text"
        assert await evaluate(page, whole) == text


HELD = """
    class Counting extends WebSocket {
        constructor(...given) {
            super(...given);
            this.addEventListener("message", ({data}) => {
                globalThis.came = Math.max(globalThis.came ?? 0, JSON.parse(data).seq ?? 0);
            });
        }
    }
    const counted = m.connect(undefined, {WebSocket: Counting});
    Math.random = () => 0; // so that it tries again at once
    const run = counted.generate({prompt: "hi", %s oncall: () => calls++});
    let calls = 0, first = true, text = "";
    const held = new Promise((go) => (globalThis.go = () => go(calls)));
    for await (const chunk of run) {
        if (first) text += await held;
        first = false;
    }
    return [text, (await run.result).text, (await run.result).toolCalls.length];
"""


@pytest.mark.parametrize("resume_bytes", [1 << 20, 600])
async def test_a_slow_loop_has_no_more_to_read_after_each_new_connection(blank_page, resume_bytes):
    words = [Reason("hm "), Say("word ")] * 50  # which no gateway merges
    async with scripted_gateway(*words, outbox_bytes=1, resume_bytes=resume_bytes) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(evaluate(page, HELD % "window: 4,"))
        metrics = gateway._generations.metrics
        for resumed in (0, 1, 2):
            enough = resume_bytes > 600  # for the frames of a window
            last = 3 + min(resumed, 1) if enough else 3 + 4 * resumed
            await eventually(lambda n=resumed: metrics.resumed == n)
            await eventually(lambda n=last: closed_at(gateway, n))
            await page.wait_for_function(f"() => globalThis.came === {last}")
            for connection in list(gateway._connections) if resumed < 2 else ():
                connection._socket.transport.abort()
        await page.evaluate("() => globalThis.go()")
        assert await asking == ["0", "word " * 50, 0]


async def test_a_call_does_not_acknowledge_the_text_before_it(blank_page):
    calls = [Call("add", {"a": number}) for number in range(20)]
    async with scripted_gateway(Say("a"), *calls, outbox_bytes=1) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(evaluate(page, HELD % "window: 4,"))
        await eventually(lambda: closed_at(gateway, 3))
        await evaluate(page, "await client.generate({prompt: 'another'}).result;")
        await page.evaluate("() => globalThis.go()")
        assert await asking == ["2", "a", 20]


async def test_a_loop_that_does_not_go_on_holds_the_model_back_by_default(blank_page):
    words = [Reason("hm "), Say("word ")] * 50
    async with scripted_gateway(*words, outbox_bytes=1) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(evaluate(page, HELD % ""))
        await eventually(lambda: closed_at(gateway, 63))
        assert gateway.provider.live
        await page.evaluate("() => globalThis.go()")
        assert await asking == ["0", "word " * 50, 0]
        free = HELD % "window: Infinity,"
        asking = asyncio.ensure_future(evaluate(page, free))
        await page.wait_for_function("() => globalThis.came > 64")
        await eventually(lambda: not gateway.provider.live)
        await page.evaluate("() => globalThis.go()")
        assert await asking == ["0", "word " * 50, 0]


async def test_a_run_is_a_stream_too_and_cancelling_it_stops_the_model(blank_page):
    async with scripted_gateway(Say("a b "), Reason("hm "), Say("c"), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        result = await evaluate(
            page,
            """
            const run = client.generate({prompt: "hi"});
            const reader = run.stream().getReader();
            let seen = "";
            while (!seen.endsWith("c")) seen += (await reader.read()).value.text;
            const more = reader.read();
            await reader.cancel();
            return [seen, (await more).done, (await run.result).finishReason];
            """,
        )
        assert result == ["a b hm c", True, "cancelled"]
        await eventually(lambda: not gateway.provider.live)


@pytest.mark.parametrize("leave", ["break;", "run.cancel(); break;", "controller.abort();"])
async def test_a_run_with_a_window_can_be_left_and_ends_at_the_gateway(blank_page, leave):
    words = [Reason("hm "), Say("word ")] * 50
    async with scripted_gateway(*words, outbox_bytes=1) as gateway:
        page = await blank_page(gateway)
        reason = await evaluate(
            page,
            """
            const controller = new AbortController(), {signal} = controller;
            const run = client.generate({prompt: "hi", window: 1, signal});
            try { for await (const chunk of run) { %s } } catch (error) {}
            return run.result.then((r) => r.finishReason, (e) => e.name);
            """
            % leave,
        )
        assert reason in {"cancelled", "AbortError"}
        (connection,) = [one for one in gateway._connections if one._session.generations] or [None]
        await eventually(lambda: connection is None or not connection._session.generations)
        await eventually(lambda: not gateway.provider.live)


async def test_a_cancel_that_was_lost_with_the_connection_is_sent_again(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        reason = await evaluate(
            page,
            """
            let lost = false;
            class Lossy extends WebSocket {
                send(text) {
                    if (lost || !text.includes('"cancel"')) return super.send(text);
                    lost = true;
                    this.close();
                }
            }
            const other = m.connect(undefined, {WebSocket: Lossy});
            const run = other.generate({prompt: "hi"});
            for await (const chunk of run) run.cancel();
            return (await run.result).finishReason;
            """,
        )
        assert reason == "cancelled"
        await eventually(lambda: not gateway.provider.live)


async def test_a_token_that_can_not_be_had_yet_is_asked_for_again(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        states = await evaluate(
            page,
            """
            const states = [];
            let asked = 0;
            const token = async () => { if (!asked++) throw new Error("not yet"); return "t"; };
            const other = m.connect(undefined, {token, onstate: (state) => states.push(state)});
            while (other.state !== "open") await new Promise(requestAnimationFrame);
            return states;
            """,
        )
    assert states == ["waiting", "connecting", "open"]


CONNECT_TO = """
    const states = [];
    const onstate = (...given) => states.push(given);
    const other = m.connect("%s", {onstate});
    const ask = () => other.generate({prompt: "hi"}).result.then(
        (result) => result.text, (error) => [error.code, error.message]);
    const ready = other.ready.then((frame) => frame.protocol, (error) => error.code);
    return [await ask(), await ready, await ask(), states];
"""


async def test_a_page_of_another_origin_is_told_why_it_is_refused_and_stays_closed(blank_page):
    async with scripted_gateway(Say("x")) as own, scripted_gateway(Say("x")) as other:
        page = await blank_page(own)
        logged = []
        page.on("console", lambda message: logged.append(message.text))
        answers = await evaluate(page, CONNECT_TO % stream_url(other))
        origin = own.url.rstrip("/")
        reason = (
            "pages of this origin are refused; "
            f"start the gateway with `--dev` or `--origins {origin}`"
        )
        refusal = ["forbidden", reason]
        assert answers == [refusal, "forbidden", refusal, [["closed", 4403, reason]]]
        assert other._generations.metrics.refused == {"4403": 1}
        await eventually(lambda: any("4403" in text and reason in text for text in logged))


async def test_in_development_a_page_of_another_origin_on_this_machine_is_served(blank_page):
    async with scripted_gateway(Say("x")) as own, scripted_gateway(Say("x"), dev=True) as other:
        page = await blank_page(own)
        answers = await evaluate(page, CONNECT_TO % stream_url(other))
        assert answers == ["x", "mlx-gateway.v1", "x", [["open", None, None]]]


KEEP = """
    const keep = ({started}) => {
        if (started) sessionStorage.setItem("run", JSON.stringify(run.ticket));
    };
    const run = %s, keep_on_close: %s, window: %s, onprogress: keep});
    run.result.catch(() => {});
"""
RESUME = """
    const run = client.resume(JSON.parse(sessionStorage.getItem("run")));
    let text = "";
    try { for await (const chunk of run) text += chunk.text; }
    catch (error) { return [text, error.code]; }
    const {finishReason, model} = await run.result;
    return [text, finishReason, model];
"""


GENERATE = 'client.generate({prompt: "hi"'
RUN_TOOLS = """(await import("/tool_loop.js")).runTools(client, {
    messages: [{role: "user", content: "hi"}], tools: []"""


@pytest.mark.parametrize(
    ("asked", "keep", "window", "expected"),
    [
        (GENERATE, "true", "undefined", ["a b c", "stop", "scripted"]),
        (GENERATE, "true", "1", ["a b c", "stop", "scripted"]),
        (GENERATE, "false", "undefined", ["", "not_resumable"]),
        (RUN_TOOLS, "true", "1", ["a b c", "stop", "scripted"]),
    ],
)
async def test_a_page_that_is_loaded_again_resumes_a_run_that_was_to_be_kept(
    blank_page, asked, keep, window, expected
):
    gate = asyncio.Event()
    async with scripted_gateway(Say("a b "), Gate(gate), Say("c")) as gateway:
        page = await blank_page(gateway)
        await evaluate(page, KEEP % (asked, keep, window))
        await page.wait_for_function("() => sessionStorage.getItem('run')")
        await page.reload()
        await eventually(lambda: len(gateway.provider.live) == (keep == "true"))
        gate.set()
        assert await evaluate(page, RESUME) == expected


async def test_another_page_takes_a_run_over_and_the_first_is_told(blank_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("a b "), Gate(gate), Say("c")) as gateway:
        first, second = await blank_page(gateway), await blank_page(gateway)
        begin = "globalThis.run = client.generate({prompt: 'hi'});"
        end = "return run.result.then(() => 'done', (error) => error.code);"
        losing = asyncio.ensure_future(evaluate(first, begin + end))
        await first.wait_for_function("() => globalThis.run?.ticket")
        ticket = await first.evaluate("() => globalThis.run.ticket")
        take = "return (await client.resume(%s).result).text;"
        taking = asyncio.ensure_future(evaluate(second, take % json.dumps(ticket)))
        assert await losing == "not_resumable"
        gate.set()
        assert await taking == "a b c"


async def test_all_events_of_a_run_come_in_order(blank_page):
    script = [Queue(2), Prefill(1, 2), Reason("hm "), Say("a "), Call("add", {"a": 1}), Say("b")]
    async with scripted_gateway(*script) as gateway:
        page = await blank_page(gateway)
        events = await evaluate(
            page,
            """
            const run = client.generate({prompt: "hi"}), events = [];
            for await (const event of run.events()) events.push(event);
            return events;
            """,
        )
    assert [event["type"] for event in events if event["type"] != "progress"][:2] == [
        "reasoning",
        "text",
    ]
    assert [next(iter(event["progress"])) for event in events if event["type"] == "progress"] == [
        "queued",
        "started",
        "done",
    ]
    calls = [event for event in events if event["type"] == "call"]
    assert "".join(event["delta"] for event in calls) == '{"a": 1}'
    assert [event["call"]["complete"] for event in calls][-1]
    texts = "".join(event["text"] for event in events if event["type"] == "text")
    assert events[-1]["type"] == "done"
    assert events[-1]["result"]["text"] == texts == "a b"


async def test_a_lost_connection_is_an_event_and_leaving_the_events_stops_the_model(blank_page):
    async with scripted_gateway(Say("a "), Pause(3600)) as gateway:
        page = await blank_page(gateway)
        asking = asyncio.ensure_future(
            evaluate(
                page,
                """
                Math.random = () => 0; // so that it tries again at once
                const run = client.generate({prompt: "hi"}), types = [];
                for await (const event of run.events()) {
                    types.push(event.type);
                    if (event.type === "text") globalThis.seen = true;
                    if (event.type === "resumed") break;
                }
                return [types, (await run.result).finishReason];
                """,
            )
        )
        await page.wait_for_function("() => globalThis.seen")
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        assert await asking == [["progress", "text", "resumed"], "cancelled"]
        await eventually(lambda: not gateway.provider.live)
