"""The adapters that need no library to run, in Node; under their libraries they are in npm/."""

import asyncio
import json

import pytest

from gateway.server.pages import web_root
from provider.scripted import Call, Gate, Pause, Reason, Say
from tests.support.servers import get, stream_url
from tests.web_demo.conftest import adding, in_node, scripted_gateway, wants_node

pytestmark = wants_node


async def with_adapter(name, body, gateway):
    adapter = json.dumps((web_root() / "adapters" / f"{name}.js").as_uri())
    program = f"const a = await import({adapter});\n{body}"
    return await in_node("client.js", program, stream_url(gateway))


async def test_the_ai_sdk_gets_each_part_of_an_answer_as_chunks():
    steps = Reason("hm"), Say("one two"), Call("add", {"a": 1})
    async with scripted_gateway(*steps) as gateway:
        said = await with_adapter(
            "ai-sdk",
            """
            const transport = new a.GatewayTransport(m.connect(url), { seed: 1 });
            const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "hi" }] }];
            const stream = await transport.sendMessages({ messages, body: { top_k: 2 } });
            const types = new Set();
            for await (const { type } of stream) types.add(type);
            types.delete("data-progress");
            console.log(JSON.stringify([...types]));
            process.exit();
            """,
            gateway,
        )
        options = gateway.provider.requests[0].options
    assert (options["seed"], options["top_k"]) == (1, 2)
    assert said == [
        "start",
        "start-step",
        *("reasoning-start", "reasoning-delta", "reasoning-end"),
        *("text-start", "text-delta", "text-end"),
        *("tool-input-start", "tool-input-delta", "tool-input-available"),
        "finish-step",
        "finish",
    ]


@pytest.mark.parametrize("read", [False, True])
async def test_a_stream_of_the_ai_sdk_that_is_cancelled_stops_the_model_at_once(read):
    async with scripted_gateway(Say("a"), Pause(3600)) as gateway:
        await with_adapter(
            "ai-sdk",
            """
            let over;
            const ended = new Promise((resolve) => (over = resolve));
            const onframe = ({ type }) => type === "done" && over();
            const client = m.connect(url, { onframe }), transport = new a.GatewayTransport(client);
            const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "hi" }] }];
            const reader = (await transport.sendMessages({ messages })).getReader();
            let type = %s ? "" : "text-delta";
            while (type !== "text-delta") ({ value: { type } } = await reader.read());
            await client.ready;
            const waiting = %s && reader.read();
            await new Promise((resolve) => setTimeout(resolve)); // so that it is asked for
            await reader.cancel();
            await ended;
            client.close();
            console.log("0");
            """
            % (json.dumps(read), json.dumps(read)),
            gateway,
        )
        assert not gateway.provider.live


async def test_a_conversation_of_the_ai_sdk_is_sent_with_its_calls_images_and_files():
    async with scripted_gateway() as gateway:
        said = await with_adapter(
            "ai-sdk",
            """
            const file = (mediaType) => ({ type: "file", mediaType, url: "data:;base64,AA==" });
            const tool = { type: "tool-add", input: { a: 1 } };
            const call = (toolCallId, more) => ({ ...tool, toolCallId, ...more });
            const text = { type: "text", text: "Hm." };
            const step = { type: "step-start" };
            const done = call("c1", { state: "output-available", output: { sum: 3 } });
            const failed = call("c2", { state: "output-error", errorText: "no" });
            const open = call("c3", { state: "input-available" });
            const messages = [
                { role: "user", parts: [text, file("image/png"), file("text/csv")] },
                { role: "assistant", parts: [step, text, done, failed, step, open, step, text] },
            ];
            console.log(JSON.stringify(a.conversation(messages)));
            """,
            gateway,
        )
    assert said["files"] == [{"name": "file", "mime": "text/csv", "data": "AA=="}]
    user, *answer = said["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert [turn["role"] for turn in answer] == ["assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in answer[0]["tool_calls"]] == ["c1", "c2"]
    assert [turn["content"] for turn in answer[1:]] == ['{"sum":3}', '{"error":"no"}', "Hm."]


async def test_assistant_ui_gets_an_answer_with_the_result_of_its_function():
    async with scripted_gateway(script=adding()) as gateway:
        said = await with_adapter(
            "assistant-ui",
            """
            const model = a.gatewayModel(m.connect(url));
            const add = { description: "Add.", execute: ({ a, b }) => a + b };
            const user = { role: "user", content: [{ type: "text", text: "1 + 2?" }] };
            const unstable_getMessage = () => ({ role: "assistant", content: [] });
            const context = { tools: { add }, callSettings: { topP: 0.5 } };
            const { signal: abortSignal } = new AbortController();
            const options = { messages: [user], context, abortSignal, unstable_getMessage };
            let last;
            for await (last of model.run(options));
            console.log(JSON.stringify(last));
            process.exit();
            """,
            gateway,
        )
        options = gateway.provider.requests[0].options
    call, text = said["content"]
    assert (call["args"], call["result"], text["text"]) == ({"a": 1, "b": 2}, 3, "It is 3.")
    assert said["status"] == {"type": "complete", "reason": "stop"}
    assert options["top_p"] == 0.5


async def test_the_gateway_does_not_serve_what_only_the_package_needs():
    async with scripted_gateway() as gateway:
        for path in ("/adapters/react.js", "/npm/package.json", "/package.json", "/react.js"):
            assert (await get(gateway, path))[0] == 404


# In a page: what is shown of an answer, and what another page of the same storage may resume.
PAGE = """async () => {
    const { GatewayTransport } = await import("/adapters/ai-sdk.js");
    const transport = new GatewayTransport(
        location.origin, { keep_on_close: true, storage: localStorage });
    const text = { type: "text", text: "Hi" };
    globalThis.said = globalThis.ended = "";
    const read = async (stream) => {
        for await (const { type, delta = "" } of stream) said += type === "text-delta" ? delta : "";
        ended = "ended";
    };
    globalThis.send = async () => void read(await transport.sendMessages(
        { chatId: "one", messages: [{ id: "1", role: "user", parts: [text] }] }));
    globalThis.resume = async () => {
        const stream = await transport.reconnectToStream({ chatId: "one" });
        if (stream) read(stream);
        return stream !== null;
    };
}"""


async def adapter_of_the_npm_package(route):
    """Answer as an app's own server does: a gateway doesn't serve them."""
    path = web_root() / "adapters" / route.request.url.rpartition("/")[2]
    await route.fulfill(path=path, content_type="text/javascript")


@pytest.mark.browser
async def test_a_page_takes_no_answer_from_another_one_that_is_open(blank_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("one "), Gate(gate), Say("two three")) as gateway:
        first = await blank_page(gateway)
        await first.context.route("**/adapters/*", adapter_of_the_npm_package)
        second = await first.context.new_page()
        await second.goto(first.url)
        for page in (first, second):
            await page.evaluate(PAGE)
        await first.evaluate("() => send()")
        await first.wait_for_function("() => said === 'one '")
        assert not await second.evaluate("() => resume()"), "the first page would lose the rest"
        await first.reload()
        await first.evaluate(PAGE)
        assert await first.evaluate("() => resume()")
        await first.wait_for_function("() => said === 'one '")
        await first.close()
        assert await second.evaluate("() => resume()")
        gate.set()
        await second.wait_for_function("() => ended && said === 'one two three'")
