"""How a model's thinking begins and ends, in tokens, for who holds it to a budget or to a form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provider.formats.harmony import ASIDE, BETWEEN_MESSAGES, FINAL, speaks_harmony

__all__ = ["Thinking", "thinking_of"]


@dataclass(frozen=True)
class Thinking:
    """Sequences of tokens; all are empty for a model that does not think."""

    start: Sequence[int] = ()  # opens it
    end: Sequence[int] = ()  # is what it has ended with
    closing: Sequence[int] = ()  # is to be written where it has to end
    before: Sequence[int] = ()  # of `closing`, what counts as written where an answer begins
    aside: Sequence[int] = ()  # opens what is neither thinking nor the answer


def thinking_of(tokenizer: Any) -> Thinking:
    """Return how a model of mlx-lm's tokenizer thinks."""
    if speaks_harmony(tokenizer):
        final, between, aside = (
            tokenizer.encode(text, add_special_tokens=False)
            for text in (FINAL, BETWEEN_MESSAGES, ASIDE)
        )
        return Thinking((), final, [*between, *final], between, aside)
    if not tokenizer.has_thinking:
        return Thinking()
    return Thinking(
        tokenizer.think_start_tokens, tokenizer.think_end_tokens, tokenizer.think_end_tokens
    )
