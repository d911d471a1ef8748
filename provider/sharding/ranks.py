"""The processes that share one model: what they tell one another, and how they end together.

The process of rank 0 serves, and has a `Link` to each of the others. A process that is lost ends
all: rank 0 with an error for every run, the others at once, since a collective that waits for it
would wait for ever.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from provider.caches.operations import Journal
from provider.interface import GenerationError
from provider.runtime.mlx import mx
from provider.sharding.frames import (
    Do,
    End,
    Failed,
    FromFirst,
    Has,
    Leave,
    Load,
    Unload,
    difference,
    encode,
    from_first,
    from_other,
)
from provider.sharding.link import BEAT_S, SILENCE_S, Link
from provider.sharding.watchdog import PASS_S, Watchdog

__all__ = ["LOST", "USUAL", "FollowingRank", "Group", "LeadingRank", "Times"]

LOST = 1  # exit status

log = logging.getLogger(__name__)

Group = mx.distributed.Group
Exit = Callable[[int], object]


@dataclass(frozen=True)
class Times:
    """Seconds that the processes of one model give each other."""

    meeting: float = 120.0  # until all must have connected
    beat: float = BEAT_S  # between two frames, at most
    silence: float = SILENCE_S  # without a frame, after which a process is lost
    flush: float = 1.0  # for errors to reach clients before the process exits
    end: float = 10.0  # for a process to end after rank 0 has
    a_pass: float = PASS_S  # for a forward pass, and more for its tokens


USUAL = Times()


class LeadingRank:
    """The process of rank 0, with its links to the others.

    `on_lost` is called with an error when another process is lost, before this one exits; it must
    end all runs. `on_leave` is called when another process was asked to end; it may stop this one.
    """

    def __init__(self, group: Group, room: int, exits: Exit = os._exit, *, times: Times = USUAL):
        self.group = group
        self.room = room  # bytes that the smallest process has for weights and KV caches
        self.journal = Journal()
        self.watchdog = Watchdog(pass_s=times.a_pass)
        self.on_lost: Callable[[GenerationError], None] = lambda _error: None
        self.on_leave: Callable[[], object] = lambda: None
        self._exit = exits
        self._times = times
        self._telling = threading.Lock()
        self._links: list[Link] = []
        self._others: dict[int, dict[str, str]] = {}  # what the other processes have, by rank
        self.left = threading.Event()  # set when another process was asked to end
        self._ended = threading.Event()
        self._failing = threading.Lock()

    def start(self, connected: Mapping[int, socket.socket]) -> None:
        """Begin to watch the other processes, by rank."""
        for rank, one in connected.items():
            self._links.append(_link(one, self._told_by(rank), self._lost(rank), self._times))
        for link in self._links:
            link.start()
        threading.Thread(target=self._tell_at_leisure, name="shard-tell", daemon=True).start()

    def share(self, tokens: mx.array) -> mx.array:
        """Return the tokens of a forward pass as all processes get them."""
        return mx.distributed.all_sum(tokens, group=self.group)

    @property
    def awaited(self) -> list[int]:
        """The ranks that have not found the files of their parts yet."""
        return [rank for rank in range(1, self.group.size()) if rank not in self._others]

    def difference(self, facts: Mapping[str, str]) -> str:
        """Return what another process has that this one has not, "" if all have the same."""
        said = (difference(rank, theirs, facts) for rank, theirs in sorted(self._others.items()))
        return next(filter(None, said), "")

    def load(self) -> None:
        """Let the others load their parts, in which this process must take part."""
        self.watchdog.load()
        self._send(Load())

    def unload(self) -> None:
        """Let the others free their parts; there is no forward pass before the next `load`."""
        self._send(Unload())

    def tell(self, tokens: int = 0) -> None:
        """Send to the other processes what the journal has, before a pass over so many tokens."""
        if tokens:
            self.watchdog.begin(tokens)
        with self._telling:
            operations = self.journal.take()
            if operations:
                self._send(Do(operations))

    def fail(self, reason: str) -> None:
        """End all runs with an error, then the process; the others then end by themselves."""
        if not self._failing.acquire(blocking=False) or self._ended.is_set():
            return
        log.critical("this model ends on all machines: %s", reason)
        try:
            self.on_lost(GenerationError(f"the model has lost a part of itself: {reason}"))
            time.sleep(self._times.flush)
        finally:
            self._exit(LOST)

    def close(self) -> None:
        """Let the other processes end; this one may go on without them. Idempotent."""
        if not self._ended.is_set():
            self._ended.set()
            self._send(End())
            for link in self._links:
                link.close()

    def _send(self, frame: FromFirst) -> None:
        data = encode(frame)
        for link in self._links:
            link.send(data)

    def _told_by(self, rank: int) -> Callable[[bytes], None]:
        def take(frame: bytes) -> None:
            match from_other(frame):
                case Has(facts):
                    self._others[rank] = facts
                case Leave():
                    log.info("rank %d was asked to end", rank)
                    self.left.set()
                    self.on_leave()
                case Failed(reason):
                    self.fail(f"rank {rank} has failed: {reason}")

        return take

    def _lost(self, rank: int) -> Callable[[str], None]:
        return lambda reason: self.fail(f"rank {rank} is lost: {reason}")

    def _tell_at_leisure(self) -> None:
        """Watch the passes; let caches be freed elsewhere that were freed here without a pass."""
        while not self._ended.wait(self._times.beat):
            if seconds := self.watchdog.overdue():
                self.fail(f"a forward pass has not ended for {seconds:.0f} s")
                return
            self.tell()


class FollowingRank:
    """A process of another rank, with its link to that of rank 0."""

    def __init__(
        self,
        group: Group,
        connected: socket.socket,
        exits: Exit = os._exit,
        *,
        times: Times = USUAL,
    ):
        self.group = group
        self._exit = exits
        self._times = times
        self._told: queue.SimpleQueue[Load | Unload | Do | None] = queue.SimpleQueue()
        self._link = _link(connected, self._take, self._lost, times)
        self._link.start()

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return int(self.group.rank())

    def share(self, tokens: mx.array) -> mx.array:
        """Return the first process's tokens for the next forward pass; those given are all 0."""
        return mx.distributed.all_sum(tokens, group=self.group)

    def has(self, facts: Mapping[str, str]) -> None:
        """Tell the first process that this one can load its part, and what it has."""
        self._link.send(encode(Has(dict(facts))))

    def told(self) -> Iterator[Load | Unload | Do]:
        """Yield what the first process tells this one to do, until it ends."""
        while (told := self._told.get()) is not None:
            yield told

    def leave(self) -> None:
        """Ask the first process to end all in order."""
        self._link.send(encode(Leave()))

    def failed(self, reason: str) -> None:
        """Tell the first process why this one ends, and end when that one has ended.

        Its errors reach clients first: mlx's ring crashes a process whose neighbour has closed.
        """
        self._link.send(encode(Failed(reason)))
        time.sleep(self._times.end)  # `_lost` ends the process earlier
        self._link.close()

    def _take(self, frame: bytes) -> None:
        told = from_first(frame)
        if not isinstance(told, End):
            self._told.put(told)
            return
        self._link.close()
        self._told.put(None)
        # The process may be waiting in a collective that the first one takes no part in any more.
        ending = threading.Timer(self._times.end, self._exit, (0,))
        ending.daemon = True
        ending.start()

    def _lost(self, reason: str) -> None:
        log.critical("rank 0 is lost, so rank %d ends: %s", self.rank, reason)
        self._exit(LOST)


def _link(
    connected: socket.socket,
    take: Callable[[bytes], None],
    lost: Callable[[str], None],
    times: Times,
) -> Link:
    return Link(connected, take, lost, beat_s=times.beat, silence_s=times.silence)
