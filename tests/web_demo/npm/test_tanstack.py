"""The connection, under the chat of TanStack AI."""

import asyncio

import pytest

from provider.interface import GenerationError
from provider.scripted import Fail, Gate, Pause, Reason, Say
from tests.support.servers import eventually
from tests.web_demo.conftest import adding, scripted_gateway
from tests.web_demo.npm.conftest import assert_the_call_was_answered, in_app, in_app_until_resumed

pytestmark = [
    pytest.mark.slow("TanStack AI is fetched for the package alone"),
    pytest.mark.timeout(300),
]

CHAT = """
import { ChatClient } from "@tanstack/ai-client";
import { toolDefinition } from "@tanstack/ai/client";
import { connect } from "mlx-gateway-client";
import { gatewayConnection } from "mlx-gateway-client/tanstack";

const newChat = (options = {}, fields = {}) =>
    new ChatClient({ connection: gatewayConnection(url, fields), ...options });
const said = (chat, type = "text") => {
    const answers = chat.getMessages().filter(({ role }) => role === "assistant");
    const parts = answers.flatMap(({ parts }) => parts).filter((part) => part.type === type);
    return parts.map(({ content }) => content).join("");
};
"""


async def in_chat(body, installed, gateway):
    return await in_app(CHAT, body, installed, gateway)


async def test_text_and_thinking_stream_and_the_conversation_is_sent_again(installed):
    async with scripted_gateway(Reason("hm"), Say("one two")) as gateway:
        said = await in_chat(
            """
            const chat = newChat({ body: { top_k: 3 } }, { temperature: 0 });
            await chat.sendMessage("hi");
            await chat.sendMessage("again");
            say([said(chat), said(chat, "thinking"), chat.getStatus()]);
            """,
            installed,
            gateway,
        )
        assert said == ["one twoone two", "hmhm", "ready"]
        options = gateway.provider.requests[1].options
        assert (options["temperature"], options["top_k"]) == (0, 3)
        assert [(m["role"], m["content"]) for m in options["messages"]] == [
            ("user", "hi"),
            ("assistant", "one two"),
            ("user", "again"),
        ]


async def test_stop_stops_the_model_and_keeps_the_text(installed):
    async with scripted_gateway(Say("one two "), Pause(3600)) as gateway:
        said = await in_chat(
            """
            const chat = newChat();
            chat.sendMessage("hi");
            await until(() => said(chat) === "one two ");
            chat.stop();
            await until(() => chat.getStatus() === "ready");
            await new Promise((wake) => setTimeout(wake, 100));
            say(said(chat));
            """,
            installed,
            gateway,
        )
        assert said == "one two "
        await eventually(lambda: not gateway.provider.live)


async def test_a_client_tool_runs_in_the_page_and_the_model_goes_on(installed):
    async with scripted_gateway(script=adding()) as gateway:
        said = await in_chat(
            """
            const inputSchema = { type: "object", properties: { a: { type: "number" } } };
            const add = toolDefinition({ name: "add", description: "Add.", inputSchema });
            const chat = newChat({ tools: [add.client(async ({ a, b }) => ({ sum: a + b }))] });
            await chat.sendMessage("1 + 2?");
            await until(() => said(chat));
            const parts = chat.getMessages().flatMap(({ parts }) => parts);
            say([said(chat), parts.find(({ type }) => type === "tool-call").output]);
            """,
            installed,
            gateway,
        )
        assert said == ["It is 3.", {"sum": 3}]
        assert_the_call_was_answered(gateway)


async def test_an_error_of_the_gateway_is_the_chats(installed):
    async with scripted_gateway(Say("one "), Fail(GenerationError("broken"))) as gateway:
        said = await in_chat(
            """
            const chat = newChat();
            await chat.sendMessage("hi");
            await until(() => chat.getError());
            const { message, code } = chat.getError();
            say([chat.getStatus(), message, code, said(chat)]);
            """,
            installed,
            gateway,
        )
        assert said == ["error", "broken", "model_error", "one "]


async def test_a_page_that_is_loaded_again_goes_on_with_the_answer(installed):
    gate = asyncio.Event()
    async with scripted_gateway(Say("one "), Gate(gate), Say("two three")) as gateway:
        said = await in_app_until_resumed(
            gate,
            CHAT,
            """
            // A busy machine may take longer than TanStack AI waits for an answer to come again.
            const wait = globalThis.setTimeout;
            const longer = (ms) => (ms === 2000 ? 60000 : ms);
            globalThis.setTimeout = (does, ms, ...more) => wait(does, longer(ms), ...more);
            const [storage, persistence] = [newStorage(), newStorage()];
            const load = () => {
                const client = connect(url, { WebSocket: Socket });
                const connection = gatewayConnection(client, { keep_on_close: true, storage });
                return new ChatClient({ connection, persistence, threadId: "main" });
            };
            const left = load();
            left.sendMessage("hi");
            await until(() => said(left) && persistence.kept.size);
            leave();
            const chat = load();
            chat.attach();
            await until(() => said(chat) === "one two three");
            await until(() => chat.getStatus() === "ready" && !storage.kept.size);
            say(chat.getMessages().map(({ role }) => role));
            """,
            installed,
            gateway,
        )
        assert said == ["user", "assistant"]
        assert len(gateway.provider.requests) == 1
