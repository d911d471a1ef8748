"""The requests and events that cross between a caller's thread and the MLX thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provider.constraints.answer import AnswerConstraint
from provider.engine.shared_prompt import SharedPrompt
from provider.events import Delta
from provider.interface import (
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
    """What the engine needs to know of one generation.

    `boundaries` are lengths of beginnings of the prompt that other prompts are likely to share;
    only models whose caches can't be cut back need them.
    """

    prompt: Sequence[int]
    options: GenerationOptions
    tools: Sequence[dict[str, Any]] = ()
    boundaries: Sequence[int] = ()
    form: AnswerConstraint | None = None  # form that the answer is held to
    state: str | None = None  # state that its text begins in, None for the answer
    shared_prompt: SharedPrompt | None = None  # shared with other answers to the same prompt
    images: Any = None  # ProcessedImages, where the prompt has images
    kind: str = ""  # digest of the images; prompts of different kinds share no prefix

    @property
    def most_tokens(self) -> int:
        """How long the prompt and the answer together may become."""
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
    """The end of a run by an error, which its reader raises."""

    error: Exception


RunEvent = QueuePosition | GenerationStarted | PrefillProgress | Delta | RunFinished | RunFailed
