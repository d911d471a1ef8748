"""Makes the forward passes of a model's first requests when it is loaded, where that pays.

The first use of a kernel may be compiled for seconds, the first pass of a shape planned for a tenth
of one. Whether it is shows by measuring, not by the name of a device: a pass is made again, and
where the first takes hardly longer, no more of its sort are made.
Rule: only the MLX thread calls it; every pass is a step, between which other models may decode.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from provider.engine.batch import Batch
from provider.engine.logprobs import LogprobRecorder
from provider.engine.rows import Row, StepResult
from provider.engine.sampling import processors_for, sampler_for
from provider.engine.shapes import (
    ANY_SHAPE,
    LARGEST,
    NEW,
    SMALLEST,
    STEP,
    UNPLANNED,
    Shapes,
    Timing,
    shapes_for,
)
from provider.options import GenerationOptions

__all__ = ["BUDGET_S", "WarmUp"]

# Seconds after which no further pass is begun. A first load on a new machine with CUDA compiles for
# some 40 s, and has the kernels of the other passes to go; a later one needs a few seconds.
BUDGET_S = 60.0
MEASURED = 3  # passes of a shape that show what it costs, as others may slow one of them
IN_VAIN = 2  # passes of one sort that were no slower than repeated ones, after which no more come
# Seconds that a step may be expected to take, by that of one row, to be made at all. Where steps
# are as slow as that, what compiling adds is hardly noticed.
SLOW_S = 1.0
SAMPLING = (
    GenerationOptions(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05),
    GenerationOptions(temperature=0.7, top_p=0.9, seed=1),
    GenerationOptions(temperature=0.0, repetition_penalty=1.1, presence_penalty=0.1),
    GenerationOptions(temperature=0.7, logprobs=True, top_logprobs=5),
)
GREEDY = GenerationOptions(temperature=0.0)

Seconds = tuple[float, float]  # of a first pass and of the same again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Prefill:
    """A pass over `tokens` tokens of each of `rows` prompts, after `done` tokens."""

    tokens: int
    done: int = 0
    rows: int = 1


@dataclass(frozen=True)
class _Decode:
    """A decode step of `rows` rows that all sample in one way."""

    rows: int
    options: GenerationOptions = GREEDY


class WarmUp:
    """The passes made ahead for one model.

    `new_batch` makes an empty batch of given shapes, whose rows end with no token. `has_room` says
    whether so many sequences of so many tokens find memory now. `window` is the length of the
    model's context, None if unknown. `timed` is called for each shape of a pass over prompts that
    is known from now on: with its tokens in all, those before them, its seconds, and its rows.
    """

    def __init__(
        self,
        new_batch: Callable[[Shapes], Batch],
        has_room: Callable[[int, int], bool],
        *,
        vocabulary: int,
        window: int | None,
        max_batch: int,
        timed: Callable[[int, int, float, int], None] = lambda *_: None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.passes = 0  # how many were made or left out
        self.shapes = ANY_SHAPE  # of passes over prompts
        self._new_batch = new_batch
        self._has_room = has_room
        self._vocabulary = vocabulary
        self._window = window
        self._max_batch = max_batch
        self._note = timed
        self._clock = clock
        self._row_s = 0.0  # seconds of a decode step of one row

    def measuring(self, seen: Sequence[Timing]) -> Generator[None, None, Shapes]:
        """Return the shapes in which to read prompts, by whether new ones are dear, in steps.

        `seen` are passes of new shapes in which kernels may have been compiled too. Only if each
        was slower at first, passes of which all is compiled tell what a shape costs.
        """
        timings: list[Timing] = []
        if not all(timing.slower_at_first for timing in seen if timing.tokens > UNPLANNED):
            return ANY_SHAPE
        for tokens in NEW:
            if not self._fits(_Prefill(tokens)):
                return ANY_SHAPE
            seconds = [self._prefill(_Prefill(tokens)) for _ in range(MEASURED)]
            timings.append(Timing.of(tokens, seconds))
            yield
        return shapes_for(timings, self._window)

    def steps(self, shapes: Shapes) -> Iterator[tuple[int, int]]:
        """Make the passes ahead; yield after each how many are done, and of how many.

        Those over prompts are of these `shapes`. A pass that fails is logged, and the last.
        """
        self.shapes = shapes
        most = self._max_batch if self._new_batch(shapes).together else 1
        sorts: list[list[_Prefill | _Decode]] = [
            [_Decode(rows) for rows in _several(most)],
            [_Decode(min(2, most), options) for options in SAMPLING],
            list(self._prefills(most)),
        ]
        latest, total = self._clock() + BUDGET_S, sum(map(len, sorts))
        if self._fits(alone := _Decode(1)):
            self._paid(alone)
        for sort in sorts:
            in_vain = 0
            for one in sort:
                if in_vain == IN_VAIN or self._clock() > latest:
                    break
                if self._fits(one):
                    in_vain = 0 if self._paid(one) else in_vain + 1
                self.passes += 1
                yield self.passes, total

    def _prefills(self, most: int) -> Iterator[_Prefill]:
        """Yield what reads prompts alone, in batches, and after a prefix; the likeliest first."""
        if not self.shapes.few:
            return
        sizes = [1 << n for n in range(SMALLEST.bit_length() - 1, LARGEST.bit_length())]
        yield from (_Prefill(size) for size in sizes)
        yield from (_Prefill(size, 0, n) for size in sizes[:3] for n in _several(most))
        starts = [STEP << n for n in range((LARGEST // STEP).bit_length())]
        yield from (_Prefill(size, at) for at in starts for size in sizes if size <= at)
        yield from (_Prefill(LARGEST, at) for at in (2 * LARGEST, 3 * LARGEST))

    def _fits(self, one: _Prefill | _Decode) -> bool:
        tokens = one.done + one.tokens if isinstance(one, _Prefill) else STEP
        if isinstance(one, _Decode) and one.rows * self._row_s > SLOW_S:
            return False
        longest = self._window is None or tokens < self._window
        return longest and self._has_room(one.rows, tokens)

    def _paid(self, one: _Prefill | _Decode) -> bool:
        """Make a pass; return whether the first was dearer than the same again."""
        try:
            if isinstance(one, _Prefill):
                first, again = self._prefill_twice(one)
                self._note(one.rows * one.tokens, one.done, again, one.rows)
            else:
                first, again = self._decode_twice(one)
        except Exception:
            log.warning("a pass of the warm-up failed: %s", one, exc_info=True)
            return False
        return Timing(1, first, again).dear

    def _prefill_twice(self, one: _Prefill) -> Seconds:
        return self._prefill(one), self._prefill(one)

    def _prefill(self, one: _Prefill) -> float:
        batch = self._new_batch(self.shapes)
        keys = range(one.rows)
        for key in keys:
            batch.add(_row(key, one.done + one.tokens + 1, GREEDY, self._vocabulary))
        for done in range(0, one.done, LARGEST):
            _raise_fault(batch.prefill([(0, min(LARGEST, one.done - done))]))
        seconds = self._timed(batch, lambda: batch.prefill([(key, one.tokens) for key in keys]))
        batch.close()
        return seconds

    def _decode_twice(self, one: _Decode) -> Seconds:
        batch = self._new_batch(self.shapes)
        keys = range(one.rows)
        for key in keys:
            batch.add(_row(key, 3, one.options, self._vocabulary))
        _raise_fault(batch.prefill([(key, 2) for key in keys]))
        first, again = self._timed(batch, batch.decode), self._timed(batch, batch.decode)
        batch.close()
        self._row_s = self._row_s or again / one.rows
        return first, again

    def _timed(self, batch: Batch, make: Callable[[], StepResult]) -> float:
        begin = self._clock()
        _raise_fault(make())
        batch.settle()
        return self._clock() - begin


def _row(key: int, length: int, options: GenerationOptions, vocabulary: int) -> Row:
    return Row(
        key,
        [0] * length,
        length,
        8,
        sampler_for(options, vocabulary),
        processors_for(options),
        recorder=LogprobRecorder(options.top_logprobs) if options.logprobs else None,
    )


def _several(most: int) -> list[int]:
    """Return `most` and the powers of two between it and 1, the largest first."""
    return sorted({most, *(1 << n for n in range(1, most.bit_length()))} - {0, 1}, reverse=True)


def _raise_fault(result: StepResult) -> None:
    for error in result.faults.values():
        raise error
    if result.failed:
        raise RuntimeError("the forward pass of these rows fails")
