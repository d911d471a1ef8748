"""Builds the messages that a chat template renders from a call's prompt, messages and files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from provider.inputs.json_texts import (
    MAX_CHARACTERS,
    MAX_VALUES,
    MAX_VALUES_TOGETHER,
    JsonRoom,
)
from provider.inputs.schemas import size_of
from provider.interface import InvalidParameterError
from provider.message_types import THOUGHTS

__all__ = [
    "conversation",
]

MAX_SPACED = 256 * 1024  # characters; a longer text would take milliseconds without others' turns
TOO_LARGE = (
    f"must have at most {MAX_CHARACTERS} characters and {MAX_VALUES} keys and values, "
    f"and the arguments of all calls {MAX_VALUES_TOGETHER} of these"
)
MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[,:](?!\s)')


def conversation(
    prompt: str,
    system_prompt: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    attachments: str = "",
    images: Sequence[bytes] = (),
) -> list[dict[str, Any]]:
    """Return the whole conversation as messages for a chat template.

    `messages` are the turns so far. `prompt` is appended as the user's next turn, unless it is
    already the last one. `system_prompt` goes before the system message that `messages` may begin
    with. `attachments` (text) and `images` go before the text of the last user turn. Tool results
    that are JSON get blanks between their values.
    Raises InvalidParameterError if there is neither a prompt nor a message, and with the path of
    the arguments of a call that are too large.
    """
    turns = _turns(messages or ())
    last = turns[-1] if turns else None
    if prompt and not (last and last["role"] == "user" and last["content"] == prompt):
        turns.append({"role": "user", "content": prompt})
    if not turns:
        said = "there is nothing to answer: give a prompt or messages"
        raise InvalidParameterError("prompt", prompt, said)
    if system_prompt:
        if turns[0]["role"] == "system":
            turns[0]["content"] = _after(f"{system_prompt}\n\n", turns[0]["content"])
        else:
            turns.insert(0, {"role": "system", "content": system_prompt})
    if attachments or images:
        _attach(turns, attachments, images)
    return _with_names([_with_thoughts(turn) for turn in turns])


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    results, arguments = JsonRoom(), JsonRoom()
    turns = (_with_blanks(message, results) for message in messages)
    return [_with_nested_calls(f"messages[{i}]", turn, arguments) for i, turn in enumerate(turns)]


def _with_blanks(message: Mapping[str, Any], room: JsonRoom) -> dict[str, Any]:
    """Return a message, its JSON with blanks if it is a tool's result; models err without them."""
    turn = dict(message)
    if turn["role"] == "tool":
        content = turn["content"]
        turn["content"] = (
            _spaced(content, room) if isinstance(content, str) else _spaced_parts(content, room)
        )
    return turn


def _spaced_parts(parts: Any, room: JsonRoom) -> Any:
    if not isinstance(parts, list):
        return parts
    return [
        {**part, "text": _spaced(part["text"], room)} if isinstance(part.get("text"), str) else part
        for part in parts
    ]


def _spaced(text: str, room: JsonRoom) -> str:
    """Return an object or array in JSON with a blank after each comma and colon, else `text`.

    All else of it stays: the form of its numbers, and the order and number of its keys. So does
    what there is no room for.
    """
    if not text.lstrip().startswith(("{", "[")) or len(text) > MAX_SPACED or not room.take(text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return MARKS.sub(lambda mark: mark[0] if mark[0][0] == '"' else f"{mark[0]} ", text)


def _after(text: str, content: str | list[Any]) -> str | list[Any]:
    """Return a message's content with `text` before it."""
    if isinstance(content, str):
        return text + content
    return [{"type": "text", "text": text}, *content]


def _attach(turns: list[dict[str, Any]], attachments: str, images: Sequence[bytes]) -> None:
    users = [turn for turn in turns if turn["role"] == "user"]
    if not users:
        turns.append({"role": "user", "content": ""})
        users = turns[-1:]
    content = users[-1]["content"]
    if images or isinstance(content, list):
        said = content if isinstance(content, list) else [{"type": "text", "text": content}]
        text = [{"type": "text", "text": attachments}] if attachments else []
        parts = [{"type": "image", "data": data} for data in images]
        users[-1]["content"] = [*parts, *text, *said]
    else:
        users[-1]["content"] = (attachments + content) if content else attachments.rstrip()


def _with_nested_calls(path: str, turn: dict[str, Any], room: JsonRoom) -> dict[str, Any]:
    """Return a turn whose tool calls have the form that templates read: arguments as a dict."""
    if not turn.get("tool_calls"):  # a null must go, because templates check only for the key
        return {key: value for key, value in turn.items() if key != "tool_calls"}
    calls = []
    for i, call in enumerate(turn["tool_calls"]):
        function = dict(call.get("function") or call)
        arguments = function.get("arguments")
        at = f"{path}.tool_calls[{i}]{'.function' if call.get('function') else ''}.arguments"
        if isinstance(arguments, str):
            arguments = _loads(at, arguments, room)
        elif size_of(arguments, MAX_CHARACTERS) > MAX_CHARACTERS:
            raise _too_large(at, arguments)
        inner = {"name": function.get("name"), "arguments": arguments or {}}
        calls.append({"type": "function", "id": call.get("id"), "function": inner})
    return {**turn, "tool_calls": calls}


def _with_thoughts(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn with its thinking under every name by which templates read it."""
    thoughts = next((turn[name] for name in THOUGHTS if turn.get(name)), None)
    if thoughts is None:
        return turn
    told = dict.fromkeys(THOUGHTS, thoughts)
    if turn["content"]:  # gpt-oss's template refuses a turn with content and `thinking`
        del told["thinking"]
    return {**{key: value for key, value in turn.items() if key not in THOUGHTS}, **told}


def _with_names(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the tool's name to results that have only a call id, because some templates need it."""
    names: dict[Any, str] = {}
    for turn in turns:
        names |= {call["id"]: call["function"]["name"] for call in turn.get("tool_calls", ())}
        own = turn.get("tool_call_id")
        if turn["role"] == "tool" and not turn.get("name") and own is not None and own in names:
            turn["name"] = names[own]
    return turns


def _too_large(path: str, arguments: Any) -> InvalidParameterError:
    return InvalidParameterError(path, arguments, f"`{path}` {TOO_LARGE}")


def _loads(path: str, text: str, room: JsonRoom) -> Any:
    if not room.take(text):
        raise _too_large(path, text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
