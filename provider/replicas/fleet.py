"""All replicas of a provider, and the choice among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.protocol.frames import Generate
from provider.interface import ModelInfo
from provider.replicas.prefixes import prefixes_of
from provider.replicas.relay import Relay
from provider.replicas.replica import PLACES, Link, Replica
from provider.replicas.routing import ANY_MODEL, Router
from provider.replicas.statistics import Counters, FleetStatistics

__all__ = ["Fleet", "Place"]


@dataclass(frozen=True)
class Place:
    """A place on a replica, which one generation has until it leaves."""

    link: Link
    leave: Callable[[], None]

    def relay(self, frame: Generate) -> Relay:
        """Return the generation there, which is not started yet."""
        return Relay(self.link.client, frame)


class Fleet:
    """Replicas at fixed addresses; one event loop's, from `start` to `close`."""

    def __init__(self, urls: Sequence[str], token: str | None = None):
        self.counters = Counters()
        self.closed = False
        self.replicas = [Replica(url, token, self._changed) for url in urls]
        self._router = Router()
        self._links: dict[str, Link] = {}  # those that the router knows, by key
        self._keys: dict[Replica, str] = {}
        self._default: str | None = None  # the model of requests that name none
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to connect to all replicas; do nothing if that was done."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(replica.run()) for replica in self.replicas]

    async def wait_ready(self) -> None:
        """Wait until a replica takes generations."""
        await self._ready.wait()

    async def close(self) -> None:
        """Close all connections; the generations there end."""
        self.closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def ready(self) -> int:
        """How many replicas take generations."""
        return sum(replica.takes for replica in self.replicas)

    def why_not(self) -> str:
        """Return why no replica takes generations."""
        said = (f"{replica.name}: {replica.trouble}" for replica in self.replicas)
        return f"no replica is ready ({'; '.join(said)})"

    def models(self) -> list[ModelInfo]:
        """Return the models of all replicas, each once, the default model first."""
        found: dict[str, ModelInfo] = {}
        for model in [model for replica in self.replicas for model in replica.models]:
            known = found.get(model.id)
            if known is None or (model.loaded and not known.loaded):
                found[model.id] = model
        return sorted(found.values(), key=lambda model: model.id != self._default)

    def place(self, frame: Generate, avoid: Collection[str] = ()) -> Place | None:
        """Return a place for a generation on a replica that is none of `avoid`, None without one.

        The replicas to avoid are given by the keys of their links.
        """
        answers = max(1, frame.n or 1)
        found = self._router.place(prefixes_of(frame), frame.model, answers=answers, avoid=avoid)
        if found is None:
            return None
        self.counters.placed += 1
        self.counters.known_parts += found.known
        return Place(self._links[found.name], partial(self._router.leave, found.name, answers))

    def statistics(self) -> FleetStatistics:
        """Return a snapshot of the metrics."""
        counters, names = self.counters, {one.name: one for one in self.replicas}
        answers = {replica: self._router.live(key) for replica, key in self._keys.items()}
        return FleetStatistics(
            replicas=len(names),
            replicas_ready=self.ready,
            replica_ready={name: int(one.takes) for name, one in names.items()},
            replica_answers={name: answers.get(one, 0) for name, one in names.items()},
            replica_connections_lost={name: one.lost for name, one in names.items()},
            generations_placed=counters.placed,
            conversations_known=counters.known_parts,
            generations_passed_on=counters.passed_on,
            generations_moved=counters.moved,
            generations_lost=counters.failed,
        )

    def _changed(self, replica: Replica) -> None:
        """Tell the router of a replica's new link, or that it is lost, or takes no generations."""
        key, link = self._keys.get(replica), replica.link
        if key is not None and (link is None or link.key != key):
            self._router.remove(key)
            del self._keys[replica], self._links[key]
            key = None
        if link is not None and key is None and replica.takes:
            self._keys[replica], self._links[link.key] = link.key, link
            served = [model.id for model in replica.models]
            self._default = self._default or (served[0] if served else None)
            any_model = [ANY_MODEL] if self._default in {None, *served[:1]} else []
            self._router.put(link.key, min(PLACES, link.most), served + any_model, link.most)
        elif key is not None:
            self._router.let_take(key, replica.takes)
        if self.ready:
            self._ready.set()
        else:
            self._ready.clear()
