"""A gateway in front of replicas, beside one process alone, on this machine.

    python -m tests.bench.replicas --json .build/bench-replicas.json
    python -m tests.bench.replicas --quick --only cancels

Every gateway is a process of its own, with the embedded model or the one that `--model` names.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.client import GatewayClient, GatewayError
from gateway.protocol.address import address_of
from provider.replicas.probe import get
from tests.bench.rawclient import Counter, timed
from tests.bench.report import Figure, publish, said

STREAMS = 32
SOME = 12  # characters of an answer that is under way
LATER_S = 0.5  # seconds in which an engine that still has a run makes many steps
COUNT = "Count from 3 to 90"
QUESTIONS = (
    "Tell me a story about a fox.",
    "And then?",
    "Who was there?",
    "Why?",
    "How did it end?",
)


class Served:
    """One gateway's process."""

    def __init__(self, process, url):
        self.process, self.url = process, url
        self.address = address_of(url)
        self.port = int(re.search(r":(\d+)/", url)[1])

    def client(self, **options):
        return GatewayClient(self.url, **options)

    def kill(self):
        self.process.kill()

    async def metric(self, name):
        """Return a metric's value, summed over its labels."""
        _, body = await get(self.address, "/metrics", self.address.token)
        found = re.findall(rf"^mlx_gateway_{name}(?:{{.*}})? (\S+)$", body.decode(), re.MULTILINE)
        return sum(map(float, found))

    async def idle(self):
        """Wait until no run is left in the engine; return the seconds that it took."""
        begin = time.perf_counter()
        while any(
            [await self.metric(f"engine_{one}") for one in ("decoding", "prefilling", "waiting")]
        ):
            await asyncio.sleep(0.002)
        return time.perf_counter() - begin


@asynccontextmanager
async def started(*command, **environment):
    """Start a module that prints the address of its gateway; yield that, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1", **environment},
    )  # fmt: skip
    try:
        line = (await process.stdout.readline()).decode()
        yield Served(process, re.search(r"http://\S+", line)[0])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def serving(*arguments, **environment):
    """Start a gateway."""
    options = ["--port", "0", "--log-level", "error"]
    return started("gateway", "serve", *options, *arguments, **environment)


def model_of(given):
    return [given.model] if given.model else []


@asynccontextmanager
async def fleet(given, count):
    """Start replicas and a gateway in front; yield it and them."""
    async with AsyncExitStack() as stack:
        backs = [
            await stack.enter_async_context(serving(*model_of(given), "--as-replica"))
            for _ in range(count)
        ]
        flags = [flag for back in backs for flag in ("--replica", back.url)]
        front = await stack.enter_async_context(serving(*flags))
        await ready(front, count)
        yield front, backs


async def ready(front, count):
    """Wait until so many replicas, and no others, are there and take generations."""
    while {await front.metric(f"engine_replicas{one}") for one in ("", "_ready")} != {count}:
        await asyncio.sleep(0.05)


def alone(given):
    return serving(*model_of(given))


async def burst(servers, streams, tokens):
    """Return the tokens a second of so many streams, each on a connection of its own."""
    message = {
        "type": "generate",
        "id": "a",
        "prompt": COUNT,
        "temperature": 0,
        "max_tokens": tokens,
    }
    body = json.dumps(message, separators=(",", ":")).encode()
    made = {
        one.port: [
            Counter("/v1/stream", [body], b'"type":"done"', one.address.token)
            for _ in range(streams // len(servers))
        ]
        for one in servers
    }
    return streams * tokens / max(await asyncio.gather(*(timed(*each) for each in made.items())))


async def rates(given, ways):
    """Return the tokens a second of rounds of bursts on each list of servers, in turns."""
    tokens, rounds = (48, 2) if given.quick else (128, 7)
    found = [[await burst(servers, STREAMS, tokens) for servers in ways] for _ in range(rounds + 1)]
    return list(zip(*found[1:], strict=True))


def share(what, base, other, unit="of one process"):
    """Return the figure of the rates of one way beside those of another, round by round."""
    value = statistics.median(b / a for a, b in zip(base, other, strict=True))
    detail = f"{statistics.median(other):,.0f} beside {statistics.median(base):,.0f} tokens/s"
    return said(Figure(what, value, unit, ">= 0.95", value >= 0.95, detail))


async def throughput(given):
    async with alone(given) as one, fleet(given, 1) as (front, _):
        direct, through = await rates(given, [[one], [front]])
    yield share(f"{STREAMS} streams through", direct, through)


async def first_tokens(given, servers):
    """Return the median milliseconds to the first token of each server, asked in turns."""
    rounds = 10 if given.quick else 60
    times = [[] for _ in servers]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(one.client()) for one in servers]
        for number in range(rounds * len(clients)):
            begin = time.perf_counter()
            client = clients[number % len(clients)]
            async with client.generate(prompt=COUNT, temperature=0, max_tokens=4) as run:
                async for _ in run:
                    seconds = time.perf_counter() - begin
                    times[number % len(clients)].append(1000 * seconds)
                    break
    return [statistics.median(one[2:]) for one in times]


def later(what, base, other):
    """Return the figure of a first token that comes later than another."""
    more, detail = other - base, f"{other:.1f}, {base:.1f} ms"
    return said(Figure(what, more, "ms more", "<= 3", more <= 3, detail))


async def first_token(given):
    async with alone(given) as one, fleet(given, 1) as (front, _):
        yield later("first token through", *await first_tokens(given, [one, front]))


async def cancels(given):
    async with fleet(given, 2) as (front, backs):
        async for figure in cancelled(given, front, backs):
            yield figure


async def total(backs, metric):
    return sum([await back.metric(metric) for back in backs])


async def cancelled(given, front, backs):
    """Yield the figures of generations that are cancelled at their first frames."""
    count = 60 if given.quick else 1000
    for back in backs:
        await back.idle()
    before = await total(backs, "engine_cancelled_total")
    async with front.client() as client:
        begun, slowest = 0, 0.0
        while begun < count:
            runs = [
                client.generate(prompt=COUNT, temperature=0, max_tokens=2000) for _ in range(20)
            ]
            for run in runs:
                await client.start(run)
            await asyncio.gather(*(anext(run.frames()) for run in runs))
            await asyncio.gather(*(run.cancel() for run in runs))
            slowest = max(slowest, *[await back.idle() for back in backs])
            begun += len(runs)
        steps = await total(backs, "engine_steps_total")
        seen = await total(backs, "engine_cancelled_total") - before
        await asyncio.sleep(LATER_S)
        steps = await total(backs, "engine_steps_total") - steps
    yield said(Figure("runs that went on", begun - seen, f"of {begun}", "0", begun == seen))
    yield said(Figure("steps after the last cancel", steps, "", "0", steps == 0))
    yield said(
        Figure("until 20 runs were gone", 1000 * slowest, "ms at most", detail="by /metrics")
    )


def asked(number):
    """Return the options of a stream: greedy, seeded, by chance."""
    sure = ({"temperature": 0}, {"temperature": 1.0, "seed": number}, {"temperature": 1.0})[
        number % 3
    ]
    return {"prompt": f"{COUNT}, {number}", "max_tokens": 120, **sure}


async def ended(run):
    """Return a stream's text, or its error."""
    try:
        async with run:
            await run.result()
            return run.text
    except GatewayError as error:
        return error


async def expected_of(client, streams):
    """Return what the streams say where nothing happens to them."""
    return await asyncio.gather(*(ended(client.generate(**asked(n))) for n in range(streams)))


async def under_way(client, streams):
    """Begin streams; return tasks for their ends when most are on their way, and few have ended."""
    runs = [client.generate(**asked(n)) for n in range(streams)]
    going = [asyncio.ensure_future(ended(run)) for run in runs]
    while sum(len(run.text) >= SOME for run in runs) < streams / 2:
        await asyncio.sleep(0.002)
    return going


async def killing(given):
    async with fleet(given, 2) as (front, backs):
        async for figure in killed(given, front, backs):
            yield figure


async def killed(given, front, backs):
    """Yield the figures of streams one of whose replicas is killed."""
    streams = 16 if given.quick else 64
    moved = await front.metric("engine_generations_moved_total")
    async with front.client() as client:
        expected = await expected_of(client, streams)
        before = await front.metric("generations_ended_total")
        going = await under_way(client, streams)
        backs[0].kill()
        begin = time.perf_counter()
        got = await asyncio.gather(*going)
        seconds = time.perf_counter() - begin
    moved = await front.metric("engine_generations_moved_total") - moved
    ends = await front.metric("generations_ended_total") - before
    sure = [number for number in range(streams) if number % 3 != 2]
    wrong = sum(got[number] != expected[number] for number in sure)
    errors = [one for one in got if isinstance(one, GatewayError)]
    yield said(Figure("ends of streams", ends, f"of {streams}", f"{streams}", ends == streams))
    detail = f"{moved:.0f} moved, all ended after {seconds:.1f} s"
    holds = not wrong and moved > 0  # where nothing was under way, nothing is shown
    yield said(
        Figure("greedy and seeded texts that differ", wrong, f"of {len(sure)}", "0", holds, detail)
    )
    bad = sum(not error.retryable for error in errors)
    yield said(Figure("others with an error", len(errors), "streams", "retryable", not bad))


async def conversations(front, count):
    """Return the share of cached tokens of conversations of five turns, 8 at a time."""
    prompts = cached = 0
    limit = asyncio.Semaphore(8)

    async def talk(client, number):
        nonlocal prompts, cached
        messages = [{"role": "system", "content": f"You are kind. {number % 3}"}]
        async with limit:
            for question in QUESTIONS:
                messages.append({"role": "user", "content": f"{number}: {question}"})
                async with client.generate(messages=messages, temperature=0, max_tokens=40) as run:
                    done = await run.result()
                messages.append({"role": "assistant", "content": run.text})
                prompts += done.usage.prompt_tokens
                cached += done.usage.cached_tokens

    async with front.client() as client:
        await asyncio.gather(*(talk(client, number) for number in range(count)))
    return cached / prompts


async def affinity(given):
    async with fleet(given, 1) as (one, _), fleet(given, 4) as (front, _):
        yield await kept_together(given, one, front, 4)


async def kept_together(given, one, front, replicas):
    """Return the figure of conversations over replicas, beside those over one."""
    count = 8 if given.quick else 48
    base, other = [await conversations(each, count) for each in (one, front)]
    value, detail = other / base, f"{other:.3f} beside {base:.3f} of all prompt tokens"
    what = f"cached over {replicas} replicas"
    return said(Figure(what, value, "of one's", ">= 0.9", value >= 0.9, detail))


WHAT = {
    "throughput": throughput,
    "first-token": first_token,
    "cancels": cancels,
    "kill": killing,
    "affinity": affinity,
}


async def measure(given):
    names = given.only or list(WHAT)
    return [figure for name in names async for figure in WHAT[name](given)]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replicas", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=WHAT)
    parser.add_argument("--model", help="a model's folder, file or id")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    publish("replicas", asyncio.run(measure(given)), given.json)


if __name__ == "__main__":
    main()
