"""What the interleavings of several languages share: what is asked for, and how much is tried."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider.scripted import Say, ScriptedProvider
from tests.support.servers import eventually

TEXTS = {"short": "one two three", "long": "many " * 20}


def teller():
    """Return a provider that says the text whose name it is asked for."""
    return ScriptedProvider(
        script=lambda request: [Say(TEXTS[request.last_user_text])], tokens_per_second=None
    )


def some(step):
    """Let a test have steps, and whether the connection is cut after them."""
    return _tried(step, longest=24, examples=12)


def many(step):
    """Let a test that is slow have many more, and longer ones."""

    def decorated(test):
        slow = pytest.mark.slow("hundreds of longer interleavings")
        return slow(_tried(step, longest=80, examples=400)(test))

    return decorated


def _tried(step, *, longest, examples):
    def decorated(test):
        steps = given(st.lists(step, max_size=longest), st.booleans())
        return steps(settings(max_examples=examples)(test))

    return decorated


async def cut_off(client, gateway):
    """Cut a client's connection, and wait until nothing of it goes on."""
    client.socket.transport.abort()
    await eventually(lambda: not (gateway.provider.live or gateway.connections))
