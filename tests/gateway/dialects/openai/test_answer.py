import msgspec
import pytest

from gateway.dialects.openai.answer import Answer, new_id
from gateway.dialects.openai.server_events import ErrorBody, Response
from gateway.protocol.frames import Chunk, Done, Timing, ToolCall, Usage

HEAD = Response(id="resp_1", created_at=1.0, model="m", text={})
USED = Usage(prompt_tokens=3, completion_tokens=5, cached_tokens=2, reasoning_tokens=1)
WHY = ErrorBody(type="server_error", code="model_error", message="broken")


class Heard:
    """The events of an answer, as a client reads them."""

    def __init__(self, stream_id=None, **options):
        self.answer = Answer(HEAD, stream_id, lambda: 9.0, **options)
        self.events = []

    def add(self, events):
        self.events += msgspec.json.decode(msgspec.json.encode(events))
        return self

    def started(self):
        return self.add(self.answer.start("m"))

    def text(self, text, channel=None, logprobs=None):
        chunk = Chunk(id="a", seq=0, text=text, channel=channel, logprobs=logprobs)
        return self.add(self.answer.add_text(chunk))

    def call(self, index=0, **fields):
        part = ToolCall(id="a", seq=0, index=index, call_id=f"call_{index}", **fields)
        return self.add(self.answer.add_call(part))

    def done(self, reason="stop"):
        done = Done(id="a", seq=0, finish_reason=reason, usage=USED, timing=Timing())
        return self.add(self.answer.finish(done))

    def kinds(self):
        return [event["type"].removeprefix("response.") for event in self.events]

    @property
    def end(self):
        assert [event["sequence_number"] for event in self.events] == list(range(len(self.events)))
        return self.events[-1]["response"]


def test_ids_are_never_the_same():
    assert len({new_id("resp") for _ in range(100)}) == 100


def test_reasoning_text_and_calls_are_items_one_after_the_other():
    heard = Heard().started().text("hm ", "reasoning").text("so", "reasoning").text("Yes.")
    heard.call(name="add", arguments='{"a"').call(arguments=": 1}", complete=True).done(
        "tool_calls"
    )
    assert heard.kinds() == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    thought, message, call = heard.end["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm so"}]
    assert thought["summary"] == []
    assert message["content"][0]["text"] == "Yes."
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_0", "add", '{"a": 1}')
    assert [item["status"] for item in heard.end["output"]] == ["completed"] * 3
    places = [event["output_index"] for event in heard.events if "output_index" in event]
    assert places == sorted(places)
    assert places[-1] == 2
    assert heard.answer.items() == {
        thought["id"]: {"type": "reasoning", "content": thought["content"]},
        message["id"]: {"type": "message", "role": "assistant", "content": "Yes."},
        call["id"]: {
            "type": "function_call",
            "call_id": "call_0",
            "name": "add",
            "arguments": '{"a": 1}',
        },
    }
    assert heard.answer.messages() == [
        {
            "role": "assistant",
            "content": "Yes.",
            "reasoning_content": "hm so",
            "tool_calls": [
                {
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1}'},
                }
            ],
        }
    ]


def test_the_usage_has_all_counts():
    assert Heard().started().text("a").done().end["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }


def test_a_lane_is_in_every_event():
    heard = Heard("lane").started().text("a", "reasoning").text("b").call(name="f", complete=True)
    assert {event["stream_id"] for event in heard.done().events} == {"lane"}
    heard = Heard("lane")
    assert heard.add(heard.answer.fail(500, WHY)).events[0]["stream_id"] == "lane"


@pytest.mark.parametrize(
    ("reason", "kind", "status", "details"),
    [
        ("stop", "completed", "completed", None),
        ("tool_calls", "completed", "completed", None),
        ("length", "incomplete", "incomplete", {"reason": "max_output_tokens"}),
        ("cancelled", "incomplete", "cancelled", None),
    ],
)
def test_how_it_ends(reason, kind, status, details):
    heard = Heard().started().text("a").done(reason)
    assert heard.kinds()[-1] == kind
    assert (heard.end["status"], heard.end["incomplete_details"]) == (status, details)
    whole = "completed" if kind == "completed" else "incomplete"
    assert heard.end["output"][0]["status"] == whole
    assert heard.end["completed_at"] == (9.0 if kind == "completed" else None)


def test_it_waits_once_and_is_created_once():
    heard = Heard()
    heard.add(heard.answer.wait()).add(heard.answer.wait()).started().done()
    assert heard.kinds() == ["created", "queued", "in_progress", "completed"]
    assert heard.events[1]["response"]["status"] == "queued"


def test_a_response_that_is_refused_is_an_error_and_one_that_has_begun_fails():
    heard = Heard()
    heard.add(heard.answer.fail(503, WHY))
    assert heard.events == [
        {
            "type": "error",
            "status": 503,
            "error": {
                "type": "server_error",
                "code": "model_error",
                "message": "broken",
                "param": None,
            },
            "sequence_number": 0,
        }
    ]
    heard = Heard().started().text("a")
    heard.add(heard.answer.fail(500, WHY, "server_error"))
    assert heard.kinds()[-1] == "failed"
    assert heard.end["error"] == {"code": "server_error", "message": "broken"}
    assert heard.end["output"][0]["status"] == "incomplete"


def test_a_cancel_before_its_beginning_still_has_one():
    heard = Heard()
    heard.add(heard.answer.cancelled())
    assert heard.kinds() == ["created", "incomplete"]
    assert heard.end["output"] == []


def test_what_only_prepares_says_nothing():
    heard = Heard(prepared_only=True).started().text("a").call(name="f").done("length")
    assert heard.kinds() == ["created", "in_progress", "completed"]
    assert (heard.end["output"], heard.end["usage"]["output_tokens"]) == ([], 0)
    assert heard.answer.messages() == []


def test_of_several_calls_only_the_first_is_told_if_one_is_allowed():
    heard = Heard(one_call=True).started()
    for index in range(2):
        heard.call(index, name="f", arguments="{}", complete=True)
    assert [item["call_id"] for item in heard.done("tool_calls").end["output"]] == ["call_0"]


def test_a_call_that_breaks_off_is_incomplete_and_remembered_as_text():
    heard = Heard().started().call(name="f", arguments='{"a')
    heard.call(error="cut_off", complete=True, text='<call>f {"a').done("length")
    [call] = heard.end["output"]
    assert (call["status"], call["arguments"]) == ("incomplete", '{"a')
    said = {"role": "assistant", "content": '<call>f {"a'}
    assert heard.answer.messages() == [said]
    assert heard.answer.items() == {}


def test_a_call_without_a_name_is_text():
    heard = Heard().started().text("I ").call(error="malformed", complete=True, text="<call>")
    [message] = heard.done().end["output"]
    assert message["content"][0]["text"] == "I <call>"
    assert heard.answer.messages() == [{"role": "assistant", "content": "I <call>"}]


def test_log_probabilities_are_in_deltas_and_in_the_part():
    top = {"token": "b", "logprob": -2.0, "bytes": [98]}
    half = {"token": "?", "logprob": -1.0, "bytes": None, "top_logprobs": [top]}
    heard = Heard().started().text("a", logprobs=[half]).text("b", logprobs=[half]).done()
    whole = {**half, "bytes": []}
    deltas = [event["logprobs"] for event in heard.events if "delta" in event]
    assert deltas == [[whole], [whole]]
    assert heard.end["output"][0]["content"][0]["logprobs"] == [whole, whole]


def test_an_answer_of_nothing_is_remembered_as_nothing():
    heard = Heard().started().done()
    assert (heard.end["output"], heard.answer.messages()) == ([], [])
