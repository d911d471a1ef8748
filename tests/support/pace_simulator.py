"""Simulated machines that read a prompt beside streams, in chunks that the engine's Pace chooses.

`python -m tests.support.pace_simulator` prints tables as Markdown, in about a minute. Each prompt
is read twice: as Pace would have it, and as somebody would who knows the machine's costs.
"""

import math
import random
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from provider.engine.pace import MAX_CHUNK, Pace
from provider.engine.prompt_share import PromptShare
from provider.engine.scheduler import Scheduler
from provider.engine.step_share import StepShare

MS = 1e-3
TIMES = (5, 11, 35, 55, 100)  # milliseconds of a decode step, and of a pass whatever its chunk
TOKENS = (0.02, 0.1, 0.4, 1.5, 6)  # milliseconds of a token of a chunk
SIZES = np.arange(1, MAX_CHUNK + 1)
NEW_SHAPE = 55 * MS, 110 * MS
WORST = 1.3  # how many times the best a prompt may take, and how many times the allowed a gap
SURPRISES = 3  # longer gaps that nobody can foresee, on a machine that is `surprising`


@dataclass(frozen=True)
class Machine:
    """What passes cost, in seconds."""

    step: float  # a decode step of one stream
    fixed: float  # a pass over a chunk, whatever its size
    token: float  # each token of it
    pairs: float = 3e-5  # each pair of a token and a token before it, in tokens
    new_shape: tuple[float, float] = (0.0, 0.0)  # a pass of a new (chunk, offset): least and most
    noise: float = 0.0  # standard deviation of the logarithm of a time
    spikes: float = 0.0  # share of passes that take two to seven times as long
    drift: float = 1.0  # how many times slower it gets
    sudden: bool = False  # whether it gets so all at once
    overlap: bool = False  # whether the fixed cost and the tokens' overlap

    @property
    def surprising(self):
        """Whether it gets slower all at once, or seems to as several passes in a row do."""
        return self.sudden or self.spikes > 0.1

    def costs(self, sizes, context):
        """Return the time of a pass of each size, of a shape that comes again."""
        tokens = sizes * self.token * (1 + self.pairs * (context + sizes / 2))
        return np.maximum(self.fixed, tokens) if self.overlap else self.fixed + tokens

    def decode_step(self, streams):
        return self.step * (1 + 0.02 * (streams - 1))


def variants(machine):
    """Return machines like this one, by what is the matter with them."""
    return {
        "as modelled": machine,
        "overlap": replace(machine, overlap=True, noise=0.03),
        "new shapes": replace(machine, new_shape=NEW_SHAPE),
        "new shapes, spikes": replace(machine, new_shape=NEW_SHAPE, noise=0.03, spikes=0.03),
        "noise": replace(machine, noise=0.05),
        "spikes": replace(machine, noise=0.03, spikes=0.03),
        "many spikes": replace(machine, noise=0.03, spikes=0.3),
        "dear attention": replace(machine, pairs=_dear_pairs(machine), noise=0.03),
        "drift": replace(machine, drift=2.0, noise=0.02),
        "sudden drift": replace(machine, drift=3.0, sudden=True),
    }


def _dear_pairs(machine):
    """Return what pairs cost, in tokens, where they are dear, but at most 0.4 microseconds."""
    return min(3e-3, 4e-7 / (machine.token or 1))


VARIANTS = tuple(variants(Machine(0, 0, 0)))


@dataclass(frozen=True)
class Case:
    """A prompt beside streams."""

    machine: Machine
    prompt: int = 8192
    streams: int = 1
    models: int = 1  # models that take turns, each with such prompts and such streams
    gap: float = 0.1
    slowdown: float = 2.0
    prompts: int = 1  # how many such prompts come one after another; the last one counts


@dataclass
class Clock:
    """The machine's times as they come, each a little different."""

    machine: Machine
    streams: int
    seed: int
    passes: int = -1000  # since drift has begun; not while a model is loaded
    shapes: set = field(default_factory=set)

    def __post_init__(self):
        self.random = random.Random(self.seed)

    @property
    def slower(self):
        """How many times slower the machine is by now."""
        machine = self.machine
        share = float(self.passes > 20) if machine.sudden else self.passes / 60
        return 1 + (machine.drift - 1) * min(1.0, max(0.0, share))

    def chunk(self, tokens, context):
        """Return the time of a pass, and what a spike adds to it."""
        seconds = float(self.machine.costs(tokens, context))
        if (tokens, context) not in self.shapes:
            self.shapes.add((tokens, context))
            seconds += self.random.uniform(*self.machine.new_shape)
        self.passes += 1
        seconds = self._noisy(seconds)
        spike = self.random.random() < self.machine.spikes
        return seconds, seconds * self.random.uniform(1, 6) * spike

    def step(self):
        return self._noisy(self.machine.decode_step(self.streams))

    def _noisy(self, seconds):
        return seconds * self.slower * math.exp(self.random.gauss(0, self.machine.noise))


class Informed:
    """Chooses chunks in knowledge of the machine's costs, under the same rules."""

    def __init__(self, case, clock):
        self.case, self.clock = case, clock
        self.new = sum(case.machine.new_shape) / 2
        self._known = None, None

    def turn(self, context):
        """Return how long a turn may take, and the times of turns with a chunk of each size."""
        now = context, self.clock.slower
        if self._known[0] != now:
            self._known = now, self._turn(*now)
        return self._known[1]

    def _turn(self, context, slower):
        case = self.case
        costs = (case.machine.costs(SIZES, context) + self.new) * slower
        turns = costs + case.machine.decode_step(case.streams) * slower
        slow = turns / SIZES > case.slowdown * costs[-1] / MAX_CHUNK
        useful = MAX_CHUNK - 1 if slow[-1] else int(np.argmin(slow))
        return max(case.gap / case.models, float(turns[useful])), turns

    def budget(self, context, active_models=1):
        allowed, turns = self.turn(context)
        return max(1, int(np.searchsorted(turns, allowed * (1 + 1e-9), "right")))

    def longest(self, context):
        """Return how long a turn may take by what the setting says.

        Where costs overlap, the shortest possible turn is taken to be that of both.
        """
        allowed, _ = self.turn(context)
        machine, slowdown, slower = self.case.machine, self.case.slowdown, self.clock.slower
        if not machine.overlap:
            return allowed
        shortest = machine.fixed + self.new + machine.decode_step(self.case.streams)
        return max(allowed, shortest * slower * slowdown / (slowdown - 1))


def loaded(case, clock):
    """Return a Pace that knows what loading and some decode steps have shown."""
    pace = Pace(case.gap, case.slowdown)
    for tokens in pace.trials():
        pace.tried(tokens, [sum(clock.chunk(tokens, 0)) for _ in range(3)])
    for tokens, done in pace.depths():
        pace.deepened(tokens, done, sum(clock.chunk(tokens, done)))
    for _ in range(10):
        pace.decoded(clock.step())
    return pace


@dataclass
class Outcome:
    """How a prompt was read; times are without what spikes add, which nobody can avoid."""

    seconds: float = 0.0
    chunks: int = 0
    gap: float = 0.0  # longest
    excess: float = 0.0  # most that a gap took of what was allowed then
    late: int = 0  # gaps that took more than WORST times what was allowed


class Reader:
    """A model that reads prompts beside streams."""

    def __init__(self, case, seed, *, informed):
        self.case = case
        self.clock = Clock(case.machine, case.streams, seed)
        self.informed = Informed(case, self.clock)
        self.pace = None if informed else loaded(case, self.clock)
        self.clock.random.seed(seed + 100)
        self.clock.passes = 0
        self.scheduler = Scheduler(
            case.streams + 1, lambda key: "", StepShare(1.15), PromptShare(1.0)
        )
        for stream in range(case.streams):
            self._begin(stream, 0)
            self.scheduler.stream(stream)
        self.done = case.prompt

    def _begin(self, key, tokens):
        self.scheduler.submit(key)
        self.scheduler.admit()
        self.scheduler.read(key, tokens)

    def turn(self):
        """Read a chunk and make a decode step; return the time, without a spike."""
        if self.done == self.case.prompt:
            self.scheduler.remove("prompt")
            self._begin("prompt", self.case.prompt)
            self.done = 0
        chooser = self.pace or self.informed
        ((_, tokens),) = self.scheduler.plan(chooser.budget(self.done, self.case.models))
        seconds, spike = self.clock.chunk(tokens, self.done)
        step = self.clock.step()
        if self.pace is not None:
            self.pace.prefilled(tokens, self.done, seconds + spike)
            self.pace.decoded(step)
        self.done += tokens
        self.scheduler.read("prompt", self.case.prompt - self.done)
        return seconds + step


def simulate(case, *, informed=False, seed=1):
    """Let each model read prompts; return how the first model's last one was read."""
    readers = [Reader(case, seed + at, informed=informed) for at in range(case.models)]
    for _ in range(case.prompts):
        outcome = _read(readers)
    return outcome


def _read(readers):
    outcome = Outcome()
    while True:
        allowed = sum(
            reader.informed.longest(reader.done % reader.case.prompt) for reader in readers
        )
        gap = sum(reader.turn() for reader in readers)
        outcome.seconds += gap
        outcome.chunks += 1
        outcome.gap = max(outcome.gap, gap)
        outcome.excess = max(outcome.excess, gap / allowed)
        outcome.late += gap > WORST * allowed
        if readers[0].done == readers[0].case.prompt:
            return outcome


def compared(case, seed=1):
    """Return how a prompt is read with Pace, and with knowledge of the machine."""
    return simulate(case, seed=seed), simulate(case, informed=True, seed=seed)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def worst(cases):
    """Return the worst of some cases: a prompt's time beside the best, a gap beside the allowed."""
    pairs = [compared(case) for case in cases]
    ratio = max(ours.seconds / best.seconds for ours, best in pairs)
    gap = max(ours.excess for ours, _ in pairs)
    return f"{ratio:.2f}, {gap:.2f}"


def by_costs():
    for token in TOKENS:
        machines = [
            variants(Machine(step * MS, fixed * MS, token * MS))
            for step, fixed in product(TIMES, TIMES)
        ]
        yield [token, *(worst([Case(each[name]) for each in machines]) for name in VARIANTS)]


def by_load():
    machines = [Machine(5 * MS, 5 * MS, 0.1 * MS), Machine(35 * MS, 35 * MS, 0.4 * MS)]
    machines.append(Machine(11 * MS, 55 * MS, 1.5 * MS))
    for prompt, streams, models in product((1000, 8192, 100_000), (1, 8, 32), (1, 3)):
        if prompt < 100_000 or streams == models == 1:
            noisy = [Case(replace(one, noise=0.03), prompt, streams, models) for one in machines]
            yield [prompt, streams, models, worst(noisy)]


# Machines of real_machines, for the README: what a pass costs, and whether new shapes are dear.
KNOWN = {
    "8B, bf16, on an M4 Max": Machine(35 * MS, 35 * MS, 1.5 * MS, overlap=True),
    "8B, bf16, on an H100": Machine(7 * MS, 10 * MS, 0.02 * MS, new_shape=NEW_SHAPE),
    "0.6B, bf16, on an M4 Max": Machine(5 * MS, 5 * MS, 0.12 * MS, overlap=True),
    "70B, 4 bits, on an M4 Max": Machine(90 * MS, 90 * MS, 13 * MS, overlap=True),
    "135M, float32, on two x86 cores": Machine(55 * MS, 35 * MS, 6 * MS),
    "2M, float32, on two x86 cores": Machine(2.5 * MS, 3.5 * MS, 0.13 * MS, pairs=3e-3),
}


def known():
    for name, machine in KNOWN.items():
        ours, best = compared(Case(replace(machine, noise=0.02)))
        alone = sum(float(machine.costs(MAX_CHUNK, at)) for at in range(0, 8192, MAX_CHUNK))
        times = [f"{one:.2g} s" for one in (alone, best.seconds, ours.seconds)]
        yield [name, *times, ours.chunks, f"{ours.gap / MS:.0f} ms"]


def main():
    print("A prompt of 8,192 tokens beside a stream, `max_token_gap` 100 ms.\n")
    print(table(["machine", "alone", "best", "ours", "chunks", "longest gap"], known()))
    print("Worst of 25 machines: prompt's time of the best, longest gap of the allowed.\n")
    print(table(["ms a token", *VARIANTS], by_costs()))
    print(table(["prompt", "streams", "models", "worst of three machines"], by_load()))


if __name__ == "__main__":
    main()
