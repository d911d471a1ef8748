"""Checks the messages of a conversation: roles, texts, images as data, tool calls.

An image is a part `{"type": "image", "data": …}` (bytes, or base64 text) or OpenAI's
`{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`. Paths and other URLs are
refused, because the provider must not read files or fetch URLs for a client. Base64 is not decoded
here, on the caller's thread, but where images are opened (`provider/inputs/images.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provider.errors import InvalidParameterError, unlike

__all__ = ["THOUGHTS", "checked_messages", "image_part", "is_image_part", "not_an_image"]

ROLES = ("system", "user", "assistant", "tool")
# The keys under which templates look for the thinking of earlier turns.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
BASE64, BEGINNING = re.compile("[A-Za-z0-9+/]*={0,2}"), 64  # characters
KINDS = ("image", "image_url", "input_image")


def checked_messages(name: str, value: Any) -> tuple[dict[str, Any], ...]:
    """Return messages as plain dicts. Raises InvalidParameterError with the path of the field."""
    if not isinstance(value, list | tuple) or not value:
        raise unlike(name, value, "a non-empty list of messages")
    return tuple(_message(f"{name}[{i}]", message) for i, message in enumerate(value))


def _message(path: str, value: Any) -> dict[str, Any]:
    """Return a checked message as a plain dict, with its text parts joined."""
    message = value.to_dict() if hasattr(value, "to_dict") else value
    if not isinstance(message, Mapping):
        raise unlike(path, value, "a message with `role` and `content`")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise unlike(f"{path}.role", role, "one of " + ", ".join(ROLES))
    _check_calls(f"{path}.tool_calls", message.get("tool_calls"))
    for name in THOUGHTS:
        _plain(f"{path}.{name}", message.get(name) or "")
    if isinstance(content, list | tuple) and any(map(is_image_part, content)):
        parts = [_text_or_image(f"{path}.content[{i}]", part) for i, part in enumerate(content)]
        return {**message, "role": str(role), "content": parts}
    if isinstance(content, list | tuple):
        content = "".join(_part(f"{path}.content[{i}]", part) for i, part in enumerate(content))
    if content is None and role == "assistant" and message.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise unlike(f"{path}.content", content, "a string, or a list of text parts")
    return {**message, "role": str(role), "content": content}


def _check_calls(path: str, calls: Any) -> None:
    """Raise InvalidParameterError unless `calls` are tool calls that a template can read."""
    if calls is None:
        return
    if not isinstance(calls, list | tuple):
        raise unlike(path, calls, "a list of tool calls")
    for i, call in enumerate(calls):
        inner, at = call, f"{path}[{i}]"
        if isinstance(call, Mapping) and call.get("function"):
            inner, at = call["function"], f"{at}.function"
        if not isinstance(inner, Mapping):
            raise unlike(at, inner, "an object with `name` and `arguments`")
        _name(f"{at}.name", inner.get("name"))
        if not isinstance(inner.get("arguments") or {}, Mapping | str):
            raise unlike(f"{at}.arguments", inner["arguments"], "an object, or JSON text of one")


def _text_or_image(path: str, part: Any) -> dict[str, Any]:
    """Return a checked part of a message that has images."""
    if is_image_part(part):
        return image_part(path, part)
    return {"type": "text", "text": _part(path, part)}


def _part(path: str, part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        return _plain(f"{path}.text", part.get("text"))
    raise unlike(path, part, 'a part {"type": "text", "text": …}, or an image as data')


def _plain(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise unlike(path, value, "a string")
    return value


def is_image_part(part: Any) -> bool:
    """Return whether a part of a message has the type of an image."""
    return isinstance(part, Mapping) and part.get("type") in KINDS


def image_part(path: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image part with its data: bytes, or the text of them in base64.

    Raises InvalidParameterError; of a text, the length and the beginning are checked.
    """
    given = part.get("data", part.get("image_url", part.get("image")))
    if isinstance(given, Mapping):
        given = given.get("url")
    if isinstance(given, bytes | bytearray):
        return {"type": "image", "data": bytes(given)}
    if not isinstance(given, str) or not given:
        raise not_an_image(path, given)
    head, comma, rest = given.partition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise not_an_image(path, head[:40])
    text = rest if comma else given
    if len(text) % 4 or not BASE64.fullmatch(text, endpos=BEGINNING):
        raise not_an_image(path, text[:40])
    return {"type": "image", "data": text}


def not_an_image(path: str, given: Any) -> InvalidParameterError:
    """Return the error for a part that has no image as data."""
    expected = 'base64 text, bytes, or a URL "data:image/…;base64,…"; not a path or another URL'
    return InvalidParameterError(path, given, f"`{path}` must be an image as data: {expected}")


def _name(path: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise unlike(path, value, "a non-empty string")
