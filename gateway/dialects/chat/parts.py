"""The parts of an assistant's UI message, and the chunks that make such a part again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["again", "is_tool", "name_of_tool", "steps_of"]

Part = dict[str, Any]
Chunk = dict[str, Any]

AS_THEY_ARE = ("file", "reasoning-file", "source-url", "source-document", "custom")


def steps_of(parts: list[Part]) -> Iterator[tuple[int, list[Part]]]:
    """Yield the steps of an answer, each with the index of its first part."""
    first = 0
    for index, part in enumerate([*parts, {"type": "step-start"}]):
        if part["type"] == "step-start":
            if index > first:
                yield first, parts[first:index]
            first = index + 1


def is_tool(part: Part) -> bool:
    """Return whether a part is a call of a tool."""
    kind: str = part["type"]
    return kind == "dynamic-tool" or kind.startswith("tool-")


def name_of_tool(part: Part) -> Any:
    """Return the name of a tool part's tool, which may be anything in a dynamic one."""
    if part["type"] == "dynamic-tool":
        return part.get("toolName")
    return part["type"].removeprefix("tool-")


def again(parts: list[Part]) -> Iterator[Chunk]:
    """Yield the chunks of an earlier message's parts, which are complete."""
    for number, part in enumerate(parts):
        kind = part["type"]
        if kind == "step-start":
            yield {"type": "start-step"}
        elif kind in {"text", "reasoning"}:
            own = f"before-{number}"
            yield {"type": f"{kind}-start", "id": own}
            yield {"type": f"{kind}-delta", "id": own, "delta": part["text"]}
            yield {"type": f"{kind}-end", "id": own}
        elif is_tool(part):
            yield from _call_again(part)
        elif kind in AS_THEY_ARE or kind.startswith("data-"):
            yield part


def _call_again(part: Part) -> Iterator[Chunk]:
    """Yield the chunks of a call: not as available, because the page would answer it again."""
    own, state = part["toolCallId"], part.get("state")
    dynamic = {"dynamic": True} if part["type"] == "dynamic-tool" else {}
    yield {
        "type": "tool-input-start",
        "toolCallId": own,
        "toolName": name_of_tool(part),
        **dynamic,
    }
    text = json.dumps(part.get("input") or {}, ensure_ascii=False)
    yield {"type": "tool-input-delta", "toolCallId": own, "inputTextDelta": text}
    match state:
        case "output-available":
            output = part.get("output")
            yield {"type": "tool-output-available", "toolCallId": own, "output": output, **dynamic}
        case "output-denied":
            yield {"type": "tool-output-denied", "toolCallId": own}
        case "output-error":
            error = str(part.get("errorText") or "")
            yield {"type": "tool-output-error", "toolCallId": own, "errorText": error, **dynamic}
