"""How many threads a decode step's matrix products get, by measuring.

Many small products are done sooner by one thread than by several that wait for each other, and
leave the other processors to Python; few large ones are not. Where the border lies depends on the
model, the rows and the machine, so both are tried in turn and the faster one is kept.

A BLAS's threads go on spinning for some tens of milliseconds after their last product. What a step
of one thread takes meanwhile says nothing: it has a processor less. So a trial waits after each
change until they sleep.

Pure policy: no clock, no library. The worker asks before each step and tells what it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["ThreadTuner"]

SETTLE_S = 0.12  # OpenBLAS spins for 2^28 cycles, about 0.1 s
BLOCK = 8  # steps that count with one choice before the next is tried
BLOCKS = 2  # blocks that each choice is tried for
AGAIN = 2048  # steps after which the decision is repeated
BIAS = 0.97  # fewer threads win unless more are faster by this factor: they leave room for others


class ThreadTuner:
    """The fastest of a few numbers of threads, for each magnitude of a batch's rows."""

    def __init__(self, choices: Sequence[int]):
        self._choices = sorted(set(choices))
        self._trials: dict[int, _Trial] = {}  # trials by the bit length of the number of rows
        self._settling_s = SETTLE_S  # seconds of steps that don't count yet
        self._last: int | None = None

    def choose(self, rows: int) -> int:
        """Return how many threads the next step of `rows` rows should have."""
        if len(self._choices) == 1:
            return self._choices[0]
        choice = self._trial(rows).choice
        if choice != self._last:
            self._last = choice
            self.disturbed()
        return choice

    def disturbed(self) -> None:
        """Take note that something ran with other numbers of threads."""
        self._settling_s = SETTLE_S

    def took(self, rows: int, seconds: float) -> None:
        """Take the time of a step that ran as `choose` said, and of what came with it."""
        if len(self._choices) == 1:
            return
        trial = self._trial(rows)
        if self._settling_s > 0:
            self._settling_s -= seconds
            return
        trial.took(seconds)
        if trial.steps >= AGAIN:
            del self._trials[rows.bit_length()]

    def _trial(self, rows: int) -> _Trial:
        return self._trials.setdefault(rows.bit_length(), _Trial(self._choices))


class _Trial:
    """The choices tried in turn, then the one that was fastest."""

    def __init__(self, choices: Sequence[int]):
        self.steps = 0
        self.choice = choices[0]
        self._choices = choices
        self._seconds: dict[int, list[float]] = {choice: [] for choice in choices}

    def took(self, seconds: float) -> None:
        trying = BLOCK * BLOCKS * len(self._choices)
        self.steps += 1
        if self.steps > trying:
            return
        self._seconds[self.choice].append(seconds)
        self.choice = self._choices[self.steps // BLOCK % len(self._choices)]
        if self.steps == trying:
            self.choice = self._fastest()

    def _fastest(self) -> int:
        times = {choice: median(taken) for choice, taken in self._seconds.items()}
        best = self._choices[0]
        for choice in self._choices[1:]:
            if times[choice] < BIAS * times[best]:
                best = choice
        return best
