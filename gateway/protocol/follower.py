"""A second reader of a resumable generation, without I/O.

Rule 1: it holds a position among the frames that the generation keeps, and no frame of its own.
Rule 2: it changes nothing for the first reader. Where that has dropped what comes next, it ends
with an error; leaving ends the following alone.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Event, Failed, Refusal
from gateway.protocol.frames import Done, Resume, Timing, Usage
from gateway.protocol.generation import AT_ONCE, Generation
from gateway.protocol.outbox import Numbered

__all__ = ["Follower"]

BEHIND = "read too slowly: the frames after {} are no longer kept"


class Follower:
    """One client's following of a generation, under an id of its own. Raises NotResumable."""

    answers = 1  # what it counts as on its connection

    def __init__(self, generation: Generation, frame: Resume):
        generation.check_kept(frame.after)
        self.id = frame.id
        self.over = False  # whether its terminal event has been sent
        self.resting = False  # whether nothing may be sent, because its client's rate is used up
        self._generation = generation
        self._window = frame.window
        self._sent = self._acked = frame.after
        self._end: Done | Failed | None = None  # what is sent instead of the next frame

    @property
    def sendable(self) -> bool:
        """Whether there are events that may be sent now."""
        if self.over or self.resting or isinstance(self._end, Failed):
            return not (self.over or self.resting)
        if self._window is not None and self._sent - self._acked >= self._window:
            return False
        return self._end is not None or self._sent < self._generation.newest

    def pop_events(self) -> list[Event]:
        """Return the events that may be sent now, AT_ONCE at most."""
        events: list[Event] = []
        while len(events) < AT_ONCE and self.sendable:
            event = self._next()
            events.append(event)
            self.over = isinstance(event, Done | Failed)
        return events

    def _next(self) -> Numbered:
        frame = self._end or self._generation.kept(self._sent + 1)
        if frame is None:
            return Failed(id=self.id, code=ErrorCode.SLOW_CLIENT, message=BEHIND.format(self._sent))
        self._sent += 1
        return frame if frame.id == self.id else replace(frame, id=self.id)

    def ack(self, seq: int) -> None:
        """Record that the client has processed all sent events up to the number `seq`."""
        self._acked = max(self._acked, min(seq, self._sent))

    def leave(self) -> None:
        """End the following with a `done` of its own; the generation goes on."""
        done = Done(
            id=self.id,
            seq=self._sent + 1,
            finish_reason="cancelled",
            usage=Usage(),
            timing=Timing(),
        )
        self._end = self._end or done

    def lose(self, why: Refusal) -> None:
        """End the following with an error, because the generation is no longer kept."""
        self._end = Failed(id=self.id, code=why.code, message=why.message)
