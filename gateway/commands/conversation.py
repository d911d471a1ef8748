"""Builds the requests of a chat.

A turn is a message, to which files may be attached, and which the model answers. With the option
`raw` it is a prompt that the model continues, without a chat template.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from gateway.client import GatewayClient, Run
from gateway.client.tool_loop import Toolbox, ToolResult, ToolRun
from gateway.protocol.frames import Chunk, ToolCall
from provider.inputs.files import files_to_text, images_of

__all__ = ["Completion", "ask", "attach", "user_turn"]


def attach(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return text files and images as parts of a message. Raises FileProcessingError."""
    images = [base64.b64encode(data).decode() for data in images_of(files)]
    text = files_to_text(files)
    parts: list[dict[str, Any]] = [{"type": "image", "data": data} for data in images]
    return [*parts, {"type": "text", "text": text}] if text else parts


def user_turn(text: str, attachments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a user's message: first `attachments`, as `attach` returns them, then the text."""
    content: Any = [*attachments, {"type": "text", "text": text}] if attachments else text
    return {"role": "user", "content": content}


def ask(
    client: GatewayClient, toolbox: Toolbox, turns: list[dict[str, Any]], fields: dict[str, Any]
) -> ToolRun | Completion:
    """Return a run that answers the last turn; with `raw` in `fields`, one that continues it."""
    last = turns[-1]["content"]
    if not fields.get("raw") or not isinstance(last, str):
        return toolbox.run(client, turns, **fields)
    return Completion(client, {**fields, "prompt": last, "tools": toolbox.definitions or None})


class Completion:
    """A raw prompt and its continuation, with the interface of a ToolRun."""

    def __init__(self, client: GatewayClient, fields: dict[str, Any]):
        self.run: Run | None = None
        self.stopped = False
        self.messages: list[dict[str, Any]] = []  # none: each line is a prompt of its own
        self._client = client
        self._fields = fields

    async def __aiter__(self) -> AsyncGenerator[Chunk | ToolCall | ToolResult, None]:
        """Iterate over the frames; leaving the loop cancels. Raises GatewayError."""
        self.run = self._client.generate(**self._fields)
        async with self.run, aclosing(self.run.frames()) as frames:
            if self.stopped:  # before the generation could be cancelled
                await self.run.cancel()
            async for frame in frames:
                yield frame

    async def cancel(self) -> None:
        """Stop the model."""
        self.stopped = True
        if self.run is not None:
            await self.run.cancel()
