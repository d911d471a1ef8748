"""How a model's thinking begins and ends, in tokens, for who holds it to a budget or to a form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Thinking", "tagged_thinking"]


@dataclass(frozen=True)
class Thinking:
    """Sequences of tokens; all are empty for a model that does not think."""

    start: Sequence[int] = ()  # opens it
    end: Sequence[int] = ()  # is what it has ended with
    closing: Sequence[int] = ()  # is to be written where it has to end
    before: Sequence[int] = ()  # of `closing`, what counts as written where an answer begins
    commentary: Sequence[int] = ()  # opens what is neither thinking nor the answer


def tagged_thinking(tokenizer: Any) -> Thinking:
    """Return how a model thinks between two markers that mlx-lm found in its vocabulary."""
    if not tokenizer.has_thinking:
        return Thinking()
    return Thinking(
        tokenizer.think_start_tokens, tokenizer.think_end_tokens, tokenizer.think_end_tokens
    )
