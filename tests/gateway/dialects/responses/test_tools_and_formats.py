"""Calls of functions, formats, images and log-probabilities, over real sockets."""

import json
import logging

import pytest

from provider.scripted import Call, Reason, Say, ScriptedProvider
from tests.gateway.dialects.responses.clients import kinds, responding, text_of
from tests.support.servers import eventually, running, scripted

ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}
SUM = {
    "type": "object",
    "properties": {"sum": {"enum": [3, 4]}},
    "required": ["sum"],
    "additionalProperties": False,
}


async def test_a_function_is_called_with_arguments_that_fit_and_its_output_is_read(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        asked = {"tools": [ADD], "tool_choice": {"type": "function", "name": "add"}}
        events = await client.create("What is 1 plus 2?", **asked)
        end = events[-1]["response"]
        assert (end["status"], end["tools"]) == ("completed", [ADD])
        assert end["tool_choice"] == asked["tool_choice"]
        (call,) = end["output"]
        assert (call["type"], call["name"]) == ("function_call", "add")
        assert set(json.loads(call["arguments"])) == {"a", "b"}
        deltas = [e for e in events if e["type"] == "response.function_call_arguments.delta"]
        assert "".join(event["delta"] for event in deltas) == call["arguments"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
        end = (await client.create([output], previous_response_id=end["id"], tools=[ADD]))[-1]
        assert end["response"]["output"]


async def test_a_tool_loop_may_send_all_items_again():
    provider = scripted(Reason("hm"), Say("I add."), Call("add", {"a": 1, "b": 2}))
    async with running(provider) as gateway, responding(gateway) as client:
        events = await client.create("1 + 2?", tools=[ADD], store=False)
        items = events[-1]["response"]["output"]
        assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
        output = {"type": "function_call_output", "call_id": items[-1]["call_id"], "output": "3"}
        first = {"role": "user", "content": "1 + 2?"}
        await client.create([first, *items, output], tools=[ADD], store=False)
    _, answer, result = provider.requests[-1].options["messages"]
    assert (answer["content"], answer["reasoning_content"]) == ("I add.", "hm")
    assert answer["tool_calls"][0]["function"]["name"] == "add"
    assert (result["role"], result["content"]) == ("tool", "3")


async def test_tools_of_other_types_are_left_out_and_the_log_says_which(caplog):
    provider = scripted(Say("a"))
    others = [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": []}]
    async with running(provider) as gateway, responding(gateway) as client:
        with caplog.at_level(logging.INFO, "gateway.dialects"):
            for _ in range(2):
                end = (await client.create("hi", tools=[*others, ADD]))[-1]
    assert [tool["name"] for tool in provider.requests[-1].tools] == ["add"]
    assert end["response"]["tools"] == [ADD]
    said = [r.getMessage() for r in caplog.records if r.name.startswith("gateway.dialects")]
    assert said == ["tools of the types namespace, web_search are left out of prompts"]


async def test_the_log_says_only_some_of_the_types_that_are_left_out(caplog):
    async with running(scripted(Say("a"))) as gateway, responding(gateway) as client:
        with caplog.at_level(logging.INFO, "gateway.dialects"):
            for first in (0, 50, 100):
                kinds = [{"type": f"kind-{n:03}"} for n in range(first, first + 50)]
                await client.create("hi", tools=kinds)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("gateway.dialects")]
    assert [one.count("kind-") for one in said] == [50, 14]


async def test_a_tool_at_fault_has_its_place_in_the_request(provider):
    wrong = {**ADD, "parameters": {"type": "strange"}}
    async with running(provider) as gateway, responding(gateway) as client:
        only = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "add"}]}
        for other in ({"type": "web_search"}, {**ADD, "name": "sub"}):
            (error,) = await client.create("hi", tools=[other, wrong], tool_choice=only)
            assert error["error"]["param"].startswith("tools[1].parameters")
        (error,) = await client.create("hi", tool_choice="required")
        assert error["error"]["param"] == "tool_choice"


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        ({"type": "json_schema", "name": "sum", "schema": SUM}, lambda v: v["sum"] in {3, 4}),
        ({"type": "json_object"}, lambda v: isinstance(v, dict)),
    ],
)
async def test_an_answer_has_the_form_that_is_asked_for(provider, form, fits):
    async with running(provider) as gateway, responding(gateway) as client:
        asked = {"text": {"format": form}, "max_output_tokens": 50}
        end = (await client.create("1 + 2?", **asked))[-1]
    assert end["response"]["text"]["format"] == form
    if end["response"]["status"] == "completed":
        assert fits(json.loads(text_of(end["response"])))
    else:
        assert form["type"] == "json_object"  # which may be of any length
        assert text_of(end["response"]).startswith("{")


async def test_a_schema_at_fault_is_named(provider):
    form = {"type": "json_schema", "name": "x", "schema": {"type": "strange"}}
    async with running(provider) as gateway, responding(gateway) as client:
        (error,) = await client.create("hi", text={"format": form})
    assert error["error"]["param"].startswith("text.format")


async def test_a_response_is_cut_where_its_log_probabilities_take_too_much():
    provider = ScriptedProvider(tokens_per_second=None)
    async with running(provider, request_bytes=400_000, client_share=0.5) as gateway:
        counted = gateway._generations.unbuilt
        async with responding(gateway) as client:
            included = {"include": ["message.output_text.logprobs"], "top_logprobs": 20}
            events = await client.create("100000", **included)
            end = events[-1]["response"]
            assert (events[-1]["type"], end["status"]) == ("response.incomplete", "incomplete")
            assert end["incomplete_details"] == {"reason": "max_output_tokens"}
            (part,) = end["output"][0]["content"]
            told = [one for e in events if "delta" in e for one in e["logprobs"]]
            assert 40 < len(told) == end["usage"]["output_tokens"] < 200
            assert part["logprobs"] == told
            assert "".join(one["token"] for one in told) == part["text"]
            await eventually(lambda: not (provider.live or counted.held))


async def test_log_probabilities_are_there_if_they_are_included(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        included = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
        end = (await client.create("Hi", max_output_tokens=4, **included))[-1]["response"]
        (part,) = end["output"][0]["content"]
        assert [len(one["top_logprobs"]) for one in part["logprobs"]] == [2] * 4
        assert "".join(one["token"] for one in part["logprobs"]) == part["text"]
        end = (await client.create("Hi", max_output_tokens=4, top_logprobs=2))[-1]["response"]
        assert end["output"][0]["content"][0]["logprobs"] == []


async def test_reasoning_is_an_item_of_its_own_and_can_be_turned_off(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        asked = {"max_output_tokens": 20}
        events = await client.create("2 + 2?", reasoning={"effort": "high"}, **asked)
        assert "reasoning_text.delta" in kinds(events)
        end = events[-1]["response"]
        assert end["output"][0]["type"] == "reasoning"
        assert end["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        assert end["reasoning"] == {"effort": "high", "summary": None}
        end = (await client.create("2 + 2?", reasoning={"effort": "none"}, **asked))[-1]
        assert [item["type"] for item in end["response"]["output"]] == ["message"]


async def test_an_image_for_a_model_that_reads_text_is_refused(provider):
    url = "data:image/png;base64,iVBORw0KGgo="
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    async with running(provider) as gateway, responding(gateway) as client:
        await client.create("hi", max_output_tokens=1)  # loads the model, of which there are events
        (error,) = await client.create(items)
    assert (error["status"], error["error"]["code"]) == (400, "unsupported_value")
    assert "reads text, not images" in error["error"]["message"]


async def test_only_one_call_is_told_if_they_may_not_be_parallel():
    provider = scripted(Call("add", {"a": 1}), Call("add", {"a": 2}))
    async with running(provider) as gateway, responding(gateway) as client:
        for parallel, count in ((False, 1), (True, 2)):
            end = (await client.create("hi", tools=[ADD], parallel_tool_calls=parallel))[-1]
            assert len(end["response"]["output"]) == count
