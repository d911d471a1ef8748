"""The resumable generations by ticket, for clients that have lost their connection.

A generation without a connection goes on until it holds `keep_bytes`, or its part of what all such
generations may hold, then waits; its followers read what it holds. One that has ended is kept too,
because its last frames may not have arrived. After `ttl_s` seconds without a connection it is
forgotten, and stopped if it still runs.

Frames that are kept are counted in three sums: those of generations with a connection, where one
that has no room keeps fewer; of those that go on without; and of those that have ended, of which
the client that holds the most loses its oldest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.generation import Generation
from gateway.server.byte_budget import ByteBudget, SharedBuffer
from gateway.server.generation_task import GenerationTask

__all__ = ["ResumeStore"]


MIN_HELD = 64 * 1024  # bytes that each may hold, however many there are
ENDED_BYTES = 4096  # about what a generation that has ended takes beside its frames
NO_LONGER = Refusal(ErrorCode.NOT_RESUMABLE, "the generation is no longer kept")


class ResumeStore:
    """All resumable generations, and the subscriber of those that have no connection."""

    def __init__(self, ttl_s: float, max_bytes: int, share: float = 1.0):
        self._ttl_s = ttl_s
        self._connected = ByteBudget(max_bytes, share)
        self._live = SharedBuffer(max_bytes, share)
        self._ended = _Ended(max_bytes)
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
        self._uncount_kept(task)
        task.held.join(self._live)
        self.notify(task)
        task.wake()

    def drop(self, task: GenerationTask) -> None:
        """Forget a generation; stop it if it still runs."""
        if task.generation.ticket is not None:
            self._tasks.pop(task.generation.ticket, None)
        self.lose(task)
        self._uncount_kept(task)
        if task.generation.cancel(time.monotonic()):
            task.stop()
        self.notify(task)
        task.lose_followers(NO_LONGER)

    def close(self) -> None:
        """Forget all generations, and stop those that still run."""
        for task in list(self._tasks.values()):
            self.drop(task)

    # Frames of generations with a connection.

    def count_kept(self, task: GenerationTask) -> None:
        """Count the frames that a generation keeps; it forgets some where there is no room."""
        generation, before = task.generation, task.kept_bytes
        grown = generation.kept_bytes - before
        if generation.kept_bytes > MIN_HELD and not self._connected.fits(task.client, grown):
            generation.keep_at_most(max(MIN_HELD, before))
        task.kept_bytes = generation.kept_bytes
        self._connected.add(task.client, task.kept_bytes - before)

    def _uncount_kept(self, task: GenerationTask) -> None:
        self._connected.add(task.client, -task.kept_bytes)
        task.kept_bytes = 0

    # The methods of a Subscriber.

    def notify(self, task: GenerationTask) -> None:
        """Let the followers read what there is; nobody else takes it now."""
        if task in self._disconnected:
            held = task.generation.held_bytes
            task.held.settle(held if task.generation.live else 0)
            if not task.generation.live:
                for oldest in self._ended.add(task, ENDED_BYTES + held):
                    self.drop(oldest)
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
            task.held.join(None)
            self._ended.remove(task)


class _Ended:
    """The generations that have ended, and the sizes of what they keep, by client."""

    def __init__(self, most: int):
        self._most = most
        self._held = 0
        self._by_client: dict[str | None, OrderedDict[GenerationTask, int]] = {}
        self._bytes: Counter[str | None] = Counter()

    def add(self, task: GenerationTask, size: int) -> list[GenerationTask]:
        """Count one, or count it anew; return those that are to go for it."""
        own = self._by_client.setdefault(task.client, OrderedDict())
        grown = size - own.get(task, 0)
        own[task] = size
        self._held += grown
        self._bytes[task.client] += grown
        return self._too_many()

    def remove(self, task: GenerationTask) -> None:
        """Count one no longer, if it is counted."""
        own = self._by_client.get(task.client, OrderedDict())
        size = own.pop(task, None)
        if size is not None:
            self._held -= size
            self._bytes[task.client] -= size
            if not own:
                del self._by_client[task.client], self._bytes[task.client]

    def _too_many(self) -> list[GenerationTask]:
        """Return the oldest of the client that holds the most, until the rest fits."""
        gone: list[GenerationTask] = []
        while self._held > self._most:
            most = max(self._bytes, key=self._bytes.__getitem__)
            oldest = next(iter(self._by_client[most]))
            self.remove(oldest)
            gone.append(oldest)
        return gone
