"""Prompts that wait to be built, in an order that is fair between clients.

Rule 1: the client whose jobs have taken the least time so far is next. One that comes back after a
pause is even with the others; it neither makes up for the pause nor pays for earlier jobs.
Rule 2: of one client, the job that has taken the least time is next, so that a short one passes
long ones.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["PromptQueue"]

J = TypeVar("J")


@dataclass(order=True)
class _Waiting(Generic[J]):
    """A job that waits: how long it has taken, its number in the order of arrival, and itself."""

    seconds: float
    number: int
    job: J = field(compare=False)


@dataclass
class _Client(Generic[J]):
    """One client's jobs that wait, as a heap, and its time."""

    seconds: float
    waiting: list[_Waiting[J]] = field(default_factory=list)


class PromptQueue(Generic[J]):
    """A queue of jobs by client; must be guarded by the caller's lock."""

    def __init__(self) -> None:
        self._clients: dict[str | None, _Client[J]] = {}  # those with jobs that wait or run
        self._now = 0.0  # the time of the client that was served last, when it was
        self._served: str | None = None
        self._added = 0

    def add(self, job: J, client: str | None, seconds: float = 0.0) -> None:
        """Let a job wait that has taken `seconds` of work already."""
        self._added += 1
        own = self._clients.setdefault(client, _Client(self._now))
        heapq.heappush(own.waiting, _Waiting(seconds, self._added, job))

    def pop(self) -> J | None:
        """Remove and return the next job, None if none waits; `took` must be called after it."""
        with_jobs = [item for item in self._clients.items() if item[1].waiting]
        if not with_jobs:
            return None
        self._served, own = min(with_jobs, key=lambda item: item[1].seconds)
        self._now = own.seconds
        return heapq.heappop(own.waiting).job

    def took(self, seconds: float) -> None:
        """Count the time of the job that was taken, after adding it again if it goes on."""
        own = self._clients[self._served]
        own.seconds += seconds
        if not own.waiting:
            del self._clients[self._served]

    def discard(self, job: J) -> None:
        """Remove a job if it waits."""
        for own in self._clients.values():
            left = [one for one in own.waiting if one.job is not job]
            if len(left) < len(own.waiting):
                heapq.heapify(left)
                own.waiting = left

    def clear(self) -> list[J]:
        """Remove and return all jobs that wait."""
        jobs = [one.job for own in self._clients.values() for one in own.waiting]
        for own in self._clients.values():
            own.waiting = []
        return jobs
