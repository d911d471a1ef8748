"""OpenAI's Python SDK on /v1/responses, each event checked against its types."""

import pytest

from provider import MLXProvider
from provider.scripted import Call, Queue, Reason, Say
from tests.clients.programs import LIMIT, told
from tests.clients.providers import (
    Dropping,
    Scripted,
    cut_when_asked,
    echo,
    steps_stopped,
    told_of_a_stop,
)
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, running, scripted
from tests.support.timeouts import TIMEOUT

PROGRAM = "openai_responses.py"

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 200})
    yield provider
    provider.close()


async def answers(provider, task):
    async with running(provider, TOKENS) as gateway:
        return await told("openai", PROGRAM, task, f"{gateway.url}v1")


async def test_a_text_is_accumulated_from_events_that_are_all_as_typed(provider):
    kinds, numbers, end = await answers(provider, "text")
    assert [kind for kind in kinds if kind != "response.queued"][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed"
    assert numbers == list(range(len(kinds)))
    assert end["status"] == "completed"
    assert end["text"]
    assert end["output"] > 1


async def test_reasoning_and_calls_are_accumulated():
    script = (Queue(1), Reason("hm so"), Say("I look."), Call("f", {"a": 1}), Call("g", {}))
    kinds, items = await answers(scripted(*script), "told")
    assert "response.queued" in kinds
    assert [item["type"] for item in items] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]


async def test_a_tool_is_called_and_its_output_is_read(provider):
    call, end, refused = await answers(provider, "tools")
    assert call == ["function_call", "get_weather", ["city"]]
    assert end["types"] == ["message"]
    assert end["previous"].startswith("resp_")
    assert refused is None


async def test_structured_output_with_log_probabilities(provider):
    value, tops = await answers(provider, "structured")
    assert set(value) == {"city", "warm"}
    assert max(tops) == 2  # fewer where the form leaves fewer


async def test_a_cancel_stops_the_models_steps(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway, steps_stopped(gateway):
        said = await told("openai", PROGRAM, "cancel", f"{gateway.url}v1")
    assert said == [["response.incomplete", "cancelled"]]


async def test_lanes_run_beside_each_other(provider):
    assert await answers(provider, "lanes") == [["incomplete"] * 4, 4] * 2


async def test_refusals_have_their_codes_and_fields(provider):
    assert await answers(provider, "refused") == [
        ["error", 400, "invalid_value", "temperature"],
        ["error", 400, "previous_response_not_found", "previous_response_id"],
        ["error", 404, "model_not_found", "model"],
    ]


async def test_what_can_not_be_done_is_told(endless):
    assert await answers(Scripted(echo, endless), "faults") == [
        ["error", "invalid_value", None],
        ["error", "context_length_exceeded", None],
        ["error", "server_is_overloaded", None],
        ["response.failed", "server_error", None],
    ]


@pytest.mark.parametrize("task", ["reconnect", "reconnect_sync"])
async def test_a_conversation_goes_on_after_a_lost_connection(task, endless):
    async with running(Dropping(echo, endless), TOKENS) as gateway, proxied(gateway) as proxy:
        program = told("openai", PROGRAM, task, f"{proxy.address}/v1")
        said = await cut_when_asked(proxy, gateway, program)
        *_, last = gateway.provider.requests
    assert said == [[[1006], "back"]]
    assert [one["content"] for one in last.options["messages"]] == ["echo one", "one", "echo back"]


async def test_a_wrong_key_is_refused(provider):
    [said] = await answers(provider, "unauthorized")
    assert "401" in said


async def test_a_post_is_answered(provider):
    ((status, said),) = await answers(provider, "posted")
    assert status == 405
    assert "text is generated over a WebSocket" in said


async def test_limits_and_a_gateway_that_stops_are_told():
    def program(address):
        return told("openai", PROGRAM, "stop", f"{address}/v1")

    limited, dialled, stopping, redialled, cut, back = await told_of_a_stop(program)
    assert limited == [429, "rate_limit_exceeded", {"retry-after": "1"}]
    assert "429" in dialled
    assert stopping == [503, "server_shutting_down", None]
    assert "503" in redialled
    assert (cut, back) == (["cancelled", "so far"], [[1012], "back"])


async def test_the_client_without_asyncio(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway, steps_stopped(gateway):
        said = await told("openai", PROGRAM, "sync", f"{gateway.url}v1")
    assert said == [["response.incomplete", 2], "temperature", "cancelled"]
