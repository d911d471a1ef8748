"""The React hooks, in React's own renderer for tests, where StrictMode runs effects twice."""

import pytest

from provider.interface import GenerationError
from provider.scripted import Fail, Pause, Say
from tests.support.servers import eventually
from tests.web_demo.conftest import adding, scripted_gateway
from tests.web_demo.npm.conftest import assert_the_call_was_answered, in_app

pytestmark = [
    pytest.mark.slow("React is fetched for the package alone"),
    pytest.mark.timeout(300),
]

COMPONENTS = """
import { createElement, StrictMode } from "react";
import { act, create } from "react-test-renderer";
import { useConnectionState, useGateway, useRun } from "mlx-gateway-client/react";

globalThis.IS_REACT_ACT_ENVIRONMENT = false; // updates come when they come
console.error = () => {}; // the renderer says that it is for tests
const seen = {};
function Chat({ name }) {
    const client = useGateway(url, { onstate: (state) => states.push(state) });
    seen[name] = { client, connection: useConnectionState(client), ...useRun(client) };
    return seen[name].text;
}
const states = [];
const chat = (name) => createElement(StrictMode, null, createElement(Chat, { name, key: name }));
const render = (...children) => create(createElement(StrictMode, null, ...children.map(chat)));
"""


async def in_react(body, installed, gateway):
    return await in_app(COMPONENTS, body, installed, gateway)


async def test_a_run_is_shown_as_it_streams_and_stop_stops_the_model(installed):
    async with scripted_gateway(Say("one two "), Pause(3600)) as gateway:
        said = await in_react(
            """
            render("a");
            await until(() => seen.a);
            const before = [seen.a.state, seen.a.connection];
            seen.a.generate({ prompt: "hi" });
            await until(() => seen.a.text === "one two ");
            const during = [seen.a.state, seen.a.connection];
            seen.a.stop();
            await until(() => seen.a.state === "stopped");
            say([before, during, seen.a.result.finishReason, seen.a.usage.completion_tokens > 0]);
            """,
            installed,
            gateway,
        )
        assert said == [["idle", "closed"], ["streaming", "open"], "cancelled", True]
        await eventually(lambda: not gateway.provider.live)


async def test_components_share_a_socket_that_closes_after_the_last_of_them(installed):
    async with scripted_gateway(Say("hi")) as gateway:
        said = await in_react(
            """
            const root = render("a", "b");
            await until(() => seen.a && seen.b);
            await Promise.all([seen.a, seen.b].map((one) => one.generate({ prompt: "hi" }).result));
            root.update(createElement(StrictMode, null, chat("c")));
            await until(() => seen.c);
            await seen.c.generate({ prompt: "hi" }).result;
            const clients = new Set([seen.a, seen.b, seen.c].map(({ client }) => client));
            root.unmount();
            await until(() => clients.values().next().value.state === "closed");
            say([clients.size, states]);
            """,
            installed,
            gateway,
        )
        assert said == [1, ["connecting", "open", "closed"]]


async def test_a_component_that_goes_away_stops_its_run(installed):
    async with scripted_gateway(Say("one "), Pause(3600)) as gateway:
        said = await in_react(
            """
            const root = render("a", "b");
            await until(() => seen.a);
            const run = seen.a.generate({ prompt: "hi" });
            await until(() => seen.a.text);
            root.update(createElement(StrictMode, null, chat("b")));
            say((await run.result).finishReason);
            """,
            installed,
            gateway,
        )
        assert said == "cancelled"
        await eventually(lambda: not gateway.provider.live)


async def test_functions_run_in_the_page_and_their_results_are_shown(installed):
    async with scripted_gateway(script=adding()) as gateway:
        said = await in_react(
            """
            render("a");
            await until(() => seen.a);
            const tools = [{ name: "add", run: ({ a, b }) => a + b }];
            seen.a.runTools({ messages: [{ role: "user", content: "1 + 2?" }], tools });
            await until(() => seen.a.state === "done");
            say([seen.a.text, seen.a.calls.map(({ name, content }) => [name, content])]);
            """,
            installed,
            gateway,
        )
        assert said == ["It is 3.", [["add", "3"]]]
        assert_the_call_was_answered(gateway)


async def test_an_error_is_shown_with_the_text_so_far(installed):
    async with scripted_gateway(Say("one "), Fail(GenerationError("broken"))) as gateway:
        said = await in_react(
            """
            render("a");
            await until(() => seen.a);
            seen.a.generate({ prompt: "hi" });
            await until(() => seen.a.state === "failed");
            say([seen.a.text, seen.a.error.code]);
            """,
            installed,
            gateway,
        )
        assert said == ["one ", "model_error"]


async def test_a_server_renders_without_a_connection(installed):
    async with scripted_gateway(Say("hi")) as gateway:
        said = await in_react(
            """
            const { renderToString } = await import("react-dom/server");
            renderToString(chat("a"));
            say([seen.a.state, seen.a.connection, states]);
            """,
            installed,
            gateway,
        )
        assert said == ["idle", "closed", []]
