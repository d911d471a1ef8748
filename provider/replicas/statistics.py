"""The metrics of a provider whose generations run on replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provider.interface import COUNTER

__all__ = ["Counters", "FleetStatistics"]


def _of_each() -> Any:
    return field(metadata={"label": "replica"})


@dataclass
class Counters:
    """What has happened since the start."""

    placed: int = 0  # generations that were given to a replica
    known_parts: float = 0.0  # the sum of the parts of their conversations that it had read before
    passed_on: int = 0  # generations that a busy replica refused and another one was asked for
    moved: int = 0  # generations that went on elsewhere after their replica was lost
    failed: int = 0  # generations that ended because their replica was lost


@dataclass(frozen=True, kw_only=True)
class FleetStatistics:
    """A snapshot of a fleet."""

    replicas: int
    replicas_ready: int
    replica_ready: Mapping[str, int] = _of_each()  # 1 if it takes generations
    replica_answers: Mapping[str, int] = _of_each()  # that run there
    replica_connections_lost: Mapping[str, int] = field(metadata={"label": "replica", **COUNTER})
    generations_placed: int = field(metadata=COUNTER)
    conversations_known: float = field(metadata=COUNTER)
    generations_passed_on: int = field(metadata=COUNTER)
    generations_moved: int = field(metadata=COUNTER)
    generations_lost: int = field(metadata=COUNTER)
