"""All replicas of a provider, and the choice among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.protocol.frames import Generate
from provider.interface import ModelInfo
from provider.replicas.lease import Lease
from provider.replicas.prefixes import Prefix, prefixes_of
from provider.replicas.relay import Relay
from provider.replicas.replica import Link, Replica
from provider.replicas.routing import Router
from provider.replicas.statistics import Counters, FleetStatistics

__all__ = ["Fleet", "Place"]

FIRST = "\0"  # with a model's name, the router's name for replicas whose default model it is


@dataclass(frozen=True)
class Place:
    """A place on a replica, which one generation has until it leaves."""

    link: Link
    leave: Callable[[], None]

    def relay(self, frame: Generate) -> Relay:
        """Return the generation there, which is not started yet."""
        return Relay(self.link.client, frame)


class Fleet:
    """Replicas at fixed addresses or at those of `keep`; one event loop's, until `close`."""

    def __init__(self, urls: Sequence[str], token: str | None = None):
        self.counters = Counters()
        self.closed = False
        self.replicas = [Replica(url, token, self._changed) for url in urls]
        # Called with the name of a replica that `keep` was given, for each generation there that
        # runs for a while (see Lease).
        self.lease: Callable[[str], Callable[[], None]] | None = None
        self._names: dict[str, Replica] = {}  # by the names of `keep`
        self._named: dict[Replica, str] = {}  # the other way around
        self._served: frozenset[str] | None = None  # models, None until they are looked up again
        self._router = Router()
        self._links: dict[str, Link] = {}  # those that the router knows, by key
        self._keys: dict[Replica, str] = {}
        self._default: str | None = None  # the model of requests that name none
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, urls: Mapping[str, str]) -> None:
        """Have the replicas at these addresses, by name; others end what they have and go.

        Does nothing once it is closed.
        """
        if self.closed:
            return
        for name in set(self._names) - set(urls):
            replica = self._names.pop(name)
            del self._named[replica]
            replica.retire()
        for name in set(urls) - set(self._names):
            replica = self._names[name] = Replica(urls[name], None, self._changed)
            self._named[replica] = name
            self.replicas.append(replica)
            task = asyncio.create_task(replica.run())
            self._tasks.append(task)
            task.add_done_callback(partial(self._forget, replica))

    def _forget(self, replica: Replica, task: asyncio.Task[None]) -> None:
        if not self.closed:
            self._served = None
            self.replicas.remove(replica)
            self._tasks.remove(task)

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

    @property
    def places(self) -> int:
        """How many answers the replicas that take generations make well at once."""
        links = [replica.link for replica in self.replicas if replica.takes]
        return sum(link.places for link in links if link is not None)

    def why_not(self) -> str:
        """Return why no replica takes generations."""
        said = (f"{replica.name}: {replica.trouble}" for replica in self.replicas)
        return f"no replica is ready ({'; '.join(said)})"

    def why_none(self, model: str | None) -> str:
        """Return why no replica takes a generation with this model now."""
        if not self.ready:
            return self.why_not()
        group = self._group(model)
        having = [one for one in self.replicas if group in _groups(one)]
        if any(one.takes for one in having):
            return "all replicas are busy"
        said = (f"{one.name}: {one.trouble or 'it is stopping'}" for one in having)
        return (
            f"no replica with the model `{group.removeprefix(FIRST)}` is ready ({'; '.join(said)})"
        )

    def models(self) -> list[ModelInfo]:
        """Return the models of all replicas, each once, the default model first."""
        found: dict[str, ModelInfo] = {}
        for model in [model for replica in self.replicas for model in replica.models]:
            known = found.get(model.id)
            if known is None or (model.loaded and not known.loaded):
                found[model.id] = model
        return sorted(found.values(), key=lambda model: model.id != self._default)

    def place(
        self,
        frame: Generate,
        prefixes: Sequence[Prefix] | None = None,
        avoid: Collection[str] = (),
    ) -> Place | None:
        """Return a place for a generation on a replica that is none of `avoid`, None without one.

        `prefixes` are those of its conversation, for a caller that looks several times. The
        replicas to avoid are given by the keys of their links.
        """
        answers = max(1, frame.n or 1)
        group = self._group(frame.model)
        known = prefixes_of(frame) if prefixes is None else prefixes
        found = self._router.place(known, group, answers=answers, avoid=avoid)
        if found is None:
            return None
        link = self._links[found.name]
        self.counters.placed += 1
        self.counters.known_parts += found.known
        link.live += 1
        end = self._counted(link.replica)
        return Place(link, partial(self._leave, link, answers, end))

    def _group(self, model: str | None) -> str:
        """Return the router's name for the replicas that a request may go to."""
        if self._served is None:
            models = (one.id for replica in self.replicas for one in replica.models)
            self._served = frozenset(models)
        return model if model in self._served else f"{FIRST}{self._default}"

    def _counted(self, replica: Replica) -> Callable[[], None]:
        """Tell whoever watches the replicas of a generation there; return what tells of its end."""
        name = self._named.get(replica)
        if self.lease is None or name is None:
            return _nothing
        return Lease(partial(self.lease, name)).end

    def _leave(self, link: Link, answers: int, end: Callable[[], None]) -> None:
        link.live -= 1
        self._router.leave(link.key, answers)
        end()

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

    def _keep_default(self, newest: Replica) -> None:
        """Let requests without a model go to other replicas if theirs now serve another one."""
        if all(self._default != _default(replica) for replica in self.replicas):
            self._default = _default(newest)

    def _changed(self, replica: Replica) -> None:
        """Tell the router of a replica's new link, or that it is lost, or takes no generations."""
        self._served = None
        key, link = self._keys.get(replica), replica.link
        if key is not None and (link is None or link.key != key):
            self._router.remove(key)
            del self._keys[replica], self._links[key]
            key = None
        if link is not None and key is None and replica.takes:
            self._keys[replica], self._links[link.key] = link.key, link
            self._router.put(link.key, link.places, _groups(replica), link.most)
            self._keep_default(replica)
        elif key is not None:
            self._router.let_take(key, replica.takes)
        if self.ready:
            self._ready.set()
        else:
            self._ready.clear()


def _default(replica: Replica) -> str:
    """Return the model of requests to a replica that name none, "" if it is not known."""
    return replica.models[0].id if replica.models else ""


def _groups(replica: Replica) -> list[str]:
    """Return the router's names for what a replica serves: its default model, and each by name."""
    return [f"{FIRST}{_default(replica)}", *(model.id for model in replica.models)]


def _nothing() -> None:
    """Do nothing."""
