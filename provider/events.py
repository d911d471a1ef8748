"""The events of a generation's stream, and the deltas that the engine produces.

All of them are plain data, so that they can cross threads and processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional  # noqa: UP035 - the contract's own spelling

__all__ = [
    "AnswerTokens",
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
    """The request's place in the queue; 1 is the next one to be admitted."""

    position: int


@dataclass(frozen=True)
class ModelLoading:
    """The model is being loaded: `done` of `total` bytes are there, at first 0 of 0.

    The bytes are those of its files while they are downloaded, then those of its weights. While
    `warming_up`, the weights are there, and `done` of `total` forward passes are made for the first
    requests. These events come before any other, and only if the model was not loaded.
    """

    model: str
    done: int
    total: int
    warming_up: bool = False


@dataclass(frozen=True)
class GenerationStarted:
    """The prompt was accepted; sent once per generation, before any progress or text."""

    model: str
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class PrefillProgress:
    """`done` of `total` prompt tokens are prefilled."""

    done: int
    total: int


@dataclass(frozen=True)
class AnswerTokens:
    """The ids of consecutive tokens of the answer; `first` is the place of their first, from 0.

    Sent now and then if the option `tell_tokens` is set. With the option `begun_answer`, another
    provider can go on after them.
    """

    first: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of a tool call, sent while the model writes it.

    `index` counts the answer's calls from 0. `name` comes with the first part, `arguments` are
    fragments of one JSON text, and `complete` marks the last part. A call that is malformed, or cut
    off by the end of the answer, ends with an `error` and with the `text` that the model wrote.
    Such a call is not among the answer's `tool_calls`.
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
    """The log-probabilities of a delta's tokens, in order.

    They are in the delta's `raw_response` if the option `logprobs` is set. Each entry has `token`,
    `logprob`, `bytes` (None for a part of a character) and `top_logprobs`, a list of entries that
    have the first three fields.
    """

    tokens: tuple[Dict[str, Any], ...]


@dataclass(frozen=True)
class GenerationTiming:
    """The times of one generation, in milliseconds; in the `raw_response` of its last response.

    It also carries data that GenerateResponse has no field for: the log-probabilities of a whole
    answer, if they were requested, and the tool calls that could not be read.
    """

    queue_ms: float
    prefill_ms: float
    first_token_ms: float
    total_ms: float
    tokens_per_second: float
    logprobs: Optional[TokenLogprobs] = None
    broken_calls: tuple[ToolCallDelta, ...] = ()


class TokenLogprob(NamedTuple):
    """One token's log-probability, and the most likely tokens with theirs, in descending order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class TextDelta(NamedTuple):  # a tuple is created faster than a dataclass, and every token has one
    """Text of one channel that one decode step has produced."""

    text: str
    reasoning: bool = False
    tokens: int = 1  # tokens since the previous delta; 0 for the second delta of a step
    logprobs: tuple[dict[str, Any], ...] = ()  # log-probabilities of those tokens, if requested


class CallDelta(NamedTuple):
    """Part of a tool call that one decode step has produced."""

    call: ToolCallDelta
    tokens: int = 1  # see TextDelta


Delta = TextDelta | CallDelta
