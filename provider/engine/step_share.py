"""How many runs one client may have in the batch beside the runs of others.

A decode step takes longer with each row, more so on a CPU. Clients may have equally many rows in
any case. A client may have more than that, if these don't make the step much longer for others.

Pure policy: no clock, no library. The worker reports the time of each step.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

__all__ = ["StepShare"]

KEPT = 32  # newest steps of a number of rows whose times count
LEAST = 16  # steps of a number of rows without which its time is unknown
# The lower quartile of those times counts, since one in PART is shorter: other programs make steps
# longer, and none makes them shorter.
PART = 4
AGAIN = 2048  # steps in which a number of rows must come again, or else its time is forgotten
CURVE = 16  # steps after which the times are looked at again
FEW = 8  # rows that are allowed as long as no time is known
# Part of a step's time that is assumed to be the same for other numbers of rows: for fewer than
# were ever seen, and for more while only one number was.
FIXED = 0.5


class StepShare:
    """Learns how long steps take by their rows, and says how many there may be.

    `slowdown` is how many times as long a step may take.
    """

    def __init__(self, slowdown: float):
        self._slowdown = slowdown
        self._recent: dict[int, deque[float]] = {}  # seconds of steps by their number of rows
        self._older: dict[int, deque[float]] = {}
        self._steps = 0
        self._curve: list[tuple[int, float]] = []  # rows, and what their steps take
        self._looked = -CURVE

    def took(self, rows: int, seconds: float) -> None:
        """Record the time of a turn that was one decode step."""
        times = self._recent.get(rows)
        if times is None:
            times = self._recent[rows] = deque(maxlen=KEPT)
        times.append(seconds)
        self._steps += 1
        if self._steps % AGAIN == 0:
            self._older, self._recent = self._recent, {}

    def allows(self, rows: int, fair: int, patience: float = 1.0) -> bool:
        """Return whether a step of `rows` rows takes little longer than one of `fair` rows.

        The slowdown that counts as little is multiplied by `patience`. More than FEW rows, and more
        than twice as many as were seen, are not allowed, since their time can't be estimated.
        """
        if rows <= fair or rows <= 1:
            return True
        curve = self._looked_up()
        if not curve:
            return rows <= FEW
        if rows > max(FEW, 2 * curve[-1][0]):
            return False
        if len(curve) == 1 and rows == curve[0][0] + 1:
            return True  # so that it is known what a row takes
        return self._seconds(rows) <= patience * self._slowdown * self._seconds(fair)

    def _looked_up(self) -> list[tuple[int, float]]:
        if self._steps >= self._looked + CURVE:
            self._looked = self._steps
            times = self._older | {n: some for n, some in self._recent.items() if _tells(some)}
            self._curve = _sound((n, _usual(some)) for n, some in times.items() if _tells(some))
        return self._curve

    def _seconds(self, rows: int) -> float:
        """Return what a step takes, by the nearest numbers of rows that are known."""
        curve = self._curve
        place = bisect_left(curve, (rows, 0.0))
        (first, least), (last, most) = curve[0], curve[-1]
        if place == 0:
            return least * (FIXED + (1 - FIXED) * rows / first)
        if place == len(curve) and last == first:
            return most * (FIXED + (1 - FIXED) * rows / last)
        if place == len(curve):
            growth = max(0.0, most - least) / (last - first)
            return most + growth * (rows - last)
        (below, shorter), (above, longer) = curve[place - 1 : place + 1]
        return shorter + (longer - shorter) * (rows - below) / (above - below)


def _sound(curve: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return rows and times in order, no row costing more than where there are fewer of them.

    A time that was taken while other programs had the processors would else count for as long as
    there are other numbers of rows instead.
    """
    found, a_row = [], math.inf
    for rows, seconds in sorted(curve):
        a_row = min(a_row, seconds / rows)
        found.append((rows, a_row * rows))
    return found


def _usual(times: deque[float]) -> float:
    return sorted(times)[len(times) // PART]


def _tells(times: deque[float]) -> bool:
    return len(times) >= LEAST
