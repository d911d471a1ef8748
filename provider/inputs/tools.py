"""Normalises tool definitions to the form that chat templates read.

A tool's name may have letters (of any script), digits, `_`, `-` and `.`. Model families can write
such names in a call, and their parsers can read them back: most families write a name unquoted
before a bracket, a tag or a space, and even a name in JSON can't contain the markers around a call.
OpenAI's interface allows less (ASCII, no dots, at most 64 characters), but dotted names are common
and work. A family that can write fewer names (FunctionGemma: no `-` or `.`) refuses the others when
a call is required.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provider.errors import InvalidParameterError, unlike
from provider.inputs.schemas import check_schema, size_of
from provider.tool_types import ToolDefinition

__all__ = ["NAME", "normalise_tools"]

NAME = r"[\w.-]+"  # pattern of a tool's name
ARGUMENT = r"^ +(\w+)(?: *\([^)\n]*\))?: *(.*?)(?=^ +\w+(?: *\([^)\n]*\))?:|\Z)"  # in a docstring
MAX_TOOLS = 2048  # more than any context holds; each takes some microseconds of the event loop
# Bytes of all definitions, half a million tokens. Templates write them as JSON without giving other
# threads a turn, 2 MiB in 10 ms and more.
MAX_BYTES = 2 * 1024 * 1024
MAX_NAME_CHARS = 256  # several times OpenAI's; a name is part of the prompt and of a call's grammar


def normalise_tools(
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]],
) -> list[dict[str, Any]]:
    """Return the tools in the nested form that chat templates read.

    A tool may be a Python function, the flat form `{name, description, parameters}`, with or
    without `"type": "function"`, or the nested form `{"type": "function", "function": {…}}`. A
    function whose Google-style docstring describes every argument is converted by transformers;
    any other is described by its signature and the first line of its docstring.
    Raises InvalidParameterError with the path of the fault, such as `tools[0].function.name`.
    """
    if len(tools) > MAX_TOOLS:
        raise InvalidParameterError("tools", len(tools), f"`tools` must be at most {MAX_TOOLS}")
    _check_size(tools)
    return [_nested(f"tools[{i}]", tool) for i, tool in enumerate(tools)]


def _check_size(tools: Sequence[Any]) -> None:
    left = MAX_BYTES
    for i, tool in enumerate(tools):
        left -= size_of(tool, left)
        if left < 0:
            said = f"`tools[{i}]` is too large: all tools may have {MAX_BYTES} bytes together"
            raise InvalidParameterError(f"tools[{i}]", tool, said)


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
    if len(name) > MAX_NAME_CHARS or not re.fullmatch(NAME, name):
        said = f"at most {MAX_NAME_CHARS} letters, digits, `_`, `-` and `.`"
        raise unlike(path, name, said)


def _check_parameters(path: str, schema: Any) -> None:
    """Raise InvalidParameterError unless arguments that fit a schema are JSON objects."""
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
    """Return transformers' description of a function, None if its docstring does not suffice."""
    # The import takes a second, and would log advice about PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        from transformers import utils  # noqa: PLC0415
    except ImportError:  # the client alone does not bring it
        return _by_docstring(function)
    try:
        found = utils.get_json_schema(function)["function"]
    except (utils.DocstringParsingException, utils.TypeHintParsingException):
        return None
    return {name: found[name] for name in ("name", "description", "parameters")}


def _by_docstring(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what `_by_transformers` does for plain types, without transformers."""
    described = ToolDefinition.from_function(function).to_dict()
    what, _, section = (inspect.getdoc(function) or "").partition("Args:\n")
    described["description"] = what.strip()
    arguments = re.split(r"\n(?=\S)", section)[0]  # up to `Returns:`
    for name, text in re.findall(ARGUMENT, arguments, re.MULTILINE | re.DOTALL):
        if name in described["parameters"]["properties"]:
            described["parameters"]["properties"][name]["description"] = " ".join(text.split())
    return described
