"""Other clients of /v1/responses: libraries of agents, with tools that run, and Node."""

import json
from contextlib import asynccontextmanager

import pytest

from provider.scripted import Call, Reason, Say
from tests.clients.programs import LIMIT, told
from tests.clients.providers import Dropping, cut_when_asked, steps_stopped
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, running
from tests.support.timeouts import TIMEOUT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


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


async def test_openai_agents_run_tools_stream_continue_and_cancel(endless):
    async with serving(endless) as (gateway, proxy):
        program = told("openai-agents", "openai_agents.py", f"{proxy.address}/v1")
        said = await cut_when_asked(proxy, gateway, program)
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, form, left, wrong, *faults, redialled = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", "It is 8.", [21, 4]]
    assert (form, left) == (7, "left")
    assert "`temperature`: must be" in wrong
    assert faults[:2] == ["ResponsesWebSocketError"] * 2
    assert faults[2:] == ["ModelBehaviorError", "ConnectionClosedError"]
    assert redialled == "again"


async def test_pydantic_ai_runs_tools_streams_continues_and_uses_lanes(endless):
    async with serving(endless) as (gateway, proxy):
        program = told("pydantic-ai", "pydantic_ai_agents.py", f"{proxy.address}/v1")
        said = await cut_when_asked(proxy, gateway, program)
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, first, lanes, form, wrong, *faults, redialled, thoughts = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", [21, 4]]
    assert (bool(first), form) == (True, 7)
    assert lanes == ["0", "1", "2", "3"]
    assert wrong == [400, "invalid_value", "temperature"]
    assert faults == [
        ["ModelContextWindowExceededError", 400],
        ["ModelOverloadedError", 503],
        ["ModelServerError", 500],
        ["ModelConnectionError", None],
    ]
    assert redialled == "again"
    assert thoughts == [["hm so"], "Yes."]


async def test_openais_client_in_node_calls_continues_cancels_and_streams(endless):
    async with serving(endless) as (gateway, proxy):
        program = told("openai-node", "openai_node.mjs", f"{proxy.address}/v1")
        said = await cut_when_asked(proxy, gateway, program)
    call, answer, refused, status, streamed, form, *faults, back = said
    assert call == ["function_call", "double", 21]
    assert answer == "It is 42."
    assert refused["param"] == "temperature"
    assert (status, streamed) == ("cancelled", "one two")
    assert form == {"number": 7}
    assert faults == [
        "context_length_exceeded",
        "server_is_overloaded",
        ["failed", "server_error"],
        1006,
    ]
    assert back == "again"
