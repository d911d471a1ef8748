"""Harmony, the format of gpt-oss's answers, for which mlx-lm has no parser.

An answer consists of messages. Each has a header with its channel, and a call also has a recipient.
After `<|start|>assistant` in the prompt the model writes, for example:

    <|channel|>analysis<|message|>what it thinks<|end|>
    <|start|>assistant<|channel|>commentary to=functions.NAME<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>the answer<|return|>

Source: OpenAI's description of the harmony response format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from provider.formats.thinking import Thinking

__all__ = [
    "CALL_END",
    "CALL_HEADER",
    "CALL_START",
    "ENDS",
    "RESPONSE_FORMAT",
    "TOKENS",
    "harmony_thinking",
    "parse_tool_call",
]

FINAL = "<|channel|>final<|message|>"  # the header before the answer
BETWEEN_MESSAGES = "<|end|><|start|>assistant"
COMMENTARY = "<|channel|>commentary"  # the channel of calls and of text before calls
CALL_START, CALL_END = "<|channel|>commentary to=", "<|call|>"
CALL_HEADER = re.compile(  # a call's header after `to=`, up to the arguments
    r"\s*(?:functions\.)?(?P<name>[\w.-]+)[^{]*?<\|message\|>\s*(?=\{)"
)
ENDS = ("<|return|>", CALL_END)
TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", *ENDS)
# A header may also have a content type, and a recipient before or after the channel. Text in the
# states "header", "to itself" and "to the user" is part of a header and is dropped.
RESPONSE_FORMAT = {
    "initial_state": "header",
    "transitions": {
        "header": [
            ("<|channel|>analysis", "to itself"),
            ("<|channel|>final", "to the user"),
            ("<|channel|>commentary", "to the user"),
            ("to=", "tool"),
        ],
        "to itself": [("<|message|>", "reasoning"), ("to=", "tool")],
        "to the user": [("<|message|>", "normal"), ("to=", "tool")],
        "reasoning": [("<|end|>", "header")],
        "normal": [("<|end|>", "header")],
    },
}


def parse_tool_call(text: str, _tools: Sequence[Any] | None = None) -> dict[str, Any]:
    """Return the call in the text between `to=` and `<|call|>`. Raises ValueError."""
    header = CALL_HEADER.match(text)
    if header is None:
        raise ValueError("no call of a function with arguments in JSON")
    return {"name": header["name"], "arguments": json.loads(text[header.end() :])}


def harmony_thinking(tokenizer: Any) -> Thinking:
    """Return the tokens around thinking, which is every message before the final one."""
    final, between, commentary = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (FINAL, BETWEEN_MESSAGES, COMMENTARY)
    )
    return Thinking((), final, [*between, *final], between, commentary)
