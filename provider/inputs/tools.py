"""Tool definitions, normalised to the form that chat templates read.

A tool's name is letters (of any script), digits, `_`, `-` and `.`: what families can write in a
call so that it is read back. Most put a name bare before a bracket, a tag or a space, and only JSON
can escape anything in it; the markers around a call are found before its JSON is read, so that no
family can carry these. OpenAI's interface allows less (ASCII, no dots, 64 characters); names of
several parts, joined by dots, are common and work. A family that can write fewer names, as
FunctionGemma without `-` and `.`, refuses the others where a call is required.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provider.errors import unlike
from provider.inputs.schemas import check_schema
from provider.interface import InvalidParameterError, ToolDefinition

__all__ = ["NAME", "normalise_tools"]

NAME = r"[\w.-]+"  # a pattern of what a tool may be called


def normalise_tools(
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]],
) -> list[dict[str, Any]]:
    """Return the tools in the nested form that chat templates read.

    Taken are a function with annotations and a docstring, the flat form
    `{name, description, parameters}`, also with a `type` of function, and the nested
    `{"type": "function", "function": {…}}`. A function whose docstring describes each argument,
    Google's way, is described as transformers does it; any other by its signature and the
    docstring's first line.
    Raises InvalidParameterError with the path of what is wrong, as `tools[0].function.name`.
    """
    return [_nested(f"tools[{i}]", tool) for i, tool in enumerate(tools)]


def _nested(path: str, tool: Any) -> dict[str, Any]:
    if callable(tool):
        described = _described(path, tool)
        _check_name(f"{path}.__name__", described["name"])
        return {"type": "function", "function": described}
    if not isinstance(tool, Mapping):
        raise InvalidParameterError(path, tool, f"`{path}` must be a function or a definition")
    nested = tool.get("type") == "function" and "function" in tool
    inner, at = (tool["function"], f"{path}.function") if nested else (tool, path)
    if (
        not isinstance(inner, Mapping)
        or not isinstance(inner.get("name"), str)
        or not inner["name"]
    ):
        raise InvalidParameterError(path, tool, f"`{path}` must have a `name`")
    _check_name(f"{at}.name", inner["name"])
    description = inner.get("description") or ""
    if not isinstance(description, str):
        named = f"{at}.description"
        raise InvalidParameterError(named, description, f"`{named}` must be a string")
    parameters = inner.get("parameters") or {"type": "object", "properties": {}}
    _check_parameters(f"{at}.parameters", parameters)
    function = {"name": inner["name"], "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _check_name(path: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise unlike(path, name, "letters, digits, `_`, `-` and `.`")


def _check_parameters(path: str, schema: Any) -> None:
    """Raise InvalidParameterError if arguments that fit a schema would be no JSON object."""
    if not isinstance(schema, Mapping):
        raise InvalidParameterError(path, schema, f"`{path}` must be a JSON Schema")
    check_schema(path, schema)
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list | tuple) and "object" in kind):
        at = f"{path}.type"
        raise InvalidParameterError(
            at, kind, f"`{at}` must be object, because arguments have names"
        )


def _described(path: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        arguments_described = "Args:" in (inspect.getdoc(function) or "")
        found = _by_transformers(function) if arguments_described else None
        return found or ToolDefinition.from_function(function).to_dict()
    except Exception as error:
        said = f"`{path}` can't be described: {error}"
        raise InvalidParameterError(path, function, said) from error


def _by_transformers(function: Callable[..., Any]) -> dict[str, Any] | None:
    """Return what transformers makes of a function, None if that asks too much of its docstring."""
    # It takes a second to import, and says what it could do with PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import utils  # noqa: PLC0415

    try:
        found = utils.get_json_schema(function)["function"]
    except (utils.DocstringParsingException, utils.TypeHintParsingException):
        return None
    return {name: found[name] for name in ("name", "description", "parameters")}
