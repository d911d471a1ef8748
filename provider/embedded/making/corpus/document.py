"""One training document: a conversation in the form that the chat template takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Document"]


@dataclass
class Document:
    """A conversation; with `thinking`, the last answer begins inside the thinking."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = False

    def system(self, text: str) -> Document:
        """Set the system prompt; goes first."""
        self.messages.insert(0, {"role": "system", "content": text})
        return self

    def user(self, text: str) -> Document:
        """Add a user's turn."""
        self.messages.append({"role": "user", "content": text})
        return self

    def assistant(self, text: str) -> Document:
        """Add an answer."""
        self.messages.append({"role": "assistant", "content": text})
        return self

    def thought(self, thinking: str, text: str) -> Document:
        """Add an answer that begins with thinking; it is the last one."""
        self.thinking = True
        return self.assistant(f"<think>{thinking}</think>{text}")

    def call(self, *calls: tuple[str, dict[str, Any]]) -> Document:
        """Add an answer that calls tools, each given as its name and its arguments."""
        inner = [{"name": name, "arguments": arguments} for name, arguments in calls]
        tool_calls = [{"type": "function", "function": function} for function in inner]
        self.messages.append({"role": "assistant", "content": "", "tool_calls": tool_calls})
        return self

    def result(self, value: Any, *, compact: bool = False) -> Document:
        """Add a tool's result as JSON, with `compact` without spaces; text stays as it is."""
        separators = (",", ":") if compact else (", ", ": ")
        text = json.dumps(value, ensure_ascii=False, separators=separators)
        self.messages.append({"role": "tool", "content": value if isinstance(value, str) else text})
        return self
