"""Chooses the number of BLAS threads for a decode step by measuring.

Many small matrix products are faster on one thread than on several that wait for each other, and
leave the other processors to Python; large products are faster on several. The border depends on
the model, the rows and the machine, so each number of threads is measured and the fastest is kept.

After their last product, BLAS threads go on spinning for about 0.1 s and take a processor from the
step that follows. So steps don't count for SETTLE_S after each change of the number.

Pure policy: no clock, no library. The worker asks before each step and reports its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["ThreadTuner"]

SETTLE_S = 0.12  # OpenBLAS spins for 2^28 cycles, about 0.1 s
BLOCK = 8  # steps measured with one number of threads before the next is measured
BLOCKS = 2  # blocks measured for each number of threads
AGAIN = 2048  # steps after which the numbers are measured again
BIAS = 0.97  # more threads are chosen only if their steps take less than this share of the time


class ThreadTuner:
    """Finds the fastest number of threads, for each magnitude of the number of rows."""

    def __init__(self, choices: Sequence[int]):
        self._choices = sorted(set(choices))
        self._trials: dict[int, _Trial] = {}  # trials by the bit length of the number of rows
        self._settling_s = SETTLE_S  # remaining seconds of steps that don't count
        self._last: int | None = None

    def choose(self, rows: int) -> int:
        """Return the number of threads for the next step of `rows` rows."""
        if len(self._choices) == 1:
            return self._choices[0]
        choice = self._trial(rows).choice
        if choice != self._last:
            self._last = choice
            self.disturbed()
        return choice

    def disturbed(self) -> None:
        """Ignore steps for SETTLE_S, because other numbers of threads were in use."""
        self._settling_s = SETTLE_S

    def took(self, rows: int, seconds: float) -> None:
        """Record the time of a turn whose decode step ran with the threads from `choose`."""
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
        magnitude = rows.bit_length()
        if magnitude not in self._trials:
            self._trials[magnitude] = _Trial(self._choices)
        return self._trials[magnitude]


class _Trial:
    """Measures each number of threads in turn; `choice` is the one to use, at last the fastest."""

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
