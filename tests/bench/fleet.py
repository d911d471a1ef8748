"""A fleet of replicas, simulated by discrete events, with the policy that places generations.

    python -m tests.bench.fleet                          1, 10, 100 replicas, 20,000 conversations
    python -m tests.bench.fleet --replicas 1000 --conversations 1000000 --fronts 40

The policy is the real one (`provider/replicas/routing.py`), beside three others that show what it
is worth. Arrivals come in bursts, replicas fail, and caches are as small as told. A replica has one
engine: it reads one prompt at a time and makes up to `places` answers at once, each the slower the
more there are. What is not simulated: networks, and who gives up.

The front's share is a sum, not an event: each token that leaves it costs `front_us` of its thread.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

from provider.replicas.prefixes import Prefix
from provider.replicas.routing import Router

POLICIES = ("ours", "least busy", "sticky", "random")
BYTES = 4  # of text, for each token
HEADINGS = (
    "replicas", "fronts", "policy", "turns", "cached", "of best", "TTFT p50", "p99",
    "busiest", "queued", "moved", "a front's time",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is simulated; times are in seconds, sizes in tokens."""

    replicas: int = 10
    conversations: int = 20_000
    policy: str = "ours"
    fronts: int = 1  # each sees what it has placed itself
    load: float = 0.7  # part of what the replicas can decode
    turns: float = 5.0  # of a conversation, on average
    think_s: float = 20.0  # from an answer to the next turn, on average
    system: int = 400  # the system prompt, one of `systems`
    systems: int = 20
    question: int = 60
    answer: int = 150
    places: int = 32
    cache: int = 400_000  # what a replica's prefix cache holds
    prefill: float = 8_000.0  # tokens a second
    step_s: float = 0.008  # a decode step of one row, and of each further one:
    row_s: float = 0.0001
    burst: float = 4.0  # arrivals in bursts, beside those between them
    burst_every_s: float = 120.0
    burst_s: float = 10.0
    fails_every_s: float = 20_000.0  # of one replica, on average; 0 for never
    down_s: float = 30.0
    front_us: float = 60.0  # microseconds of a front's thread for each token
    seed: int = 1

    @property
    def tokens_per_s(self) -> float:
        """What one replica decodes when it is full."""
        return self.places / (self.step_s + self.row_s * self.places)


@dataclass(eq=False)
class Turn:
    """One turn of a conversation, or what is left of it after its replica has failed."""

    conversation: int
    number: int
    arrived: float
    prompt: int  # tokens to be read, the conversation before it included
    left: int  # tokens to be made
    life: int = 0  # changes when its replica fails, so that its events are void
    first: float | None = None
    counted: bool = False  # by the front's router


@dataclass(eq=False)
class Engine:
    """A replica: who waits, how many rows there are, until when it reads, what is cached."""

    name: str
    waiting: deque[Turn] = field(default_factory=deque)
    running: dict[Turn, float] = field(default_factory=dict)  # and when it began to decode
    reads_until: float = 0.0
    up: bool = True
    cache: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)
    cached: int = 0
    busy_s: float = 0.0  # seconds of rows


@dataclass(eq=False)
class Front:
    """One gateway in front, with the policy's memory."""

    router: Router = field(default_factory=Router)
    homes: dict[int, str] = field(default_factory=dict)  # of the policy `sticky`


@dataclass
class Result:
    """What came out."""

    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    best_cached_tokens: int = 0  # with one cache without end
    answer_tokens: int = 0
    moved: int = 0
    waits: list[float] = field(default_factory=list)  # times to first token
    queued: int = 0  # turns that found no place
    seconds: float = 0.0
    busiest: float = 0.0  # rows of the busiest replica beside the mean
    front_share: float = 0.0  # of each front's thread

    def percentile(self, share: float) -> float:
        """Return the time to first token that so many turns do not exceed."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]

    @property
    def cached_share(self) -> float:
        """The part of all prompts that was cached."""
        return self.cached_tokens / self.prompt_tokens

    @property
    def of_best(self) -> float:
        """The same, beside one cache without end."""
        return self.cached_tokens / max(1, self.best_cached_tokens)


class Simulation:
    """One world from its first arrival to its last answer."""

    def __init__(self, world: World):
        self.world, self.chance = world, random.Random(world.seed)
        self.result = Result()
        self.engines = {f"r{n}": Engine(f"r{n}") for n in range(world.replicas)}
        self.fronts = [Front() for _ in range(world.fronts)]
        for front in self.fronts:
            for name in self.engines:
                front.router.put(name, world.places)
        self.events: list[tuple[float, int, str, object, int]] = []
        self.order = itertools.count()
        self.left = world.conversations
        self.open = 0  # conversations
        a_turn = world.answer / world.tokens_per_s
        self.rate = world.load * world.replicas / (a_turn * world.turns)

    def run(self) -> Result:
        """Return what came out."""
        self._at(0.0, "arrive", None)
        if self.world.fails_every_s:
            self._at(self._next_failure(), "fail", None)
        now = 0.0
        while self.events and (self.left or self.open):
            now, _, kind, what, life = heapq.heappop(self.events)
            if isinstance(what, Turn) and what.life != life:
                continue
            getattr(self, f"_{kind}")(now, what)
        return self._summed(now)

    def _summed(self, now: float) -> Result:
        result, world = self.result, self.world
        result.seconds = now
        rows = [engine.busy_s for engine in self.engines.values()]
        result.busiest = max(rows) * len(rows) / max(1e-9, sum(rows))
        cost = result.answer_tokens * world.front_us / 1e6
        result.front_share = cost / max(1e-9, now) / world.fronts
        return result

    def _at(self, time: float, kind: str, what: object) -> None:
        life = what.life if isinstance(what, Turn) else 0
        heapq.heappush(self.events, (time, next(self.order), kind, what, life))

    # Events.

    def _arrive(self, now: float, _: object) -> None:
        """Begin a conversation, and wait for the next one."""
        world = self.world
        number = world.conversations - self.left
        self.left -= 1
        self.open += 1
        self._turn(now, Turn(number, 0, now, world.system + world.question, self._length()))
        if self.left:
            in_burst = now % world.burst_every_s < world.burst_s
            mean = 1 + (world.burst - 1) * world.burst_s / world.burst_every_s
            rate = self.rate / mean * (world.burst if in_burst else 1)
            self._at(now + self.chance.expovariate(rate), "arrive", None)

    def _turn(self, now: float, turn: Turn) -> None:
        """Place a turn, and let it begin or wait there."""
        engine = self._placed(turn)
        if engine is None:  # all are down
            self._at(now + 1.0, "turn", turn)
        elif len(engine.running) < self.world.places:
            self._begin(now, engine, turn)
        else:
            self.result.queued += 1
            engine.waiting.append(turn)

    def _begin(self, now: float, engine: Engine, turn: Turn) -> None:
        world, result = self.world, self.result
        known = self._take_cached(engine, turn)
        result.prompt_tokens += turn.prompt
        result.cached_tokens += known
        result.best_cached_tokens += self._best_cached(turn)
        engine.reads_until = max(now, engine.reads_until) + (turn.prompt - known) / world.prefill
        engine.running[turn] = engine.reads_until
        step = world.step_s + world.row_s * len(engine.running)
        turn.first = turn.first or engine.reads_until + step
        self._at(engine.reads_until + step * turn.left, "end", turn)

    def _end(self, now: float, what: object) -> None:
        """End a turn; the conversation goes on later, or ends."""
        assert isinstance(what, Turn)
        world, turn, engine = self.world, what, self._engine_of(what)
        engine.busy_s += now - engine.running.pop(turn)
        self._leave(turn, engine)
        self._keep(engine, ("conversation", turn.conversation), turn.prompt + turn.left)
        self.result.turns += 1
        self.result.answer_tokens += turn.left
        assert turn.first is not None
        self.result.waits.append(turn.first - turn.arrived)
        if engine.waiting and engine.up:
            self._begin(now, engine, engine.waiting.popleft())
        if self.chance.random() < 1 - 1 / world.turns:
            later = now + self.chance.expovariate(1 / world.think_s)
            longer = turn.prompt + turn.left + world.question
            more = Turn(turn.conversation, turn.number + 1, later, longer, self._length())
            self._at(later, "turn", more)
        else:
            self.open -= 1
            self.front_of(turn).homes.pop(turn.conversation, None)

    def _fail(self, now: float, _: object) -> None:
        """End a replica; what it had goes on elsewhere, and it comes back with nothing."""
        engine = self.chance.choice(list(self.engines.values()))
        if engine.up:
            engine.up, moved = False, [*engine.running, *engine.waiting]
            began = dict(engine.running)
            engine.running.clear()
            engine.waiting.clear()
            engine.cache.clear()
            engine.cached, engine.reads_until = 0, now
            for front in self.fronts:
                front.router.remove(engine.name)
            step = self.world.step_s + self.world.row_s * max(1, len(began))
            for turn in moved:
                made = int(max(0.0, now - began.get(turn, now)) / step)
                made = max(0, min(turn.left - 1, made))
                turn.life, turn.counted = turn.life + 1, False
                turn.prompt, turn.left = turn.prompt + made, turn.left - made
                self.result.moved += 1
                self.result.answer_tokens += made
                self._at(now, "turn", turn)
            self._at(now + self.world.down_s, "back", engine)
        self._at(now + self._next_failure(), "fail", None)

    def _back(self, now: float, engine: object) -> None:
        assert isinstance(engine, Engine)
        engine.up = True
        for front in self.fronts:
            front.router.put(engine.name, self.world.places)

    # The policies.

    def front_of(self, turn: Turn) -> Front:
        """Return the front that a conversation comes to: its client's connection stays there."""
        return self.fronts[turn.conversation % len(self.fronts)]

    def _placed(self, turn: Turn) -> Engine | None:
        front, policy = self.front_of(turn), self.world.policy
        up = [name for name, one in self.engines.items() if one.up] if policy == "random" else []
        if policy == "random":
            name = self.chance.choice(up) if up else None
        elif policy == "sticky" and self._is_up(front.homes.get(turn.conversation)):
            name = front.homes[turn.conversation]
        else:
            found = front.router.place(self._prefixes(turn) if policy == "ours" else ())
            name = None if found is None else found.name
            turn.counted = True
        if name is None:
            return None
        front.homes[turn.conversation] = name
        return self.engines[name]

    def _is_up(self, name: str | None) -> bool:
        return name is not None and self.engines[name].up

    def _leave(self, turn: Turn, engine: Engine) -> None:
        if turn.counted:
            self.front_of(turn).router.leave(engine.name)

    def _engine_of(self, turn: Turn) -> Engine:
        return self.engines[self.front_of(turn).homes[turn.conversation]]

    def _prefixes(self, turn: Turn) -> tuple[Prefix, ...]:
        """Return what the policy sees of a conversation: its system prompt and each turn."""
        world = self.world
        found = [Prefix(b"s%d" % (turn.conversation % world.systems), world.system * BYTES)]
        each = (turn.prompt - world.system) * BYTES // (turn.number + 1)
        for number in range(turn.number + 1):
            digest = b"%d.%d" % (turn.conversation, number)
            found.append(Prefix(digest, world.system * BYTES + each * (number + 1)))
        return tuple(found)

    # The caches.

    def _take_cached(self, engine: Engine, turn: Turn) -> int:
        own = engine.cache.get(("conversation", turn.conversation), 0)
        system = ("system", turn.conversation % self.world.systems)
        shared = engine.cache.get(system, 0)
        if own:
            engine.cache.move_to_end(("conversation", turn.conversation))
        self._keep(engine, system, self.world.system)
        return min(turn.prompt - 1, max(own, shared))

    def _keep(self, engine: Engine, key: tuple[str, int], size: int) -> None:
        engine.cached += size - engine.cache.pop(key, 0)
        engine.cache[key] = size
        while engine.cached > self.world.cache:
            engine.cached -= engine.cache.popitem(last=False)[1]

    def _best_cached(self, turn: Turn) -> int:
        before = turn.prompt - self.world.question if turn.number else self.world.system
        return min(turn.prompt - 1, before)

    # Chance.

    def _length(self) -> int:
        return 1 + int(self.chance.expovariate(1 / self.world.answer))

    def _next_failure(self) -> float:
        return self.chance.expovariate(self.world.replicas / self.world.fails_every_s)


def row(world: World, result: Result) -> tuple[str, ...]:
    """Return a result as the cells of a table, under HEADINGS."""
    return (
        f"{world.replicas}",
        f"{world.fronts}",
        world.policy,
        f"{result.turns:,}",
        f"{result.cached_share:.3f}",
        f"{result.of_best:.3f}",
        f"{1000 * result.percentile(0.5):.0f} ms",
        f"{1000 * result.percentile(0.99):.0f} ms",
        f"{result.busiest:.2f}",
        f"{result.queued / max(1, result.turns):.1%}",
        f"{result.moved}",
        f"{result.front_share:.0%}",
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--json", type=Path, metavar="FILE")
    for name, default in (
        ("conversations", 20_000), ("fronts", 1), ("load", 0.7), ("cache", 400_000),
        ("burst", 4.0), ("fails_every_s", 20_000.0), ("seed", 1),
    ):  # fmt: skip
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        parser.add_argument(flag, dest=name, type=type(default), default=default)
    given = vars(parser.parse_args(arguments))
    counts, policies, file = given.pop("replicas"), given.pop("policies"), given.pop("json")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    found = []
    for count in counts:
        for policy in policies:
            world = World(replicas=count, policy=policy, **given)
            cells = row(world, Simulation(world).run())
            found.append(dict(zip(HEADINGS, cells, strict=True)))
            print(f"| {' | '.join(cells)} |", flush=True)
    if file is not None:
        file.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
