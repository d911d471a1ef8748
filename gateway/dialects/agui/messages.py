"""Reads the messages of AG-UI's `RunAgentInput`.

Rule 1: a call of a client's tool has its result in a `tool` message, or in what the run resumes.
Rule 2: reasoning belongs to the assistant's message after it; activities are only shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.dialects import json_text
from gateway.dialects.base import FrameLimits
from gateway.dialects.prompt import Call, Prompt, Turn, result_text
from gateway.dialects.refusals import Refused

__all__ = ["CLIENT_TOOL", "read_messages"]

ROLES = ("developer", "system", "user", "assistant", "tool", "activity", "reasoning")
CLIENT_TOOL = "client_tool_"  # with a call's id: the interrupt by which a client runs the tool
CANCELLED = "the user has cancelled the call"
MEDIA = ("image", "audio", "video", "document")


def read_messages(given: Any, resume: Any = None, limits: FrameLimits | None = None) -> Prompt:
    """Return the prompt that messages make. Raises Refused with the path of the fault.

    The JSON inside their strings may have as many keys and values as a message.
    """
    if not isinstance(given, list) or not given:
        raise Refused("must be a list of messages", "messages")
    for i, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            said = f"must be a message with one of the roles {', '.join(ROLES)}"
            raise Refused(said, f"messages[{i}]")
    results = _resumed(resume)
    for i, message in enumerate(given):
        if message["role"] == "tool":
            at = f"messages[{i}]"
            results[_string(message, "toolCallId", at)] = _result(message, at)
    prompt, thoughts = Prompt(), ""
    room = json_text.Room(values=(limits or FrameLimits()).values)
    for i, message in enumerate(given):
        at, role = f"messages[{i}]", message["role"]
        if role == "reasoning":
            thoughts += _string(message, "content", at)
        elif role == "assistant":
            calls = _calls(message, f"{at}.toolCalls", results, room)
            text = _string({"content": message.get("content") or ""}, "content", at)
            prompt.add_answer(at, text, thoughts, calls)
            thoughts = ""
        elif role not in {"tool", "activity"}:
            turn = _turn(prompt, message, at)
            prompt.add(at, "system" if role == "developer" else role, turn.content)
    if not prompt.messages:
        raise Refused("nothing in them is for the model", "messages")
    return prompt


def _resumed(resume: Any) -> dict[str, str]:
    """Return the results of calls among what a run resumes."""
    if resume is not None and not isinstance(resume, list):
        raise Refused("must be a list", "resume")
    results = {}
    for i, one in enumerate(resume or ()):
        at = f"resume[{i}]"
        if not isinstance(one, dict):
            raise Refused("must be an object", at)
        own = _string(one, "interruptId", at)
        if not own.startswith(CLIENT_TOOL):
            raise Refused("no such interrupt: only those of client tools are made", at)
        done = one.get("status", "resolved") == "resolved"
        payload = one.get("payload") if done else {"error": CANCELLED}
        results[own.removeprefix(CLIENT_TOOL)] = result_text(payload)
    return results


def _result(message: dict[str, Any], at: str) -> str:
    error = message.get("error")
    if isinstance(error, str) and not message.get("content"):
        return result_text({"error": error})
    content = message.get("content")
    if isinstance(content, list):
        texts = [_text_part(part, f"{at}.content[{j}]") for j, part in enumerate(content)]
        return "\n".join(texts)
    return _string(message, "content", at)


def _calls(
    message: dict[str, Any], at: str, results: Mapping[str, str], room: json_text.Room
) -> list[Call]:
    calls = []
    given = message.get("toolCalls") or []
    if not isinstance(given, list):
        raise Refused("must be a list of calls", at)
    for j, one in enumerate(given):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict):
            raise Refused("must be a call of a function", f"{at}[{j}]")
        own, name = _string(one, "id", f"{at}[{j}]"), _string(function, "name", f"{at}[{j}]")
        try:
            arguments = _arguments(function.get("arguments"), room)
        except json_text.LargeJsonError as error:
            raise Refused(str(error), f"{at}[{j}].function.arguments") from error
        calls.append(Call(own, name, arguments, results.get(own)))
    return calls


def _arguments(given: Any, room: json_text.Room) -> str:
    """Return a call's arguments as a JSON object, an empty one if they can't be read.

    Raises LargeJsonError.
    """
    try:
        value = json_text.value_in(given, room) if isinstance(given, str) else given
    except json_text.LargeJsonError:
        raise
    except ValueError:
        value = None
    return json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)


def _turn(prompt: Prompt, message: dict[str, Any], at: str) -> Turn:
    turn, content = Turn(at), message.get("content")
    if isinstance(content, list):
        for j, part in enumerate(content):
            _add_part(prompt, turn, part, f"{at}.content[{j}]")
    else:
        turn.add_text(_string(message, "content", at))
    return turn


def _add_part(prompt: Prompt, turn: Turn, part: Any, at: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "binary":
        _add_binary(prompt, turn, part, at)
    elif kind in MEDIA:
        source = part.get("source")
        if not isinstance(source, dict):
            raise Refused("must be an object", f"{at}.source")
        value, mime = _string(source, "value", f"{at}.source"), source.get("mimeType") or ""
        if source.get("type") == "data":
            value = f"data:{mime or f'{kind}/*'};base64,{value}"
        if kind in {"audio", "video"}:
            raise Refused(f"no model here takes {kind}", at)
        prompt.add_file(turn, value, str(mime), "", f"{at}.source.value")
    else:
        turn.add_text(_text_part(part, at))


def _add_binary(prompt: Prompt, turn: Turn, part: dict[str, Any], at: str) -> None:
    mime = _string(part, "mimeType", at)
    if isinstance(part.get("data"), str):
        url, field = f"data:{mime};base64,{part['data']}", "data"
    else:
        url, field = _string(part, "url", at), "url"
    name = part.get("filename")
    prompt.add_file(turn, url, mime, name if isinstance(name, str) else "", f"{at}.{field}")


def _text_part(part: Any, at: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise Refused("must be a text, an image or a document", at)
    return _string(part, "text" if "text" in part else "content", at)


def _string(fields: dict[str, Any], name: str, at: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refused("must be a string", f"{at}.{name}")
    return value
