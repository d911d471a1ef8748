"""Tool calls of earlier turns, as a model's template takes them.

Templates agree that a message has `tool_calls`, and little further: some want the arguments as an
object and some as JSON text, and Mistral's refuse ids that are not nine letters and digits. None
says so, so that each is tried with a call of ours.
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
    """How one template takes calls."""

    short_ids: bool = False  # ids of nine letters and digits
    as_text: bool = False  # arguments as JSON text

    def told(self, messages: Messages) -> list[dict[str, Any]]:
        """Return messages in this style, from those with arguments as objects."""
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


# The likeliest first.
STYLES = [CallStyle(*way) for way in product((False, True), repeat=2)]
NAME, KEY, VALUE, RESULT = "look_up", "some_word", "heron", "a bird"
TRIAL: Messages = [
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
    """Return the first style in which a template shows a call; the usual one if it shows none.

    `render` raises where the template refuses.
    """
    return next((style for style in styles if _shows(render, style)), CallStyle())


def _shows(render: Callable[[Messages], str], style: CallStyle) -> bool:
    try:
        text = render(style.told(TRIAL))
    except Exception:  # noqa: BLE001 - templates raise anything
        return False
    # An object that is written as Python does is none, and text in quotes was quoted twice.
    wrong = (f"'{KEY}'", f'\\"{KEY}')
    return all(one in text for one in (NAME, KEY, VALUE)) and not any(one in text for one in wrong)


def _short(own: str) -> str:
    if len(own) == ID_LENGTH and own.isascii() and own.isalnum():
        return own
    return hashlib.sha256(own.encode(errors="replace")).hexdigest()[:ID_LENGTH]
