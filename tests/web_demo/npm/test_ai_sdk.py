"""The transport, under the chat of the AI SDK."""

import asyncio

import pytest

from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Pause, Reason, Say
from tests.support.servers import eventually
from tests.web_demo.conftest import adding, scripted_gateway
from tests.web_demo.npm.conftest import assert_the_call_was_answered, in_app, in_app_until_resumed

pytestmark = [
    pytest.mark.slow("the AI SDK is fetched for the package alone"),
    pytest.mark.timeout(300),
]

CHAT = """
import { Chat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithToolCalls as complete } from "ai";
import { connect } from "mlx-gateway-client";
import { GatewayTransport } from "mlx-gateway-client/ai-sdk";

const storage = newStorage();
const { kept } = storage;
const newClient = (options) => connect(url, { WebSocket: Socket, ...options });
const said = (chat, type = "text") => {
    const answers = chat.messages.filter(({ role }) => role === "assistant");
    const parts = answers.flatMap(({ parts }) => parts).filter((part) => part.type === type);
    return parts.map(({ text }) => text).join("");
};
"""


async def in_chat(body, installed, gateway):
    return await in_app(CHAT, body, installed, gateway)


async def test_text_and_thinking_stream_and_usage_is_metadata(installed):
    async with scripted_gateway(Reason("hm"), Say("one two")) as gateway:
        said = await in_chat(
            """
            const messageMetadata = ({ usage }) => ({ usage });
            const transport = new GatewayTransport(url, { messageMetadata, temperature: 0 });
            const progress = [];
            const chat = new Chat({ transport, onData: ({ type }) => progress.push(type) });
            await chat.sendMessage({ text: "hi" });
            await chat.sendMessage({ text: "again" }, { body: { temperature: 1 } });
            const usage = chat.lastMessage.metadata.usage.completion_tokens;
            const thoughts = said(chat, "reasoning");
            say([said(chat), thoughts, chat.status, usage > 0, new Set(progress).size]);
            """,
            installed,
            gateway,
        )
        assert said == ["one twoone two", "hmhm", "ready", True, 1]
        first, second = gateway.provider.requests
        assert first.options["temperature"] == 0
        assert second.options["temperature"] == 1
        assert [(m["role"], m["content"]) for m in second.options["messages"]] == [
            ("user", "hi"),
            ("assistant", "one two"),
            ("user", "again"),
        ]


async def test_stop_stops_the_model_and_keeps_the_text(installed):
    async with scripted_gateway(Say("one two "), Pause(3600)) as gateway:
        said = await in_chat(
            """
            const chat = new Chat({ transport: new GatewayTransport(url) });
            chat.sendMessage({ text: "hi" });
            await until(() => said(chat) === "one two ");
            await chat.stop();
            say([chat.status, said(chat)]);
            """,
            installed,
            gateway,
        )
        assert said == ["ready", "one two "]
        await eventually(lambda: not gateway.provider.live)


async def test_the_page_answers_a_call_and_the_model_goes_on(installed):
    async with scripted_gateway(script=adding()) as gateway:
        said = await in_chat(
            """
            const tools = [{ name: "add", parameters: { type: "object" } }];
            const transport = new GatewayTransport(url, { tools });
            const chat = new Chat({
                transport,
                sendAutomaticallyWhen: complete,
                onToolCall({ toolCall: { toolCallId, toolName: tool, input: { a, b } } }) {
                    chat.addToolOutput({ toolCallId, tool, output: { sum: a + b } });
                },
            });
            await chat.sendMessage({ text: "1 + 2?" });
            await until(() => said(chat));
            say([said(chat), chat.messages.length, chat.lastMessage.parts.map(({ type }) => type)]);
            """,
            installed,
            gateway,
        )
        assert said == ["It is 3.", 2, ["step-start", "tool-add", "step-start", "text"]]
        assert_the_call_was_answered(gateway)


async def test_an_error_of_the_gateway_is_the_chats_with_its_code(installed):
    async with scripted_gateway(Say("one "), Fail(GenerationError("broken"))) as gateway:
        said = await in_chat(
            """
            const chat = new Chat({ transport: new GatewayTransport(url) });
            await chat.sendMessage({ text: "hi" });
            say([chat.status, chat.error.name, chat.error.code, said(chat)]);
            """,
            installed,
            gateway,
        )
        assert said == ["error", "GatewayError", "model_error", "one "]


async def test_a_lost_gateway_is_a_disconnect_after_which_the_chat_resumes(installed):
    gate = asyncio.Event()
    async with scripted_gateway(Say("one "), Gate(gate), Say("two three")) as gateway:
        said = await in_app_until_resumed(
            gate,
            CHAT,
            """
            const ends = [];
            const client = newClient({ giveUpMs: 100 });
            await client.ready;
            const transport = new GatewayTransport(client, { keep_on_close: true, storage });
            const onFinish = ({ isDisconnect }) => ends.push(isDisconnect);
            const chat = new Chat({ transport, onFinish });
            const sent = chat.sendMessage({ text: "hi" });
            await until(() => said(chat));
            reachable = false;
            sockets.at(-1).close();
            await sent;
            const broken = [chat.status, ...ends];
            await chat.resumeStream();
            broken.push(chat.status, kept.size);
            reachable = true;
            await until(() => client.state === "open");
            await chat.resumeStream();
            say([broken, said(chat), ends, chat.messages.length, kept.size]);
            """,
            installed,
            gateway,
        )
        broken = ["error", True, "error", 1]
        assert said == [broken, "one two three", [True, False], 2, 0]


async def test_a_page_that_is_loaded_again_goes_on_with_the_answer(installed):
    gate = asyncio.Event()

    def script(request):
        if request.options["messages"][-1]["role"] == "tool":
            return [Say("It "), Gate(gate), Say("is 3.")]
        return [Say("Let me add. "), Call("add", {"a": 1, "b": 2})]

    async with scripted_gateway(script=script) as gateway:
        said = await in_app_until_resumed(
            gate,
            CHAT,
            """
            const calls = [];
            const newChat = (messages) => {
                const chat = new Chat({
                    id: "one",
                    messages,
                    transport: new GatewayTransport(newClient(), { keep_on_close: true, storage }),
                    sendAutomaticallyWhen: complete,
                    onToolCall({ toolCall: { toolCallId, toolName: tool } }) {
                        calls.push(tool);
                        chat.addToolOutput({ toolCallId, tool, output: 3 });
                    },
                });
                return chat;
            };
            const left = newChat([]);
            left.sendMessage({ text: "1 + 2?" });
            await until(() => said(left).includes("It"));
            const stored = JSON.parse(JSON.stringify(left.messages));
            leave();
            const chat = newChat(stored);
            // StrictMode's effects.
            chat.resumeStream();
            chat.stop();
            await chat.resumeStream();
            const { parts } = chat.lastMessage;
            const none = newChat(stored);
            await none.resumeStream();
            const types = parts.map(({ type }) => type);
            const { input } = parts.find(({ type }) => type === "tool-add");
            say([types, said(chat), input, calls, chat.messages.length, none.status, kept.size]);
            """,
            installed,
            gateway,
        )
        assert said == [
            ["step-start", "text", "tool-add", "step-start", "text"],
            "Let me add. It is 3.",
            {"a": 1, "b": 2},
            ["add"],
            2,
            "ready",
            0,
        ]
