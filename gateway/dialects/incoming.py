"""What the languages of JSON text do with a client's message before they read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.dialects import json_text, values
from gateway.dialects.base import FrameLimits
from gateway.protocol.codes import BadFrame, ErrorCode, NotAFrame

__all__ = ["check", "event_in", "object_in"]

EARLY = 4096  # characters in which the id of a message is found without decoding it


def check(
    message: str | bytes, limits: FrameLimits, own: re.Pattern[str] | None = None
) -> Iterator[None]:
    """Raise BadFrame once a message has too many keys and values; yield meanwhile.

    `own` finds what the error belongs to: the id in its first group.
    """
    text = message if isinstance(message, str) else ""
    for count in values.in_json(text):
        if count > limits.values:
            found = own.search(text[:EARLY]) if own is not None else None
            said = f"a message may have {limits.values} keys and values"
            raise BadFrame(said, found and found[1], code=ErrorCode.INVALID_REQUEST)
        yield


def object_in(message: str | bytes) -> dict[str, Any]:
    """Return the object that a text message is. Raises NotAFrame."""
    if isinstance(message, bytes):
        raise NotAFrame("send JSON as text messages")
    fields = json_text.decode(message)
    if not isinstance(fields, dict):
        raise NotAFrame("a message must be a JSON object")
    return fields


def event_in(message: str | bytes) -> dict[str, Any]:
    """Return the object that a text message is, where no text ends the connection.

    Raises NotAFrame for a binary message, BadFrame for another text.
    """
    try:
        return object_in(message)
    except NotAFrame as error:
        if isinstance(message, bytes):
            raise
        raise BadFrame(str(error), None, code=ErrorCode.INVALID_FRAME) from error
