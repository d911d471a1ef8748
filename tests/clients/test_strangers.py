"""What each client is told that is not let in: a wrong Host, a wrong path, one too many."""

import pytest

from tests.clients.programs import LIMIT, told
from tests.clients.providers import doors
from tests.support.timeouts import TIMEOUT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


async def strangers(client, program, path=""):
    async with doors(path) as addresses:
        return await told(client, program, "stranger", *addresses)


@pytest.mark.parametrize(
    ("client", "program"),
    [
        ("openai", "openai_responses.py"),
        ("openai", "openai_realtime.py"),
        ("openai-node", "openai_node.mjs"),
        ("openai-agents", "openai_agents.py"),
    ],
)
async def test_a_client_shows_the_status(client, program):
    said = [str(one) for one in await strangers(client, program)]
    assert ["403" in said[0], "404" in said[1], "503" in said[2]] == [True] * 3, said


async def test_pydantic_ai_shows_the_reason_too():
    host, path, full = await strangers("pydantic-ai", "pydantic_ai_agents.py")
    assert host[:2] == ["ModelAuthenticationError", 403]
    assert "the setting `hosts` lists those that are" in host[2]
    assert path[:2] == ["ModelNotFoundError", 404]
    assert full == ["ModelUnavailableError", 503, "too many connections\n"]


# A socket as browsers have it hides the status of a handshake.


async def test_the_ai_sdk_says_that_it_has_no_connection():
    said = await strangers("ai-node", "ai_node.mjs", "/chat")
    assert said == [["error", "TypeError", "WebSocket chat network connection failed."]] * 3


async def test_tanstack_says_that_it_has_no_connection():
    said = await strangers("tanstack-node", "tanstack_node.mjs", "/agui")
    assert said == ["Stream response body read failed"] * 3
