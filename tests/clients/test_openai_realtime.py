"""OpenAI's Python SDK on /v1/realtime, each event checked against its types."""

import ssl

import pytest
import trustme

from provider import MLXProvider
from provider.scripted import Call, Fail, Queue, Reason, Say
from tests.clients.programs import LIMIT, told
from tests.clients.providers import (
    Dropping,
    Scripted,
    cut_when_asked,
    doors,
    echo,
    steps_stopped,
    told_of_a_stop,
)
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, running, scripted
from tests.support.timeouts import TIMEOUT

PROGRAM = "openai_realtime.py"

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 200})
    yield provider
    provider.close()


async def answers(provider, task):
    async with running(provider, TOKENS) as gateway:
        return await told("openai", PROGRAM, task, f"{gateway.url}v1")


async def test_a_text_comes_in_events_that_are_all_as_typed(provider):
    model, instructions, kinds, end = await answers(provider, "text")
    assert (model, instructions) == (["embedded"], ["Be brief."])
    assert kinds == [
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    assert end == ["completed", True, True]


async def test_a_tool_is_called_and_its_output_is_read(provider):
    assert await answers(provider, "tools") == [
        ["function_call", "get_weather", ["city"]],
        ["message"],
    ]


async def test_what_a_model_may_say_is_as_typed():
    script = (Queue(1), Reason("hm"), Say("I look."), Call("f", {"a": 1}), Say("a"))
    provider = scripted(*script, Fail(RuntimeError("broken")))
    assert await answers(provider, "told") == [
        ["message", "function_call", "message"],
        ["failed", "server_error"],
    ]


async def test_a_cancel_stops_the_models_steps_and_a_late_one_is_an_error(endless):
    async with running(Scripted(echo, endless), TOKENS) as gateway, steps_stopped(gateway):
        said = await told("openai", PROGRAM, "cancel", f"{gateway.url}v1")
    assert said == [["cancelled", "client_cancelled"], ["response_cancel_not_active", "late"]]


async def test_items_are_put_shown_and_deleted():
    assert await answers(scripted(), "items") == [
        [
            *["conversation.item.added", "conversation.item.done"] * 2,
            "conversation.item.retrieved",
            "conversation.item.deleted",
        ]
    ]


async def test_refusals_name_their_fields(provider):
    assert await answers(provider, "refused") == [
        ["session.output_modalities", "1"],
        ["response.max_output_tokens", None],
        ["type", None],
        ["session.model", "m"],
    ]


async def test_what_can_not_be_done_is_told(endless):
    assert await answers(Scripted(echo, endless), "faults") == [
        ["error", "invalid_value"],
        ["error", "context_length_exceeded"],
        ["error", "server_is_overloaded"],
        ["response.done", "model_error"],
    ]


@pytest.mark.parametrize("task", ["reconnect", "reconnect_sync"])
async def test_the_client_dials_again_after_a_lost_connection(task, endless):
    async with running(Dropping(echo, endless), TOKENS) as gateway, proxied(gateway) as proxy:
        program = told("openai", PROGRAM, task, f"{proxy.address}/v1")
        assert await cut_when_asked(proxy, gateway, program) == [[[1006], "back"]]


async def test_limits_and_a_gateway_that_stops_are_told():
    def program(address):
        return told("openai", PROGRAM, "stop", f"{address}/v1")

    limited, dialled, stopping, redialled, cut, back = await told_of_a_stop(program)
    assert (limited, stopping) == ("rate_limit_exceeded", "server_shutting_down")
    assert "429" in dialled
    assert "503" in redialled
    assert (cut, back) == (["cancelled", "so far"], [[1012], "back"])


async def test_a_wrong_key_is_refused(provider):
    [said] = await answers(provider, "unauthorized")
    assert "401" in said


async def test_the_client_without_asyncio(provider):
    assert await answers(provider, "sync") == [["incomplete", 9]]


@pytest.fixture
def secure(tmp_path):
    """Return the settings of a gateway with TLS, and the file by which it is trusted."""
    authority = trustme.CA()
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    issued = authority.issue_cert("127.0.0.1", "0.0.0.0")
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    issued.cert_chain_pems[0].write_to_path(files["tls_cert"])
    issued.private_key_pem.write_to_path(files["tls_key"])
    return files, trusted


async def in_node(module, task, trusted, *addresses):
    """Run the class for Node or that for browsers, which take no address but one with TLS."""
    variables = {"NODE_EXTRA_CA_CERTS": str(trusted)}
    program = "openai_realtime_node.mjs"
    return await told("openai-node", program, module, task, *addresses, **variables)


def secured(address):
    return f"{address.replace('http:', 'https:').rstrip('/')}/v1"


def hidden(module, status):
    """Return how a class shows the status of a handshake, which a browser's socket hides."""
    return {"ws": f"Unexpected server response: {status}", "websocket": "1006 "}[module]


MODULES = pytest.mark.parametrize("module", ["ws", "websocket"])


@MODULES
async def test_the_classes_for_node_and_for_browsers_over_tls(module, secure, endless):
    files, trusted = secure
    tls = ssl.create_default_context(cafile=trusted)
    provider = Dropping(echo, endless)
    async with running(provider, TOKENS, **files) as gateway, proxied(gateway) as proxy:
        async with steps_stopped(gateway, times=2, tls=tls):
            program = in_node(module, "work", trusted, secured(proxy.address))
            said = await cut_when_asked(proxy, gateway, program)
    assert said == [
        ["realtime", "scripted"],
        ["completed", "hello"],
        ["cancelled", "client_cancelled"],
        ["type", "e"],
        [1006, "back"],
    ]


@MODULES
async def test_refusals_in_node_and_in_browsers(module, secure, endless):
    files, trusted = secure
    async with running(Scripted(echo, endless), TOKENS, **files) as gateway:
        url = f"https://127.0.0.1:{gateway.port}/v1"
        *faults, wrong = await in_node(module, "refused", trusted, url)
    assert faults == [
        "invalid_value",
        "context_length_exceeded",
        "server_is_overloaded",
        ["failed", "model_error"],
        ["model_not_found", "session.model"],
    ]
    assert wrong == hidden(module, 401)


@MODULES
async def test_who_is_not_let_in_in_node_and_in_browsers(module, secure):
    files, trusted = secure
    tls = ssl.create_default_context(cafile=trusted)
    async with doors(tls=tls, **files) as addresses:
        said = await in_node(module, "stranger", trusted, *addresses)
    assert said == [hidden(module, status) for status in (403, 404, 503)]


@MODULES
async def test_limits_and_a_gateway_that_stops_in_node_and_in_browsers(module, secure):
    files, trusted = secure

    def program(address):
        return in_node(module, "stop", trusted, secured(address))

    # A page, which shows its token as a subprotocol, is told by a close.
    closed = "4429 too many connections with this token"
    said = await told_of_a_stop(program, **files)
    assert said == [
        "rate_limit_exceeded",
        closed if module == "websocket" else hidden(module, 429),
        "server_shutting_down",
        hidden(module, 503),
        ["cancelled", "so far"],
        [1012, "back"],
    ]
