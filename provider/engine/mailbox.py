"""What other threads tell an engine: messages that the MLX thread takes before every turn."""

from __future__ import annotations

from dataclasses import dataclass

from provider.engine.run import Run

__all__ = ["Cancel", "Load", "Message", "Resume", "Submit"]


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Put a run into the queue."""

    run: Run


@dataclass(frozen=True, slots=True)
class Cancel:
    """Take a run out, wherever it is."""

    run: Run


@dataclass(frozen=True, slots=True)
class Resume:
    """Look whether the reader of a parked run has caught up."""

    run: Run


Message = Load | Submit | Cancel | Resume
