"""Reads the messages of AI SDK's `useChat`: of each UI message, the turns that it stands for.

Parts that are only shown (sources, data, files that a model made) say nothing to the model, and
`convertToModelMessages` leaves them out as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.dialects.chat.parts import is_tool, name_of_tool, steps_of
from gateway.dialects.prompt import Call, Prompt, Turn, result_text
from gateway.dialects.refusals import Refused

__all__ = ["read_messages"]

ROLES = ("system", "user", "assistant")
DENIED = "the user has refused the call"


def read_messages(given: Any) -> Prompt:
    """Return the prompt that UI messages make. Raises Refused with the path of the fault."""
    if not isinstance(given, list) or not given:
        raise Refused("must be a list of UI messages", "messages")
    prompt = Prompt()
    for i, message in enumerate(given):
        _add(prompt, f"messages[{i}]", message)
    if not prompt.messages:
        raise Refused("nothing in them is for the model", "messages")
    return prompt


def _add(prompt: Prompt, path: str, message: Any) -> None:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise Refused(f"must be a UI message with one of the roles {', '.join(ROLES)}", path)
    parts = message.get("parts")
    if not isinstance(parts, list):
        raise Refused("must be a list of parts", f"{path}.parts")
    for j, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise Refused("must be a part with a `type`", f"{path}.parts[{j}]")
    if message["role"] == "assistant":
        for first, step in steps_of(parts):
            _add_step(prompt, f"{path}.parts", first, step)
    else:
        _add_turn(prompt, path, message["role"], parts)


def _add_turn(prompt: Prompt, path: str, role: str, parts: list[dict[str, Any]]) -> None:
    turn = Turn(path)
    for j, part in enumerate(parts):
        at = f"{path}.parts[{j}]"
        if part["type"] == "text":
            turn.add_text(_text(part, "text", at))
        elif part["type"] == "file" and role == "user":
            url, kind = _text(part, "url", at), _text(part, "mediaType", at)
            name = part.get("filename")
            prompt.add_file(turn, url, kind, name if isinstance(name, str) else "", f"{at}.url")
    prompt.add(path, role, turn.content)


def _add_step(prompt: Prompt, path: str, first: int, step: list[dict[str, Any]]) -> None:
    said: dict[str, list[str]] = {"text": [], "reasoning": []}
    calls: list[Call] = []
    for j, part in enumerate(step, first):
        if part["type"] in said:
            said[part["type"]].append(_text(part, "text", f"{path}[{j}]"))
        elif is_tool(part):
            calls += _calls(part, f"{path}[{j}]")
    text, reasoning = ("".join(said[kind]) for kind in ("text", "reasoning"))
    prompt.add_answer(f"{path}[{first}]" if first else path, text, reasoning, calls)


def _calls(part: dict[str, Any], path: str) -> Iterator[Call]:
    """Yield a tool part's call if it has a result."""
    call_id, name = _text(part, "toolCallId", path), name_of_tool(part)
    if not isinstance(name, str) or not name:
        raise Refused("must be the name of a tool", f"{path}.toolName")
    match part.get("state"):
        case "output-available":
            result = result_text(part.get("output"))
        case "output-error":
            result = result_text({"error": part.get("errorText")})
        case "output-denied":
            result = result_text({"error": DENIED})
        case _:
            return
    given = part.get("input", part.get("rawInput"))
    yield Call(call_id, name, _arguments(given), result)


def _arguments(given: Any) -> str:
    """Return a call's arguments as JSON; those that could not be read are of no use to a model."""
    return json.dumps(given if isinstance(given, dict) else {}, ensure_ascii=False)


def _text(part: dict[str, Any], name: str, path: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise Refused("must be a string", f"{path}.{name}")
    return value
