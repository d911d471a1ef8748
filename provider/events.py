"""What a generation makes known, step by step: events of a stream, and the engine's deltas.

Plain data, so that it can cross threads and processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional  # noqa: UP035 - the contract's own spelling

__all__ = [
    "CallDelta",
    "Delta",
    "GenerationStarted",
    "GenerationTiming",
    "ModelLoading",
    "PrefillProgress",
    "QueuePosition",
    "TextDelta",
    "TokenLogprob",
    "TokenLogprobs",
    "ToolCallDelta",
]


# Events in a stream, for callers that pass `events=True` ----------------------------------------


@dataclass(frozen=True)
class QueuePosition:
    """The place in the queue, 1 for the next to be admitted."""

    position: int


@dataclass(frozen=True)
class ModelLoading:
    """The model is not there yet: `done` of `total` bytes are, 0 of 0 to begin with.

    Of its files, where they are downloaded, then of its weights. Before any other event, and only
    where the model had to be loaded.
    """

    model: str
    done: int
    total: int


@dataclass(frozen=True)
class GenerationStarted:
    """The prompt was accepted; once per generation, before any progress or text."""

    model: str
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class PrefillProgress:
    """`done` of `total` prompt tokens are read."""

    done: int
    total: int


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of a tool call, as the model writes it.

    `index` counts the answer's calls from 0. `name` comes with the first part, `arguments` are
    fragments of one JSON text, `complete` comes with the last part. A call that was cut off by the
    end of the answer, or that can't be read, ends with an `error`, and `text` is what the model
    wrote; it is not among the answer's `tool_calls`.
    """

    index: int
    id: str
    name: Optional[str] = None
    arguments: Optional[str] = None
    complete: bool = False
    error: Optional[str] = None  # "cut_off" or "malformed"
    text: Optional[str] = None


@dataclass(frozen=True)
class TokenLogprobs:
    """In `raw_response` of a delta, if `logprobs` was asked for: those of its tokens, in order.

    Each has `token`, `logprob`, `bytes` (None for a part of a character) and `top_logprobs`, a list
    of the same without the last.
    """

    tokens: tuple[Dict[str, Any], ...]


@dataclass(frozen=True)
class GenerationTiming:
    """Times of one generation in milliseconds, in `raw_response` of its last response.

    With them comes what has no place in a GenerateResponse: the log-probabilities of a whole
    answer, if they were asked for, and the tool calls that could not be read.
    """

    queue_ms: float
    prefill_ms: float
    first_token_ms: float
    total_ms: float
    tokens_per_second: float
    logprobs: Optional[TokenLogprobs] = None
    broken_calls: tuple[ToolCallDelta, ...] = ()


class TokenLogprob(NamedTuple):
    """One token's log-probability, and the likeliest tokens with theirs, the likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class TextDelta(NamedTuple):  # made faster than a dataclass, and there is one a token
    """Text that one step made known, of one channel."""

    text: str
    reasoning: bool = False
    tokens: int = 1  # tokens since the delta before; 0 for the second delta of a step
    logprobs: tuple[dict[str, Any], ...] = ()  # log-probabilities of those tokens, if asked for


class CallDelta(NamedTuple):
    """Part of a tool call that one step made known."""

    call: ToolCallDelta
    tokens: int = 1  # see TextDelta


Delta = TextDelta | CallDelta
