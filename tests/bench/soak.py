"""Ten minutes of clients that come, cancel, vanish and come back: `make soak`.

Nothing may grow after the first minute: memory, tasks, threads, descriptors. Every generation that
was accepted has its one end, and every text that was waited for is the right one. With `--hostile`
instead three polite clients beside one that attacks: tests/bench/attack/soak.py.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Cancel, Generate, Resume
from tests.bench.attack.attacks import ATTACKS
from tests.bench.attack.soak import NICE
from tests.bench.attack.soak import soak as attacked
from tests.bench.report import Figure, console, publish, said
from tests.bench.served import served
from tests.support.servers import Wire

CLIENTS = 40
TTL_S = 3.0
EVERY_S = 5.0  # a sample
GROWTH = 1.02  # of the medians of a minute: resident memory is measured in pages and noise


class Client:
    """One client after the other, each with its own manners."""

    def __init__(self, port, number, counts):
        self._url = f"ws://127.0.0.1:{port}/v1/stream"
        self._random = random.Random(number)
        self._counts = counts

    async def run(self, until):
        manners = (self.whole, self.cancelled, self.vanishing, self.coming_back, self.stalling)
        while time.monotonic() < until:
            one = self._random.choice(manners)
            async with asyncio.timeout(60):
                await one()
            self._counts[one.__name__] += 1

    async def connect(self):
        protocol = self._random.choice([JSON_PROTOCOL, MSGPACK_PROTOCOL])
        socket = await connect(self._url, subprotocols=[protocol], compression=None, max_queue=4)
        wire = Wire(socket)
        await wire.receive()
        return wire

    async def begin(self, wire, **fields):
        words = self._random.randrange(1, 200)
        await wire.send(Generate(id="a", prompt=str(words), **fields))
        return "word " * words

    async def rest(self, wire, frames, expected):
        """Read to the end, and see that it is one, and right."""
        if not frames or frames[-1]["type"] != "done":
            frames = [*frames, *await wire.until("done", "error")]
        text = "".join(f["text"] for f in frames if f["type"] == "chunk")
        numbers = [f["seq"] for f in frames if f.get("seq") is not None]
        ended = frames[-1]["type"] == "done" and numbers == list(range(len(numbers)))
        cut = ended and frames[-1]["finish_reason"] == "cancelled"
        if not (ended and (cut or text == expected)):
            self._counts["wrong"] += 1
        self._counts["ends"] += 1

    async def whole(self):
        wire = await self.connect()
        for _ in range(self._random.randrange(1, 4)):
            await self.rest(wire, [], await self.begin(wire))
        await wire.socket.close()

    async def cancelled(self):
        wire = await self.connect()
        expected = await self.begin(wire)
        frames = await wire.until("chunk")
        await wire.send(Cancel(id="a"))
        await self.rest(wire, frames, expected)
        await wire.socket.close()

    async def vanishing(self):
        wire = await self.connect()
        await self.begin(wire, resumable=self._random.random() < 0.5)
        if self._random.random() < 0.8:
            await wire.until("chunk")
        wire.socket.transport.abort()

    async def coming_back(self):
        wire = await self.connect()
        expected = await self.begin(wire, resumable=True)
        frames = await wire.until("chunk", "done")
        wire.socket.transport.abort()
        await asyncio.sleep(self._random.random())
        back = await self.connect()
        ticket = next(f["ticket"] for f in frames if f["type"] == "started")
        if frames[-1]["type"] != "done":
            await back.send(Resume(id="a", ticket=ticket, after=frames[-1]["seq"]))
        await self.rest(back, frames, expected)
        await back.socket.close()

    async def stalling(self):
        wire = await self.connect()
        await wire.send(Generate(id="a", prompt="100000"))
        await asyncio.sleep(self._random.random() * 3)
        wire.socket.transport.abort()


async def soak(minutes):
    """Return the samples, the counts, and what was left in the end."""
    counts, samples = Counter(), []
    async with served("--rate", "400", resume_ttl_s=TTL_S, write_timeout_s=5.0) as one:
        begin = time.monotonic()
        until = begin + minutes * 60
        clients = [
            asyncio.create_task(Client(one.port, n, counts).run(until)) for n in range(CLIENTS)
        ]
        while time.monotonic() < until:
            await asyncio.sleep(EVERY_S)
            samples.append({"minute": (time.monotonic() - begin) / 60, **await one.stats()})
            console.print(f"  {samples[-1]} {dict(counts)}")
        await asyncio.gather(*clients)
        await asyncio.sleep(TTL_S + 3)
        left = await one.stats()
    return samples, counts, left


def judge(samples, counts, left):
    """Return the figures of a soak."""
    second = [s for s in samples if 1 <= s["minute"] < 2]
    last = [s for s in samples if s["minute"] > samples[-1]["minute"] - 1]
    figures = []
    for name in ("rss_kib", "tasks", "threads", "descriptors"):
        before, after = (statistics.median(s[name] for s in some) for some in (second, last))
        limit = (
            GROWTH if name == "rss_kib" else 1.25
        )  # of a number that comes and goes with clients
        figures.append(
            Figure(
                f"{name}, in the last minute beside the second",
                after / before,
                "",
                f"at most {limit}",
                after / before <= limit,
                f"{before:,.0f} to {after:,.0f}",
            )
        )
    kept = {k: left[k] for k in ("connections", "generations", "tickets")}
    figures.append(
        Figure("left when all have gone", sum(kept.values()), "", "0", not any(kept.values()))
    )
    figures.append(
        Figure(
            "wrong ends or texts",
            counts["wrong"],
            f"of {counts['ends']:,}",
            "0",
            counts["wrong"] == 0 and counts["ends"] > 0,
            ", ".join(f"{n:,} {name}" for name, n in sorted(counts.items())),
        )
    )
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="three at least")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--hostile", action="store_true", help="three polite clients beside one that attacks"
    )
    parser.add_argument("--seconds", type=float, help="of a hostile soak; instead of --minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks that it picks")
    parser.add_argument("--only", nargs="+", default=(), choices=ATTACKS, metavar="ATTACK")
    parser.add_argument(
        "--nice", type=int, default=NICE, help="how much less of a processor the attacker gets"
    )
    given = parser.parse_args()
    if given.hostile:
        seconds = given.seconds or given.minutes * 60
        figures = asyncio.run(attacked(seconds, given.seed, given.only, given.nice))
        publish(f"{seconds:g} s beside a hostile client", figures, given.json)
        raise SystemExit(any(figure.holds is False for figure in figures))
    try:
        figures = judge(*asyncio.run(soak(given.minutes)))
    except ConnectionClosed as error:
        raise SystemExit(f"a connection was closed: {error}") from error
    for figure in figures:
        said(figure)
    publish(f"{given.minutes:g} minutes of soak", figures, given.json)


if __name__ == "__main__":
    main()
