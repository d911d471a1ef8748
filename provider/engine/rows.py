"""Rows of a batch, and the results of a step. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from provider.constraints.answer import AnswerConstraint
from provider.engine.logprobs import LogprobRecorder
from provider.engine.sampling import Processor, Sampler
from provider.events import TokenLogprob

__all__ = [
    "Chunk",
    "Keep",
    "Parked",
    "Row",
    "StepResult",
    "Token",
    "finish_of",
    "without_frames",
]


@dataclass(eq=False)
class Row:
    """One run's part in the batch."""

    key: int
    sequence: list[int]  # the prompt, then every token that was generated and read
    prompt_tokens: int
    max_tokens: int
    sampler: Sampler
    processors: Sequence[Processor] = ()
    form: AnswerConstraint | None = None  # form that the answer is held to
    recorder: LogprobRecorder | None = None  # recorder of log-probabilities, if asked for
    prompt_embeddings: Any = None  # PromptEmbeddings, where the prompt has images
    kind: str = ""  # what the caches depend on besides tokens
    caches: list[Any] | None = None  # caches of this row alone, while its sequence is read
    done: int = 0  # tokens of the sequence in these caches
    fed: int = 0  # tokens of the sequence in the batch's caches, while it decodes
    drawn: int = 0  # tokens sampled, of which the last may not be read yet
    suspect: bool = False  # whether it was in a forward pass that failed
    gone: bool = False
    context: Any = None  # a TokenBuffer, for the processors

    @property
    def generated(self) -> int:
        """How many tokens were generated and read."""
        return len(self.sequence) - self.prompt_tokens

    def given(self, token: int, finish: str | None) -> Token:
        """Return the newest token of the sequence as a step's result."""
        logprob = None if self.recorder is None else self.recorder.read(self.generated - 1)
        return Token(self.key, token, finish, logprob)

    def follow(self, last: int) -> None:
        """Advance the form by the new tokens; `last` is being fed."""
        assert self.form is not None
        length = self.fed + 1 - self.prompt_tokens
        self.form.follow(length, last, lambda: self._answer(length, last))

    def _answer(self, length: int, last: int) -> list[int]:
        read = self.sequence[self.prompt_tokens :][:length]
        return read if len(read) == length else [*read, last]

    @property
    def left(self) -> int:
        """How many tokens remain to be prefilled; the last one is fed by a decode step."""
        return len(self.sequence) - 1 - self.done


@dataclass(frozen=True)
class Token:
    """One row's token of one step; `finish` is None, "stop" or "length"."""

    key: int
    token: int
    finish: str | None
    logprob: TokenLogprob | None = None  # only if the request asks for log-probabilities


@dataclass(frozen=True)
class Chunk:
    """How far a prefill has come: `left` tokens of the row's sequence are still to be read."""

    key: int
    left: int


@dataclass
class Parked:
    """A row that has left the batch, with all it needs to continue exactly."""

    row: Row
    pending: int | None  # a token that was sampled and not read

    def give_up_caches(self) -> tuple[list[Any] | None, int]:
        """Drop the caches; return them, and how many tokens they hold. The row is read again."""
        given = self.row.caches, self.row.done
        self.row.caches, self.row.done = None, 0
        return given


@dataclass
class StepResult:
    """The results of a decode step or a prefill."""

    tokens: list[Token] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)  # rows that were read, or must be again
    faults: dict[int, Exception] = field(default_factory=dict)  # the first fault of each row
    failed: bool = False  # whether a forward pass failed, whoever's fault it was

    def blame(self, key: int, error: Exception) -> None:
        """Note a row's fault; a row has one, the first."""
        self.faults.setdefault(key, error)


# Takes a row that leaves the batch, a function that returns its caches, and the number of tokens
# that they hold. The function copies, so it is called only for caches that are worth keeping.
Keep = Callable[[Row, Callable[[], list[Any]], int], None]


def finish_of(row: Row, token: int, ends: frozenset[int]) -> str | None:
    """Return why a row ends with the token that it has just got, None if it does not."""
    if token in ends:
        return "stop"
    return "length" if row.generated >= row.max_tokens else None


def without_frames(error: BaseException) -> None:
    """Drop an error's tracebacks, once they are logged.

    Their frames hold on to the arrays of the step that failed, for as long as anyone has the error.
    """
    found: BaseException | None = error
    while found is not None and found.__traceback__ is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
