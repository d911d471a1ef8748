"""What may come in any order: events of the gateway, a client's cancel, and what is forgotten."""

import json

import pytest

from gateway.dialects.base import Opening, RouteLimits
from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.responses.dialect import MAX_LOGPROBS, ROUTE
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed
from gateway.protocol.frames import (
    Cancel,
    Chunk,
    Done,
    Generate,
    Ping,
    Pong,
    Ready,
    Started,
    Timing,
    Usage,
)

READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
TALK = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]


class Wire:
    """A connection's dialect, to which the test is the gateway."""

    def __init__(self, **limits):
        self.kept = KeptBytes(1 << 20)
        self.dialect = ROUTE.prepare(RouteLimits(kept=self.kept, **limits))(Opening(client="c"))
        self.dialect.greet(READY)

    def send(self, kind, **fields):
        return list(self.dialect.decode(json.dumps({"type": kind, **fields})))

    def ask(self, given, **fields):
        (request,) = self.send("response.create", input=given, **fields)
        assert isinstance(request, Generate)
        return request.id

    def get(self, kind, own, **fields):
        """Return the client's messages for an event."""
        return [json.loads(one.data) for one in self.dialect.encode(kind(id=own, **fields))]

    def fail(self, own, code):
        return self.get(Failed, own, code=code, message="no")

    def start(self, own):
        return self.get(Started, own, seq=0, model="m", prompt_tokens=1, cached_tokens=0)

    def say(self, own, text, **more):
        return self.get(Chunk, own, seq=1, text=text, **more)

    def end(self, own, reason="stop"):
        return self.get(Done, own, seq=2, finish_reason=reason, usage=Usage(), timing=Timing())


@pytest.fixture
def wire():
    return Wire()


def test_what_is_forgotten_while_a_prompt_is_shortened_ends_its_response(wire):
    first = wire.ask("hi")
    wire.start(first)
    wire.say(first, "hello")
    (item,) = wire.end(first)[-1]["response"]["output"]
    second = wire.ask([*TALK, {"type": "item_reference", "id": item["id"]}], truncation="auto")
    wire.kept.need("other", 1 << 20)
    wire.kept.reduce()
    assert wire.fail(second, ErrorCode.CONTEXT_TOO_LONG) == []
    (ping,) = wire.dialect.next_requests()
    assert isinstance(ping, Ping)
    (error,) = [json.loads(one.data) for one in wire.dialect.encode(Pong(nonce=ping.nonce))]
    assert (error["type"], error["error"]["code"]) == ("error", "item_not_found")
    wire.ask("the lane is free")


def test_a_prompt_whose_response_is_cancelled_is_not_shortened(wire):
    own = wire.ask(TALK, truncation="auto")
    assert wire.send("response.cancel") == [Cancel(id=own)]
    (error,) = wire.fail(own, ErrorCode.CONTEXT_TOO_LONG)
    assert error["error"]["code"] == "context_length_exceeded"
    assert wire.dialect.next_requests() == []


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_nothing_comes_after_a_response_that_was_cut(wire, ends):
    own = wire.ask("hi", include=["message.output_text.logprobs"])
    wire.start(own)
    large = [{"token": "x" * MAX_LOGPROBS, "logprob": 0.0, "bytes": None, "top_logprobs": []}]
    assert wire.say(own, "a", logprobs=large)[-1]["type"] == "response.incomplete"
    assert wire.dialect.next_requests() == [Cancel(id=own)]
    assert wire.say(own, "b") == []
    last = wire.end(own) if ends == "done" else wire.fail(own, ErrorCode.MODEL_ERROR)
    assert last == []
