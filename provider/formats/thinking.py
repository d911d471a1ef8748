"""The tokens with which a model's thinking begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Thinking", "tagged_thinking"]


@dataclass(frozen=True)
class Thinking:
    """The tokens around thinking; every sequence is empty for a model that does not think."""

    start: Sequence[int] = ()  # tokens that open thinking
    end: Sequence[int] = ()  # tokens that end thinking
    closing: Sequence[int] = ()  # tokens to write when the budget of thinking is used up
    before: Sequence[int] = ()  # part of `closing` that the prompt has written before the answer
    commentary: Sequence[int] = ()  # tokens that open a commentary, neither thinking nor answer


def tagged_thinking(tokenizer: Any) -> Thinking:
    """Return the tokens around thinking for a model whose markers mlx-lm knows."""
    if not tokenizer.has_thinking:
        return Thinking()
    return Thinking(
        tokenizer.think_start_tokens, tokenizer.think_end_tokens, tokenizer.think_end_tokens
    )
