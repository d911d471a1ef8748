"""Counters and gauges of an engine.

Only the MLX thread writes the counters; a snapshot reads them from any thread without a lock. Each
number is exact, but two numbers of one snapshot may be a step apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from provider.interface import COUNTER

__all__ = [
    "Counters",
    "EngineStatistics",
    "Histogram",
    "HistogramSnapshot",
    "total_of",
]

# Seconds; each twice the one before.
STEP_BOUNDS = tuple(0.0005 * 2**power for power in range(14))


@dataclass(frozen=True)
class HistogramSnapshot:
    """The counts of a histogram: one for each upper bound, and one for values above all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # not cumulated; one more than bounds
    total: float  # sum of all values

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Histogram:
    """Counts values in buckets, one below each upper bound and one above all."""

    def __init__(self, bounds: tuple[float, ...]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Add a value to its bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> HistogramSnapshot:
        """Return the counts as of now."""
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)


@dataclass
class Counters:
    """Numbers that only grow."""

    # Prompt tokens that the model has prefilled. The last token of each prompt is read by the first
    # decode step instead, and not counted.
    prefill_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens taken from the prefix cache
    decode_tokens: int = 0
    finished: int = 0  # runs that ended by themselves
    cancelled: int = 0
    faults: int = 0  # runs ended by an error
    parkings: int = 0  # times a run was parked
    steps: int = 0  # turns of the worker
    step_seconds: Histogram = field(default_factory=lambda: Histogram(STEP_BOUNDS))


@dataclass(frozen=True, kw_only=True)
class EngineStatistics:
    """A snapshot of an engine's numbers."""

    decoding: int  # runs in the batch
    prefilling: int  # runs whose prompts are being read
    waiting: int  # runs in the queue
    parked: int  # runs out of the batch until their readers catch up
    weights_bytes: int  # bytes of loaded models
    committed_bytes: int  # bytes promised to the KV caches of runs in the batch
    parked_bytes: int  # bytes of parked runs' KV caches
    prefix_bytes: int  # bytes of KV caches kept for later prompts
    prefix_entries: int
    prefix_hits: int = field(metadata=COUNTER)
    prefix_misses: int = field(metadata=COUNTER)
    prefill_tokens: int = field(metadata=COUNTER)
    cached_tokens: int = field(metadata=COUNTER)
    decode_tokens: int = field(metadata=COUNTER)
    finished: int = field(metadata=COUNTER)
    cancelled: int = field(metadata=COUNTER)
    faults: int = field(metadata=COUNTER)
    parkings: int = field(metadata=COUNTER)
    # Times the whole batch was lost, to an error that no single run caused.
    restarts: int = field(metadata=COUNTER)
    steps: int = field(metadata=COUNTER)
    step_seconds: HistogramSnapshot = field(metadata=COUNTER)

    def only_growing(self) -> EngineStatistics:
        """Return the counters, with all gauges 0: what remains of an engine that was closed."""
        held = {one.name: 0 for one in fields(self) if one.metadata.get("kind") != "counter"}
        return replace(self, **held)  # type: ignore[arg-type]


def total_of(engines: Sequence[EngineStatistics]) -> EngineStatistics:
    """Return the sums of several engines' numbers."""
    sums: dict[str, Any] = {
        one.name: _plus([getattr(engine, one.name) for engine in engines])
        for one in fields(EngineStatistics)
    }
    return EngineStatistics(**sums)


def _plus(values: Sequence[int | HistogramSnapshot]) -> int | HistogramSnapshot:
    snapshots = [value for value in values if isinstance(value, HistogramSnapshot)]
    if not snapshots:
        return sum(value for value in values if isinstance(value, int))
    counts = tuple(sum(same) for same in zip(*(one.counts for one in snapshots), strict=True))
    return HistogramSnapshot(snapshots[0].bounds, counts, sum(one.total for one in snapshots))
