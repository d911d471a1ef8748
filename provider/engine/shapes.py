"""Chooses the shapes of forward passes that read prompts, so that they come again.

On some devices the first pass of a shape is dear, because an attention is planned for each pair of
queries and keys: 55 to 110 ms on a GPU with CUDA, where a repeated pass takes 10. So prompts are
read in chunks of few sizes, powers of two, each at a multiple of its own size. The end of a prompt
is padded to such a size, and a kept prefix is cut back to a place where a chunk may begin.
Pure policy: no thread, no clock, no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

__all__ = [
    "ANY_SHAPE",
    "LARGEST",
    "NEW",
    "SMALLEST",
    "STEP",
    "UNPLANNED",
    "Shapes",
    "Timing",
    "shapes_for",
]

SMALLEST = 32  # tokens; a pass of fewer takes as long
LARGEST = 2048  # tokens; the largest chunk that is ever read
STEP = 256  # tokens; caches grow by as many positions, and are a shape of their own in between
UNPLANNED = 3  # tokens; no attention is planned for so few queries
NEW = (37, 45)  # tokens of passes that show what a new shape costs, because no other has so many
DEAR_S = 0.005  # seconds by which a first pass must take longer to count as dear
DEAR = 0.5  # the same, as part of the time of a repeated pass
NOTICED = 0.1  # the same part of a pass of any size
SLOWED = 1.25  # times the shortest of equal passes, from which others have slowed one
MAX_WASTE = 4  # a larger size is taken for a chunk if padding adds less than its part of so many


@dataclass(frozen=True)
class Shapes:
    """The shapes of passes over prompts; with a `step` of 1 any shape, as long as the prompt is.

    `step` is a power of two: for so many tokens, it is cheaper to read them needlessly than to meet
    a new shape. No padding goes beyond `window`, the length of the model's context.
    """

    step: int = 1
    window: int | None = None

    @property
    def few(self) -> bool:
        """Whether shapes are to come again."""
        return self.step > 1

    def start(self, cached: int, length: int) -> int:
        """Return how many tokens of a prefix of `cached` tokens to keep, if it can be trimmed.

        `length` tokens are to be in the KV caches at last.
        """
        if not self.few or length - cached <= UNPLANNED:
            return cached
        return cached - cached % max(self.step, SMALLEST)

    def tokens(self, done: int, most: int, *, ends: bool) -> int:
        """Return how many tokens to read after `done` tokens, at most `most`.

        `ends` says that no more than `most` are to be read before the row decodes, or before its
        caches are kept.
        """
        if not self.few or most <= UNPLANNED:
            return most
        if done % SMALLEST:
            return most if ends and most <= self.step else min(most, -done % STEP)
        room = done & -done or LARGEST  # the largest size that may begin here
        padded = _size(most)
        if ends and padded <= room and self._is_worth(padded - most, most):
            return most
        largest = min(room, LARGEST, padded if padded == most else padded // 2)
        return min(largest, most)

    def width(self, done: int, tokens: int) -> int:
        """Return how many tokens wide a pass is that reads `tokens` after `done`."""
        if not self.few or tokens <= UNPLANNED or done % SMALLEST:
            return tokens
        width = _size(tokens)
        return tokens if self.window is not None and done + width > self.window else width

    def rows(self, count: int) -> int:
        """Return how many of `count` prompts to read in one pass."""
        return 1 << count.bit_length() - 1 if self.few else count

    def _is_worth(self, padding: int, tokens: int) -> bool:
        return padding < self.step and (
            padding + tokens <= self.step or padding * MAX_WASTE <= tokens
        )


ANY_SHAPE = Shapes()


@dataclass(frozen=True)
class Timing:
    """The seconds of the first pass over so many tokens, and of the same pass again."""

    tokens: int
    first: float
    again: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Timing:
        """Return the timing of such passes one after another, some of which others may have slowed.

        Where the first was slower, the shortest of the later ones counts: with one that was slow by
        chance, a new shape would seem to cost nothing. Else it is the median, unless that is so
        much longer than the shortest that most of them were slowed.
        """
        timing = cls(tokens, seconds[0], min(seconds[1:] or seconds))
        if timing.slower_at_first:
            return timing
        usual, shortest = median(seconds), min(seconds)
        return replace(timing, again=shortest if usual > SLOWED * shortest else usual)

    @property
    def dear(self) -> bool:
        """Whether the first pass was noticeably slower."""
        return self.first - self.again > max(DEAR_S, DEAR * self.again)

    @property
    def slower_at_first(self) -> bool:
        """Whether the first pass was slower by what a new shape may cost at least."""
        return self.first - self.again > max(DEAR_S, NOTICED * self.again)


def shapes_for(timings: Sequence[Timing], window: int | None = None) -> Shapes:
    """Return the shapes in which prompts are read fastest, by these timings of new shapes.

    All timings must agree that they are dear, because a machine may be slow for a moment.
    """
    if not all(timing.dear for timing in timings):
        return ANY_SHAPE
    saved = min(timing.first - timing.again for timing in timings)
    tokens = int(saved / max(timing.again / timing.tokens for timing in timings))
    step = min(STEP, 1 << max(0, tokens.bit_length() - 1))
    return Shapes(step, window) if step >= SMALLEST else ANY_SHAPE


def _size(tokens: int) -> int:
    """Return the smallest size that holds so many tokens."""
    return max(SMALLEST, 1 << (tokens - 1).bit_length())
