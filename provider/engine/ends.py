"""How runs end: what their readers are told at last."""

from __future__ import annotations

import logging

from provider.engine.messages import RunFinished
from provider.engine.rows import without_frames
from provider.engine.run import Run
from provider.interface import GenerationError

__all__ = ["failure_of", "finished"]

log = logging.getLogger(__name__)


def finished(run: Run, reason: str, now: float) -> RunFinished:
    """Return the end of a run that stopped by itself, at `now` by time.perf_counter."""
    assert run.text is not None
    calls = run.text.calls
    reason = "tool_calls" if calls and reason == "stop" else reason
    return RunFinished(reason, run.usage(), run.timing(now), calls)


def failure_of(run: Run, error: Exception) -> GenerationError:
    """Return what a run's reader raises for an error; one that is unexpected goes to the log.

    The error holds on to no frame, and so to no array of the step that failed.
    """
    if not isinstance(error, GenerationError):
        log.error("run %d failed", run.key, exc_info=error)
        without_frames(error)
        error = GenerationError(
            f"the generation failed: {type(error).__name__}", original_exception=error
        )
    without_frames(error)
    return error
