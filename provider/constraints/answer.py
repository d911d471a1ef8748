"""One run's answer held to its form, and its thinking to its budget.

Rule 1: thinking comes first and is not bound. The form begins where it ends.
Rule 2: what is asked again, after a pass that failed or a proposed token that was thrown away, is
found by the tokens themselves, not by counting calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher

from provider.constraints.compiler import reason_of
from provider.constraints.masks import allow, allow_only
from provider.formats.thinking import Thinking
from provider.interface import GenerationError

__all__ = [
    "AnswerConstraint",
]


class AnswerConstraint:
    """Holds one run's answer to a form, and its thinking to a budget; used on the MLX thread.

    While the model thinks nothing is bound, until `most_thoughts` tokens have come, of all its
    thinking together; then the only way on is what closes it, token by token, and no more is begun.
    Without a `matcher` thinking may come anywhere in the answer, with one before its form. The
    tokens of `forbidden` come nowhere in that order.
    """

    def __init__(
        self,
        matcher: LLMatcher | None,
        ends: Iterable[int],
        thinking: Thinking,
        *,
        begun: bool = False,
        most_thoughts: int | None = None,
        forbidden: Sequence[int] = (),
    ):
        self._matcher = matcher
        self._ends = list(ends)  # tokens that may end the answer where the form allows it
        self._thinking = thinking
        self._begun = begun  # whether the prompt opens the thinking
        self._think_start = list(thinking.start)  # tokens that may open unrequested thinking
        self._think_end = list(thinking.end)
        self._closing = list(thinking.closing)
        self._most_thoughts = most_thoughts
        self._forbidden = list(forbidden)
        self._restart()

    def another(self) -> AnswerConstraint:
        """Return a constraint that holds another run to the same form and budget."""
        return AnswerConstraint(
            None if self._matcher is None else self._matcher.deep_copy(),
            self._ends,
            self._thinking,
            begun=self._begun,
            most_thoughts=self._most_thoughts,
            forbidden=self._forbidden,
        )

    @property
    def bound(self) -> bool:
        """Whether any token is forbidden next."""
        return self._due is not None or self._formed or bool(self._forbidden_next)

    def follow(self, length: int, last: int, answer: Callable[[], Sequence[int]]) -> None:
        """Take the answer's tokens so far: `length` of them, the newest `last`.

        `answer` returns all of them; it is asked only if they are not those of before and one more.
        """
        if length == len(self._seen) + 1:
            self._take(last)
        elif length > 0 or self._seen:
            tokens = list(answer()) if length > 0 else []
            if tokens != self._seen:
                self._restart()
                for token in tokens:
                    self._take(token)

    def write(self, mask: Any) -> None:
        """Set the bits of the tokens that may come next in `mask`, 32 tokens a number."""
        due = self._due
        if due is not None:
            allow_only(mask, [due])
            return
        if self._formed:
            self._write_form(mask)
        for token in self._forbidden_next:
            mask[token // 32] &= ~np.uint32(1 << (token % 32))

    def _write_form(self, mask: Any) -> None:
        assert self._matcher is not None
        if self._matcher.is_stopped():  # the form allows no more
            allow_only(mask, self._ends)
        else:
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            if self._matcher.is_error():
                raise GenerationError(
                    f"the answer's form is too complex: {reason_of(self._matcher)}"
                )
        if not self._seen:
            allow(mask, *self._think_start[:1])

    @property
    def _formed(self) -> bool:
        """Whether the next token belongs to the form."""
        return self._matcher is not None and self._thoughts is None and not self._off

    @property
    def _due(self) -> int | None:
        """The token that has to come next to close the thinking, None if it may go on."""
        most, closing = self._most_thoughts, self._closing
        if self._thoughts is None or most is None or self._thoughts < most or not closing:
            return None
        # As much of it as is there already is not asked for again.
        there = (n for n in range(len(closing) - 1, 0, -1) if self._ends_with(closing[:n]))
        return closing[next(there, 0)]

    @property
    def _forbidden_next(self) -> list[int]:
        """The tokens that complete a forbidden sequence, or end the answer before its form."""
        most = self._most_thoughts
        spent = most is not None and self._thoughts is None and self._spent >= most
        refused = [self._forbidden, self._think_start if spent else []]
        found = [one[-1] for one in refused if one and self._ends_with(one[:-1])]
        # An answer that has to have a form can't end before it has begun.
        early = self._matcher is not None and self._thoughts is not None
        return found + self._ends if early else found

    def _ends_with(self, tokens: list[int]) -> bool:
        last = self._seen[-len(tokens) :] if tokens else []
        if len(last) < len(tokens):
            last = [*self._thinking.before, *last][-len(tokens) :]
        return last == tokens

    def _restart(self) -> None:
        if self._matcher is not None:
            self._matcher.reset()
        self._seen: list[int] = []  # the answer's tokens taken so far
        # Tokens of the current thinking, None outside of it.
        self._thoughts: int | None = 0 if self._begun else None
        self._spent = 0  # tokens of ended thinking
        self._off = False  # whether the tokens left the form

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
        elif self._matcher is not None and not self._off and not self._matcher.is_stopped():
            self._off = not self._matcher.try_consume_tokens([token])

    def _opens(self, first: bool) -> bool:
        """Whether the token that was taken last opens the thinking."""
        start = self._think_start
        if self._matcher is None:
            return bool(start) and self._ends_with(start)
        return first and self._seen == start[:1]
