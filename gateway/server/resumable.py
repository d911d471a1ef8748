"""The resumable generations by ticket, for clients that have lost their connection.

A generation without a connection goes on until it holds `keep_bytes`, or its part of what all such
generations may hold, then waits; its followers read what it holds. One that has ended is kept too,
because its last frames may not have arrived. After `ttl_s` seconds without a connection it is
forgotten, and stopped if it still runs.
"""

from __future__ import annotations

import asyncio
import time

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.generation import Generation
from gateway.server.byte_budget import SharedBuffer
from gateway.server.generation_task import GenerationTask

__all__ = ["ResumeStore"]


MIN_HELD = 64 * 1024  # bytes that each may hold, however many there are
NO_LONGER = Refusal(ErrorCode.NOT_RESUMABLE, "the generation is no longer kept")


class ResumeStore:
    """All resumable generations, and the subscriber of those that have no connection."""

    def __init__(self, ttl_s: float, max_bytes: int):
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes  # of ended ones, and of live ones
        self._live = SharedBuffer(max_bytes)  # what the live ones hold
        self._tasks: dict[str, GenerationTask] = {}
        self._disconnected: dict[
            GenerationTask, asyncio.TimerHandle
        ] = {}  # generations without a connection, the longest waiting first

    def __len__(self) -> int:
        """Return the number of generations with a valid ticket."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """The number of generations without a connection."""
        return len(self._disconnected)

    def add(self, task: GenerationTask) -> None:
        """Register a generation under its ticket, by which a client can resume it."""
        if task.generation.ticket is not None:
            self._tasks[task.generation.ticket] = task

    def find(self, ticket: str, frame_id: str | None, owner: str | None) -> GenerationTask | None:
        """Return the generation with this ticket, owner and id (None for any), None if none is."""
        task = self._tasks.get(ticket)
        if task is None or task.owner != owner or frame_id not in (None, task.generation.id):
            return None
        return task

    def keep(self, task: GenerationTask) -> None:
        """Keep a generation without a connection, from now on for `ttl_s` seconds."""
        if task.generation.ticket not in self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._disconnected[task] = loop.call_later(self._ttl_s, self.drop, task)
        task.subscriber = self
        self.notify(task)
        task.wake()
        self._make_room()

    def drop(self, task: GenerationTask) -> None:
        """Forget a generation; stop it if it still runs."""
        if task.generation.ticket is not None:
            self._tasks.pop(task.generation.ticket, None)
        self.lose(task)
        if task.generation.cancel(time.monotonic()):
            task.stop()
        self.notify(task)
        task.lose_followers(NO_LONGER)

    def close(self) -> None:
        """Forget all generations, and stop those that still run."""
        for task in list(self._tasks.values()):
            self.drop(task)

    def _make_room(self) -> None:
        """Forget ended generations, the oldest first, while they hold too many bytes."""
        ended = [task for task in self._disconnected if not task.generation.live]
        held = sum(task.generation.held_bytes for task in ended)
        for task in ended:
            if held <= self._max_bytes:
                break
            held -= task.generation.held_bytes
            self.drop(task)

    # The methods of a Subscriber.

    def notify(self, task: GenerationTask) -> None:
        """Let the followers read what there is; nobody else takes it now."""
        if task in self._disconnected:
            self._count(task, task.generation.held_bytes if task.generation.live else 0)
        if task.followers:
            task.generation.number()
            task.tell_followers()

    def must_wait(self, generation: Generation) -> bool:
        """Return whether the generation holds as many bytes as it may without a client."""
        held = generation.held_bytes
        return generation.holds_enough or held > max(MIN_HELD, self._live.share(held))

    def lose(self, task: GenerationTask) -> None:
        """Stop the timer of a generation that has a connection again."""
        timer = self._disconnected.pop(task, None)
        if timer is not None:
            timer.cancel()
            self._count(task, 0)

    def _count(self, task: GenerationTask, size: int) -> None:
        self._live.held += size - task.waiting_bytes
        task.waiting_bytes = size
