"""The gateway's counters, and their text for Prometheus.

Counters are plain numbers, so that counting a token costs little; prometheus-client's metric
families are made only when the metrics are requested.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Histogram", "KeptText", "Metrics", "exposition"]

SHARE = 0.05  # of the event loop's time, for requests of metrics
BURST = 0.1  # seconds, for some tens of requests at once
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


class KeptText:
    """A text that is made anew for each request, unless that takes too much of the time.

    BURST seconds of processor time may go into it at once, and the part SHARE of the time in the
    long run; beyond that, a request gets the text of an earlier one.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        used: Callable[[], float] = time.thread_time,
    ):
        self._clock = clock  # returns seconds
        self._used = used  # returns seconds of processor time
        self._text = b""
        self._left = BURST  # seconds
        self._at = clock()

    def get(self, make: Callable[[], bytes]) -> bytes:
        """Return what `make` returns, or what it returned some hundredths of a second ago."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * SHARE)
        self._at = now
        if self._left > 0 or not self._text:
            begin = self._used()
            self._text = make()
            self._left -= self._used() - begin
        return self._text


def exposition(metrics: Metrics, now: dict[str, int], engine: object) -> bytes:
    """Return all metrics in Prometheus' text format.

    `now` are the gateway's gauges by name; `engine` is the result of the provider's `statistics`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(metrics, now, engine))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, metrics: Metrics, now: dict[str, int], engine: object):
        self._metrics = metrics
        self._now = now
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Return the metric families."""
        for name, value in self._now.items():
            yield GaugeMetricFamily(f"mlx_gateway_{name}", NOW[name], value=value)
        m = self._metrics
        for name, label, help_text, counts in (
            ("connections_opened", "codec", "Connections made", m.opened),
            ("connections_refused", "code", "Connections refused or closed at once", m.refused),
            ("generations_ended", "reason", "Generations by how they ended", m.ended),
        ):
            family = CounterMetricFamily(f"mlx_gateway_{name}", help_text, labels=[label])
            for key, count in sorted(counts.items()):
                family.add_metric([key], count)
            yield family
        for name, help_text in TOTALS.items():
            yield CounterMetricFamily(f"mlx_gateway_{name}", help_text, value=getattr(m, name))
        for name, (help_text, attribute) in TIMES.items():
            yield _family(f"mlx_gateway_{name}_seconds", help_text, getattr(m, attribute))
        if is_dataclass(self._engine):
            yield from self._engine_families(self._engine)

    def _engine_families(self, engine: Any) -> Iterator[Metric]:
        for one in fields(engine):
            value = getattr(engine, one.name)
            about = f"The engine's {one.name.replace('_', ' ')}"
            if hasattr(value, "bounds"):
                yield _family(f"{ENGINE}{one.name}", about, value)
            elif "label" in one.metadata:
                yield _labelled(one, about, value)
            elif one.metadata.get("kind") == "counter":
                yield CounterMetricFamily(f"{ENGINE}{one.name}", about, value=value)
            elif isinstance(value, int | float):
                yield GaugeMetricFamily(f"{ENGINE}{one.name}", about, value=value)


def _labelled(one: Field[Any], about: str, values: Mapping[str, float]) -> Metric:
    """Return a family with a value for each key, which the label that its metadata names shows."""
    counts = one.metadata.get("kind") == "counter"
    kind = CounterMetricFamily if counts else GaugeMetricFamily
    family = kind(f"{ENGINE}{one.name}", about, labels=[one.metadata["label"]])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


NOW = {
    "connections": "Clients that are connected",
    "generations": "Live generations, queued ones included",
    "tickets": "Generations that can be resumed",
    "lost_generations": "Generations whose client has lost its connection",
    "waiting_text_bytes": "Text that waits for slow clients",
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


def _family(name: str, help_text: str, histogram: Any) -> HistogramMetricFamily:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    cumulated = accumulate(histogram.counts)
    return HistogramMetricFamily(
        name,
        help_text,
        buckets=list(zip(bounds, cumulated, strict=True)),
        sum_value=histogram.total,
    )
