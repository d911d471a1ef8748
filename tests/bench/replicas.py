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
from provider.replicas.probe import get
from tests.bench.rawclient import Counter, timed
from tests.bench.report import Figure, publish, said

STREAMS = 32
SOME = 12  # characters of an answer that is under way
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
        self.port = int(re.search(r":(\d+)/", url)[1])

    def client(self, **options):
        return GatewayClient(self.url, **options)

    async def metric(self, name):
        """Return a metric's value, summed over its labels."""
        async with self.client() as client:
            _, body = await get(client._address, "/metrics")
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
async def serving(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--port", "0", "--log-level", "error", *arguments,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    try:
        line = (await process.stdout.readline()).decode()
        yield Served(process, re.search(r"http://\S+", line)[0])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@asynccontextmanager
async def fleet(given, count):
    """Start replicas and a gateway in front; yield it and them."""
    async with AsyncExitStack() as stack:
        model = [given.model] if given.model else []
        backs = [
            await stack.enter_async_context(serving(*model, "--as-replica")) for _ in range(count)
        ]
        flags = [flag for back in backs for flag in ("--replica", back.url)]
        front = await stack.enter_async_context(serving(*flags))
        while await front.metric("engine_replicas_ready") < count:
            await asyncio.sleep(0.05)
        yield front, backs


@asynccontextmanager
async def alone(given):
    async with serving(*([given.model] if given.model else [])) as one:
        yield one


async def burst(served, streams, tokens):
    """Return the tokens a second of so many streams, each on a connection of its own."""
    message = {
        "type": "generate",
        "id": "a",
        "prompt": COUNT,
        "temperature": 0,
        "max_tokens": tokens,
    }
    body = json.dumps(message, separators=(",", ":")).encode()
    made = [Counter("/v1/stream", [body], b'"type":"done"') for _ in range(streams)]
    return streams * tokens / await timed(served.port, made)


async def throughput(given):
    tokens, rounds = (48, 2) if given.quick else (128, 7)
    async with alone(given) as one, fleet(given, 1) as (front, _):
        direct, through = [], []
        for _ in range(rounds + 1):
            direct.append(await burst(one, STREAMS, tokens))
            through.append(await burst(front, STREAMS, tokens))
    before, after = statistics.median(direct[1:]), statistics.median(through[1:])
    share = statistics.median(b / a for a, b in zip(direct[1:], through[1:], strict=True))
    detail = f"{after:,.0f} beside {before:,.0f} tokens/s"
    yield said(
        Figure(
            f"{STREAMS} streams through", share, "of one process", ">= 0.95", share >= 0.95, detail
        )
    )


async def first_token(given):
    rounds = 10 if given.quick else 60
    async with alone(given) as one, fleet(given, 1) as (front, _):
        async with one.client() as direct, front.client() as through:
            times = {direct: [], through: []}
            for number in range(2 * rounds):
                client = (direct, through)[number % 2]
                begin = time.perf_counter()
                async with client.generate(prompt=COUNT, temperature=0, max_tokens=4) as run:
                    async for _ in run:
                        times[client].append(1000 * (time.perf_counter() - begin))
                        break
    a, b = (statistics.median(times[one][2:]) for one in (direct, through))
    yield said(
        Figure("first token through", b - a, "ms more", "<= 3", b - a <= 3, f"{b:.1f}, {a:.1f} ms")
    )


async def cancels(given):
    count = 60 if given.quick else 1000
    async with fleet(given, 2) as (front, backs):
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
            cancelled = sum([await back.metric("engine_cancelled_total") for back in backs])
    yield said(
        Figure("runs that went on", begun - cancelled, f"of {begun}", "0", begun == cancelled)
    )
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


async def killing(given):
    streams = 16 if given.quick else 64
    async with fleet(given, 2) as (front, backs):
        async with front.client() as client:
            expected = await asyncio.gather(
                *(ended(client.generate(**asked(n))) for n in range(streams))
            )
            before = await front.metric("generations_ended_total")
            runs = [client.generate(**asked(n)) for n in range(streams)]
            going = [asyncio.ensure_future(ended(run)) for run in runs]
            # Most are on their way then, and few have ended.
            while sum(len(run.text) >= SOME for run in runs) < streams / 2:
                await asyncio.sleep(0.002)
            backs[0].process.kill()
            begin = time.perf_counter()
            got = await asyncio.gather(*going)
            seconds = time.perf_counter() - begin
        moved = await front.metric("engine_generations_moved_total")
        ends = await front.metric("generations_ended_total") - before
    sure = [number for number in range(streams) if number % 3 != 2]
    wrong = sum(got[number] != expected[number] for number in sure)
    errors = [one for one in got if isinstance(one, GatewayError)]
    yield said(Figure("ends of streams", ends, f"of {streams}", f"{streams}", ends == streams))
    detail = f"{moved:.0f} moved, all ended after {seconds:.1f} s"
    yield said(
        Figure(
            "greedy and seeded texts that differ", wrong, f"of {len(sure)}", "0", not wrong, detail
        )
    )
    bad = sum(not error.retryable for error in errors)
    yield said(Figure("others with an error", len(errors), "streams", "retryable", not bad))


async def conversations(client, count):
    """Return the share of cached tokens of conversations of five turns, 8 at a time."""
    prompts = cached = 0
    limit = asyncio.Semaphore(8)

    async def talk(number):
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

    await asyncio.gather(*(talk(number) for number in range(count)))
    return cached / prompts


async def affinity(given):
    count = 8 if given.quick else 48
    shares = []
    for replicas in (1, 4):
        async with fleet(given, replicas) as (front, _), front.client() as client:
            shares.append(await conversations(client, count))
    share = shares[1] / shares[0]
    detail = f"{shares[1]:.3f} beside {shares[0]:.3f} of all prompt tokens"
    yield said(Figure("cached over 4 replicas", share, "of one's", ">= 0.9", share >= 0.9, detail))


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
