"""A fleet of replicas, simulated by discrete events, with the policy that places generations.

    python -m tests.bench.fleet                          1, 10, 100 replicas, 20,000 conversations
    python -m tests.bench.fleet --replicas 1000 --conversations 1000000 --fronts 250 --own

The policy is the real one (`provider/replicas/routing.py`), beside three others that show what it
is worth. Arrivals come in bursts, replicas fail, and caches are as small as told. A replica has one
engine: it reads one prompt at a time and makes up to `places` answers at once, each the slower the
more there are. What is not simulated: networks, and who gives up.

Around the replicas there are limits, each shown as the share of it that was used at most:
- a front's thread: each token costs `front_us` of it, each turn `lease_us`; beyond it all its
  answers are slower.
- a front's connections, one for each open conversation: beyond them, a conversation goes to another
  front, and is refused if all are full.
- a front's generations: a turn beyond them is refused, and tries again a second later.
- what a front keeps of ended answers for clients that lost their connection (tickets): beyond it
  the oldest are forgotten early.
- the thread of Ray Serve's controller, which looks at each replica every second: beyond it, a
  replica that has failed is replaced later.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import json
import random
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from provider.replicas.prefixes import Prefix
from provider.replicas.routing import Router

POLICIES = ("ours", "least busy", "sticky", "random")
BYTES = 4  # of text, for each token
MOMENTS = 10  # in a second, whose events are put in order together
Happens = Callable[[float, object], None]  # what an event does, given the time and what it is of
Event = tuple[float, int, Happens, object, int]
LIMITS = ("thread", "connections", "generations", "tickets", "controller")
HEADINGS = (
    "replicas", "fronts", "policy", "turns", "cached", "of best", "TTFT p50", "p99", "answer p99",
    "busiest", "queued", "moved", *LIMITS, "refused", "kept for",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What is simulated; times are in seconds, sizes in tokens."""

    replicas: int = 10
    conversations: int = 20_000
    policy: str = "ours"
    fronts: int = 1  # each sees what it has placed itself
    own: bool = False  # whether each front has replicas of its own, or all have all
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
    lease_us: float = 1_000.0  # and for each turn, with the call to Serve that stands for it
    connections: int = 4_096  # that a front accepts: `max_connections`
    generations: int = 2_048  # and `max_generations_in_all`
    ticket_bytes: int = 64 << 20  # of ended answers that a front keeps: `resume_total_bytes`
    ended_bytes: int = 4_096  # of one of them, beside its text
    token_bytes: int = 24  # of a token in a frame that is kept
    ticket_s: float = 60.0  # how long they should be kept: `resume_ttl`
    controller_us: float = 2_000.0  # of the controller's thread for each replica in a second
    seed: int = 1

    @property
    def tokens_per_s(self) -> float:
        """What one replica decodes when it is full."""
        return self.places / (self.step_s + self.row_s * self.places)

    @property
    def controller_share(self) -> float:
        """The part of the controller's thread that the replicas take."""
        return self.replicas * self.controller_us / 1e6


@dataclass(eq=False, slots=True)
class Turn:
    """A conversation's newest turn, or what is left of it after its replica has failed."""

    conversation: int
    arrived: float
    prompt: int  # tokens to be read, the conversation before it included
    left: int  # tokens to be made
    prefixes: list[Prefix]  # what the policy sees: the system prompt, and each turn
    front: Front  # where the conversation's client is connected
    number: int = 0
    engine: Engine | None = None  # where the conversation's newest turn was placed
    life: int = 0  # changes when its replica fails, so that its events are void
    first: float | None = None
    counted: bool = False  # by the front's router
    rate: float = 0.0  # tokens a second that it asks of its front, while it runs


@dataclass(eq=False, slots=True)
class Engine:
    """A replica: who waits, how many rows there are, until when it reads, what is cached."""

    name: str
    waiting: deque[Turn] = field(default_factory=deque)
    running: dict[Turn, float] = field(default_factory=dict)  # and when it began to decode
    reads_until: float = 0.0
    up: bool = True
    # Conversations by number, and system prompts by a negative one.
    cache: OrderedDict[int, int] = field(default_factory=OrderedDict)
    cached: int = 0
    busy_s: float = 0.0  # seconds of rows


@dataclass(eq=False, slots=True)
class Front:
    """One gateway in front, with the policy's memory, and what it has of each limit."""

    engines: list[Engine]  # its replicas
    router: Router = field(default_factory=Router)
    open: int = 0  # conversations, each with a connection
    live: int = 0  # turns, waiting ones included
    rate: float = 0.0  # tokens a second that its running turns ask for
    most_open: int = 0
    most_live: int = 0
    most_rate: float = 0.0
    most_kept: int = 0  # bytes
    kept: deque[tuple[float, int]] = field(default_factory=deque)  # ended answers: when, bytes
    kept_bytes: int = 0


@dataclass
class Result:
    """What came out."""

    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    best_cached_tokens: int = 0  # with one cache without end
    answer_tokens: int = 0
    moved: int = 0
    waits: array[float] = field(default_factory=lambda: array("f"))  # times to first token
    answers: array[float] = field(default_factory=lambda: array("f"))  # seconds after that
    queued: int = 0  # turns that found no place
    seconds: float = 0.0
    busiest: float = 0.0  # rows of the busiest replica beside the mean
    used: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0.0))
    refused: int = 0  # conversations that found all fronts full, and turns that had to try again
    kept_s: float = 0.0  # the shortest time that an ended answer was kept
    ended: int = 0  # conversations

    def percentile(self, share: float) -> float:
        """Return the time to first token that so many turns do not exceed."""
        return _percentile(self.waits, share)

    def use(self, limit: str, share: float) -> None:
        """Note how much of a limit is used."""
        if share > self.used[limit]:
            self.used[limit] = share

    @property
    def cached_share(self) -> float:
        """The part of all prompts that was cached."""
        return self.cached_tokens / self.prompt_tokens

    @property
    def of_best(self) -> float:
        """The same, beside one cache without end."""
        return self.cached_tokens / max(1, self.best_cached_tokens)


def _percentile(values: array[float], share: float) -> float:
    return float(np.sort(values)[min(len(values) - 1, int(share * len(values)))])


class Agenda:
    """Events in the order of their times, and of their number where those are equal.

    Only the events of one moment are in a heap; those to come, hundreds of thousands, are in lists.
    """

    def __init__(self) -> None:
        self._order = itertools.count()
        self._moment = 0  # up to which all events are in `_now`
        self._now: list[Event] = []
        self._moments: list[int] = []  # of the events to come, as a heap
        self._to_come: dict[int, list[Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._now or self._moments)

    def add(self, time: float, happens: Happens, what: object) -> None:
        event = (time, next(self._order), happens, what, what.life if type(what) is Turn else 0)
        moment = int(time * MOMENTS)
        if moment <= self._moment:
            heapq.heappush(self._now, event)
        elif (others := self._to_come.get(moment)) is not None:
            others.append(event)
        else:
            self._to_come[moment] = [event]
            heapq.heappush(self._moments, moment)

    def pop(self) -> Event:
        """Remove and return the next event."""
        if not self._now:
            self._moment = heapq.heappop(self._moments)
            self._now = self._to_come.pop(self._moment)
            heapq.heapify(self._now)
        return heapq.heappop(self._now)


class Simulation:
    """One world from its first arrival to its last answer."""

    def __init__(self, world: World):
        self.world, self.chance = world, random.Random(world.seed)
        self.result = Result(kept_s=world.ticket_s)
        self.result.use("controller", world.controller_share)
        self.engines = [Engine(f"r{n}") for n in range(world.replicas)]
        self._named = {engine.name: engine for engine in self.engines}
        apart = world.fronts if world.own else 1
        self.fronts = [Front(self.engines[n % apart :: apart]) for n in range(world.fronts)]
        for engine in self.engines:
            self._put(engine)
        sizes = world.system * BYTES
        self._systems = [Prefix(b"s%d" % number, sizes) for number in range(world.systems)]
        self._front_s = (world.front_us + world.lease_us / world.answer) / 1e6  # for each token
        self.events = Agenda()
        self._at = self.events.add
        self.left = world.conversations
        self.open = 0  # conversations
        a_turn = world.answer / world.tokens_per_s
        self.rate = world.load * world.replicas / (a_turn * world.turns)

    def run(self) -> Result:
        """Return what came out."""
        self._at(0.0, self._arrive, None)
        if self.world.fails_every_s:
            self._at(self._next_failure(), self._fail, None)
        now = 0.0
        while self.events and (self.left or self.open):
            now, _, happens, what, life = self.events.pop()
            if type(what) is Turn and what.life != life:
                continue
            happens(now, what)
        return self._summed(now)

    def _summed(self, now: float) -> Result:
        result = self.result
        result.seconds = now
        rows = [engine.busy_s for engine in self.engines]
        result.busiest = max(rows) * len(rows) / max(1e-9, sum(rows))
        for front in self.fronts:
            result.use("thread", front.most_rate * self._front_s)
            result.use("connections", front.most_open / self.world.connections)
            result.use("generations", front.most_live / self.world.generations)
            result.use("tickets", front.most_kept / self.world.ticket_bytes)
        return result

    # Events.

    def _arrive(self, now: float, _: object) -> None:
        """Begin a conversation, and wait for the next one."""
        world = self.world
        number = world.conversations - self.left
        self.left -= 1
        length = self._length()
        if (front := self._connects(number)) is not None:
            turn = Turn(number, now, 0, length, [self._systems[number % world.systems]], front)
            self._ask(turn, world.system)
            self._turn(now, turn)
        if self.left:
            in_burst = now % world.burst_every_s < world.burst_s
            mean = 1 + (world.burst - 1) * world.burst_s / world.burst_every_s
            rate = self.rate / mean * (world.burst if in_burst else 1)
            self._at(now + self.chance.expovariate(rate), self._arrive, None)

    def _connects(self, conversation: int) -> Front | None:
        """Connect a conversation's client to the next front that has room; None if none has."""
        for number in range(len(self.fronts)):
            front = self.fronts[(conversation + number) % len(self.fronts)]
            if front.open < self.world.connections:
                self.open += 1
                front.open += 1
                front.most_open = max(front.most_open, front.open)
                return front
        self.result.refused += 1
        return None

    def _ask(self, turn: Turn, before: int) -> None:
        """Add a question to a conversation of so many tokens."""
        turn.prompt = before + self.world.question
        digest = b"%d.%d" % (turn.conversation, turn.number)
        turn.prefixes.append(Prefix(digest, turn.prompt * BYTES))

    def _turn(self, now: float, turn: object) -> None:
        """Place a turn, and let it begin or wait there."""
        assert isinstance(turn, Turn)
        front = turn.front
        full = front.live >= self.world.generations
        engine = None if full else self._placed(turn)
        self.result.refused += full
        if engine is None:  # all are down, or the front has too much
            self._at(now + 1.0, self._turn, turn)
            return
        front.live += 1
        if front.live > front.most_live:
            front.most_live = front.live
        if len(engine.running) < self.world.places:
            self._begin(now, engine, turn)
        else:
            self.result.queued += 1
            engine.waiting.append(turn)

    def _begin(self, now: float, engine: Engine, turn: Turn) -> None:
        world, result, front = self.world, self.result, turn.front
        known = self._take_cached(engine, turn)
        result.prompt_tokens += turn.prompt
        result.cached_tokens += known
        result.best_cached_tokens += self._best_cached(turn)
        engine.reads_until = max(now, engine.reads_until) + (turn.prompt - known) / world.prefill
        engine.running[turn] = engine.reads_until
        step = world.step_s + world.row_s * len(engine.running)
        turn.rate = 1 / step
        front.rate += turn.rate
        if front.rate > front.most_rate:
            front.most_rate = front.rate
        step *= max(1.0, front.rate * self._front_s)
        turn.first = turn.first or engine.reads_until + step
        self._at(engine.reads_until + step * turn.left, self._end, turn)

    def _end(self, now: float, what: object) -> None:
        """End a turn; the conversation goes on later, or ends."""
        assert isinstance(what, Turn)
        world, turn, engine = self.world, what, what.engine
        assert engine is not None
        engine.busy_s += now - engine.running.pop(turn)
        self._leave(turn, engine)
        self._keep_answer(now, turn)
        self._keep(engine, turn.conversation, turn.prompt + turn.left)
        self.result.turns += 1
        self.result.answer_tokens += turn.left
        assert turn.first is not None
        self.result.waits.append(turn.first - turn.arrived)
        self.result.answers.append(now - turn.first)
        if engine.waiting and engine.up:
            self._begin(now, engine, engine.waiting.popleft())
        if self.chance.random() < 1 - 1 / world.turns:
            turn.arrived = now + self.chance.expovariate(1 / world.think_s)
            turn.number += 1
            self._ask(turn, turn.prompt + turn.left)
            turn.left, turn.first, turn.counted = self._length(), None, False
            self._at(turn.arrived, self._turn, turn)
        else:
            self.open -= 1
            self.result.ended += 1
            turn.front.open -= 1

    def _fail(self, now: float, _: object) -> None:
        """End a replica; what it had goes on elsewhere, and it comes back with nothing."""
        engine = self.chance.choice(self.engines)
        if engine.up:
            engine.up, moved = False, [*engine.running, *engine.waiting]
            began = dict(engine.running)
            engine.running.clear()
            engine.waiting.clear()
            engine.cache.clear()
            engine.cached, engine.reads_until = 0, now
            for front in self._fronts_of(engine):
                front.router.remove(engine.name)
            step = self.world.step_s + self.world.row_s * max(1, len(began))
            for turn in moved:
                made = int(max(0.0, now - began.get(turn, now)) / step)
                made = max(0, min(turn.left - 1, made))
                self._leave_front(turn)
                turn.life, turn.counted = turn.life + 1, False
                turn.prompt, turn.left = turn.prompt + made, turn.left - made
                self.result.moved += 1
                self.result.answer_tokens += made
                self._at(now, self._turn, turn)
            slower = max(1.0, self.world.controller_share)
            self._at(now + self.world.down_s * slower, self._back, engine)
        self._at(now + self._next_failure(), self._fail, None)

    def _back(self, now: float, engine: object) -> None:
        assert isinstance(engine, Engine)
        engine.up = True
        self._put(engine)

    def _put(self, engine: Engine) -> None:
        """Let fronts place on a replica that has read nothing yet."""
        for front in self._fronts_of(engine):
            front.router.put(engine.name, self.world.places)

    def _fronts_of(self, engine: Engine) -> list[Front]:
        number = int(engine.name[1:]) % len(self.fronts)
        return [self.fronts[number]] if self.world.own else self.fronts

    # The fronts.

    def _leave_front(self, turn: Turn) -> None:
        front = turn.front
        front.live -= 1
        front.rate -= turn.rate
        turn.rate = 0.0

    def _keep_answer(self, now: float, turn: Turn) -> None:
        """Keep an answer that has ended, and forget those that are too old or too many."""
        world, front = self.world, turn.front
        size = world.ended_bytes + turn.left * world.token_bytes
        front.kept.append((now, size))
        front.kept_bytes += size
        while front.kept and front.kept[0][0] < now - world.ticket_s:
            front.kept_bytes -= front.kept.popleft()[1]
        if front.kept_bytes > front.most_kept:
            front.most_kept = front.kept_bytes
        while front.kept_bytes > world.ticket_bytes:
            ended, size = front.kept.popleft()
            front.kept_bytes -= size
            self.result.kept_s = min(self.result.kept_s, now - ended)

    # The policies.

    def _placed(self, turn: Turn) -> Engine | None:
        """Choose a turn's replica; None if all are down."""
        policy, front = self.world.policy, turn.front
        if policy == "random":
            turn.engine = self._any_of(front.engines)
        elif policy != "sticky" or turn.engine is None or not turn.engine.up:
            found = front.router.place(turn.prefixes if policy == "ours" else ())
            turn.engine = None if found is None else self._named[found.name]
            turn.counted = True
        return turn.engine

    def _any_of(self, engines: list[Engine]) -> Engine | None:
        engine = self.chance.choice(engines)
        if engine.up:
            return engine
        up = [one for one in engines if one.up]
        return self.chance.choice(up) if up else None

    def _leave(self, turn: Turn, engine: Engine) -> None:
        self._leave_front(turn)
        if turn.counted:
            turn.front.router.leave(engine.name)

    # The caches.

    def _take_cached(self, engine: Engine, turn: Turn) -> int:
        own = engine.cache.get(turn.conversation, 0)
        system = -1 - turn.conversation % self.world.systems
        shared = engine.cache.get(system, 0)
        if own:
            engine.cache.move_to_end(turn.conversation)
        self._keep(engine, system, self.world.system)
        return min(turn.prompt - 1, max(own, shared))

    def _keep(self, engine: Engine, key: int, size: int) -> None:
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
        f"{_percentile(result.answers, 0.99):.1f} s",
        f"{result.busiest:.2f}",
        f"{result.queued / max(1, result.turns):.1%}",
        f"{result.moved}",
        *(f"{result.used[limit]:.0%}" for limit in LIMITS),
        f"{result.refused}",
        f"{result.kept_s:.0f} s",
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--own", action="store_true", help="each front has replicas of its own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    for name, default in (
        ("conversations", 20_000), ("fronts", 1), ("load", 0.7), ("cache", 400_000),
        ("burst", 4.0), ("fails_every_s", 20_000.0), ("seed", 1), ("front_us", 60.0),
        ("lease_us", 1_000.0), ("connections", 4_096), ("controller_us", 2_000.0),
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
    gc.disable()  # nothing here is in a cycle, and millions of objects live
    main(sys.argv[1:])
