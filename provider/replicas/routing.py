"""Which replica a generation goes to: the one that has its prefix, or else the least busy one.

The provider and the simulation of large fleets use the same policy. Pure: no I/O, no clock, no
randomness; whoever has these tells it what has happened.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from provider.replicas.prefixes import Prefix

__all__ = ["ANY_MODEL", "Placement", "Router"]

# A replica that has a whole conversation may be so much busier than the least busy one, in parts
# of its places; one that has half of it, half as much.
WORTH_OF_PREFIX = 0.5
HOLDERS = 4  # replicas that are remembered for one prefix
KEPT_PREFIXES = 1 << 18  # about 60 MB
SPARE_ENTRIES = 4  # entries of a heap for each replica before it is made anew
ANY_MODEL = ""  # stands for the model of requests that name none


@dataclass(frozen=True)
class Placement:
    """Where a generation runs, and the part of its conversation that was read there before."""

    name: str
    known: float  # of its bytes, from 0 to 1


@dataclass(eq=False, slots=True)
class _Replica:
    """What the router knows of one replica."""

    name: str
    places: int  # answers that it makes well at once
    most: int  # answers that it accepts at once
    models: tuple[str, ...]
    live: int = 0  # answers that run there
    busy: float = 0.0  # the part of its places that these take
    takes: bool = True  # whether it gets new generations
    change: int = 0  # the number of its newest entry in the heaps

    def has_room(self, answers: int) -> bool:
        return self.takes and self.live + answers <= self.most


Entry = tuple[float, int, _Replica]  # how busy, the number of the change, the replica


@dataclass(eq=False)
class Router:
    """The policy and what it remembers: the replicas, their live answers, who has read what.

    `kept_prefixes` bounds the memory; the least recently used prefixes are forgotten.
    """

    kept_prefixes: int = KEPT_PREFIXES
    _replicas: dict[str, _Replica] = field(default_factory=dict)
    _holders: OrderedDict[bytes, tuple[_Replica, ...]] = field(default_factory=OrderedDict)
    # The replicas of each model, the least busy first, with entries that are out of date.
    _heaps: dict[str, list[Entry]] = field(default_factory=dict)
    _changes: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(
        self,
        name: str,
        places: int,
        models: Iterable[str] = (ANY_MODEL,),
        most: int | None = None,
    ) -> None:
        """Add a replica that has read nothing yet and takes generations; replace one of this name.

        It serves `models`, ANY_MODEL among them if it serves requests that name none. It makes
        `places` answers well at once, and accepts `most` of them.
        """
        self.remove(name)
        limit = 1 << 30 if most is None else most
        replica = _Replica(name, max(1, places), limit, tuple(dict.fromkeys(models)))
        self._replicas[name] = replica
        self._changed(replica)

    def let_take(self, name: str, takes: bool) -> None:
        """Say whether a replica gets new generations; those that run there are not touched."""
        replica = self._replicas.get(name)
        if replica is not None and replica.takes != takes:
            replica.takes = takes
            self._changed(replica)

    def remove(self, name: str) -> None:
        """Forget a replica, what runs there and what it has read."""
        replica = self._replicas.pop(name, None)
        if replica is not None:
            replica.takes = False

    def live(self, name: str) -> int:
        """Return how many answers run on a replica."""
        return self._replicas[name].live if name in self._replicas else 0

    def place(
        self,
        prefixes: Sequence[Prefix],
        model: str | None = None,
        *,
        answers: int = 1,
        avoid: Collection[str] = (),
    ) -> Placement | None:
        """Choose a replica for a generation and count its answers; None if none has room.

        The replica is none of `avoid`. `leave` must be called when the generation has ended.
        """
        group = model if model in self._heaps else ANY_MODEL
        best = self._least_busy(group, answers, avoid)
        if best is None:
            return None
        holders, total = self._holders, prefixes[-1].size if prefixes else 1
        least, cost, known = best.busy, best.busy + WORTH_OF_PREFIX, 0.0
        for digest, size in reversed(prefixes):
            rest = WORTH_OF_PREFIX * (1 - size / total)
            if least + rest > cost:
                break  # none that has read as little is better, however idle it is
            for replica in reversed(holders.get(digest, ())):
                its_cost = replica.busy + rest
                allowed = group in replica.models and replica.name not in avoid
                if its_cost <= cost and allowed and replica.has_room(answers):
                    best, cost, known = replica, its_cost, size / total
        self._remember(prefixes, best)
        self._count(best, answers)
        return Placement(best.name, known)

    def leave(self, name: str, answers: int = 1) -> None:
        """Note that a generation of so many answers has ended on a replica."""
        replica = self._replicas.get(name)
        if replica is not None:
            self._count(replica, -answers)

    def _count(self, replica: _Replica, answers: int) -> None:
        """Note that so many more answers run on a replica."""
        replica.live = max(0, replica.live + answers)
        replica.busy = replica.live / replica.places
        self._changed(replica)

    def _remember(self, prefixes: Sequence[Prefix], replica: _Replica) -> None:
        """Note that a replica reads these prefixes."""
        holders = self._holders
        for digest, _ in reversed(prefixes):
            before = holders.get(digest, ())
            if before and before[-1] is replica:
                holders.move_to_end(digest)
                break  # it has read the shorter ones too
            others = [one for one in before if one is not replica and self._is_known(one)]
            holders[digest] = (*others[1 - HOLDERS :], replica)
            holders.move_to_end(digest)
        while len(holders) > self.kept_prefixes:
            holders.popitem(last=False)

    def _is_known(self, replica: _Replica) -> bool:
        return self._replicas.get(replica.name) is replica

    def _least_busy(self, group: str, answers: int, avoid: Collection[str]) -> _Replica | None:
        """Return the least busy replica with room; of several, the one that changed first."""
        heap = self._heaps.get(group, [])
        passed: list[Entry] = []
        found: _Replica | None = None
        while heap and found is None:
            entry = heap[0]
            replica = entry[2]
            if entry[1] != replica.change or not replica.has_room(1):
                heapq.heappop(heap)  # it comes back when one of its generations leaves
            elif replica.name in avoid or not replica.has_room(answers):
                passed.append(heapq.heappop(heap))
            else:
                found = replica
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def _changed(self, replica: _Replica) -> None:
        """Put a replica where it belongs among those of its models."""
        if not replica.takes:
            return
        replica.change = next(self._changes)
        for model in replica.models:
            if (heap := self._heaps.get(model)) is None:
                heap = self._heaps[model] = []
            heapq.heappush(heap, (replica.busy, replica.change, replica))
            if len(heap) > SPARE_ENTRIES * (len(self._replicas) + SPARE_ENTRIES):
                current = [one for one in heap if one[1] == one[2].change and one[2].takes]
                heapq.heapify(current)
                self._heaps[model] = current
