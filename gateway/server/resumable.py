"""Where resumable generations wait for their client to come back, by ticket.

One whose connection is lost goes on until it holds as much as it may, then waits. One that has
ended is kept as well: its last frames may not have arrived. Each is kept for `ttl_s`; then what
still runs is stopped.
"""

from __future__ import annotations

import asyncio
import time

from gateway.protocol.generation import Generation
from gateway.server.generation_task import GenerationTask

__all__ = ["ResumeStore"]


class ResumeStore:
    """The resumable generations, those with a connection among them; an audience for the others."""

    def __init__(self, ttl_s: float, most_bytes: int):
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._pulls: dict[str, GenerationTask] = {}
        self._left: dict[
            GenerationTask, asyncio.TimerHandle
        ] = {}  # those without a connection, the longest waiting first

    def __len__(self) -> int:
        """Return the number of generations with a valid ticket."""
        return len(self._pulls)

    @property
    def waiting(self) -> int:
        """The number of generations without a connection."""
        return len(self._left)

    def add(self, pull: GenerationTask) -> None:
        """Register a generation under its ticket."""
        if pull.generation.ticket is not None:
            self._pulls[pull.generation.ticket] = pull

    def find(self, ticket: str, frame_id: str, owner: str | None) -> GenerationTask | None:
        """Return the generation with this ticket, if it has this id and this owner."""
        pull = self._pulls.get(ticket)
        if pull is None or (pull.generation.id, pull.owner) != (frame_id, owner):
            return None
        return pull

    def keep(self, pull: GenerationTask) -> None:
        """Keep a generation that has lost its connection."""
        if pull.generation.ticket not in self._pulls:
            return
        loop = asyncio.get_running_loop()
        self._left[pull] = loop.call_later(self._ttl_s, self.drop, pull)
        pull.audience = self
        pull.look()
        self._make_room()

    def drop(self, pull: GenerationTask) -> None:
        """Forget a generation; stop it if it still runs."""
        if pull.generation.ticket is not None:
            self._pulls.pop(pull.generation.ticket, None)
        self.lose(pull)
        if pull.generation.cancel(time.monotonic()):
            pull.stop()

    def close(self) -> None:
        """Forget all of them."""
        for pull in list(self._pulls.values()):
            self.drop(pull)

    def _make_room(self) -> None:
        """Forget ended generations, the oldest first, while they hold too many bytes."""
        ended = [pull for pull in self._left if not pull.generation.live]
        held = sum(pull.generation.held_bytes for pull in ended)
        for pull in ended:
            if held <= self._most_bytes:
                break
            held -= pull.generation.held_bytes
            self.drop(pull)

    # An audience that keeps what it hears.

    def heard(self, pull: GenerationTask) -> None:
        """Do nothing: no client is there."""

    def has_enough(self, generation: Generation) -> bool:
        """Return whether it holds as many bytes as it may."""
        return generation.holds_enough

    def lose(self, pull: GenerationTask) -> None:
        """Forget a generation that has a connection again."""
        timer = self._left.pop(pull, None)
        if timer is not None:
            timer.cancel()
