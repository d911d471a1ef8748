import msgspec
import pytest

from gateway.dialects.openai import server_events
from gateway.dialects.openai.server_events import (
    ErrorBody,
    ErrorEvent,
    ReasoningItem,
    Response,
    TextDelta,
)

EVENTS = [
    kind
    for kind in vars(server_events).values()
    if isinstance(kind, type)
    and issubclass(kind, msgspec.Struct)
    and str(kind.__struct_config__.tag).startswith(("response.", "error"))
]


def test_the_events_of_a_text_of_reasoning_and_of_calls_are_there():
    names = {kind.__struct_config__.tag for kind in EVENTS}
    parts = {"output_item.added", "output_item.done", "content_part.added", "content_part.done"}
    texts = {"output_text", "reasoning_text", "function_call_arguments"}
    life = {"created", "queued", "in_progress", "completed", "incomplete", "failed"}
    expected = parts | life | {f"{text}.{end}" for text in texts for end in ("delta", "done")}
    assert names == {f"response.{one}" for one in expected} | {"error", "response.steer.failed"}


def test_an_event_names_its_lane_only_if_it_has_one():
    delta = TextDelta(item_id="i", output_index=0, delta="x", sequence_number=4)
    fields = {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "delta": "x",
        "logprobs": [],
    }
    assert msgspec.json.decode(msgspec.json.encode(delta)) == fields
    lane = msgspec.structs.replace(delta, stream_id="lane")
    told = msgspec.json.decode(msgspec.json.encode(lane))
    assert told == {**fields, "stream_id": "lane"}


def test_an_error_has_what_clients_need_and_headers_only_if_there_are_any():
    error = ErrorEvent(status=400, error=ErrorBody(type="t", message="m"))
    assert msgspec.to_builtins(error) == {
        "type": "error",
        "status": 400,
        "error": {"type": "t", "code": "invalid_value", "message": "m", "param": None},
    }


NULL = type(None)
NUMBER = (int, float)
# What Open Responses requires of a response, by its types.
OF_A_RESPONSE = {
    **dict.fromkeys(("id", "object", "status", "model", "truncation", "service_tier"), str),
    **dict.fromkeys(("created_at", "top_logprobs"), int),
    **dict.fromkeys(("top_p", "temperature", "presence_penalty", "frequency_penalty"), NUMBER),
    **dict.fromkeys(("parallel_tool_calls", "store", "background"), bool),
    **dict.fromkeys(("completed_at", "max_output_tokens", "max_tool_calls"), (int, NULL)),
    **dict.fromkeys(("output", "tools"), list),
    **dict.fromkeys(("text", "metadata"), dict),
    **dict.fromkeys(("incomplete_details", "error", "reasoning", "usage"), (dict, NULL)),
    **dict.fromkeys(("previous_response_id", "instructions", "user"), (str, NULL)),
    **dict.fromkeys(("safety_identifier", "prompt_cache_key"), (str, NULL)),
    "tool_choice": (str, dict),
}


@pytest.mark.parametrize("completed_at", [None, 7])
def test_a_response_has_all_that_open_responses_requires(completed_at):
    told = Response(id="r", created_at=1, completed_at=completed_at, model="m", text={})
    fields = msgspec.json.decode(msgspec.json.encode(told))
    for name, kind in OF_A_RESPONSE.items():
        assert isinstance(fields[name], kind), name


def test_reasoning_is_never_said_to_be_encrypted():
    item = msgspec.to_builtins(ReasoningItem(id="rs", status="completed", content=[]))
    assert "encrypted_content" not in item
