"""Replicas that Ray Serve starts, beside one process alone, on this machine.

    make .build/ray/ready
    .build/ray/bin/python -m tests.bench.ray_serve --json .build/bench-ray.json
    .build/ray/bin/python -m tests.bench.ray_serve --quick --only scale --counts 2

What is measured is what `tests.bench.replicas` measures where nothing but the gateway in front
watches replicas, and what only Serve does. Beside it, the plain way: tokens by a streaming handle.
"""

import argparse
import asyncio
import os
import secrets
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway.client import GatewayError
from tests.bench.replicas import (
    COUNT,
    STREAMS,
    Served,
    alone,
    cancelled,
    ended,
    expected_of,
    first_tokens,
    kept_together,
    killed,
    later,
    model_of,
    rates,
    ready,
    serving,
    share,
    started,
    under_way,
)
from tests.bench.report import Figure, publish, said
from tests.support.ray_cluster import head_node, own_folder, processes

MARK = "GATEWAY_OF_A_BENCH"  # a variable of the replicas' environment
LOAD = 64  # streams at once, of which a replica should have 24
CALM = 4  # streams at once while it scales down
LISTENS = "0A"  # a socket's state


class Back(Served):
    """The gateway of a replica, a process that Serve's has started."""

    def __init__(self, number):
        self.number = number
        environment = dict(
            one.split("=", 1)
            for one in Path(f"/proc/{number}/environ").read_text().split("\0")
            if "=" in one
        )
        token = environment["MLX_GATEWAY_TOKENS"].partition(":")[2]
        super().__init__(None, f"http://127.0.0.1:{_port_of(number)}/#token={token}")

    def kill(self, with_signal=signal.SIGKILL):
        os.kill(self.number, with_signal)


def _port_of(process):
    """Return the port on which a process listens."""
    sockets = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # it was closed
            sockets.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [port] = {row[1] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in sockets}
    return int(port.partition(":")[2], 16)


class RayFleet:
    """Replicas under Ray Serve, and the gateway in front of them."""

    def __init__(self, front, mark):
        self.front, self._mark = front, mark

    @property
    def numbers(self):
        """The ids of the replicas' processes."""
        return sorted(set(processes(self._mark, "environ")) & set(processes("--as-replica")))

    @property
    def backs(self):
        return [Back(number) for number in self.numbers]

    async def restored(self, before, count):
        """Wait until there are so many replicas, without one that was; return the seconds."""
        begin = time.perf_counter()
        while len(self.numbers) != count or self.numbers == before:
            await asyncio.sleep(0.05)
        await ready(self.front, count)
        return time.perf_counter() - begin


@asynccontextmanager
async def under_ray(given, replicas, least):
    """Start a gateway with `--replicas`, and wait for the first ones."""
    mark = secrets.token_hex(8)
    flags = [*model_of(given), "--replicas", str(replicas)]
    async with serving(*flags, **{MARK: mark}) as front:
        await ready(front, least)
        yield RayFleet(front, f"{MARK}={mark}")


async def throughput(given, one, fleet, count):
    direct, through, spread = await rates(given, [[one], [fleet.front], fleet.backs])
    yield share(f"{STREAMS} streams, {count} replicas", direct, through)
    yield share(f"{STREAMS} streams, {count} replicas", spread, through, "of them without a front")


async def first_token(given, one, fleet, count):
    yield later(f"first token, {count} replicas", *await first_tokens(given, [one, fleet.front]))


async def cancels(given, _, fleet, count):
    async for figure in cancelled(given, fleet.front, fleet.backs):
        yield figure


async def affinity(given, one, fleet, count):
    yield await kept_together(given, one, fleet.front, count)


async def kill(given, _, fleet, count):
    before = fleet.numbers
    async for figure in killed(given, fleet.front, fleet.backs):
        yield figure
    seconds = await fleet.restored(before, count)
    yield said(Figure("until Serve has another", seconds, "s", detail="from the last stream's end"))


async def drain(given, _, fleet, count):
    """Tell one replica to stop, then the gateway in front, each under streams."""
    streams, before = 16 if given.quick else 64, fleet.numbers
    moved = await fleet.front.metric("engine_generations_moved_total")
    async with fleet.front.client() as client:
        expected = await expected_of(client, streams)
        going = await under_way(client, streams)
        fleet.backs[0].kill(signal.SIGTERM)
        yield cut("a replica stops", await asyncio.gather(*going), expected)
        moved = await fleet.front.metric("engine_generations_moved_total") - moved
        yield said(Figure("moved then", moved, f"of {streams}", "0", moved == 0))
        await fleet.restored(before, count)
        going = await under_way(client, streams)
        fleet.front.process.send_signal(signal.SIGTERM)
        yield cut("all stop", await asyncio.gather(*going), expected)
    status = await fleet.front.process.wait()
    left = len(fleet.numbers)
    yield said(Figure("processes left", left, "", "0", left == 0, f"exit status {status}"))


def cut(when, got, expected):
    """Return the figure of streams that have not ended whole; a third of texts are by chance."""
    sure = [number for number in range(len(got)) if number % 3 != 2]
    wrong = sum(isinstance(text, GatewayError) for text in got)
    wrong += sum(
        got[number] != expected[number]
        for number in sure
        if not isinstance(got[number], GatewayError)
    )
    return said(Figure(f"streams cut when {when}", wrong, f"of {len(got)}", "0", not wrong))


# In this order for each number of replicas; the last one ends them.
OF_A_FLEET = {
    "throughput": throughput,
    "first-token": first_token,
    "cancels": cancels,
    "affinity": affinity,
    "kill": kill,
    "drain": drain,
}


async def scale(given):
    """Yield the figures of one replica that becomes three by load, and one again."""
    async with under_ray(given, "1-3", 1) as fleet, fleet.front.client() as client:
        expected = await ended(client.generate(**COUNTED))
        wanted, texts = LOAD, []

        async def one_after_another(number):
            while number < wanted:
                texts.append(await ended(client.generate(**COUNTED)))

        going = [asyncio.ensure_future(one_after_another(number)) for number in range(LOAD)]
        grown = await timed_until(fleet.front, 3)
        wanted = CALM
        shrunk = await timed_until(fleet.front, 1)
        wanted = 0
        await asyncio.gather(*going)
        moved = await fleet.front.metric("engine_generations_moved_total")
    wrong = sum(text != expected for text in texts)
    detail = f"{moved:.0f} moved"
    yield said(Figure("streams lost in scaling", wrong, f"of {len(texts)}", "0", not wrong, detail))
    yield said(Figure("from one replica to three", grown, "s", detail=f"{LOAD} streams at once"))
    yield said(Figure("from three to one", shrunk, "s", detail=f"{CALM} streams at once"))


COUNTED = {"prompt": COUNT, "temperature": 0, "max_tokens": 200}


async def timed_until(front, count):
    begin = time.perf_counter()
    await ready(front, count)
    return time.perf_counter() - begin


async def handle(given):
    """Yield the figures of tokens by a streaming handle, beside those by our own protocol."""
    flags = ["--model", given.model] if given.model else []
    count = given.counts[0]
    with head_node(given.folder, RAY_worker_niceness="0") as cluster:  # as ours
        async with (
            alone(given) as one,
            under_ray(given, count, count) as fleet,
            started("tests.bench.ray_handle", str(count), "--ray", cluster, *flags) as plain,
        ):
            servers = [one, fleet.front, plain]
            base, own, other = await rates(given, [[one] for one in servers])
            direct, ours, theirs = await first_tokens(given, servers)
    yield share(f"{STREAMS} streams, own protocol", base, own)
    yield plainly(share(f"{STREAMS} streams, streaming handle", base, other))
    yield later("first token, own protocol", direct, ours)
    yield plainly(later("first token, streaming handle", direct, theirs))


def plainly(figure):
    """Return a figure of the plain way, of which nothing is asked."""
    figure.bound, figure.holds = "", None
    return figure


WHAT = (*OF_A_FLEET, "scale", "handle")


async def measure(given):
    names = given.only or WHAT
    figures = []
    of_a_fleet = [name for name in OF_A_FLEET if name in names]
    for count in given.counts if of_a_fleet else []:
        async with alone(given) as one, under_ray(given, count, count) as fleet:
            for name in of_a_fleet:
                figures += [figure async for figure in OF_A_FLEET[name](given, one, fleet, count)]
    if "scale" in names:
        figures += [figure async for figure in scale(given)]
    if "handle" in names:
        figures += [figure async for figure in handle(given)]
    return figures


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ray_serve", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=WHAT)
    parser.add_argument("--counts", nargs="*", type=int, help="how many replicas; by default 2, 4")
    parser.add_argument("--model", help="a model's folder, file or id")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.counts = given.counts or ([2] if given.quick else [2, 4])
    with own_folder() as given.folder:
        publish("replicas under Ray Serve", asyncio.run(measure(given)), given.json)


if __name__ == "__main__":
    main()
