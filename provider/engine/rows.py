"""Rows of a batch, and the results of a step. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provider.constraints.answer import AnswerConstraint
from provider.engine.logprobs import LogprobRecorder
from provider.engine.sampling import Processor, Sampler
from provider.events import TokenLogprob
from provider.interface import GenerationError

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
    sequence: list[int]  # tokens of the prompt, then every generated token that was read
    prompt_tokens: int
    max_tokens: int
    sampler: Sampler
    processors: Sequence[Processor] = ()
    constraint: AnswerConstraint | None = None  # constraint on the answer, if there is one
    recorder: LogprobRecorder | None = None  # recorder of log-probabilities, if asked for
    prompt_embeddings: Any = None  # PromptEmbeddings, where the prompt has images
    kind: str = ""  # what the caches depend on besides tokens
    client: str | None = None  # whoever the run is made for, if that is known
    caches: list[Any] | None = None  # caches of this row alone, while its sequence is read
    done: int = 0  # tokens of the sequence in these caches
    fed: int = 0  # tokens of the sequence in the batch's caches, while it decodes
    drawn: int = 0  # tokens sampled, including one that may not be read yet
    suspect: bool = False  # whether it must run alone first, after a failed forward pass
    gone: bool = False
    context: Any = None  # a TokenBuffer, for the processors

    @property
    def generated(self) -> int:
        """How many tokens were generated and read."""
        return len(self.sequence) - self.prompt_tokens

    def given(self, token: int, finish: str | None) -> Token:
        """Return the row's newest token, `token`, as a step's result, with its log-probability."""
        logprob = None if self.recorder is None else self.recorder.read(self.generated - 1)
        return Token(self.key, token, finish, logprob)

    def answer_so_far(self, last: int) -> tuple[int, int, Callable[[], Sequence[int]]]:
        """Return the answer up to `last`, which is being fed, as `AnswerConstraint.follow`."""
        length = self.fed + 1 - self.prompt_tokens
        return length, last, lambda: self._answer(length, last)

    def refuse_early_end(self) -> None:
        """Raise GenerationError if the answer before the newest token breaks its constraint."""
        if self.constraint is not None and not self.constraint.satisfied(self.generated - 1):
            raise GenerationError("the answer has ended before it satisfies its constraint")

    def _answer(self, length: int, last: int) -> list[int]:
        read = self.sequence[self.prompt_tokens :][:length]
        return read if len(read) == length else [*read, last]

    @property
    def left(self) -> int:
        """How many tokens remain to be prefilled; the last one is fed by a decode step."""
        return len(self.sequence) - 1 - self.done


class Token(NamedTuple):  # a tuple is created faster than a dataclass, and every step has many
    """One row's token of one step; `finish` is None, "stop" or "length"."""

    key: int
    token: int
    finish: str | None
    logprob: TokenLogprob | None = None  # only if the request asks for log-probabilities


@dataclass(frozen=True)
class Chunk:
    """The progress of a row's prefill: `left` tokens of its sequence remain to be read."""

    key: int
    left: int


@dataclass
class Parked:
    """A row that has left the batch, with all that it needs to continue with the same tokens."""

    row: Row
    pending: int | None  # token that was sampled and not yet read

    def evict_caches(self) -> tuple[list[Any] | None, int]:
        """Remove and return the caches, with the number of tokens in them.

        The row will be prefilled again when it continues.
        """
        given = self.row.caches, self.row.done
        self.row.caches, self.row.done = None, 0
        return given


@dataclass
class StepResult:
    """The results of a decode step or a prefill."""

    tokens: list[Token] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)  # rows prefilled, or to be prefilled again
    faults: dict[int, Exception] = field(default_factory=dict)  # the first fault of each row
    failed: bool = False  # whether a forward pass failed
    computed: int = 0  # tokens of a prefill's forward pass, with its padding

    def blame(self, key: int, error: Exception) -> None:
        """Record a row's fault, unless it has one already."""
        self.faults.setdefault(key, error)


# Takes a row that leaves the batch, a function that returns its caches, and the number of tokens
# that they hold. The function copies, so it is called only for caches that are worth keeping.
Keep = Callable[[Row, Callable[[], list[Any]], int], None]


def finish_of(row: Row, token: int, ends: frozenset[int]) -> str | None:
    """Return "stop" or "length" if a row ends with its newest token, None if it does not.

    Raises GenerationError if the answer ends before it satisfies its constraint.
    """
    if token in ends:
        row.refuse_early_end()
        return "stop"
    return "length" if row.generated >= row.max_tokens else None


def without_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and its causes; call it after logging them.

    Their frames would keep the arrays of the failed step in memory as long as the error exists.
    """
    found: BaseException | None = error
    while found is not None and found.__traceback__ is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
