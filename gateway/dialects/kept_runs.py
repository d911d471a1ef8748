"""The answers that clients may resume by a name of their own, of all connections of a route.

Where a language names what it resumes, a chat for example, the gateway's ticket stays here. Of the
connections that read one answer, one is its first reader, and the others follow it. The newest to
come is the first reader, because one that came before may be lost already without anybody knowing.

Rule 1: a client finds its own answers alone.
Rule 2: when there are more than `most`, or when they hold more than `most_bytes`, the client whose
answers hold the most loses its oldest.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.events import Request
from gateway.protocol.frames import Cancel, Resume

__all__ = ["KeptRun", "KeptRuns", "Reading", "new_id"]

MAX_RUNS = 4096
MAX_RUNS_BYTES = 16 << 20
RUN_BYTES = 1024  # about what an answer takes beside what its language keeps


def new_id(kind: str) -> str:
    """Return an id for a generation, a message or an own answer, unlike all others."""
    return f"{kind}-{secrets.token_hex(12)}"


@dataclass(eq=False)
class KeptRun:
    """One answer that its client may resume."""

    client: str | None
    name: str  # by which the client resumes it
    id: str  # of its generation
    ticket: str
    reader: object | None  # the connection that is its first reader, None if that has ended
    newest: int = 0  # the highest number that its first reader was given
    ended: bool = False  # whether its first reader was given its end
    context: Any = None  # what its language needs to tell it again
    size: int = RUN_BYTES

    def take_over(self, reader: object, after: int | None = None) -> Resume:
        """Return the request that makes a connection its first reader, from a number on."""
        self.reader = reader
        after = self.newest if after is None else after
        return Resume(id=self.id, ticket=self.ticket, after=after)

    def follow(self, own: str, after: int = -1) -> Resume:
        """Return the request to follow it under an id of the connection's own."""
        return Resume(id=own, ticket=self.ticket, after=after, follow=True)

    def stop(self, reader: object) -> Sequence[Request]:
        """Return the requests that stop it, whoever reads it."""
        return [self.take_over(reader), Cancel(id=self.id)]


@dataclass(eq=False)
class Reading:
    """A connection's reading of an answer, under the id that its events have there."""

    id: str
    run: KeptRun | None = None  # None until it can be resumed
    follows: bool = False
    seen: int = -1  # the newest number
    earlier: object | None = None  # the first reader before it

    def read(self, number: int) -> None:
        """Note that an event with this number came."""
        self.seen = number
        if self.run is not None and not self.follows:
            self.run.newest = number

    def must_move(self, reader: object) -> bool:
        """Return whether the first reader is another one now than it was, or none."""
        run = self.run
        if run is None or run.reader is reader:
            return False
        return run.reader is None or not self.follows

    def move(self, reader: object) -> Sequence[Request]:
        """Return the requests to read on, if it must move.

        It follows one that has become the first reader, and takes the place of one that has ended.
        """
        run = self.run
        if run is None or not self.must_move(reader):
            return ()
        if run.reader is None:
            leaving = [Cancel(id=self.id)] if self.follows else []
            self.id, self.follows = run.id, False
            return [run.take_over(reader, self.seen), *leaving]
        self.id, self.follows = new_id("follow"), True
        return [run.follow(self.id, self.seen)]

    def refused(self, reader: object) -> None:
        """Note that it can't be read there."""
        if self.run is not None and self.run.reader is reader and not self.follows:
            self.run.reader = self.earlier

    def stop(self, reader: object) -> Sequence[Request]:
        """Return the requests that stop the model, for a follower too."""
        run = self.run
        if run is not None:
            run.ended = True
        if run is None or not self.follows:
            return [Cancel(id=self.id)]
        return [Cancel(id=self.id), *run.stop(reader)]


@dataclass(eq=False)
class KeptRuns:
    """All answers of a route that may be resumed."""

    most: int = MAX_RUNS
    most_bytes: int = MAX_RUNS_BYTES
    held_bytes: int = 0
    _by_client: dict[str | None, OrderedDict[str, KeptRun]] = field(default_factory=dict)
    _bytes: Counter[str | None] = field(default_factory=Counter)
    _count: int = 0

    def __len__(self) -> int:
        """Return their number."""
        return self._count

    def add(self, run: KeptRun) -> None:
        """Keep an answer, instead of an earlier one with its name."""
        earlier = self.find(run.client, run.name)
        if earlier is not None:
            self.forget(earlier)
        self._by_client.setdefault(run.client, OrderedDict())[run.name] = run
        self._count += 1
        self.held_bytes += run.size
        self._bytes[run.client] += run.size
        while self._count > self.most or self.held_bytes > self.most_bytes:
            self.forget(self._next_to_go())

    def find(self, client: str | None, name: str) -> KeptRun | None:
        """Return a client's answer by its name."""
        of_client = self._by_client.get(client)
        return None if of_client is None else of_client.get(name)

    def forget(self, run: KeptRun) -> None:
        """Forget an answer, which can then not be resumed; do nothing if it is not kept."""
        if self.find(run.client, run.name) is not run:
            return
        of_client = self._by_client[run.client]
        del of_client[run.name]
        self._bytes[run.client] -= run.size
        if not of_client:
            del self._by_client[run.client], self._bytes[run.client]
        self._count -= 1
        self.held_bytes -= run.size

    def leave(self, reader: object, runs: Iterable[KeptRun]) -> None:
        """Note that a connection has ended; it may be the first reader of any of the `runs`."""
        for run in runs:
            if run.reader is reader:
                run.reader = None

    def begin(
        self, reader: object, client: str | None, name: str, held: Container[str] = ()
    ) -> tuple[Reading, Resume] | None:
        """Return how a connection reads an answer from its beginning, None if it is not kept.

        It follows an answer of which it is the first reader already, and one whose id is in `held`:
        ids of generations that the connection has, or is about to lose.
        """
        run = self.find(client, name)
        if run is None:
            return None
        if run.reader is reader or run.id in held:
            reading = Reading(new_id("follow"), run, follows=True)
            return reading, run.follow(reading.id)
        reading = Reading(run.id, run, earlier=run.reader)
        return reading, run.take_over(reader, -1)

    def _next_to_go(self) -> KeptRun:
        most = max(self._bytes, key=self._bytes.__getitem__)
        return next(iter(self._by_client[most].values()))
