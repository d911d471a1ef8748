"""Other clients of /v1/responses: libraries of agents, with tools that run, and Node."""

import json
from contextlib import asynccontextmanager

import pytest

from provider.scripted import Call, Reason, Say, ScriptedProvider
from tests.clients.programs import LIMIT, told
from tests.clients.providers import (
    Dropping,
    Scripted,
    cut_when_asked,
    staying,
    steps_stopped,
    told_of_a_stop,
)
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, running
from tests.support.timeouts import TIMEOUT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


async def agents(task, address):
    return await told("openai-agents", "openai_agents.py", task, f"{address}/v1")


async def pydantic(task, address):
    return await told("pydantic-ai", "pydantic_ai_agents.py", task, f"{address}/v1")


async def node(task, address):
    return await told("openai-node", "openai_node.mjs", task, f"{address}/v1")


def script(request):
    """Answer as a model would that reads the last message, and calls `double` where it is asked."""
    *_, last = request.options["messages"]
    word, _, rest = str(last["content"]).partition(" ")
    if last["role"] == "tool":
        return [Say(f"It is {last['content']}.")]
    if word == "double":
        return [Call("double", {"number": int(rest)})]
    if word == "form":
        names = [tool["name"] for tool in request.tools]
        return [Call(names[0], {"number": 7})] if names else [Say(json.dumps({"number": 7}))]
    if word == "again":
        before = [m["content"] for m in request.options["messages"] if m["role"] == "assistant"]
        return [Say(before[-1])]
    if word == "echo":
        return [Say(rest)]
    if word == "think":
        return [Reason("hm so"), Say("Yes.")]
    return [Say(rest)]


@asynccontextmanager
async def serving(endless):
    """Run a gateway behind a proxy; check that what is left is cancelled, and its steps stop."""
    async with running(Dropping(script, endless), TOKENS) as gateway, proxied(gateway) as proxy:
        # One that is left by the client, and one whose connection is cut.
        async with steps_stopped(gateway, times=2):
            yield gateway, proxy


async def refused(client, endless):
    """Return what a client says of what is refused."""
    async with running(Scripted(staying, endless), TOKENS) as gateway:
        return await client("refused", f"http://127.0.0.1:{gateway.port}")


async def test_openai_agents_run_tools_stream_continue_and_cancel(endless):
    async with serving(endless) as (gateway, proxy):
        said = await cut_when_asked(proxy, gateway, agents("work", proxy.address))
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, form, left, dropped, redialled = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", "It is 8.", [21, 4]]
    assert (form, left) == (7, "left")
    assert (dropped, redialled) == ("ConnectionClosedError", "again")


async def test_openai_agents_show_refusals(endless):
    said = await refused(agents, endless)
    hot, unknown, large, full, bad, goes_on, wrong = said
    kinds, texts = zip(hot, unknown, large, full, strict=True)
    assert set(kinds) == {"ResponsesWebSocketError"}
    assert "`temperature`: must be" in texts[0]
    codes = ["invalid_value", "model_not_found", "context_length_exceeded", "server_is_overloaded"]
    assert [code in text for code, text in zip(codes, texts, strict=True)] == [True] * 4, texts
    assert bad[0] == "ModelBehaviorError"
    assert "broken" in bad[1]
    assert goes_on == "again"
    assert wrong == ["InvalidStatus", "server rejected WebSocket connection: HTTP 401"]


async def test_openai_agents_are_told_of_a_limit():
    limits = {"max_generations_per_token": 1}
    async with running(
        ScriptedProvider(script=staying, tokens_per_second=None), TOKENS, **limits
    ) as gateway:
        said = await agents("limited", f"http://127.0.0.1:{gateway.port}")
    ((kind, text),) = said
    assert kind == "ResponsesWebSocketError"
    assert "rate_limit_exceeded" in text


async def test_openai_agents_are_told_of_a_gateway_that_stops():
    said = await told_of_a_stop(lambda address: agents("stop", address), connections=2)
    first, dialled, stopping, redialled, cut, back = said
    assert (first, back) == ("first", "back")
    assert "429" in dialled[1]
    assert "server_shutting_down" in stopping[1]
    assert "503" in redialled[1]
    assert cut[0] == "ModelBehaviorError"
    assert "status=cancelled" in cut[1]


async def test_pydantic_ai_runs_tools_streams_continues_and_uses_lanes(endless):
    async with serving(endless) as (gateway, proxy):
        said = await cut_when_asked(proxy, gateway, pydantic("work", proxy.address))
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, first, lanes, form, dropped, redialled, thoughts = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", [21, 4]]
    assert (bool(first), form) == (True, 7)
    assert lanes == ["0", "1", "2", "3"]
    assert (dropped, redialled) == (["ModelConnectionError", None, None], "again")
    assert thoughts == [["hm so"], "Yes."]


async def test_pydantic_ai_shows_refusals(endless):
    said = await refused(pydantic, endless)
    assert said == [
        ["ModelRequestRejectedError", 400, ["invalid_value", "temperature"]],
        ["ModelContextWindowExceededError", 400, ["context_length_exceeded", "input"]],
        ["ModelOverloadedError", 503, ["server_is_overloaded", None]],
        ["ModelServerError", 500, ["server_error", None]],
        "again",
        ["ModelNotFoundError", 404, ["model_not_found", "model"]],
        ["ModelAuthenticationError", 401, "a valid token is required\n"],
        said[-1],
    ]
    assert said[-1][1] == 405  # by a POST


async def test_pydantic_ai_is_told_of_limits_and_of_a_gateway_that_stops():
    said = await told_of_a_stop(lambda address: pydantic("stop", address), connections=2)
    first, limited, dialled, stopping, redialled, cut, back = said
    assert (first, back) == ("first", "back")
    assert limited[1:] == [429, ["rate_limit_exceeded", None]]
    assert dialled[1:] == [429, "too many connections with this token\n"]
    assert stopping[1:] == [503, ["server_shutting_down", None]]
    assert redialled[1:] == [503, "the gateway is stopping\n"]
    assert cut == ["so far", None]


async def test_openais_client_in_node_calls_continues_cancels_and_streams(endless):
    async with serving(endless) as (gateway, proxy):
        said = await cut_when_asked(proxy, gateway, node("work", proxy.address))
    call, answer, status, streamed, form, lost, back = said
    assert call == ["function_call", "double", 21]
    assert answer == "It is 42."
    assert (status, streamed) == ("cancelled", "one two")
    assert form == {"number": 7}
    assert (lost, back) == (1006, "again")


async def test_openais_client_in_node_shows_refusals(endless):
    said = await refused(node, endless)
    *turns, unauthorized, posted = said
    assert turns == [
        [400, "invalid_value", "temperature"],
        [400, "previous_response_not_found", "previous_response_id"],
        [404, "model_not_found", "model"],
        [400, "context_length_exceeded"],
        [503, "server_is_overloaded"],
        ["failed", "server_error"],
    ]
    assert "401" in unauthorized
    assert posted[0] == 405
    assert "text is generated over a WebSocket" in posted[1]


async def test_openais_client_in_node_is_told_of_limits_and_of_a_gateway_that_stops():
    said = await told_of_a_stop(lambda address: node("stop", address))
    assert said == [
        [429, "rate_limit_exceeded", {"retry-after": "1"}],
        "Unexpected server response: 429",
        [503, "server_shutting_down", None],
        "Unexpected server response: 503",
        ["cancelled", "so far"],
        [1012, "back"],
    ]
