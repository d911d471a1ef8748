import msgspec

from gateway.dialects.openai import server_events
from gateway.dialects.openai.server_events import ErrorBody, ErrorEvent, TextDelta

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
        "error": {"type": "t", "code": None, "message": "m", "param": None},
    }
