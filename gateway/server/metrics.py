"""The gateway's counters, and their text for Prometheus.

Counters are plain numbers, so that counting a token costs little. The text is written here, because
with prometheus-client it takes ten times as long, and the event loop does nothing else meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import accumulate
from typing import Any

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ENGINE = "mlx_gateway_engine_"


class Histogram:
    """A histogram of times in seconds, with a bucket below each upper bound and one above all."""

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # of each bucket alone
        self.total = 0.0

    def add(self, value: float) -> None:
        """Add a time in seconds to its bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass
class Metrics:
    """All counters of a gateway."""

    opened: Counter[str] = field(default_factory=Counter)  # connections, by codec
    refused: Counter[str] = field(default_factory=Counter)  # connections, by status or close code
    ended: Counter[str] = field(default_factory=Counter)  # generations, by reason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sent_bytes: int = 0
    sent_frames: int = 0
    received_bytes: int = 0
    received_frames: int = 0
    merged_chunks: int = 0  # texts that were merged into a waiting one
    slow_clients: int = 0  # clients disconnected after `write_timeout`
    resumed: int = 0  # generations resumed
    # Seconds from `generate` to the first text.
    first_text: Histogram = field(default_factory=lambda: Histogram(SLOW))
    between_texts: Histogram = field(default_factory=lambda: Histogram(FAST))
    # Seconds from a cancel to the closed generator.
    cancels: Histogram = field(default_factory=lambda: Histogram(FAST))
    durations: Histogram = field(default_factory=lambda: Histogram(SLOW))


def exposition(metrics: Metrics, now: dict[str, int], engine: object) -> bytes:
    """Return all metrics in Prometheus' text format.

    `now` are the gateway's gauges by name; `engine` is the result of the provider's `statistics`.
    """
    return "".join(_families(metrics, now, engine)).encode()


def _families(m: Metrics, now: dict[str, int], engine: object) -> Iterator[str]:
    for name, value in now.items():
        yield _single(f"mlx_gateway_{name}", NOW[name], "gauge", value)
    for name, (label, about, attribute) in COUNTS.items():
        samples = sorted(getattr(m, attribute).items())
        yield _labelled(f"mlx_gateway_{name}_total", about, label, samples)
    for name, about in TOTALS.items():
        yield _single(f"mlx_gateway_{name}_total", about, "counter", getattr(m, name))
    for name, (about, attribute) in TIMES.items():
        yield _histogram(f"mlx_gateway_{name}_seconds", about, getattr(m, attribute))
    if is_dataclass(engine):
        yield from _engine_families(engine)


def _engine_families(engine: Any) -> Iterator[str]:
    for one in fields(engine):
        value = getattr(engine, one.name)
        about = f"The engine's {one.name.replace('_', ' ')}"
        if hasattr(value, "bounds"):
            yield _histogram(f"{ENGINE}{one.name}", about, value)
        elif one.metadata.get("kind") == "counter":
            yield _single(f"{ENGINE}{one.name}_total", about, "counter", value)
        elif isinstance(value, int | float):
            yield _single(f"{ENGINE}{one.name}", about, "gauge", value)


COUNTS = {
    "connections_opened": ("codec", "Connections made", "opened"),
    "connections_refused": ("code", "Connections refused or closed at once", "refused"),
    "generations_ended": ("reason", "Generations by how they ended", "ended"),
}
NOW = {
    "connections": "Clients that are connected",
    "generations": "Live generations, queued ones included",
    "tickets": "Generations that can be resumed",
    "lost_generations": "Generations whose client has lost its connection",
    "ready": "1 if a generation can begin now",
}
TOTALS = {
    "prompt_tokens": "Tokens of prompts",
    "completion_tokens": "Tokens of answers",
    "sent_bytes": "Bytes of frames sent",
    "sent_frames": "Frames sent",
    "received_bytes": "Bytes of frames received",
    "received_frames": "Frames received",
    "merged_chunks": "Texts merged into one that waited for a slow client",
    "slow_clients": "Clients disconnected because they took no bytes",
    "resumed": "Generations resumed on another connection",
}
TIMES = {
    "time_to_first_token": ("From `generate` to its first text", "first_text"),
    "inter_token_latency": ("From one text of a generation to the next", "between_texts"),
    "cancel_latency": ("From a cancel to the provider's stream being closed", "cancels"),
    "generation_duration": ("From `generate` to its end", "durations"),
}


def _head(name: str, about: str, kind: str) -> str:
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"


def _single(name: str, about: str, kind: str, value: float) -> str:
    return f"{_head(name, about, kind)}{name} {float(value)!r}\n"


def _labelled(name: str, about: str, label: str, samples: Sequence[tuple[str, int]]) -> str:
    """Return a counter's samples; values of labels are codes, with nothing to escape."""
    lines = [f'{name}{{{label}="{value}"}} {float(count)!r}\n' for value, count in samples]
    return _head(name, about, "counter") + "".join(lines)


def _histogram(name: str, about: str, histogram: Any) -> str:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    counts = list(accumulate(map(float, histogram.counts)))
    lines = [
        f'{name}_bucket{{le="{bound}"}} {count!r}\n'
        for bound, count in zip(bounds, counts, strict=True)
    ]
    lines += [f"{name}_count {counts[-1]!r}\n", f"{name}_sum {float(histogram.total)!r}\n"]
    return _head(name, about, "histogram") + "".join(lines)
