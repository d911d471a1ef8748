"""The model, called as assistant-ui's local runtime calls it, and under that runtime."""

import asyncio

import pytest

from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Pause, Reason, Say
from tests.support.servers import eventually
from tests.web_demo.conftest import adding, scripted_gateway
from tests.web_demo.npm.conftest import assert_the_call_was_answered, in_app, in_app_until_resumed

pytestmark = [
    pytest.mark.slow("assistant-ui is fetched for the package alone"),
    pytest.mark.timeout(300),
]

THREAD = """
import { createElement } from "react";
import { create } from "react-test-renderer";
import { AssistantRuntimeProvider, useAssistantTool, useLocalRuntime } from "@assistant-ui/react";
import { connect } from "mlx-gateway-client";
import { gatewayModel } from "mlx-gateway-client/assistant-ui";

console.error = () => {}; // the renderer says that it is for tests
let runtime;
function App({ model, history, tools }) {
    runtime = useLocalRuntime(model, { adapters: { history } });
    const children = tools.map((tool) => createElement(Tool, { key: tool.toolName, tool }));
    return createElement(AssistantRuntimeProvider, { runtime }, ...children);
}
function Tool({ tool }) {
    useAssistantTool(tool);
    return null;
}
const open = async (fields = {}, tools = []) => {
    runtime = undefined;
    let loaded = false;
    const model = gatewayModel(connect(url, { WebSocket: Socket }), fields);
    const load = () => model.history.load().finally(() => (loaded = true));
    create(createElement(App, { model, history: { ...model.history, load }, tools }));
    const known = () => runtime.thread.getModelContext().tools ?? {};
    await until(() => loaded && tools.every(({ toolName }) => toolName in known()));
    return runtime.thread;
};
const answers = (thread) => thread.getState().messages.filter(({ role }) => role === "assistant");
const said = (thread, type = "text") =>
    answers(thread).flatMap(({ content }) => content).filter((part) => part.type === type)
        .map(({ text }) => text).join("");
const ended = (thread) => answers(thread).at(-1) && !thread.getState().isRunning;
"""


async def in_thread(body, installed, gateway):
    return await in_app(THREAD, body, installed, gateway)


async def test_text_and_thinking_stream_and_the_conversation_is_sent_again(installed):
    async with scripted_gateway(Reason("hm"), Say("one two")) as gateway:
        said = await in_thread(
            """
            const thread = await open({ temperature: 0 });
            thread.append("hi");
            await until(() => ended(thread));
            thread.append("again");
            await until(() => answers(thread).length === 2 && ended(thread));
            const { status, metadata } = answers(thread).at(-1);
            say([said(thread), said(thread, "reasoning"), status, metadata.custom.model]);
            """,
            installed,
            gateway,
        )
        assert said[:3] == ["one twoone two", "hmhm", {"type": "complete", "reason": "stop"}]
        assert said[3]
        options = gateway.provider.requests[1].options
        assert options["temperature"] == 0
        assert [(m["role"], m["content"]) for m in options["messages"]] == [
            ("user", "hi"),
            ("assistant", "one two"),
            ("user", "again"),
        ]


async def test_stop_stops_the_model_and_keeps_the_text(installed):
    async with scripted_gateway(Say("one two "), Pause(3600)) as gateway:
        said = await in_thread(
            """
            const thread = await open();
            thread.append("hi");
            await until(() => said(thread) === "one two ");
            thread.cancelRun();
            await until(() => ended(thread));
            say([said(thread), answers(thread)[0].status]);
            """,
            installed,
            gateway,
        )
        assert said == ["one two ", {"type": "incomplete", "reason": "cancelled"}]
        await eventually(lambda: not gateway.provider.live)


@pytest.mark.parametrize("by", ["a function", "the page"])
async def test_a_tool_is_answered_in_the_page_and_the_model_goes_on(installed, by):
    async with scripted_gateway(script=adding(Say("Let me add. "))) as gateway:
        execute = "execute: async ({ a, b }) => a + b," if by == "a function" else ""
        answer = """
            await until(() => answers(thread)[0]?.status.type === "requires-action");
            const index = answers(thread)[0].content.findIndex(({ type }) => type === "tool-call");
            thread.getMessageById(answers(thread)[0].id).getMessagePartByIndex(index).addToolResult(3);
        """
        said = await in_thread(
            f"""
            const add = {{
                toolName: "add", type: "frontend", description: "Add.", {execute}
                parameters: {{ type: "object", properties: {{ a: {{ type: "number" }} }} }},
            }};
            const thread = await open({{}}, [add]);
            thread.append("1 + 2?");
            {"" if by == "a function" else answer}
            await until(() => said(thread).includes("3") && ended(thread));
            const {{ content, status }} = answers(thread)[0];
            say([content.map(({{ type, text, result }}) => [type, text ?? result]), status.type]);
            """,
            installed,
            gateway,
        )
        parts = [["text", "Let me add. "], ["tool-call", 3], ["text", "It is 3."]]
        assert said == [parts, "complete"]
        assert_the_call_was_answered(gateway)


async def test_an_error_of_the_gateway_ends_the_answer(installed):
    async with scripted_gateway(Say("one "), Fail(GenerationError("broken"))) as gateway:
        said = await in_thread(
            """
            const thread = await open();
            thread.append("hi");
            await until(() => ended(thread));
            say([said(thread), answers(thread)[0].status]);
            """,
            installed,
            gateway,
        )
        assert said == ["one ", {"type": "incomplete", "reason": "error", "error": "broken"}]


@pytest.mark.parametrize("at", ["Let", "It"])
async def test_a_page_that_is_loaded_again_goes_on_with_the_answer(installed, at):
    gate = asyncio.Event()
    held = {at: [Gate(gate)]}

    def script(request):
        if request.options["messages"][-1]["role"] == "tool":
            return [Say("It "), *held.get("It", []), Say("is 3.")]
        return [Say("Let me add. "), *held.get("Let", []), Call("add", {"a": 1, "b": 2})]

    async with scripted_gateway(script=script) as gateway:
        said = await in_app_until_resumed(
            gate,
            THREAD,
            f"""
            const storage = newStorage();
            const calls = [];
            const load = (page) => open({{ keep_on_close: true, storage }}, [{{
                toolName: "add", type: "frontend", description: "Add.",
                parameters: {{ type: "object", properties: {{ a: {{ type: "number" }} }} }},
                execute: async ({{ a, b }}) => (calls.push(page), a + b),
            }}]);
            const left = await load("left");
            left.append("1 + 2?");
            await until(() => said(left).includes("{at}"));
            leave();
            const thread = await load("new");
            await until(() => said(thread).includes("3") && ended(thread));
            const again = await load("again");
            const {{ content }} = answers(again)[0];
            const parts = content.map(({{ type, text, result }}) => [type, text ?? result]);
            say([parts, calls, again.getState().messages.length, [...storage.kept.keys()]]);
            """,
            installed,
            gateway,
        )
        parts = [["text", "Let me add. "], ["tool-call", 3], ["text", "It is 3."]]
        kept = ["mlx-gateway:thread:messages"]
        assert said == [parts, ["new" if at == "Let" else "left"], 2, kept]
        assert_the_call_was_answered(gateway)


async def test_an_answer_made_anew_goes_on_beside_the_one_before(installed):
    gate = asyncio.Event()
    scripts = iter([[Say("one")], [Say("two "), Gate(gate), Say("three")]])
    async with scripted_gateway(script=lambda _: next(scripts)) as gateway:
        said = await in_app_until_resumed(
            gate,
            THREAD,
            """
            const fields = { keep_on_close: true, storage: newStorage() };
            const left = await open(fields);
            left.append("hi");
            await until(() => ended(left));
            left.startRun({ parentId: left.getState().messages[0].id });
            await until(() => said(left) === "two ");
            leave();
            const thread = await open(fields);
            await until(() => said(thread) === "two three" && ended(thread));
            const [{ id }] = thread.getState().messages;
            const branches = thread.export().messages.filter(({ parentId }) => parentId === id);
            say([thread.getState().messages.length, branches.length]);
            """,
            installed,
            gateway,
        )
        assert said == [2, 2]


async def test_an_answer_that_the_gateway_has_forgotten_ends_with_the_reason(installed):
    async with scripted_gateway(Say("one two")) as gateway:
        said = await in_thread(
            """
            const storage = newStorage();
            const left = await open({ storage });
            left.append("hi");
            await until(() => ended(left));
            storage.setItem("mlx-gateway:thread", JSON.stringify({
                ticket: { id: "gone", ticket: "gone" }, parentId: answers(left)[0].id, before: [],
            }));
            const thread = await open({ storage });
            await until(() => answers(thread).length === 2 && ended(thread));
            const { status } = answers(thread).at(-1);
            say([status.type, status.reason, storage.kept.has("mlx-gateway:thread")]);
            """,
            installed,
            gateway,
        )
        assert said == ["incomplete", "error", False]
