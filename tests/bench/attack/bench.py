"""Runs cases: gateways that they share, and what polite clients see of those when it is quiet."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.attack.gateways import (
    ALICE,
    SECRETS,
    Attacker,
    start,
    with_few_files,
    write_tokens,
)
from tests.bench.attack.judging import Check, Verdict, console
from tests.bench.attack.polite import Question, Watch, answer_alone, slower

QUIET_S = 1.5
FRESH_S = 30.0  # for which quiet figures are used
LEAST_S = 1.5  # that polite clients are watched, however soon the attack is over
ATTACK_S = 2.5
IDLE_S = 15.0  # for which a second try waits for others to end at most
# Beside the model, whose threads ServerTime does not tell apart from others', an attacker has what
# the gateway leaves: elsewhere it has processors of its own.
NICE = 19
LANES = 2  # cases that compare no times, at once
CASES = {}

COUNTING = {"prompt": "Count from 3 to 40", "temperature": 0.0, "max_tokens": 80}
MESSAGE_S = 3  # what a large message may take while others wait
SCRIPTED = ("--provider", "scripted", "--compression", "--message-timeout", str(MESSAGE_S))
MODEL = ("--compression",)
BRIEF = ("--shutdown-grace", "1", "--close-timeout", "1")
FEW_FILES = with_few_files(256)


def busy_seconds():
    """Return for how many seconds the processors have worked, 0 where that is not counted."""
    with suppress(OSError):
        user, nice, system, *_ = Path("/proc/stat").read_text().split()[1:9]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass(frozen=True)
class Case:
    """One attack: `measure(bench)` returns what was asked and seen."""

    measure: Callable
    subject: str
    sent: str
    timed: bool  # whether it compares times, so that the machine is for it alone


def case(subject, sent, *, timed=True):
    """Register a case: an async function of a Bench that returns checks."""

    def register(function):
        CASES[function.__name__] = Case(function, subject, sent, timed)
        return function

    return register


class Bench:
    """Gateways by their arguments, each kept until a case fails with it."""

    def __init__(self, folder):
        self.folder = folder
        self._served = {}
        self._quiet = {}
        self._questions = {}
        self._number = 0
        self._starting = asyncio.Lock()
        self._again = False  # whether this is a second try

    def new_folder(self):
        self._number += 1
        made = self.folder / str(self._number)
        made.mkdir()
        return made

    async def shared(self, kind):
        """Return the gateway of these arguments, with tokens, that cases share."""
        async with self._starting:
            served = self._served.get(kind)
            if served is None or not served.alive():
                tokens = write_tokens(self.new_folder() / "tokens.toml")
                served = self._served[kind] = await start(*kind, "--token-file", tokens)
            return served

    async def counting(self, kind):
        """Return the question that has one right answer: the one that comes when it is alone."""
        if kind not in self._questions:
            served = await self.shared(kind)
            right, tokens = await answer_alone(served.port, SECRETS[ALICE], COUNTING)
            self._questions[kind] = Question(lambda _: COUNTING, lambda _: right, tokens)
        return self._questions[kind]

    async def watch(self, kind, event, question=None):
        """Return what a polite client of the shared gateway sees until `event` is done."""
        served = await self.shared(kind)
        asked = question or await self.counting(kind)
        one_thread = kind == SCRIPTED
        watch = Watch(served.port, SECRETS[ALICE], asked, served.pid, one_thread=one_thread)
        result = await watch.during(event)
        return watch.seen, result

    async def quiet(self, kind, question=None):
        """Return what a polite client sees when nobody attacks, not long ago."""
        key = kind, question
        if key not in self._quiet:
            await self.watch(kind, asyncio.sleep(0.5), question)  # warms up
        if key not in self._quiet or time.monotonic() > self._quiet[key][1] + FRESH_S:
            seen, _ = await self.watch(kind, asyncio.sleep(QUIET_S), question)
            self._quiet[key] = seen, time.monotonic()
        return self._quiet[key][0]

    async def under(self, kind, name, question=None, seconds=ATTACK_S):
        """Return what a polite client sees when it is quiet and under attack, and what was told."""
        quiet = await self.quiet(kind, question)
        nice = 0 if kind == SCRIPTED else NICE
        attacker = await Attacker.ready(name, await self.shared(kind), seconds, nice=nice)

        async def attack():
            told, _ = await asyncio.gather(attacker.attack(), asyncio.sleep(LEAST_S))
            return told

        seen, told = await self.watch(kind, attack(), question)
        if self._again:
            quiet = slower(quiet, await self._quiet_afterwards(kind, question))
        return quiet, seen, told

    async def _quiet_afterwards(self, kind, question):
        """Return what a polite client sees now of another gateway, which nobody has attacked.

        The machine may have become slower since it was quiet before the attack.
        """
        attacked, self._served = self._served, {}
        try:
            self._quiet.clear()
            return await self.quiet(kind, question)
        finally:
            await self.end_all()
            self._served = attacked

    async def beside_plain_rows(self):
        """Return what a polite client sees beside rows that nothing is asked of but text."""
        rows, seen_at = self._quiet.get("rows", (None, 0.0))
        if rows is None or time.monotonic() > seen_at + FRESH_S:
            _, rows, _ = await self.under(MODEL, "plain_rows")
            self._quiet["rows"] = rows, time.monotonic()
        return rows

    async def run(self, names):
        """Run cases, and return their verdicts by name; those that compare no times come last."""
        verdicts = {}
        for name in (name for name in names if CASES[name].timed):
            verdicts[name] = await self._again_if_failed(await self._try(name))
        left = iter([name for name in names if not CASES[name].timed])
        tried = []

        async def lane():
            for name in left:
                tried.append(await self._try(name))

        await asyncio.gather(*(lane() for _ in range(LANES)))
        for verdict in tried:
            verdicts[verdict.case] = await self._again_if_failed(verdict)
        return verdicts

    async def _again_if_failed(self, verdict):
        """Return a verdict that holds; else run the case once more, and return what comes then.

        It has gateways that nothing has happened to then, quiet figures of right before and right
        after, and a machine that others don't use: it may have been slow for some seconds, but what
        is at fault fails again.
        """
        if not verdict.holds:
            await self.end_all()
            self._quiet.clear()
            await idle_machine()
            self._again = True
            first, verdict = verdict, await self._try(verdict.case)
            self._again = False
            verdict.first = first.failed
        if not verdict.holds:
            await self.end_all()
        return verdict

    async def _try(self, name):
        found = CASES[name]
        begin = time.monotonic()
        try:
            async with asyncio.timeout(60):
                checks = await found.measure(self)
        except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
            checks = [Check("error", f"{type(error).__name__}: {error}"[:200], False)]
        verdict = Verdict(name, found.subject, found.sent, checks, time.monotonic() - begin)
        mark = "ok" if verdict.holds else "[red]FAILED[/red]"
        details = "; ".join(f"{check.what} {check}" for check in checks)
        console.print(f"  {mark} {name} ({verdict.seconds:.1f} s): {details}")
        return verdict

    async def end_all(self):
        served, self._served = self._served, {}
        for one in served.values():
            if one.alive():
                await one.end(at_most=5.0)


async def idle_machine(at_most=IDLE_S, every=0.5, busy=busy_seconds):
    """Wait until others use less than an eighth of this machine's processors, or for some time."""
    until = time.monotonic() + at_most
    while time.monotonic() < until:
        before, begin = busy(), time.monotonic()
        await asyncio.sleep(every)
        if busy() - before < (time.monotonic() - begin) * (os.cpu_count() or 1) / 8:
            return


@asynccontextmanager
async def ending(served):
    """End a gateway that only one case uses, if the case has not."""
    try:
        yield served
    finally:
        if served.alive():
            await served.end(at_most=10.0)


@asynccontextmanager
async def opened(folder):
    async with AsyncExitStack() as stack:
        bench = Bench(folder)
        stack.push_async_callback(bench.end_all)
        yield bench
