"""The states of a run, and the table of the transitions between them.

Rule 1: a run's state is changed by `Run.move` alone, and on the MLX thread alone.
Rule 2: a transition that the table does not allow is a fault of the engine, never of a caller.
Rule 3: an ended run stays ended.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TRANSITIONS", "RunState", "Transition", "next_state"]


class RunState(StrEnum):
    """The state of a run."""

    POSTED = "posted"  # in the mailbox of the MLX thread
    WAITING = "waiting"  # in the queue, or for the leader of a shared prompt, or for the disk
    READING = "reading"  # in the batch, its prompt being prefilled
    DECODING = "decoding"  # in the batch, a token a step
    PARKED = "parked"  # out of the batch until its reader has caught up
    ENDED = "ended"


class Transition(StrEnum):
    """An event that changes a run's state."""

    QUEUE = "queue"  # taken from the mailbox
    ADMIT = "admit"  # into the batch
    DECODE = "decode"  # its prompt is read
    READ_AGAIN = "read again"  # its forward pass has failed
    PARK = "park"
    RESUME = "resume"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"


TRANSITIONS: dict[RunState, dict[Transition, RunState]] = {
    RunState.POSTED: {
        Transition.QUEUE: RunState.WAITING,
    },
    RunState.WAITING: {
        Transition.ADMIT: RunState.READING,
        Transition.FAIL: RunState.ENDED,
        Transition.CANCEL: RunState.ENDED,
    },
    RunState.READING: {
        Transition.DECODE: RunState.DECODING,
        Transition.PARK: RunState.PARKED,
        Transition.FINISH: RunState.ENDED,  # by a token that was sampled before it was parked
        Transition.FAIL: RunState.ENDED,
        Transition.CANCEL: RunState.ENDED,
    },
    RunState.DECODING: {
        Transition.READ_AGAIN: RunState.READING,
        Transition.PARK: RunState.PARKED,
        Transition.FINISH: RunState.ENDED,
        Transition.FAIL: RunState.ENDED,
        Transition.CANCEL: RunState.ENDED,
    },
    RunState.PARKED: {
        Transition.RESUME: RunState.WAITING,
        Transition.FAIL: RunState.ENDED,
        Transition.CANCEL: RunState.ENDED,
    },
    RunState.ENDED: {},
}


def next_state(state: RunState, transition: Transition) -> RunState:
    """Return the state after a transition; raises AssertionError if it is not allowed."""
    after = TRANSITIONS[state].get(transition)
    if after is None:
        raise AssertionError(f"a run that is {state} was told to {transition}")
    return after
