"""Two ranks that share one model, beside one process, on this machine.

    python -m tests.bench.sharded --json .build/bench-sharded.json
    python -m tests.bench.sharded --quick --model ./model --shard pipeline

`mlx.launch` starts the ranks, which have the processors that the one process has. The model is the
one in the package, or that of `--model`. Both processes compute with one thread of BLAS.
"""

import argparse
import asyncio
import os
import re
import signal
import statistics
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.replicas import Served, burst
from tests.bench.report import Figure, publish, said
from tests.support.servers import free_ports

LAUNCH = str(Path(sys.executable).with_name("mlx.launch"))
SERVE = (sys.executable, "-m", "gateway", "serve", "--port", "0", "--log-level", "error")
WORDS = "The fox is red, the hare is grey, and both of them live by the sea. " * 40


@asynccontextmanager
async def running(*command):
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        line = b""
        while not line.startswith(b"Open "):
            line = await process.stdout.readline()
            assert line, "it has ended"
        yield Served(process, re.search(r"http://\S+", line.decode())[0])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL if command[0] == LAUNCH else signal.SIGTERM)
        await process.wait()


def ranks(given):
    """Start two ranks; they end with their launcher."""
    port = str(free_ports(2)[0])
    hosts = ["--hosts", "127.0.0.1,127.0.0.1", "--backend", "ring", "--starting-port", port]
    return running(LAUNCH, *hosts, "--", *SERVE, "--shard", given.shard, *given.model)


async def first_token(served, number):
    """Return the seconds until a long prompt, which nobody has read before, is answered."""
    async with served.client() as client:
        begin = time.perf_counter()
        run = client.generate(prompt=f"{number} {WORDS}", temperature=0, max_tokens=1)
        await run.result()
        return time.perf_counter() - begin


async def measure(given):
    tokens, rounds = (48, 2) if given.quick else (128, 7)
    figures = []
    async with running(*SERVE, *given.model) as one, ranks(given) as two:
        for streams in (1, 8):
            pairs = [
                (await burst([one], streams, tokens), await burst([two], streams, tokens))
                for _ in range(rounds + 1)
            ][1:]
            figures.append(compared(f"{streams} streams on two ranks", pairs, "tokens/s"))
        pairs = [
            (1 / await first_token(one, number), 1 / await first_token(two, number))
            for number in range(rounds + 1)
        ][1:]
        figures.append(compared("a long prompt on two ranks", pairs, "prompts/s"))
    return figures


def compared(what, pairs, unit):
    """Return the median of how fast two ranks are beside one process."""
    share = statistics.median(two / one for one, two in pairs)
    one, two = (statistics.median(side) for side in zip(*pairs, strict=True))
    return said(
        Figure(what, share, "of one process", detail=f"{two:,.1f} beside {one:,.1f} {unit}")
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sharded", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shard", choices=["tensor", "pipeline"], default="tensor")
    parser.add_argument("--model", nargs=1, default=[], help="a model's folder or id")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    publish("sharded", asyncio.run(measure(given)), given.json)


if __name__ == "__main__":
    main()
