"""How a model's thinking begins and ends, in tokens."""

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
    closing: Sequence[int] = ()  # tokens to write where thinking is cut
    before: Sequence[int] = ()  # part of `closing` that counts as written where an answer begins
    commentary: Sequence[int] = ()  # tokens that open a commentary, neither thinking nor answer


def tagged_thinking(tokenizer: Any) -> Thinking:
    """Return how a model thinks between two markers that mlx-lm found in its vocabulary."""
    if not tokenizer.has_thinking:
        return Thinking()
    return Thinking(
        tokenizer.think_start_tokens, tokenizer.think_end_tokens, tokenizer.think_end_tokens
    )
