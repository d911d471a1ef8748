"""The lanes of a connection: which response begins when.

Rule 1: responses of one lane run strictly one after the other; those without a `stream_id` share a
lane. Lanes run beside each other, up to `most_active` responses.
Rule 2: what waits begins in the order in which it came, past those whose lane is busy.
"""

from __future__ import annotations

import re
from typing import Generic, Protocol, TypeVar

from gateway.dialects.openai.errors import Refused

__all__ = ["MAX_ACTIVE", "MAX_LANES", "MAX_WAITING", "Lanes", "lane_of"]

MAX_LANES = 32  # names on a connection, as in OpenAI's interface
MAX_ACTIVE = 16  # responses that run at once on a connection, as in OpenAI's interface
MAX_WAITING = 64  # responses on a connection; a client sends the next when one has ended
STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")


class InLane(Protocol):
    """What waits in a lane."""

    id: str
    stream_id: str | None


T = TypeVar("T", bound=InLane)


def lane_of(stream_id: object) -> str | None:
    """Return the lane that a client names. Raises Refused."""
    if stream_id is None:
        return None
    if not isinstance(stream_id, str) or not STREAM_ID.fullmatch(stream_id):
        said = "`stream_id`: must have 1 to 256 letters, digits, `_`, `.` and `-`"
        raise Refused(said, "stream_id", "invalid_stream_id")
    return stream_id


class Lanes(Generic[T]):
    """What runs on a connection, and what waits for it."""

    def __init__(self, most_active: int = MAX_ACTIVE):
        self._most_active = most_active
        self._names: set[str] = set()
        self._running: dict[str | None, T] = {}
        self._waiting: list[T] = []

    def check_room(self, stream_id: str | None = None) -> None:
        """Raise Refused if too many wait, or if it would be one lane too many."""
        new = stream_id is not None and stream_id not in self._names
        if new and len(self._names) >= MAX_LANES:
            said = f"`stream_id`: a connection may have {MAX_LANES} lanes"
            raise Refused(said, "stream_id", "websocket_stream_limit_reached")
        if len(self._waiting) >= MAX_WAITING:
            said = f"{MAX_WAITING} responses wait on this connection"
            kind, code = "too_many_requests", "rate_limit_exceeded"
            raise Refused(said, code=code, status=429, kind=kind)

    def add(self, one: T) -> None:
        """Let one wait for its turn."""
        if one.stream_id is not None:
            self._names.add(one.stream_id)
        self._waiting.append(one)

    def next(self) -> T | None:
        """Return the one that begins now, None if there is none."""
        if len(self._running) >= self._most_active:
            return None
        for place, one in enumerate(self._waiting):
            if one.stream_id not in self._running:
                self._running[one.stream_id] = self._waiting.pop(place)
                return one
        return None

    def end(self, one: T) -> None:
        """Note that one has ended."""
        if self._running.get(one.stream_id) is one:
            del self._running[one.stream_id]

    def running(self, own: str | None, stream_id: str | None) -> T | None:
        """Return what runs under an id, or without one in a lane."""
        if own is None:
            return self._running.get(stream_id)
        return next((one for one in self._running.values() if one.id == own), None)

    def withdraw(self, own: str) -> T | None:
        """Return what waits under an id, which then waits no longer."""
        found = next((one for one in self._waiting if one.id == own), None)
        if found is not None:
            self._waiting.remove(found)
        return found

    @property
    def waiting(self) -> list[T]:
        """What waits."""
        return self._waiting
