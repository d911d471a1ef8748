"""Harmony, gpt-oss's way to write, which mlx-lm does not read.

An answer is several messages, each with a header that says its channel, and of a call to whom it
is. After `<|start|>assistant` in the prompt:

    <|channel|>analysis<|message|>what it thinks<|end|>
    <|start|>assistant<|channel|>commentary to=functions.NAME<|message|>{…}<|call|>
    <|start|>assistant<|channel|>final<|message|>the answer<|return|>

Source: OpenAI's description of the harmony response format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from provider.formats.readers import HARMONY

__all__ = [
    "ASIDE",
    "BETWEEN_MESSAGES",
    "FINAL",
    "parse_tool_call",
    "reading_harmony",
    "speaks_harmony",
]

FINAL = "<|channel|>final<|message|>"  # what the answer comes after
BETWEEN_MESSAGES = "<|end|><|start|>assistant"
ASIDE = "<|channel|>commentary"  # of what is said before a call, and of calls
CALL_START, CALL_END = "<|channel|>commentary to=", "<|call|>"
ENDS = ("<|return|>", CALL_END)
TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", *ENDS)
# A header may say more than a channel: of what kind the content is, and before or behind the
# channel to whom it goes. The text of the states in between is dropped.
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
    """Return the call that stands between `to=` and `<|call|>`. Raises ValueError."""
    header = HARMONY.match(text)
    if header is None:
        raise ValueError("no call of a function with arguments in JSON")
    return {"name": header["name"], "arguments": json.loads(text[header.end() :])}


def speaks_harmony(tokenizer: Any) -> bool:
    """Return whether a tokenizer's answers are read as harmony."""
    return tokenizer.tool_parser is parse_tool_call


def reading_harmony(tokenizer: Any) -> Any:
    """Return a tokenizer whose answers are read as harmony, if its vocabulary says they are that.

    Else, or if mlx-lm knows how to read them, the same tokenizer.
    """
    vocabulary = tokenizer.get_vocab()
    if tokenizer.response_initial_state or not all(token in vocabulary for token in TOKENS):
        return tokenizer
    return type(tokenizer)(
        tokenizer._tokenizer,  # noqa: SLF001 - mlx-lm has no other way to it
        type(tokenizer._detokenizer),  # noqa: SLF001
        eos_token_ids={*tokenizer.eos_token_ids, *(vocabulary[end] for end in ENDS)},
        tool_call_start=CALL_START,
        tool_call_end=CALL_END,
        tool_parser=parse_tool_call,
        response_format=RESPONSE_FORMAT,
    )
