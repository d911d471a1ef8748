"""What programs that use OpenAI's SDK share: each event is checked against the SDK's own types."""

import json
from typing import Any

from openai._models import BaseModel

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def say(value: Any) -> None:
    """Print a value, which the test reads."""
    print(json.dumps(value), flush=True)


def unknown(value: Any) -> set[str]:
    """Return the names of the fields that the SDK's types don't have."""
    if isinstance(value, BaseModel):
        inner = [getattr(value, name) for name in type(value).model_fields]
        return set(value.model_extra or ()).union(*map(unknown, inner))
    if isinstance(value, list):
        return set().union(*map(unknown, value))
    return set()


def strictly(types: Any, raw: bytes, others: set[str]) -> Any:
    """Return an event, of which each field must be as the types say, or among `others`."""
    event = types.validate_json(raw, strict=True)
    extra = unknown(event) - others
    assert not extra, extra
    return event
