"""Tells a process that hangs from one that is slow, by the time of its forward passes.

The links of a model's processes show only that these live. That a pass never ends shows in nothing
but the time since it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Watchdog"]

PASS_S = 60.0  # seconds that any pass may take
TOKEN_S = 0.25  # seconds more for each token of it
FIRST_PASSES = 50  # passes after loading, for which kernels may be compiled
FIRST_TIMES = 10  # times as long as others these may take


class Watchdog:
    """The time of the passes that the calling thread of `begin` makes.

    `in_turn_since` returns when that thread began what it does now, None if it waits for work.
    """

    def __init__(
        self,
        in_turn_since: Callable[[], float | None] = lambda: None,
        *,
        pass_s: float = PASS_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.in_turn_since = in_turn_since
        self._pass_s = pass_s
        self._clock = clock  # returns seconds
        self._passes = 0  # since the model was loaded
        self._tokens = 0  # of the last pass
        self._began = 0.0  # when the last pass was launched
        self._may_take = 0.0  # seconds

    def load(self) -> None:
        """Note that the model is loaded, which may take any time."""
        self._passes = 0

    def begin(self, tokens: int) -> None:
        """Note that a pass over so many tokens, of all rows together, is launched."""
        self._began = self._clock()
        # The pass before may still run, so its time counts too.
        longest, self._tokens = max(tokens, self._tokens), tokens
        times = 1 if self._passes >= FIRST_PASSES else FIRST_TIMES
        self._may_take = times * (self._pass_s + TOKEN_S * longest)
        self._passes += 1

    def overdue(self) -> float:
        """Return for how many seconds a pass has not ended, 0.0 if that is not too long yet."""
        since = self.in_turn_since()
        if since is None or not self._passes:
            return 0.0
        seconds = self._clock() - max(since, self._began)
        return seconds if seconds > self._may_take else 0.0
