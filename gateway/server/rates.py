"""Counters by key, and token buckets; no I/O and no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

__all__ = ["Counts", "Rate", "Rates"]


class Counts:
    """Counts by key, without entries for keys at zero."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()

    def __getitem__(self, key: Hashable) -> int:
        return self._counts[key]

    def add(self, key: Hashable, by: int = 1) -> None:
        """Add to the count of a key."""
        self._counts[key] += by

    def remove(self, key: Hashable, by: int = 1) -> None:
        """Subtract from the count of a key."""
        self._counts[key] -= by
        if self._counts[key] <= 0:
            del self._counts[key]


class Rate:
    """A token bucket: `per_second` on average, `burst` at once. Times are in seconds."""

    __slots__ = ("_burst", "_left", "_per_second", "_then")

    def __init__(self, per_second: float, burst: float, now: float):
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._then = now

    def spend(self, amount: float, now: float) -> bool:
        """Spend an amount in any case; return whether the rate allows it."""
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second)
        self._then = now
        self._left -= amount
        return self._left >= 0

    @property
    def debt(self) -> float:
        """Seconds after the last `spend` until the rate allows something again, 0 for now."""
        return max(0.0, -self._left / self._per_second)


class Rates:
    """A rate for each key; those that would allow a whole burst again are forgotten.

    One that is overdrawn is not forgotten for `kept` seconds after it was used.
    """

    def __init__(self, per_second: float, burst: float, now: float, kept: float = 0.0):
        self._per_second, self._burst = per_second, burst
        self._kept = max(kept, burst / per_second)
        self._recent: dict[Hashable, Rate] = {}
        self._older: dict[Hashable, Rate] = {}
        self._begin = now  # of the recent ones

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def spend(self, key: Hashable, amount: float, now: float) -> bool:
        """Spend an amount of a key's rate if it allows that; return whether it does."""
        rate = self._of(key, now)
        allowed = rate.spend(amount, now)
        if not allowed:
            rate.spend(-amount, now)
        return allowed

    def overdraw(self, key: Hashable, amount: float, now: float) -> float:
        """Spend an amount of a key's rate in any case; return the seconds until it allows more."""
        rate = self._of(key, now)
        rate.spend(amount, now)
        return rate.debt

    def _of(self, key: Hashable, now: float) -> Rate:
        if now - self._begin > self._kept:
            self._older, self._recent, self._begin = self._recent, {}, now
        rate = self._recent.get(key) or self._older.pop(key, None)
        if rate is None:
            rate = Rate(self._per_second, self._burst, now)
        self._recent[key] = rate
        return rate
