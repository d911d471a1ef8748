"""Chooses how large a prefill chunk may be while streams are running.

Pure policy: no thread, no clock, no tensor.

A turn is one chunk, then one decode step, so a stream's gap is the time of both. Every pass over a
chunk has a fixed cost. A chunk that fits into the allowed gap with that cost may be so small that
reading a prompt would take many times as long as alone; the gap is then as long as a chunk of a
useful size takes. More decode steps between two chunks would make prompts slower and the longest
gap no shorter; more chunks before a step are slower than one larger chunk.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from statistics import median

from provider.engine.chunk_cost import ChunkCost, Pass
from provider.engine.shapes import SLOWED, Timing

__all__ = [
    "DEEPEST",
    "FIRST_CHUNK",
    "MAX_CHUNK",
    "MIN_CHUNK",
    "Pace",
]


MAX_CHUNK = 2048  # tokens; prefill is fastest in chunks of about this size

MIN_CHUNK = 4  # tokens; a smaller chunk gains no time even where each token takes milliseconds

FIRST_CHUNK = 64  # tokens; chunk size beside running streams before any chunk was timed

MIN_MARGIN, MAX_MARGIN = 0.03, 0.25  # share of the allowed gap that is not planned for
NOISE_MARGIN = 2.0  # that share, for each share by which the time of a pass deviates
MARGIN_COSTS = 1.4  # times as many tokens in a chunk for which no margin is kept

# Chunks of about the same size after which one is half as large. Chunks of one size don't tell a
# cost of the pass from a cost of its tokens.
EXPLORE = 9

# Times the least that a pass takes, below which a shorter one makes a gap hardly shorter, if it is
# longer than allowed anyway. There is no telling yet how many tokens fit into the least.
GAINLESS = 1.3

STEPS = 7  # decode steps whose median time is expected of the next one

MAX_TRIAL = 1024  # tokens of the largest pass that is timed when a model is loaded
BRIEF_S = 0.01  # such passes get larger as long as they take less
# Passes after more and more tokens show what attention costs. They are as large as one that takes
# LARGE times as long as one token. The last one comes after so many tokens, or so many times its
# own; or, from the third on, after so many seconds.
LARGE = 2.0
DEPTH, MORE, DEEP_S = 256, 3, 0.8
# Two passes show what attention costs if neither shows so many times as much as the other. Where
# they don't, others have slowed one of them, and more are timed, for so many seconds at most.
AGREE, MOST_DEEP_S = 1.3, 3.0
DEEPEST = (MORE + 1) * MAX_TRIAL  # tokens that such passes may have read in all
FLAT, STEEP = 1.1, 1.5  # or until two take so much longer than a pass of one token

# New shapes are dear if the first pass of each takes longer by so many seconds, and by this share
# of a pass over one token.
DEAR_S, DEAR = 0.01, 0.25
MAX_NEW_SHAPE_S = 0.2  # what takes longer when a model is loaded is compiling, which is done once


class Pace:
    """Chooses the size of prefill chunks from the measured times of chunks and decode steps.

    `slowdown` is how many times as long as alone a prompt may take beside streams, before the gap
    gets longer than allowed.
    """

    def __init__(self, max_token_gap_s: float, slowdown: float = 2.0):
        self._gap_s = max_token_gap_s
        self._slowdown = slowdown
        self._steps: deque[float] = deque(maxlen=STEPS)  # seconds of the last decode steps
        self._trials: list[float] = []  # seconds of the passes that were timed at loading
        self._tried: list[tuple[int, bool]] = []  # tokens of these, and if none can be an outlier
        self._deep: list[Pass] = []  # passes after more and more tokens, timed at loading
        self._alone = math.inf  # seconds of such a pass at the beginning of a prompt
        self._first: list[float] = []  # seconds that the first pass of each took longer
        self._cost = ChunkCost()
        self._size = FIRST_CHUNK  # tokens of the last chunk that was chosen for its time
        self._alike = 0  # chunks of about this size since one of another size

    def trials(self) -> Generator[int, None, None]:
        """Yield sizes of passes to time when a model is loaded; each is answered by `tried`.

        A caller for whom one is too large closes the generator.
        """
        self._trials.clear()
        self._tried.clear()
        self._first.clear()
        tokens, steep = 1, 0
        try:
            while tokens <= MAX_TRIAL and steep < 2:
                yield tokens
                last, first = self._trials[-1], self._trials[0]
                steep += last > max(BRIEF_S, STEEP * first)
                tokens *= 16 if tokens == 1 else 4 if last <= FLAT * first else 2
        finally:
            self._learn_trials()

    def _learn_trials(self) -> None:
        """Learn the trials again, since the larger ones tell how much of the smaller was fixed."""
        slowed = _slowed(self._trials)
        if not any(slowed):
            self._learn_again(slowed)
            return
        new_shape, self._cost = self._cost.new_shape, ChunkCost()
        self._learn_again(slowed)  # as if `tried` had learned no other
        self._learn_again(slowed)
        self._cost.new_shape = new_shape

    def _learn_again(self, left_out: Sequence[bool]) -> None:
        for (tokens, sure), seconds, out in zip(self._tried, self._trials, left_out, strict=True):
            if not out:
                self._cost.learn(tokens, 0, seconds, repeated=True, sure=sure)

    def depths(self) -> Generator[tuple[int, int], None, None]:
        """Yield passes to time after the trials, as tokens and tokens before them.

        All are of one size, each right after the last; each is answered by `deepened`. There are
        none where new shapes are dear, since each is one, or where tokens seem to cost nothing.
        A caller whose context or memory has no room for one closes the generator.
        """
        self._deep.clear()
        largest = max((tokens for tokens, _ in self._tried), default=0)
        if not largest or self._cost.new_shape or not self._cost.depends_on(largest, 0):
            return
        trials = [*zip(self._tried, self._trials, strict=True)]
        large = (tokens for (tokens, _), s in trials if s > LARGE * self._trials[0])
        tokens = min(large, default=largest)
        self._alone = next(s for (n, _), s in trials if n == tokens)
        try:
            for done in range(0, max(DEPTH, MORE * tokens) + 1, tokens):
                if done <= tokens or not self._is_deep_enough():
                    yield tokens, done
        finally:
            self._cost.learn_pairs(_growing(self._deep, self._alone))

    def _is_deep_enough(self) -> bool:
        """Return whether the cost of attention shows, or took too long to look for."""
        seconds = [seconds for *_, seconds in self._deep]
        alone = min(seconds[0], self._alone)
        if seconds[-1] <= STEEP * alone:
            return sum(seconds) > DEEP_S
        slopes = _slopes(self._deep[-2:], alone)
        agree = len(slopes) > 1 and 0 < max(slopes) < AGREE * min(slopes)
        return agree or sum(seconds) > MOST_DEEP_S

    @property
    def cost(self) -> ChunkCost:
        """What passes cost, as far as it is known now."""
        return self._cost

    def begin_with(self, cost: ChunkCost) -> None:
        """Begin with costs that are known from elsewhere, instead of trials."""
        self._cost = cost

    def deepened(self, tokens: int, done: int, seconds: float) -> None:
        """Record the time of a pass that `depths` asked for."""
        self._deep.append((tokens, done, seconds))

    def tried(self, tokens: int, seconds: Sequence[float]) -> None:
        """Record passes at the beginning of a prompt: the first of its shape, and the next ones."""
        timing, sure = Timing.of(tokens, seconds), len(seconds) > 1
        first, usual = timing.first, timing.again
        self._trials.append(usual)
        self._tried.append((tokens, sure))
        self._cost.learn(tokens, 0, usual, repeated=True, sure=sure)
        if tokens > 1:  # no device plans anything for a single token
            self._first.append(first - usual)
            dear = min(self._first) > max(DEAR_S, DEAR * self._trials[0])
            self._cost.new_shape = min(median(self._first), MAX_NEW_SHAPE_S) if dear else 0.0

    def repeated(self, tokens: int, context: int, seconds: float, rows: int = 1) -> None:
        """Record a pass as `prefilled` does, of a shape that came before and was not timed."""
        self._cost.learn(tokens, context, seconds, rows, repeated=True)

    def decoded(self, seconds: float) -> None:
        """Record the time of a decode step, without that of a chunk."""
        self._steps.append(seconds)

    def prefilled(self, tokens: int, context: int, seconds: float, rows: int = 1) -> None:
        """Record the time of a chunk of `tokens` tokens read after `context` tokens.

        `tokens` are those of all `rows` prompts in the chunk, with padding.
        """
        if seconds <= 0:
            return
        surprising = self._cost.learn(tokens, context, seconds, rows)
        if self._size / 1.5 < tokens < self._size * 1.5:
            self._alike += 1
        elif surprising and tokens < self._size and self._alike < EXPLORE + 2:
            # One or two more smaller chunks tell whether it was chance.
            self._alike = max(self._alike, EXPLORE) + 1
        else:
            self._alike = 0

    def budget(self, context: int, active_models: int = 1, *, streaming: bool = True) -> int:
        """Return how many tokens a chunk after `context` tokens may have.

        It is the largest size if no run streams and this is the only active model. Otherwise the
        chunk and a decode step must fit into the allowed token gap, which `active_models` models
        share, unless the prompt would take too long.
        """
        if not streaming and active_models == 1:
            return MAX_CHUNK
        if not self._cost.known:
            return FIRST_CHUNK
        step = median(self._steps) if self._steps else self._cost.least
        self._size = self._sized(self._room(active_models, step, context), context, step)
        explores = self._alike >= EXPLORE and self._cost.depends_on(self._size, context)
        return self._size // 2 if explores else self._size

    def _room(self, active_models: int, step: float, context: int) -> float:
        """Return how many seconds of a gap a chunk may take, with a margin if it costs little."""
        whole, cost = self._gap_s / active_models, self._cost
        margin = min(max(MIN_MARGIN, NOISE_MARGIN * cost.noise), MAX_MARGIN)
        room = whole * (1 - margin) - step
        if cost.tokens_in(whole - step, context) > MARGIN_COSTS * cost.tokens_in(room, context):
            return whole - step
        return room

    def _sized(self, room: float, context: int, step: float) -> int:
        """Return the size of a chunk that takes `room` seconds, or is as large as is useful."""
        cost, new = self._cost, self._cost.new_shape
        useful = self._useful(context, step + new)
        if cost.tokens_in(room - new, context) < useful:
            least = min(GAINLESS, self._slowdown / (self._slowdown - 1)) * cost.least
            room = new + max(cost.seconds(useful, context), least)
        growth = max(2.0, (room - new) / cost.seconds(cost.largest, context))
        most = min(cost.tokens_in(room - new, context), growth * cost.largest)
        chunk = self._on_grid(most)
        return self._fastest(chunk, room, context, step)

    def _useful(self, context: int, overhead: float) -> float:
        """Return the fewest tokens with which a prompt is read fast enough."""
        alone = (self._cost.seconds(MAX_CHUNK, context) + self._cost.new_shape) / MAX_CHUNK
        return min(MAX_CHUNK, self._cost.tokens_at(self._slowdown * alone, overhead, context))

    def _on_grid(self, tokens: float) -> int:
        """Return a size of at most `tokens` tokens, one of few so that shapes come again."""
        most = int(min(MAX_CHUNK, max(tokens, MIN_CHUNK)))
        return most - most % (1 << max(0, most.bit_length() - 5))

    def _fastest(self, chunk: int, room: float, context: int, step: float) -> int:
        """Return the size that reads most in a second, where new shapes are dear.

        It is `chunk`, or one that takes no longer than `room` as its shape is known.
        """
        cost, new = self._cost, self._cost.new_shape
        if not new:
            return chunk
        known = {n: cost.seconds(n, context) for n, rows in cost.shapes(context) if rows == 1}
        fast = {n: seconds for n, seconds in known.items() if seconds <= room}
        fast.setdefault(chunk, cost.seconds(chunk, context) + new)
        return min(fast, key=lambda n: (fast[n] + step) / n)


def _slowed(times: Sequence[float]) -> list[bool]:
    """Return which passes of more and more tokens took far longer than one with more to do."""
    return [any(one > SLOWED * later for later in times[at:]) for at, one in enumerate(times)]


def _growing(passes: Sequence[Pass], alone: float) -> list[Pass]:
    """Return passes of one size after more and more tokens, without what others have slowed.

    The first has no tokens before it, and takes no longer than `alone`. What another takes longer
    grows with the tokens before it, at least in proportion, which the later ones show. The last
    one is left out where it is far slower than that, since none follows that would show it too.
    """
    alone = min([alone, *(seconds for _, done, seconds in passes if not done)])
    slopes = [max(0.0, slope) for slope in _slopes(passes, alone)]
    if len(slopes) > 1 and passes[-1][2] > STEEP * alone and slopes[-1] > AGREE * slopes[-2]:
        return _growing(passes[:-1], alone)
    found: list[Pass] = []
    for at, (tokens, done, seconds) in enumerate(passes):
        most = alone + done * min(slopes[max(0, at - 1) :], default=0.0)
        found.append((tokens, done, most if seconds > SLOWED * most else seconds))
    return found


def _slopes(passes: Sequence[Pass], alone: float) -> list[float]:
    """Return by how much each pass took longer than `alone`, for each token before it."""
    return [(seconds - alone) / done for _, done, seconds in passes if done]
