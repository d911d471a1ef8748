"""What stands for a generation with whoever watches the replicas, and counts what they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["BEGIN_S", "Lease"]

log = logging.getLogger(__name__)

# Seconds that a generation runs before it is counted. To begin a call through Ray Serve takes the
# processor for a millisecond or more, and a first token would wait for it; Serve looks at its
# counts every few seconds, so it doesn't miss what is shorter.
BEGIN_S = 0.1


class Lease:
    """A generation that is counted while it runs, once it has run for BEGIN_S.

    `begin` counts it, and returns what ends that. Made in the event loop that runs both.
    """

    def __init__(self, begin: Callable[[], Callable[[], None]]):
        self._begin = begin
        self._end: Callable[[], None] | None = None
        self._timer = asyncio.get_running_loop().call_later(BEGIN_S, self._count)

    def _count(self) -> None:
        try:
            self._end = self._begin()
        except Exception:
            # It is none the worse for it: who counts is stopping, or has lost the replica.
            log.warning("a generation is not counted", exc_info=True)

    def end(self) -> None:
        """Note that the generation has ended."""
        self._timer.cancel()
        end, self._end = self._end, None
        try:
            if end is not None:
                end()
        except Exception:
            # What ends a generation does more after this, such as telling its replica to stop.
            log.warning("a generation that has ended may still be counted", exc_info=True)
