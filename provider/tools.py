"""Tools as the callers give them, and calls as the models write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provider.interface import InvalidParameterError, ToolDefinition

__all__ = ["normalise_tools", "parse_calls"]


def normalise_tools(
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]],
) -> list[dict[str, Any]]:
    """Return the tools in the nested form that chat templates read.

    Taken are a function with annotations and a docstring, the flat form
    `{name, description, parameters}`, and the nested `{"type": "function", "function": {…}}`.
    Raises InvalidParameterError with the tool's index.
    """
    return [_nested(f"tools[{i}]", tool) for i, tool in enumerate(tools)]


def _nested(path: str, tool: Any) -> dict[str, Any]:
    if callable(tool):
        return {"type": "function", "function": ToolDefinition.from_function(tool).to_dict()}
    if not isinstance(tool, Mapping):
        raise InvalidParameterError(path, tool, f"`{path}` must be a function or a definition")
    inner = tool.get("function") if tool.get("type") == "function" else tool
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InvalidParameterError(path, tool, f"`{path}` must have a `name`")
    function = {
        "name": inner["name"],
        "description": inner.get("description") or "",
        "parameters": inner.get("parameters") or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def parse_calls(
    text: str, parser: Callable[..., Any], tools: Sequence[Mapping[str, Any]], first: int
) -> list[dict[str, Any]]:
    """Return the calls in one complete tool text, `[]` if the model wrote none that can be read.

    `first` numbers the calls, so that ids are unique within an answer.
    """
    try:
        parsed = parser(text, list(tools) or None)
    except Exception:  # noqa: BLE001 - parsers raise whatever the bad text makes them raise
        return []
    calls = parsed if isinstance(parsed, list) else [parsed]
    return [
        {
            "id": f"call_{first + i}",
            "name": str(call["name"]),
            "arguments": _arguments(call.get("arguments")),
        }
        for i, call in enumerate(calls)
        if isinstance(call, Mapping) and "name" in call
    ]


def _arguments(value: Any) -> dict[str, Any]:
    """Return the arguments as a dict; some formats carry them as JSON text inside JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"value": value}
    return dict(value) if isinstance(value, Mapping) else {}
