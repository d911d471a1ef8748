"""The states of a run, and the table of the steps from each state to the next.

Rule 1: a run's state is changed by `Run.move` alone, and on the MLX thread alone.
Rule 2: a step that the table does not allow is a fault of the engine, never of a caller.
Rule 3: an ended run stays ended.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TRANSITIONS", "RunState", "RunStep", "next_state"]


class RunState(StrEnum):
    """The state of a run."""

    POSTED = "posted"  # in the mailbox of the MLX thread
    WAITING = "waiting"  # in the queue, or waiting for the leader of a shared prompt
    READING = "reading"  # in the batch, its prompt being prefilled
    DECODING = "decoding"  # in the batch, a token a step
    PARKED = "parked"  # out of the batch until its reader has caught up
    ENDED = "ended"


class RunStep(StrEnum):
    """An event that changes a run's state."""

    TAKE = "take"  # from the mailbox
    ADMIT = "admit"  # into the batch
    DECODE = "decode"  # its prompt is read
    READ_AGAIN = "read again"  # its forward pass has failed
    PARK = "park"
    RESUME = "resume"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"


TRANSITIONS: dict[RunState, dict[RunStep, RunState]] = {
    RunState.POSTED: {
        RunStep.TAKE: RunState.WAITING,
    },
    RunState.WAITING: {
        RunStep.ADMIT: RunState.READING,
        RunStep.FAIL: RunState.ENDED,
        RunStep.CANCEL: RunState.ENDED,
    },
    RunState.READING: {
        RunStep.DECODE: RunState.DECODING,
        RunStep.PARK: RunState.PARKED,
        RunStep.FINISH: RunState.ENDED,  # by a token that was sampled before it was parked
        RunStep.FAIL: RunState.ENDED,
        RunStep.CANCEL: RunState.ENDED,
    },
    RunState.DECODING: {
        RunStep.READ_AGAIN: RunState.READING,
        RunStep.PARK: RunState.PARKED,
        RunStep.FINISH: RunState.ENDED,
        RunStep.FAIL: RunState.ENDED,
        RunStep.CANCEL: RunState.ENDED,
    },
    RunState.PARKED: {
        RunStep.RESUME: RunState.WAITING,
        RunStep.FAIL: RunState.ENDED,
        RunStep.CANCEL: RunState.ENDED,
    },
    RunState.ENDED: {},
}


def next_state(state: RunState, step: RunStep) -> RunState:
    """Return the state after a step; raises AssertionError if the step is not allowed."""
    after = TRANSITIONS[state].get(step)
    if after is None:
        raise AssertionError(f"a run that is {state} was told to {step}")
    return after
