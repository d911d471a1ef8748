"""Finds the format in which a model's template takes the tool calls of earlier turns.

All templates read `tool_calls` of a message, but some expect the arguments as an object and others
as JSON text, and Mistral's refuse ids other than nine letters and digits. A template does not
declare its format, so each one is tried with a sample conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

__all__ = ["STYLES", "CallStyle", "style_of"]

ID_LENGTH = 9
Messages = Sequence[Mapping[str, Any]]


class CallStyle(NamedTuple):
    """How a template expects the tool calls of earlier turns."""

    short_ids: bool = False  # whether ids have nine letters and digits
    as_text: bool = False  # whether arguments are JSON text instead of an object

    def applied_to(self, messages: Messages) -> list[dict[str, Any]]:
        """Return messages with their calls in this style; `messages` have objects as arguments."""
        return [self._one(message) for message in messages]

    def _one(self, message: Mapping[str, Any]) -> dict[str, Any]:
        turn = dict(message)
        if self.short_ids and isinstance(turn.get("tool_call_id"), str):
            turn["tool_call_id"] = _short(turn["tool_call_id"])
        if turn.get("tool_calls"):
            turn["tool_calls"] = [self._call(call) for call in turn["tool_calls"]]
        return turn

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call["function"])
        if self.as_text and not isinstance(function["arguments"], str):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        own = call.get("id")
        if self.short_ids and isinstance(own, str):
            own = _short(own)
        return {**call, "id": own, "function": function}


# All styles, the most common one first.
STYLES = [CallStyle(*way) for way in product((False, True), repeat=2)]
NAME, KEY, VALUE, RESULT = "look_up", "some_word", "heron", "a bird"
SAMPLE: Messages = [
    {"role": "user", "content": "?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "type": "function",
                "id": "call_0",
                "function": {"name": NAME, "arguments": {KEY: VALUE}},
            }
        ],
    },
    {"role": "tool", "name": NAME, "tool_call_id": "call_0", "content": RESULT},
]


def style_of(render: Callable[[Messages], str], styles: Sequence[CallStyle] = STYLES) -> CallStyle:
    """Return the first style in which a template renders a call, the default if none works.

    `render` must raise an exception if the template refuses the messages.
    """
    return next((style for style in styles if _shows(render, style)), CallStyle())


def _shows(render: Callable[[Messages], str], style: CallStyle) -> bool:
    try:
        text = render(style.applied_to(SAMPLE))
    except Exception:  # noqa: BLE001 - a template may raise any exception
        return False
    # Single quotes mean that Python printed an object, backslashes that JSON was quoted twice.
    wrong = (f"'{KEY}'", f'\\"{KEY}')
    return all(one in text for one in (NAME, KEY, VALUE)) and not any(one in text for one in wrong)


def _short(own: str) -> str:
    if len(own) == ID_LENGTH and own.isascii() and own.isalnum():
        return own
    return hashlib.sha256(own.encode(errors="replace")).hexdigest()[:ID_LENGTH]
