"""Enforces the constraint on one run's answer, and the budget of its thinking.

Rule 1: thinking comes first and is not constrained. The constrained text begins where it ends.
Rule 2: the state of an AnswerConstraint follows from the answer's tokens alone, so that a step may
be repeated after a failed forward pass or a rejected draft token.
Rule 3: an answer never goes on without its constraint. If the constraint can't be applied any
longer, for instance because it is too complex for llguidance, the run ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from provider.constraints.masks import allow, allow_only
from provider.constraints.matcher import Matcher, SharedGrammar, reason_of
from provider.formats.thinking import Thinking
from provider.interface import GenerationError

__all__ = [
    "AnswerConstraint",
]

ALLOWED_S, ALLOWED_PER_MASK_S = 0.05, 0.002  # a usual mask takes a twentieth of a millisecond
REMEMBERED = 32  # masks of which it is known whether they allow the end; a step has at most 16


class AnswerConstraint:
    """Limits the tokens of one run's answer, and its thinking to a budget.

    Thinking is unconstrained until it has taken `max_thoughts` tokens in total. Then only the
    tokens that close it are allowed, and it can't be opened again. A `matcher` accepts the texts
    that the constraint allows; with one, thinking may come only at the beginning, without one,
    anywhere in the answer. The token sequence `forbidden` never appears.
    """

    def __init__(
        self,
        matcher: Matcher | None,
        ends: Iterable[int],
        thinking: Thinking,
        *,
        begun: bool = False,
        max_thoughts: int | None = None,
        forbidden: Sequence[int] = (),
    ):
        self._matcher = matcher
        self._ends = list(ends)  # tokens that may end the answer where the matcher allows it
        self._thinking = thinking
        self._begun = begun  # whether the prompt opens the thinking
        self._think_start = list(thinking.start)  # tokens with which the model opens thinking
        self._think_end = list(thinking.end)
        self._closing = list(thinking.closing)
        self._max_thoughts = max_thoughts
        self._forbidden = list(forbidden)
        self.shared = SharedGrammar() if matcher is None else matcher.shared
        self.drafted = False  # whether it follows tokens of a draft, which it may not allow
        self.mask_seconds = 0.0  # seconds of processor time that its masks have taken
        self.masks = 0  # number of its masks
        if matcher is not None:
            self._refuse_if_failed()
        self._begin()

    def another(self) -> AnswerConstraint:
        """Return a new object with the same constraint and budget, for another run."""
        return AnswerConstraint(
            None if self._matcher is None else self._matcher.copy(),
            self._ends,
            self._thinking,
            begun=self._begun,
            max_thoughts=self._max_thoughts,
            forbidden=self._forbidden,
        )

    @property
    def bound(self) -> bool:
        """Whether the next token is constrained at all."""
        return self._due is not None or self._constrained or bool(self._forbidden_next)

    def follow(self, length: int, last: int, answer: Callable[[], Sequence[int]]) -> None:
        """Update the state to the answer so far: `length` tokens, of which `last` is the newest.

        `answer` returns all the tokens. It is called only if the answer has not grown by exactly
        one token since the last call.
        """
        if length == len(self._seen) + 1:
            self._advance(last)
        elif length > 0 or self._seen:
            tokens = list(answer()) if length > 0 else []
            if tokens != self._seen:
                for token in tokens[self._go_back_to(tokens) :]:
                    self._advance(token)

    @property
    def violated(self) -> bool:
        """Whether a token has violated the constraint, which only a rejected draft token can do."""
        return self._violated

    def satisfied(self, length: int) -> bool:
        """Return whether an answer of `length` tokens may end, as the mask after them has said."""
        return self._matcher is None or self._may_end.get(length, False)

    @property
    def simple(self) -> bool:
        """Whether there is no grammar, so that its masks take no time."""
        return self._matcher is None

    @property
    def slow(self) -> bool:
        """Whether its masks have taken so long that no step should wait for the next one."""
        return self.mask_seconds > ALLOWED_S + ALLOWED_PER_MASK_S * self.masks

    def write(self, mask: Any) -> None:
        """Write the tokens that may come next into `mask`, one bit per token, 32 per element.

        Raises GenerationError if the constraint becomes too complex for llguidance, and if the
        answer has violated it.
        """
        due = self._due
        if due is not None:
            allow_only(mask, [due])
        else:
            if self._constrained:
                self._write_constrained(mask)
            for token in self._forbidden_next:
                mask[token // 32] &= ~np.uint32(1 << (token % 32))
        if self._matcher is not None:
            self._note_end(mask)

    def _note_end(self, mask: Any) -> None:
        length = len(self._seen)
        self._may_end.pop(length, None)
        self._may_end[length] = any(mask[end // 32] >> (end % 32) & 1 for end in self._ends)
        if len(self._may_end) > REMEMBERED:
            del self._may_end[next(iter(self._may_end))]

    def _write_constrained(self, mask: Any) -> None:
        assert self._matcher is not None
        if self._violated:
            raise GenerationError("the answer has violated its constraint")
        stopped = self._matcher.inner.is_stopped()
        if not stopped:
            self._matcher.inner.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._refuse_if_failed()
        if stopped:  # the answer is complete
            allow_only(mask, self._ends)
        if not self._seen:
            allow(mask, *self._think_start[:1])

    def _refuse_if_failed(self) -> None:
        """Raise GenerationError if the matcher has failed, as it does at llguidance's limits.

        It must be called after each use of the matcher, since a failed one says that it is
        stopped, as one that is complete does.
        """
        assert self._matcher is not None
        if self._matcher.inner.is_error():
            why = reason_of(self._matcher.inner)
            raise GenerationError(f"the constraint is too complex: {why}")

    @property
    def _constrained(self) -> bool:
        """Whether the next token belongs to the constrained text."""
        return self._matcher is not None and self._thoughts is None

    @property
    def _due(self) -> int | None:
        """The token that must come next to close the thinking, None if thinking may continue."""
        limit, closing = self._max_thoughts, self._closing
        if self._thoughts is None or limit is None or self._thoughts < limit or not closing:
            return None
        # The part of the closing sequence that is already written is not repeated.
        written = (n for n in range(len(closing) - 1, 0, -1) if self._ends_with(closing[:n]))
        return closing[next(written, 0)]

    @property
    def _forbidden_next(self) -> list[int]:
        """The tokens that would complete a forbidden sequence, or end the answer too early.

        Once the budget is spent, opening the thinking is forbidden too.
        """
        limit = self._max_thoughts
        spent = limit is not None and self._thoughts is None and self._spent >= limit
        refused = [self._forbidden, self._think_start if spent else []]
        found = [one[-1] for one in refused if one and self._ends_with(one[:-1])]
        # A constrained answer can't end while the model is still thinking.
        early = self._matcher is not None and self._thoughts is not None
        return found + self._ends if early else found

    def _ends_with(self, tokens: list[int]) -> bool:
        last = self._seen[-len(tokens) :] if tokens else []
        if len(last) < len(tokens):
            last = [*self._thinking.before, *last][-len(tokens) :]
        return last == tokens

    def _restart(self) -> None:
        if self._matcher is not None:
            self._matcher.inner.reset()
        self._begin()

    def _begin(self) -> None:
        self._seen: list[int] = []  # the answer's tokens processed so far
        # Number of thinking tokens so far while the model thinks, else None.
        self._thoughts: int | None = 0 if self._begun else None
        self._spent = 0  # number of tokens in thinking that has ended
        self._violated = False  # whether a token has violated the constraint
        self._taken = 0  # number of tokens that the matcher has taken
        # With a draft, the state after each token: thoughts, spent, violated, taken.
        self._marks: list[tuple[int | None, int, bool, int]] = []
        # Whether the answer may end, by its length, of the last masks.
        self._may_end: dict[int, bool] = {}

    def _go_back_to(self, tokens: Sequence[int]) -> int:
        """Go back to where the answer was the same as `tokens`; return how many these were.

        Without a draft, that is the beginning: it is rare, and takes no memory for each token.
        """
        pairs = enumerate(zip(self._seen, tokens, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(len(self._seen), len(tokens)))
        if not same or len(self._marks) < len(self._seen) or not self._take_back(same):
            self._restart()
            return 0
        self._thoughts, self._spent, self._violated, self._taken = self._marks[same - 1]
        del self._seen[same:], self._marks[same:]
        return same

    def _take_back(self, same: int) -> bool:
        back = self._taken - self._marks[same - 1][-1]
        return self._matcher is None or not back or bool(self._matcher.inner.rollback(back))

    def _advance(self, token: int) -> None:
        self._take(token)
        if self.drafted:
            self._marks.append((self._thoughts, self._spent, self._violated, self._taken))

    def _take(self, token: int) -> None:
        first = not self._seen
        self._seen.append(token)
        if self._thoughts is not None:
            self._thoughts += 1
            ends = (self._think_end, list(self._thinking.commentary))
            if any(end and self._ends_with(end) for end in ends):
                self._spent, self._thoughts = self._thoughts, None
        elif self._opens(first):
            self._thoughts = self._spent
        elif (matcher := self._matcher) is not None and not self._violated:
            if matcher.inner.is_stopped():
                return
            taken = matcher.take_if_allowed(token) if self.drafted else matcher.take(token)
            self._refuse_if_failed()
            self._violated = not taken
            self._taken += taken

    def _opens(self, first: bool) -> bool:
        """Whether the newest token opens the thinking; `first` says that it begins the answer."""
        start = self._think_start
        if self._matcher is None:
            return bool(start) and self._ends_with(start)
        return first and self._seen == start[:1]
