"""The search for replicas of one generation: which ones it must not ask now. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.client.errors import GatewayError
from provider.replicas.failures import RETRY_AFTER_S
from provider.replicas.prefixes import Prefix

__all__ = ["NEXT_PLACE_S", "Search"]

NEXT_PLACE_S = 10.0  # seconds that a generation which was moved waits for a place


@dataclass(eq=False)
class Search:
    """What one generation has learned of the replicas, by the keys of their links.

    One that has lost its replica waits for another, so a refusal holds for a while only; for one
    that has not, each replica is asked once. Times are those of a monotonic clock, in seconds.
    """

    prefixes: Sequence[Prefix] = ()  # of its conversation
    lost: list[str] = field(default_factory=list)
    refusal: GatewayError | None = None  # the last one since a replica was lost
    _refused: dict[str, float] = field(default_factory=dict)  # until when each holds
    _end: float = 0.0

    def refused(self, key: str, error: GatewayError, now: float) -> None:
        """Note that a replica takes no further generation now."""
        self.refusal = error
        later = RETRY_AFTER_S if error.retry_after is None else error.retry_after
        self._refused[key] = now + later

    def was_lost(self, key: str, now: float) -> None:
        """Note that the generation's replica is lost; any other one may have room by now."""
        self.lost.append(key)
        self.refusal = None
        self._refused.clear()
        self._end = now + NEXT_PLACE_S

    def waits(self, now: float) -> bool:
        """Return whether a place is still waited for where there is none."""
        return now < self._end

    def avoided(self, now: float) -> Sequence[str]:
        """Return the replicas that must not be asked."""
        held = [key for key, end in self._refused.items() if now < end or not self.waits(now)]
        return [*self.lost, *held]
