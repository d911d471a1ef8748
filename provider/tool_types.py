"""The tool types of AbstractLLM: definitions, calls and results."""

from __future__ import annotations

import inspect
import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the contract's own spelling

__all__ = [
    "ToolCall",
    "ToolCallRequest",
    "ToolCallResponse",
    "ToolDefinition",
    "ToolResult",
    "new_call_id",
]

JSON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}


@dataclass
class ToolDefinition:
    """A tool that a model can call; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Dict[str, Any]

    def to_dict(self) -> Dict[str, Any]:
        """Return the definition as a dict with `name`, `description` and `parameters`."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    @classmethod
    def from_function(cls, func: Callable[..., Any]) -> ToolDefinition:
        """Return a definition from a function's signature and its docstring's first line."""
        hints = typing.get_type_hints(func)
        doc = inspect.getdoc(func) or f"Function {func.__name__}"
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(func).parameters.items()
            if name != "self" and parameter.kind not in UNNAMED
        }
        schema = {
            "type": "object",
            "properties": {name: {"type": _json_type(hints.get(name))} for name in parameters},
            "required": [n for n, p in parameters.items() if p.default is inspect.Parameter.empty],
        }
        return cls(name=func.__name__, description=doc.splitlines()[0], parameters=schema)


UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def new_call_id() -> str:
    """Return the id of a tool call; no other call has it, in this answer or another."""
    return f"call_{uuid.uuid4().hex[:16]}"


@dataclass
class ToolCall:
    """A tool call of the model; without an id it gets a random one."""

    name: str
    arguments: Dict[str, Any]
    id: Optional[str] = None

    def __post_init__(self) -> None:
        if self.id is None:
            self.id = new_call_id()


@dataclass
class ToolResult:
    """The result of a tool call."""

    tool_call_id: str
    output: Any
    error: Optional[str] = None

    @property
    def success(self) -> bool:
        """Whether the tool ran without an error."""
        return self.error is None


@dataclass
class ToolCallResponse:
    """An answer that may have tool calls."""

    content: Optional[str] = None
    tool_calls: List[ToolCall] = field(default_factory=list)

    def has_tool_calls(self) -> bool:
        """Return whether the answer has tool calls."""
        return bool(self.tool_calls)


ToolCallRequest = ToolCallResponse  # upstream's alias for older callers


def _json_type(hint: Any) -> str:
    """Return the JSON type of an annotation; Optional[X] has the type of X."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(inner) == 1:
            return _json_type(inner[0])
    return JSON_TYPES.get(typing.get_origin(hint) or hint, "string")
