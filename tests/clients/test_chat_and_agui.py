"""The AI SDK's transport on /v1/chat and TanStack AI's webSocket() on /v1/agui, in Node."""

import asyncio

import pytest

from provider import MLXProvider
from provider.scripted import Gate, Pause, Say
from tests.clients.programs import LIMIT, told
from tests.clients.providers import (
    Scripted,
    echo,
    has_begun,
    meanwhile,
    steps_stopped,
    told_of_a_stop,
)
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, eventually, running, scripted
from tests.support.timeouts import TIMEOUT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 200})
    yield provider
    provider.close()


async def chat(gateway, task):
    return await chat_at(f"http://127.0.0.1:{gateway.port}", task)


async def chat_at(address, task):
    return await told("ai-node", "ai_node.mjs", task, f"{address}/v1/chat")


async def agui(gateway, task):
    return await agui_at(f"http://127.0.0.1:{gateway.port}", task)


async def agui_at(address, task):
    url = f"{address.replace('http', 'ws')}/v1/agui"
    return await told("tanstack-node", "tanstack_node.mjs", task, url)


async def test_usechat_streams_regenerates_and_resumes_a_text(provider):
    async with running(provider, TOKENS) as gateway:
        first, tokens, again, resumed = await chat(gateway, "text")
    status, text, parts = first
    assert (status, parts, tokens) == ("ready", ["step-start", "text"], 20)
    assert len(text) > 50
    assert again == [2, True]
    assert resumed == ["ready", 2, True]


async def test_usechat_calls_a_tool_and_goes_on_with_its_output(provider):
    async with running(provider, TOKENS) as gateway:
        ((calls, text, messages, parts),) = await chat(gateway, "tools")
    assert calls == [["get_weather", {"city": "Paris"}]]
    assert "21" in text
    assert messages == 2
    assert parts == ["step-start", "tool-get_weather", "step-start", "text"]


async def test_usechat_stops_the_models_steps(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway:
        async with steps_stopped(gateway, times=2):
            assert await chat(gateway, "stop") == ["ready", "streaming"]


async def test_usechat_resumes_what_another_page_began_and_stops_it():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider, TOKENS) as gateway:
        assert await chat(gateway, "resume") == [[2, True], "ready"]
        await eventually(lambda: not provider.live)


async def test_usechat_resumes_an_answer_whose_connection_was_cut():
    lost = asyncio.Event()
    provider = scripted(Say("a"), Gate(lost), Say("b"))
    async with running(provider, TOKENS) as gateway, proxied(gateway) as proxy:
        opened = gateway._generations.metrics.opened
        program = chat_at(proxy.address, "cut")
        async with meanwhile(program, lambda: has_begun(gateway)) as task:
            proxy.cut()
            await eventually(lambda: task.done() or opened["chat"] == 2)
            lost.set()
            cut, resumed, again = await task
    assert cut == ["error", "TypeError"]
    assert resumed == ["ready", "ab", 2]
    assert again == ["ready", "ab", 4]
    assert len(provider.requests) == 2


async def test_usechat_shows_refusals(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway:
        value, unknown, file, *faults, stranger = await chat(gateway, "refused")
    assert value[0] == unknown[0] == file[0] == "error"
    assert value[1].startswith("invalid_request: `body.temperature`: must be")
    assert unknown[1].startswith("unknown_model: `nobody` is not served")
    assert "`messages[0].parts[0].url`: must be a data URL" in file[1]
    codes = [said.partition(":")[0] for _, said in faults]
    assert codes == ["context_too_long", "overloaded", "model_error"]
    assert stranger == ["error", "TypeError"]


async def test_usechat_is_told_of_limits_and_of_a_gateway_that_stops():
    said = await told_of_a_stop(lambda address: chat_at(address, "limits"))
    limited, dialled, stopping, redialled, cut = said
    assert limited.startswith("rate_limited: at most 1 generation")
    assert stopping.startswith("shutting_down: ")
    assert "4429: too many connections with this token" in dialled
    assert "network connection failed" in redialled
    assert cut == ["ready", "so far"]


async def test_tanstack_streams_several_turns_on_one_connection(provider):
    async with running(provider, TOKENS) as gateway:
        (status, text), end, turns = await agui(gateway, "text")
    usage, metadata = end  # by the names that the client gives to AG-UI's
    prompt = usage["promptTokens"]
    assert (usage["completionTokens"], usage["totalTokens"]) == (20, prompt + 20)
    assert 0 <= usage["promptTokensDetails"]["cachedTokens"] < prompt
    assert usage["completionTokensDetails"] == {"reasoningTokens": 0}
    assert metadata == {"finishReason": "length", "model": "embedded"}
    assert status == "ready"
    assert len(text) > 50
    assert turns == [4, 1]


async def test_tanstack_runs_a_client_tool_by_an_interrupt(provider):
    async with running(provider, TOKENS) as gateway:
        ((calls, text),) = await agui(gateway, "tools")
    assert calls == [{"city": "Paris"}]
    assert "21" in text


async def test_tanstack_stops_the_models_steps(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway:
        async with steps_stopped(gateway, times=2):
            assert await agui(gateway, "stop") == ["ready", 1]


async def test_tanstack_reads_on_after_a_lost_connection():
    lost = asyncio.Event()
    provider = scripted(Say("a"), Gate(lost), Say("b"))
    async with running(provider, TOKENS) as gateway:
        opened = gateway._generations.metrics.opened
        async with meanwhile(agui(gateway, "reconnect"), lambda: opened["agui"] == 2) as task:
            lost.set()
            assert await task == [["ready", "ab", 2]]


async def test_tanstack_joins_a_run_that_another_page_began():
    joined = asyncio.Event()
    provider = scripted(Say("a"), Gate(joined), Say("b"))
    async with running(provider, TOKENS) as gateway:
        opened = gateway._generations.metrics.opened
        async with meanwhile(agui(gateway, "join"), lambda: opened["agui"] == 2) as task:
            joined.set()
            kinds, error, closed = await task
    assert (kinds[0], kinds[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert kinds.count("TEXT_MESSAGE_CONTENT") == 2
    assert error == ["RUN_ERROR", "not_resumable"]
    assert "1008" in closed


async def test_tanstack_shows_refusals(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway:
        (errors,) = await agui(gateway, "refused")
    value, unknown, large, full, bad, stranger = errors
    assert "`nobody` is not served" in unknown
    assert "`forwardedProps.temperature`: must be" in value
    assert "exceeds maximum context window" in large
    assert "the queue is full" in full
    assert (bad, bool(stranger)) == ("broken", True)


async def test_tanstack_is_told_of_limits_and_of_a_gateway_that_stops():
    said = await told_of_a_stop(lambda address: agui_at(address, "limits"), connections=2)
    limited, dialled, stopping, redialled, cut = said
    assert "at most 1 generation" in limited
    assert "too many connections" in dialled
    assert "stopping" in stopping
    assert redialled  # without a reason, since its own socket hides the status of a handshake
    assert cut == ["error", "so far"]
