"""What one connection reads of answers that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakSet

from gateway.dialects import incoming
from gateway.dialects.base import Dialect, Message, Opening, RouteLimits
from gateway.dialects.kept_runs import KeptRun, KeptRuns, Reading
from gateway.dialects.own_answers import OwnAnswers
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Event, Failed, Request
from gateway.protocol.frames import Done, Pong, Ready, Resume, Started

__all__ = ["Readings", "ResumingDialect", "Stream"]


@dataclass(eq=False)
class Stream:
    """What a client is told of one answer."""

    reading: Reading
    begun: bool = False  # whether its `started` has come
    stopped: bool = False  # whether its client has stopped it


S = TypeVar("S", bound=Stream)


class Readings(Generic[S]):
    """The streams of a connection, by the ids that their events have there."""

    def __init__(self, connection: object, kept: KeptRuns):
        self._connection = connection
        self._kept = kept
        self._streams: dict[str, S] = {}
        self._moving: set[S] = set()  # those that `next_requests` reads on
        self._stopping: dict[str, KeptRun] = {}  # answers that no stream reads
        self._ended: WeakSet[KeptRun] = WeakSet()  # answers that were read to their end

    @property
    def all(self) -> Sequence[S]:
        """The streams that have not ended."""
        return list(self._streams.values())

    def add(self, stream: S) -> None:
        """Add a stream."""
        self._streams[stream.reading.id] = stream

    def begin(self, client: str | None, name: str) -> tuple[Reading, Resume] | None:
        """Return how an answer is read from its beginning, None if it is not kept."""
        return self._kept.begin(self._connection, client, name, self._streams)

    def of(self, event: Event) -> S | None:
        """Return the stream that an event is for, None if there is none."""
        stream = self._streams.get(event.id) if not isinstance(event, Pong) and event.id else None
        if stream is None:
            return None
        reading, number = stream.reading, getattr(event, "seq", None)
        if number is not None:
            reading.read(number)
        if reading.follows and reading.must_move(self._connection):
            self._moving.add(stream)
        if isinstance(event, Started):
            stream.begun = True
        return stream

    def goes_on(self, stream: S) -> bool:
        """Return whether a stream has only lost its answer to another connection."""
        reading = stream.reading
        if reading.follows or not stream.begun or not reading.must_move(self._connection):
            return False
        self._moving.add(stream)
        return True

    def end(self, stream: S, *, forget: bool) -> None:
        """Remove a stream whose answer has ended; with `forget`, that can't be resumed."""
        if stream.reading.run is not None:
            stream.reading.run.ended = True
            self._ended.add(stream.reading.run)
        self._remove(stream, forget=forget)

    def fail(self, stream: S, *, forget: bool) -> None:
        """Remove a stream that has failed; with `forget`, its answer can't be resumed."""
        self._remove(stream, forget=forget)
        stream.reading.refused(self._connection)

    def _remove(self, stream: S, *, forget: bool) -> None:
        self._streams.pop(stream.reading.id, None)
        self._moving.discard(stream)
        if stream.reading.run is not None and forget:
            self._kept.forget(stream.reading.run)

    def stop(self, stream: S) -> Sequence[Request]:
        """Return the requests that stop the model."""
        stream.stopped = True
        run = stream.reading.run
        if run is not None:
            self._kept.forget(run)
            if stream.reading.follows:
                self._stopping[run.id] = run
        return stream.reading.stop(self._connection)

    def stop_unread(self, run: KeptRun) -> Sequence[Request]:
        """Return the requests that stop an answer which no stream of the connection reads."""
        self._kept.forget(run)
        self._stopping[run.id] = run
        return run.stop(self._connection)

    def stopped_unread(self, event: Event) -> bool:
        """Return whether an event is of an answer that is stopped without a stream.

        No client has asked for it. One that can't be stopped, because the connection has too many
        generations, is kept, so that it can be stopped later.
        """
        run = None if isinstance(event, Pong) or event.id is None else self._stopping.get(event.id)
        if run is None:
            return False
        if isinstance(event, Done | Failed):
            del self._stopping[run.id]
        if isinstance(event, Failed) and event.code is ErrorCode.RATE_LIMITED:
            run.reader, run.ended = None, False
            if self._kept.find(run.client, run.name) is None:
                self._kept.add(run)
        return True

    def next_requests(self) -> Sequence[Request]:
        """Return the requests that read on where the first reader is another one now."""
        requests: list[Request] = []
        while self._moving:
            stream = self._moving.pop()
            earlier, run = stream.reading.id, stream.reading.run
            if stream.reading.follows and run is not None and run.id in self._streams:
                continue  # another stream is about to lose it, and goes on first
            requests += stream.reading.move(self._connection)
            del self._streams[earlier]
            self._streams[stream.reading.id] = stream
        return requests

    def close(self) -> None:
        """Leave what goes on without the connection, and what has ended and is still kept.

        An answer that has ended would keep its first reader, with all that it has, in memory.
        """
        runs = [stream.reading.run for stream in self._streams.values()]
        self._kept.leave(self._connection, [run for run in runs if run is not None])
        self._kept.leave(self._connection, self._ended)


class ResumingDialect(Dialect, Generic[S]):
    """A language whose client speaks first, and names the answers that it resumes.

    `early_id` finds the id of a message that is too much to decode.
    """

    early_id: re.Pattern[str] | None = None

    def __init__(self, opening: Opening, limits: RouteLimits, kept: KeptRuns):
        self._limits = limits.frames
        self._client = opening.client
        self._kept = kept
        self._readings: Readings[S] = Readings(self, kept)
        self._own = OwnAnswers()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of answers that need no generation are not sent yet."""
        return self._own.waiting_bytes

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return nothing."""
        return ()

    def check(self, message: str | bytes) -> Iterator[None]:
        """Raise BadFrame once a message has too many keys and values; yield meanwhile."""
        return incoming.check(message, self._limits, self.early_id)

    def next_requests(self) -> Sequence[Request]:
        """Return the requests that read on where the first reader is another one now."""
        return self._readings.next_requests()

    def close(self) -> None:
        """Leave what goes on without the connection."""
        self._readings.close()
