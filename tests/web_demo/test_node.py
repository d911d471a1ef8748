"""client.js in Node, which has no page, no origin and no document."""

import json

from gateway.server.pages import web_root
from provider.scripted import Pause, Say
from tests.support.servers import eventually, stream_url
from tests.web_demo.conftest import adding, in_node, scripted_gateway, wants_node

pytestmark = wants_node
TOOL_LOOP = json.dumps((web_root() / "tool_loop.js").as_uri())


async def run_in_node(body, url=""):
    return await in_node("client.js", body, url)


async def test_a_program_streams_calls_functions_stops_the_model_and_ends():
    async with scripted_gateway(script=adding(after=[Pause(3600)])) as gateway:
        said = await run_in_node(
            """
            const {runTools} = await import(%s), client = m.connect(url);
            const messages = [{role: "user", content: "1 + 2?"}];
            const tools = [{name: "add", run: ({a, b}) => a + b}];
            const run = runTools(client, {messages, tools}), types = new Set();
            for await (const event of run.events()) {
                types.add(event.type);
                if (event.type === "text" && run.text === "It is 3.") run.cancel();
            }
            const {finishReason} = await run.result;
            client.close();
            console.log(JSON.stringify([[...types], run.text, finishReason]));
            """
            % TOOL_LOOP,
            stream_url(gateway),
        )
        assert said == [
            ["progress", "call", "result", "text", "done"],
            "It is 3.",
            "cancelled",
        ]
        await eventually(lambda: not gateway.provider.live)


async def test_a_loop_that_does_not_go_on_holds_the_model_back_that_may_call_functions():
    async with scripted_gateway(Say("word " * 50)) as gateway:
        seen, text, end = await run_in_node(
            """
            const {runTools} = await import(%s), client = m.connect(url);
            const request = {messages: [{role: "user", content: "hi"}], tools: [], window: 4};
            const run = runTools(client, request);
            let seen = "";
            for await (const chunk of run) {
                if (!seen) await client.generate({prompt: "another"}).result;
                seen ||= run.text;
            }
            const stopped = runTools(client, request);
            for await (const chunk of stopped) {
                stopped.cancel();
                const {finishReason} = await stopped.result; // though the loop takes no more
                client.close();
                console.log(JSON.stringify([seen, (await run.result).text, finishReason]));
                break;
            }
            """
            % TOOL_LOOP,
            stream_url(gateway),
        )
    assert seen.count("word") <= 4
    assert text == "word " * 50
    assert end == "cancelled"


async def test_what_can_not_connect_is_said_at_once_and_can_be_caught():
    said = await run_in_node(
        """
        const refused = (...given) => {
            try { m.connect(...given); } catch (error) { return `${error.name}: ${error.message}`; }
        };
        const said = [refused(), refused("localhost:8765")];
        delete globalThis.WebSocket;
        said.push(refused("http://localhost:8765"));
        const lazy = m.connect("http://localhost:8765", {lazy: true});
        said.push(await lazy.generate({prompt: "hi"}).result.catch((error) => error.name));
        console.log(JSON.stringify(said));
        """
    )
    assert said[0].startswith("TypeError: there is no page whose origin could be the gateway's")
    assert said[1].startswith('TypeError: "localhost:8765" is no URL')
    assert said[2].startswith("TypeError: there is no WebSocket here: pass one")
    assert said[3] == "TypeError"


async def test_a_run_that_waits_for_a_gateway_does_not_keep_an_abandoned_program_alive():
    said = await run_in_node(
        """
        const client = m.connect("ws://127.0.0.1:9/v1/stream", {giveUpMs: 3_600_000});
        const waiting = client.generate({prompt: "hi"}).result.catch((error) => error.name);
        client.close();
        console.log(JSON.stringify(await waiting));
        """
    )
    assert said == "AbortError"


async def test_another_client_follows_a_run_which_it_cannot_stop():
    async with scripted_gateway(Say("a b c d"), Pause(3600)) as gateway:
        said = await run_in_node(
            """
            const owner = m.connect(url), reader = m.connect(url);
            const run = owner.generate({prompt: "hi"});
            await run[Symbol.asyncIterator]().next();
            const seen = [];
            for await (const {text} of reader.follow(run.ticket, {window: 1})) {
                seen.push(text);
                if (seen.length === 2) break;
            }
            const late = reader.follow(run.ticket, {after: 1});
            for await (const {text} of late) {
                seen.push(text);
                run.cancel();
            }
            const [one, other] = await Promise.all([run.result, late.result]);
            owner.close();
            reader.close();
            const said = [seen.slice(0, 3), one.text, late.text, one.usage, other.usage];
            console.log(JSON.stringify(said));
            """,
            stream_url(gateway),
        )
        seen, text, rest, usage, same = said
        assert (seen, text, rest) == (["a ", "b ", "b "], "a b c d", "b c d")
        assert usage == same
        assert usage["completion_tokens"] > 0


async def test_a_ticket_of_another_gateway_is_followed_on_a_connection_of_its_own():
    """The gateway stands for both, and what it says of itself reaches one client changed."""
    async with scripted_gateway(Say("x"), Pause(3600), node="one") as gateway:
        said = await run_in_node(
            """
            const sockets = [];
            class Elsewhere extends WebSocket {
                constructor(...given) {
                    super(...given);
                    sockets.push(this);
                }
                set onmessage(take) {
                    const changed = (text) => text.replace('"node":"one"', '"node":"two"');
                    super.onmessage = ({data}) => take({data: changed(data)});
                }
            }
            const owner = m.connect(url), other = m.connect(url, {WebSocket: Elsewhere});
            const run = owner.generate({prompt: "hi"});
            await run[Symbol.asyncIterator]().next();
            const {node} = await other.ready;
            const seen = [];
            for await (const {text} of other.follow(run.ticket)) {
                seen.push(text);
                break;
            }
            const [, beside] = sockets;
            await new Promise((resolve) => beside.addEventListener("close", resolve));
            try {
                for await (const {text} of other.follow(run.ticket)) {
                    seen.push(text);
                    other.close();
                }
            } catch (error) {
                seen.push(error.name);
            }
            run.cancel();
            await run.result;
            owner.close();
            const asked = sockets.map(({url}) => new URL(url).search);
            console.log(JSON.stringify([node, seen, asked]));
            """,
            stream_url(gateway),
        )
        assert said == ["two", ["x", "x", "AbortError"], ["", "?node=one", "?node=one"]]


async def test_a_client_connects_to_the_gateway_that_its_ticket_names():
    async with scripted_gateway(Say("x"), Pause(3600), node="one") as gateway:
        said = await run_in_node(
            """
            const sockets = [];
            class Noted extends WebSocket {
                constructor(...given) {
                    super(...given);
                    sockets.push(this);
                }
            }
            const options = {WebSocket: Noted, lazy: true};
            const owner = m.connect(url, options);
            const other = m.connect(`${url}?a=b&node=two`, options);
            const run = owner.generate({prompt: "hi"});
            await run[Symbol.asyncIterator]().next();
            const lost = new Promise((resolve) => sockets[0].addEventListener("close", resolve));
            sockets[0].close(4000);
            await lost;
            const {node} = await owner.ready;
            for await (const {text} of other.follow(run.ticket)) break;
            run.cancel();
            await run.result;
            owner.close();
            other.close();
            console.log(JSON.stringify([node, ...sockets.map(({url}) => new URL(url).search)]));
            """,
            stream_url(gateway),
        )
        assert said == ["one", "", "?node=one", "?a=b&node=one"]
