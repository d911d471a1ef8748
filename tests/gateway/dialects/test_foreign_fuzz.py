"""What clients of other protocols may send, at random, and some of it over real sockets."""

import asyncio
import itertools
import json
import logging

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.protocol.codes import CloseCode
from provider.errors import GenerationError
from provider.scripted import Call, Fail, Reason, Say, ScriptedProvider
from tests.gateway.dialects.foreign_fuzz import ASKED, GOOD, RUN, ForeignFuzz
from tests.support.servers import eventually, running
from tests.support.timeouts import TIMEOUT

ASKS = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "last"}]}
# What a connection asks for last, and the end of that, by what only this has.
LAST = {
    "/v1/responses": (
        {"type": "response.create", "input": "last", "stream_id": "last"},
        {"type": "response.completed", "stream_id": "last"},
    ),
    "/v1/realtime": (
        {"type": "conversation.item.retrieve", "item_id": "nobody", "event_id": "last"},
        {"code": "item_not_found", "event_id": "last"},
    ),
    "/v1/chat": (
        {"type": "send", **ASKED, "messages": [ASKS], "requestId": "last", "id": "last"},
        {"type": "end", "requestId": "last"},
    ),
    "/v1/agui": (
        {**RUN, "messages": [{"role": "user", "content": "last"}], "runId": "last"},
        {"type": "RUN_FINISHED", "runId": "last"},
    ),
}


@pytest.mark.parametrize("path", GOOD)
def test_whatever_comes_only_documented_answers_follow(path):
    counts = ForeignFuzz(path, seed=1).run(1500)
    assert counts["Generate"] > 100
    assert counts["answers"] > 1000
    assert counts["Ping"] > 100


def teller():
    """Return a provider that says something of each kind, and then fails at one in five inputs."""
    numbers = itertools.count()
    said = [Reason("hm"), Say("so"), Call("f", {"a": 1}), Say("\ud800 far")]

    def script(request):
        fails = request.last_user_text != "last" and next(numbers) % 5 == 0
        return [*said, Fail(GenerationError("broken"))] if fails else said

    return ScriptedProvider(script=script, tokens_per_second=None)


def has(message, expected):
    """Return whether an answer has these fields, in an envelope or in its error."""
    answer = json.loads(message)
    inside = [answer, answer.get("chunk"), answer.get("error")]
    return any(expected.items() <= one.items() for one in inside if isinstance(one, dict))


async def told(gateway, path, inputs):
    """Send inputs, and what is to be answered last; return the close code, None if it is."""
    last, end = LAST[path]
    # With a bound on what waits to be read, a client would not see the answer to its close frame.
    async with connect(f"ws://127.0.0.1:{gateway.port}{path}", max_queue=None) as socket:
        try:
            for message in [*inputs, json.dumps(last)]:
                await socket.send(message)
            async with asyncio.timeout(TIMEOUT):
                while not has(await socket.recv(), end):
                    pass
        except ConnectionClosed:
            return socket.close_code
    return None


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "connections", [20, pytest.param(400, marks=pytest.mark.slow("hundreds of connections"))]
)
async def test_over_a_socket_nonsense_is_answered_or_ends_its_own_connection(
    path, connections, caplog
):
    fuzz = ForeignFuzz(path, seed=connections)
    async with running(teller()) as gateway:
        inputs = ([fuzz.input() for _ in range(n % 5)] for n in range(connections))
        codes = [await told(gateway, path, some) for some in inputs]
        await eventually(lambda: not (gateway.live or gateway.connections))
    assert set(codes) <= {None, CloseCode.NOT_A_FRAME}
    assert codes.count(None) > connections / 4
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
