import msgspec

from gateway.dialects.realtime import server_events
from gateway.dialects.realtime.server_events import (
    Done,
    RealtimeEvent,
    Response,
    StatusDetails,
    Usage,
)

EVENTS = [
    kind
    for kind in vars(server_events).values()
    if isinstance(kind, type) and issubclass(kind, RealtimeEvent) and kind.__struct_config__.tag
]


def test_the_events_of_a_session_of_a_text_and_of_calls_are_there():
    names = {str(kind.__struct_config__.tag) for kind in EVENTS}
    parts = {"output_item.added", "output_item.done", "content_part.added", "content_part.done"}
    texts = {
        f"{text}.{end}"
        for text in ("output_text", "function_call_arguments")
        for end in ("delta", "done")
    }
    items = {f"conversation.item.{end}" for end in ("added", "done", "deleted", "retrieved")}
    of_response = {f"response.{one}" for one in parts | texts | {"created", "done"}}
    assert names == of_response | items | {"session.created", "session.updated", "error"}


def test_details_have_only_what_there_is_to_say():
    details = StatusDetails(type="cancelled", reason="client_cancelled")
    response = Response(id="r", conversation_id=None, status="cancelled", status_details=details)
    told = msgspec.to_builtins(Done(event_id="e", response=response))["response"]
    assert told["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert (told["object"], told["output_modalities"]) == ("realtime.response", ("text",))


def test_all_tokens_are_of_text():
    assert msgspec.to_builtins(Usage.of(5, 3, 2)) == {
        "input_tokens": 5,
        "input_token_details": {
            "text_tokens": 5,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 3,
            "cached_tokens_details": {"text_tokens": 3, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_tokens": 2,
        "output_token_details": {"text_tokens": 2, "audio_tokens": 0},
        "total_tokens": 7,
    }
