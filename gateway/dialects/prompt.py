"""A conversation as `generate` takes it, written turn by turn.

Each of its messages keeps the path of what it was made of, so that an error names that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.dialects.data_urls import DataRoom, data_of, kind_of
from gateway.dialects.refusals import Refused
from gateway.protocol.frames import File

__all__ = ["Call", "Prompt", "Turn", "result_text"]


@dataclass
class Call:
    """An earlier call of a tool, and its result as text; None while it has none."""

    id: str
    name: str
    arguments: str
    result: str | None = None


@dataclass
class Turn:
    """What a user's or a system's message says: texts and images."""

    path: str
    parts: list[dict[str, Any]] = field(default_factory=list)

    def add_text(self, text: str) -> None:
        """Add a text."""
        self.parts.append({"type": "text", "text": text})

    @property
    def content(self) -> str | list[dict[str, Any]]:
        """Its parts, or a text if all are."""
        if all(part["type"] == "text" for part in self.parts):
            return "\n".join(part["text"] for part in self.parts)
        return self.parts


@dataclass
class Prompt:
    """The messages and the files of a request."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # of each message
    _room: DataRoom = field(default_factory=DataRoom)

    def add(self, path: str, role: str, content: Any, **more: Any) -> None:
        """Add a message."""
        self.messages.append({"role": role, "content": content, **more})
        self.paths.append(path)

    def add_answer(self, path: str, text: str, reasoning: str, calls: Sequence[Call]) -> None:
        """Add an answer of the model: its text and its calls, then their results.

        A call without a result is left out, because a model can't be shown one.
        """
        done = [call for call in calls if call.result is not None]
        if not done:
            if text:
                self.add(path, "assistant", text)
            return
        thoughts = {"reasoning_content": reasoning} if reasoning else {}
        self.add(path, "assistant", text, tool_calls=[_call(call) for call in done], **thoughts)
        for call in done:
            self.add(path, "tool", call.result, tool_call_id=call.id, name=call.name)

    def add_file(self, turn: Turn, url: str, kind: str, name: str, path: str) -> None:
        """Add a file: an image to a turn, a text beside the messages. Raises Refused.

        An image is not decoded here, but where it is opened.
        """
        try:
            own = kind_of(url)
            if (kind or own).startswith("image/"):
                turn.parts.append({"type": "image_url", "image_url": {"url": url}})
                return
            _, data = data_of(url, self._room)
        except ValueError as error:
            raise Refused(str(error), path) from error
        self.files.append(File(name=name[:255] or "file.txt", mime=kind or own, data=data))


def result_text(value: Any) -> str:
    """Return a tool's result as the text of a message."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
