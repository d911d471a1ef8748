from itertools import count

import msgspec

from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.openai import server_events as of
from gateway.dialects.openai.answer import Answer
from gateway.dialects.realtime.items import Items
from gateway.dialects.realtime.server_events import Response
from gateway.dialects.realtime.writer import Writer
from gateway.protocol.frames import Chunk, Done, Timing, ToolCall, Usage

USED = Usage(prompt_tokens=3, completion_tokens=5, cached_tokens=2, reasoning_tokens=1)
WHY = of.ErrorBody(type="server_error", code="model_error", message="broken", param="x")
AT = {"id": "r", "seq": 0}


class Heard:
    """The events of a response, as a client reads them."""

    def __init__(self, *, inside=True):
        numbers = count()
        self.items = Items(KeptBytes(1 << 20), None) if inside else None
        self.answer = Answer(
            of.Response(id="r", created_at=0, model="m", text={}), None, lambda: 0.0
        )
        head = Response(id="r", conversation_id="conv" if inside else None)
        self.writer = Writer(head, self.items, "mine", lambda: f"e{next(numbers)}")
        self.events = []

    def add(self, told):
        self.events += msgspec.json.decode(msgspec.json.encode(told))
        return self

    def started(self):
        return self.add(self.writer.told(self.answer.start("m")))

    def text(self, text, channel=None):
        return self.add(
            self.writer.told(self.answer.add_text(Chunk(**AT, text=text, channel=channel)))
        )

    def call(self, **fields):
        part = ToolCall(**AT, index=0, call_id="c", **fields)
        return self.add(self.writer.told(self.answer.add_call(part)))

    def done(self, reason="stop"):
        done = Done(**AT, finish_reason=reason, usage=USED, timing=Timing())
        return self.add(self.writer.told(self.answer.finish(done)))

    def failed(self):
        return self.add(self.writer.failed(self.answer.fail(500, WHY), WHY))

    def kinds(self):
        return [event["type"].removeprefix("response.") for event in self.events]

    @property
    def end(self):
        ids = [event["event_id"] for event in self.events]
        assert ids == [f"e{number}" for number in range(len(ids))]
        return self.events[-1]["response"]


def test_text_and_calls_are_items_of_the_response_and_of_the_conversation():
    heard = Heard().started().text("Yes.").call(name="add", arguments='{"a"')
    heard.call(arguments=": 1}", complete=True).done("tool_calls")
    assert heard.kinds() == [
        "created",
        "output_item.added",
        "conversation.item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "conversation.item.done",
        "output_item.done",
        "output_item.added",
        "conversation.item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "conversation.item.done",
        "output_item.done",
        "done",
    ]
    message, call = heard.end["output"]
    assert message["content"] == [{"type": "output_text", "text": "Yes."}]
    assert (call["call_id"], call["name"], call["arguments"]) == ("c", "add", '{"a": 1}')
    assert list(heard.items) == [message, call]
    assert heard.events[10]["previous_item_id"] == message["id"]
    assert (heard.end["status"], heard.end["status_details"]) == ("completed", None)
    assert heard.end["usage"]["total_tokens"] == 8


def test_reasoning_is_kept_for_the_model_and_not_told():
    heard = Heard().started().text("hm", "reasoning").text("Yes.").done()
    assert not any("reasoning" in kind for kind in heard.kinds())
    assert {event["output_index"] for event in heard.events if "output_index" in event} == {0}
    assert [item["type"] for item in heard.items] == ["reasoning", "message"]
    assert [item["type"] for item in heard.end["output"]] == ["message"]


def test_a_response_beside_the_conversation_leaves_that_as_it_is():
    heard = Heard(inside=False).started().text("hm", "reasoning").text("a").done()
    assert not any(kind.startswith("conversation.") for kind in heard.kinds())
    assert heard.end["conversation_id"] is None


def test_how_it_ends():
    for reason, status, why in (
        ("length", "incomplete", "max_output_tokens"),
        ("cancelled", "cancelled", "client_cancelled"),
    ):
        heard = Heard().started().text("a").done(reason)
        assert heard.kinds()[-1] == "done"
        assert heard.end["status_details"] == {"type": status, "reason": why}
        assert heard.end["status"] == status
        assert next(iter(heard.items))["status"] == "incomplete"


def test_one_that_was_created_fails_and_another_is_refused():
    heard = Heard().started().text("a").failed()
    error = {"type": "server_error", "code": "model_error", "message": "broken"}
    assert heard.end["status_details"] == {"type": "failed", "error": error}
    (refused,) = Heard().failed().events
    assert refused["type"] == "error"
    assert refused["error"] == {**error, "param": "x", "event_id": "mine"}


def test_an_item_that_was_deleted_meanwhile_does_not_come_back():
    heard = Heard().started().text("a")
    heard.items.remove(next(iter(heard.items))["id"])
    heard.done()
    assert list(heard.items) == []
    assert "conversation.item.done" not in heard.kinds()
