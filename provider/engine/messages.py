"""The requests and events that pass between a caller's thread and the MLX thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provider.constraints.answer import AnswerConstraint
from provider.engine.shared_prompt import SharedPrompt
from provider.events import Delta
from provider.interface import (
    AnswerTokens,
    GenerationStarted,
    GenerationTiming,
    PrefillProgress,
    QueuePosition,
)
from provider.options import GenerationOptions

__all__ = [
    "RunEvent",
    "RunFailed",
    "RunFinished",
    "RunRequest",
]


@dataclass(frozen=True)
class RunRequest:
    """All that the engine needs to run one generation.

    `boundaries` are lengths of prefixes of the prompt that other prompts are likely to share. They
    are needed only for models whose caches can't be trimmed.
    """

    prompt: Sequence[int]
    options: GenerationOptions
    tools: Sequence[dict[str, Any]] = ()
    boundaries: Sequence[int] = ()
    constraint: AnswerConstraint | None = None  # constraint on the answer, such as a JSON Schema
    constraint_bytes: int = 0  # what the constraint may hold, none where another run holds it too
    state: str | None = None  # initial state of the text stream, None for the answer
    shared_prompt: SharedPrompt | None = None  # the same for all answers to one prompt
    images: Any = None  # ProcessedImages, where the prompt has images
    kind: str = ""  # digest of the images; prompts of different kinds share no prefix

    @property
    def max_total_tokens(self) -> int:
        """The most tokens that the prompt and the answer can have together."""
        return len(self.prompt) + self.options.max_tokens


@dataclass(frozen=True)
class RunFinished:
    """The end of a run that was neither cancelled nor failed."""

    finish_reason: str  # "stop", "length" or "tool_calls"
    usage: dict[str, int]
    timing: GenerationTiming
    tool_calls: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class RunFailed:
    """The end of a run by an error, which the reader raises."""

    error: Exception


RunEvent = (
    QueuePosition
    | GenerationStarted
    | PrefillProgress
    | AnswerTokens
    | Delta
    | RunFinished
    | RunFailed
)
