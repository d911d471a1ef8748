"""The messages of other threads to an engine; the MLX thread handles them before every turn."""

from __future__ import annotations

from dataclasses import dataclass

from provider.engine.run import Run

__all__ = ["Cancel", "CollectPrefix", "Load", "Message", "Resume", "Submit"]


@dataclass(frozen=True, slots=True)
class Load:
    """Message: load the model."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Message: put a run into the queue."""

    run: Run


@dataclass(frozen=True, slots=True)
class Cancel:
    """Message: end a run, in whatever state it is."""

    run: Run


@dataclass(frozen=True, slots=True)
class Resume:
    """Message: queue a parked run again if its reader has caught up."""

    run: Run


@dataclass(frozen=True, slots=True)
class CollectPrefix:
    """Message: keep the prefix that was read from disk, and queue the runs that waited for it."""


Message = Load | Submit | Cancel | Resume | CollectPrefix
