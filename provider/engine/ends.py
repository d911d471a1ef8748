"""The last events of runs."""

from __future__ import annotations

import logging

from provider.engine.messages import RunFinished
from provider.engine.rows import without_frames
from provider.engine.run import Run
from provider.interface import GenerationError

__all__ = ["failure_of", "finished"]

log = logging.getLogger(__name__)


def finished(run: Run, reason: str, now: float) -> RunFinished:
    """Return the last event of a run that ended by itself, at `now` by time.perf_counter."""
    assert run.text is not None
    calls = run.text.calls
    reason = "tool_calls" if calls and reason == "stop" else reason
    return RunFinished(reason, run.usage(), run.timing(now), calls)


def failure_of(run: Run, error: Exception) -> GenerationError:
    """Return the error that a run's reader will raise; log `error` if it is unexpected.

    The returned error has no traceback, whose frames would keep arrays of the failed step.
    """
    if not isinstance(error, GenerationError):
        log.error("run %d failed", run.key, exc_info=error)
        without_frames(error)
        error = GenerationError(
            f"the generation failed: {type(error).__name__}", original_exception=error
        )
    without_frames(error)
    return error
