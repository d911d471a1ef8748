"""Three polite clients beside a hostile one that picks at random from all attacks.

The polite ones keep most of the tokens a second that they have when it is quiet, wait for no piece
of text longer than a second, and get every text as it is when they are alone.
"""

import asyncio
import tempfile
from bisect import bisect
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.bench.attack.gateways import ALICE, POLITE, SECRETS, Attacker, start, write_tokens
from tests.bench.attack.judging import SHARE, console
from tests.bench.attack.polite import Question, Watch, asked
from tests.bench.report import Figure

QUIET_S = 20.0
MAX_SAID = 12  # attacks of which it is said what polite clients got
MAX_GAP_S = 1.0
# An attacker has processors of its own elsewhere. Here it shares those of the gateway and of the
# polite clients, and so has what they leave; what the gateway does for it counts whole.
NICE = 19
PROMPTS = (
    *(f"Count from {n} to {n + 40}" for n in (3, 17, 88)),
    *(f"Tell me a story about a {subject}" for subject in ("fox", "lighthouse keeper", "letter")),
    "What is this gateway?",
    "How do I stop a generation?",
)


def fields(number):
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"prompt": prompt, "temperature": 0.0, "max_tokens": 160}


async def learnt(served):
    """Return the question whose texts are those that come alone."""
    texts, tokens = [], 0
    for number in range(len(PROMPTS)):
        text, done = await asked(served.port, SECRETS[ALICE], **fields(number))
        texts.append(text)
        tokens += done["usage"]["completion_tokens"]
    each = tokens / sum(map(len, texts))
    return Question(fields, lambda number: texts[number % len(texts)], each)


async def watched(served, question, event):
    """Return what each polite client sees until an event is done."""
    ends = asyncio.ensure_future(event)
    watches = [Watch(served.port, SECRETS[name], question, served.pid) for name in POLITE]
    await asyncio.gather(*(watch.during(asyncio.shield(ends)) for watch in watches))
    return watches, await ends


async def soak(seconds, seed, only=(), nice=NICE):
    """Return the figures of a soak, with these attacks `only`, or all if it is empty."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = write_tokens(Path(folder) / "tokens.toml")
        served = await start("--compression", "--token-file", tokens)
        try:
            question = await learnt(served)
            quiet, _ = await watched(served, question, asyncio.sleep(QUIET_S))
            attacker = await Attacker.ready(
                "anything", served, seconds, nice=nice, seed=seed, only=tuple(only)
            )
            hostile, told = await watched(served, question, attacker.attack())
        finally:
            ended = await served.end()
    say_long_waits(hostile, attacker.began)
    say_slow_attacks(hostile, attacker, sum(watch.seen.rate for watch in quiet))
    figures = judge(quiet, hostile)
    said = ", ".join(f"{count} {name}" for name, count in sorted(told.items()))
    said += f"; the attacker's priority: nice {nice}"
    most = min(10, len(only) or 10)
    enough = len(told) >= most
    figures.append(Figure("kinds of attacks", len(told), "", f"at least {most}", enough, said))
    figures.append(Figure("status in the end", ended.status, "", "0", ended.status == 0))
    return figures


def say_long_waits(watches, began):
    """Say which attack was going on when a polite client waited long, and how often."""
    during, longest = Counter(), Counter()
    for watch in watches:
        for at, seconds, what in watch.long:
            place = bisect(began, (at,)) - 1
            key = f"{what} during {began[max(place, 0)][1] if began else 'nothing'}"
            during[key] += 1
            longest[key] = max(longest[key], seconds)
    for key, count in during.most_common():
        console.print(f"  {count} waits, the longest {longest[key]:.2f} s: {key}")


def slowness(got, began, end, rate):
    """Return by attack the part of a rate that came during it, and for how long it went on.

    `got` has times and tokens, `began` times and names of attacks.
    """
    tokens, seconds = Counter(), Counter()
    for at, count in got:
        place = bisect(began, (at, "\uffff")) - 1
        if place >= 0:
            tokens[began[place][1]] += count
    for (at, name), (until, _) in zip(began, [*began[1:], (end, "")], strict=True):
        seconds[name] += until - at
    return {name: (tokens[name] / took / rate, took) for name, took in seconds.items() if took}


def used_by(began, used):
    """Return by attack the processor time that was used during it."""
    found = {}
    for (_, name), before, after in zip(began, used, used[1:], strict=False):
        found[name] = found[name] + (after - before) if name in found else after - before
    return found


def say_slow_attacks(watches, attacker, rate):
    """Say during which attacks polite clients got the least, and what was done meanwhile."""
    got, began = [one for watch in watches for one in watch.got], attacker.began
    if not (got and began):
        return
    found, used = (
        slowness(got, began, max(at for at, _ in got), rate),
        used_by(began, attacker.used),
    )
    for name, (part, took) in sorted(found.items(), key=lambda one: one[1])[:MAX_SAID]:
        console.print(f"  {part:.2f} of the quiet tokens during {name}, {took:.0f} s")
        if name in used:
            console.print(f"    processors: {shown(used[name], took)}")


def shown(used, took):
    """Return how much of a processor each has used in so many seconds."""
    return ", ".join(f"{name} {seconds / took:.2f}" for name, seconds in asdict(used).items())


def judge(quiet, hostile):
    """Compare what polite clients saw beside a hostile one with what they saw when it was quiet."""
    before, after = (sum(watch.seen.rate for watch in some) for some in (quiet, hostile))
    figures = [
        Figure(
            "tokens a second of the polite clients, beside a hostile one",
            after / before,
            "of the quiet ones",
            f"at least {SHARE}",
            after >= SHARE * before,
            f"{after:.0f} of {before:.0f}",
        )
    ]
    for what, name in (("gap", "the longest gap in an answer"), ("first", "the first text after")):
        longest, calm = (max(getattr(w.seen, what) for w in some) for some in (hostile, quiet))
        holds = longest <= MAX_GAP_S
        figures.append(
            Figure(name, longest, "s", f"at most {MAX_GAP_S:g}", holds, f"quiet {calm:.2g} s")
        )
    wrong = sum(watch.seen.wrong for watch in hostile)
    right = sum(watch.seen.answers for watch in hostile)
    failures = sum((watch.seen.failures for watch in hostile), Counter())
    said = ", ".join(f"{count} {name}" for name, count in failures.items())
    figures.append(Figure("texts that differ", wrong, f"of {right:,}", "0", right > wrong == 0))
    refused = failures.total()
    figures.append(Figure("refusals and lost connections", refused, "", "0", not refused, said))
    pings = max(watch.seen.ping for watch in hostile)
    figures.append(Figure("the longest way of a ping and back", pings, "s"))
    return figures
