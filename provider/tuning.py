"""How many threads a decode step's matrix products get, by measuring.

Many small products are done sooner by one thread than by several that wait for each other, and
leave the other processors to Python; few large ones are not. Where the border lies depends on the
model, the rows and the machine, so both are tried in turn and the faster one is kept.

Pure policy: no clock, no library. The worker asks before each step and tells what it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["ThreadTuner"]

BLOCK = 5  # steps with one choice before the next is tried; the first of them is not counted
BLOCKS = 2  # that each choice is tried for
AGAIN = 4096  # steps after which a decision is made anew
BIAS = 0.97  # fewer threads win unless more are faster by this factor: they leave room for others


class ThreadTuner:
    """The fastest of a few numbers of threads, for each magnitude of a batch's rows."""

    def __init__(self, choices: Sequence[int]):
        self._choices = sorted(set(choices))
        self._trials: dict[int, _Trial] = {}  # by the bit length of the number of rows

    def choose(self, rows: int) -> int:
        """Return how many threads the next step of `rows` rows should have."""
        if len(self._choices) == 1:
            return self._choices[0]
        return self._trial(rows).choice

    def took(self, rows: int, seconds: float) -> None:
        """Take the time of a step that ran as `choose` said."""
        if len(self._choices) == 1:
            return
        trial = self._trial(rows)
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
        if self.steps % BLOCK != 1:
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
