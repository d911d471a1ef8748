"""Other clients of /v1/responses: libraries of agents, with tools that run, and Node."""

import hashlib
import json

import pytest

from gateway.server.tokens import Token, Tokens
from provider.scripted import Call, Pause, Say, ScriptedProvider
from tests.clients.programs import LIMIT, told
from tests.support.servers import eventually, running
from tests.support.timeouts import TIMEOUT

TOKENS = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])

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
    if word == "long":
        return [Say("a"), Pause(3600)]
    return [Say(rest)]


@pytest.fixture
def provider():
    return ScriptedProvider(script=script, tokens_per_second=None)


async def test_openai_agents_run_tools_stream_continue_and_cancel(provider):
    async with running(provider, TOKENS) as gateway:
        said = await told("openai-agents", "openai_agents.py", f"{gateway.url}v1")
        await eventually(lambda: not provider.live)
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, form, left, wrong = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", "It is 8.", [21, 4]]
    assert (form, left) == (7, "left")
    assert "`temperature`: must be" in wrong


async def test_pydantic_ai_runs_tools_streams_continues_and_uses_lanes(provider):
    async with running(provider, TOKENS) as gateway:
        said = await told("pydantic-ai", "pydantic_ai_agents.py", f"{gateway.url}v1")
        await eventually(lambda: not provider.live)
        assert gateway._generations.metrics.opened["responses"] >= 1
    tool, again, streamed, first, lanes, form, wrong = said
    assert tool == ["It is 42.", [21]]
    assert again == "It is 42."
    assert streamed == ["It is 8.", [21, 4]]
    assert (first, form) == ("a", 7)
    assert lanes == ["0", "1", "2", "3"]
    assert wrong == [400, "invalid_value", "temperature"]


async def test_openais_client_in_node_calls_continues_cancels_and_streams(provider):
    async with running(provider, TOKENS) as gateway:
        said = await told("openai-node", "openai_node.mjs", f"{gateway.url}v1")
        await eventually(lambda: not provider.live)
    call, answer, refused, status, streamed = said
    assert call == ["function_call", "double", 21]
    assert answer == "It is 42."
    assert refused["param"] == "temperature"
    assert (status, streamed) == ("cancelled", "one two")
