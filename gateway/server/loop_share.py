"""A share of the event loop's processor time for what each client sends, while others are served.

Rates count frames and bytes, but a frame may cost a thousand times as much as another, and one that
is refused in the end is not free. So the processor time is counted that reading, unpacking,
checking, refusing and answering takes. Making others' answers shares the processors, and Python's
lock, with the event loop, so that a busy loop slows them down, however short its turns are.

Rule 1: nothing is counted while nobody else has an answer made.
Rule 2: a client beyond its share is read later, and nothing of it is lost. Its connections are read
one after the other, the one that has waited longest first.
Rule 3: no connection waits longer than MAX_REST_S, well below the time in which it must answer a
ping; then it is read a little. Its answer may wait behind what is read late, which counts as one.
Rule 4: before a connection is let in, it counts for its address. What it had cost until then is no
fault of that address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from time import thread_time
from types import coroutine
from typing import Any, TypeVar

from gateway.server.rates import Rates

__all__ = ["MAX_REST_S", "LoopShare", "Rest", "timed"]

BURST_S = 1.0  # a client may use at once what it has in so many seconds
KEPT_S = 30.0  # for which it is remembered at least what a client has used
MAX_REST_S = 5.0
STEP_S = 0.001  # between two connections of a client that are read again
LOOK_S = 0.1  # after which it is seen that a client no longer has to wait

Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class Rest:
    """A connection that isn't read; `over` is called when it may be, with whether only a little."""

    client: str
    since: float
    over: Callable[[bool], None]


@dataclass(eq=False, slots=True)
class _Line:
    """The connections of one client that aren't read, the one that has waited longest first."""

    timer: asyncio.TimerHandle
    rests: dict[Rest, None]


class LoopShare:
    """Counts processor time of the event loop by client.

    `beside(client)` tells whether others have answers made. With a share of 1 nothing is counted.
    """

    def __init__(self, share: float, beside: Callable[[str], bool]):
        self._share = share
        self._counts = share < 1
        self._beside = beside
        self._rates = Rates(share, share * BURST_S, 0.0, KEPT_S)
        self._lines: dict[str, _Line] = {}

    def spend(self, client: str | None, seconds: float, now: float) -> bool:
        """Count what a client has used; return whether it has used more than its share.

        None is a client that can't be told from others, and has no share of its own.
        """
        if client is None or not self._counts or not self._beside(client):
            return False
        return self._rates.overdraw(client, seconds, now) > 0

    def owes(self, client: str | None, now: float) -> bool:
        """Return whether a client has used more than its share."""
        return self.spend(client, 0.0, now)

    def earned_in(self, seconds: float) -> float:
        """Return how long one client has to wait for so much time."""
        return seconds / self._share

    def give_back(self, client: str | None, seconds: float, now: float) -> None:
        """Count so much less."""
        if client is not None and self._counts and self._beside(client):
            self._rates.overdraw(client, -seconds, now)

    def rest(
        self, client: str, over: Callable[[bool], None], loop: asyncio.AbstractEventLoop
    ) -> Rest:
        """Let a connection of a client wait until it may be read."""
        now = loop.time()
        rest = Rest(client, now, over)
        line = self._lines.get(client)
        if line is None:
            timer = loop.call_later(self._debt(client, now), lambda: self._next(client, loop))
            self._lines[client] = _Line(timer, {rest: None})
        else:
            line.rests[rest] = None
        return rest

    def withdraw(self, rest: Rest) -> None:
        """Forget a connection that waits."""
        line = self._lines[rest.client]
        del line.rests[rest]
        if not line.rests:
            line.timer.cancel()
            del self._lines[rest.client]

    def _debt(self, client: str, now: float) -> float:
        """Return when to look again whether a client may be read, 0 for now."""
        if not self._beside(client):
            return 0.0
        return min(LOOK_S, self._rates.overdraw(client, 0.0, now))

    def _next(self, client: str, loop: asyncio.AbstractEventLoop) -> None:
        """Let the next connection be read if its client may, or if it has waited for long."""
        line, now = self._lines[client], loop.time()
        debt = self._debt(client, now)
        first = next(iter(line.rests))
        if not debt or now - first.since >= MAX_REST_S:
            del line.rests[first]
            first.over(debt > 0)
            debt = 0.0
        if line.rests:
            line.timer = loop.call_later(max(debt, STEP_S), lambda: self._next(client, loop))
        else:
            del self._lines[client]


@coroutine
def timed(
    work: Coroutine[Any, Any, Result], spend: Callable[[float], None]
) -> Generator[Any, Any, Result]:
    """Await `work`, and tell the processor time of each of its steps as it ends."""
    resume: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        begin = thread_time()
        try:
            awaited = resume(given)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            given = None  # an error would hold its own traceback
            spend(thread_time() - begin)
        try:
            resume, given = work.send, (yield awaited)
        except BaseException as error:  # noqa: BLE001 - it is for the work
            resume, given = work.throw, error
