"""tool_loop.js by its public interface, run in a real page."""

import json

import pytest

from provider.scripted import Call, Pause, Reason, Say, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.conftest import evaluate

pytestmark = pytest.mark.browser


async def with_tools(page, body):
    """Run a piece of JavaScript that has `client` and `runTools`."""
    return await evaluate(page, f"const {{runTools}} = await import('/tool_loop.js'); {body}")


def answering(*calls, rounds=1):
    """Return a script that asks for tools for some rounds, then says what they returned."""

    def script(request):
        results = [m["content"] for m in request.options["messages"] if m["role"] == "tool"]
        if len(results) < rounds * len(calls):
            return [Reason("I add. "), Say("Let me see. "), *calls]
        return [Say(" ".join(results))]

    return script


async def run_tools(blank_page, script, tools, more="", after=""):
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider) as gateway:
        page = await blank_page(gateway)
        result = await with_tools(
            page,
            """
            const results = [];
            const messages = [{role: "user", content: "hi"}];
            const run = runTools(client, {messages, tools: [%s], %s
                onresult: (call, content) => results.push([call.name, content])});
            const chunks = [];
            for await (const chunk of run) {
                if (chunk.channel === "answer") chunks.push(chunk.text);
                %s
            }
            return {chunks: chunks.join(""), all: run.text, results, ...(await run.result)};
            """
            % (tools, more, after),
        )
    return result, provider


ADD = '{name: "add", parameters: {type: "object"}, run: ({a, b}) => a + b}'


async def test_functions_are_called_and_the_model_goes_on(blank_page):
    calls = Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4})
    result, provider = await run_tools(blank_page, answering(*calls), ADD)
    assert result["results"] == [["add", "3"], ["add", "7"]]
    assert (result["text"], result["finishReason"]) == ("3 7", "stop")
    assert result["chunks"] == result["all"] == "Let me see. 3 7"
    first, second = provider.requests
    assert first.tools == [{"name": "add", "parameters": {"type": "object"}}]
    asked, told, seven = second.options["messages"][1:]
    assert [call["function"]["name"] for call in asked["tool_calls"]] == ["add", "add"]
    assert asked["reasoning_content"] == "I add. "
    own = asked["tool_calls"][0]["id"]
    assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", own, "3")
    assert seven["content"] == "7"
    assert [turn["role"] for turn in result["messages"]] == [
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


async def test_what_a_function_throws_is_told_to_the_model(blank_page):
    tool = '{name: "f", run: async () => { throw new Error("no such city"); }}'
    result, _ = await run_tools(blank_page, answering(Call("f", {})), tool)
    assert result["text"] == '{"error": "Error: no such city"}'


async def test_what_a_function_returns_is_json_with_blanks(blank_page):
    tool = '{name: "f", run: () => ({a: [1, "x,y:z", null, {b: undefined}], d: new Date(0)})}'
    result, _ = await run_tools(blank_page, answering(Call("f", {})), tool)
    expected = {"a": [1, "x,y:z", None, {}], "d": "1970-01-01T00:00:00.000Z"}
    assert result["results"] == [["f", json.dumps(expected)]]


async def test_a_call_without_a_function_is_left_to_the_caller(blank_page):
    result, provider = await run_tools(blank_page, answering(Call("f", {})), '{name: "f"}')
    assert result["finishReason"] == "tool_calls"
    assert [call["name"] for call in result["toolCalls"]] == ["f"]
    assert len(provider.requests) == 1


async def test_the_rounds_are_bounded(blank_page):
    script = answering(Call("add", {"a": 1, "b": 1}), rounds=99)
    result, provider = await run_tools(blank_page, script, ADD, "maxRounds: 3,")
    assert len(provider.requests) == 3
    assert result["finishReason"] == "tool_calls"


async def test_a_function_that_runs_is_told_of_a_cancel(blank_page):
    tool = """{name: "f", run: (_, {signal}) => new Promise((resolve) => {
        signal.addEventListener("abort", () => resolve("stopped"));
        setTimeout(() => run.cancel()); })}"""
    result, provider = await run_tools(blank_page, answering(Call("f", {})), tool)
    assert result["results"] == [["f", "stopped"]]
    assert result["finishReason"] == "cancelled"
    assert len(provider.requests) == 1


async def test_leaving_the_loop_of_tools_stops_the_model(blank_page):
    result, provider = await run_tools(
        blank_page, lambda request: [Say("a "), Pause(3600)], ADD, after="break;"
    )
    assert result["finishReason"] == "cancelled"
    assert not provider.live


@pytest.mark.parametrize("how", ["run.cancel()", "controller.abort()"])
async def test_a_function_that_goes_on_after_a_stop_is_not_waited_for(blank_page, how):
    provider = ScriptedProvider(script=answering(Call("f", {})), tokens_per_second=None)
    async with running(provider) as gateway:
        page = await blank_page(gateway)
        end = await with_tools(
            page,
            """
            const controller = new AbortController();
            const endless = () => { setTimeout(() => %s); return new Promise(() => {}); };
            const tool = {name: "f", run: endless};
            const messages = [{role: "user", content: "hi"}];
            const run = runTools(client, {messages, tools: [tool], signal: controller.signal});
            return await run.result.then((result) => result.finishReason, (error) => error.name);
            """
            % how,
        )
    assert end == {"run.cancel()": "cancelled", "controller.abort()": "AbortError"}[how]
    assert len(provider.requests) == 1


async def test_a_call_of_no_tool_is_told_to_the_model(blank_page):
    calls = Call("add", {"a": 1, "b": 2}), Call("subtract", {})
    result, _ = await run_tools(blank_page, answering(*calls), ADD)
    assert result["text"] == '3 {"error": "there is no tool subtract, only add"}'


async def test_a_call_that_is_asked_for_is_asked_for_once(blank_page):
    call = Call("add", {"a": 1, "b": 2})
    result, provider = await run_tools(blank_page, answering(call), ADD, 'tool_choice: "required",')
    assert result["text"] == "3"
    asked = [request.options.get("tool_choice") for request in provider.requests]
    assert asked == ["required", None]


async def test_the_events_of_a_run_with_functions_have_their_results(blank_page):
    provider = ScriptedProvider(
        script=answering(Call("add", {"a": 1, "b": 2})), tokens_per_second=None
    )
    async with running(provider) as gateway:
        page = await blank_page(gateway)
        events = await with_tools(
            page,
            """
            const messages = [{role: "user", content: "hi"}], events = [];
            const tools = [{name: "add", run: ({a, b}) => a + b}];
            for await (const event of runTools(client, {messages, tools}).events()) {
                if (event.type !== "progress") events.push(event);
            }
            return events;
            """,
        )
    assert [event["type"] for event in events][-3:] == ["result", "text", "done"]
    result = next(event for event in events if event["type"] == "result")
    assert (result["call"]["name"], result["content"]) == ("add", "3")
    assert len(events[-1]["result"]["messages"]) == 3


async def test_the_text_of_functions_with_several_answers_is_the_first_ones(blank_page, embedded):
    async with running(embedded) as gateway:
        page = await blank_page(gateway)
        texts = await with_tools(
            page,
            """
            const messages = [{role: "user", content: "Tell me a story"}];
            const options = {max_tokens: 12, temperature: 1.2, seed: 1, n: 2};
            const run = runTools(client, {messages, tools: [], ...options});
            const {text, choices} = await run.result;
            return [run.text, text, choices.length];
            """,
        )
    assert texts[0] == texts[1]
    assert texts[2] == 2
