"""Compare decoding in this tree and in another, for instance before and after a change.

    python -m tests.bench.compare FOLDER --rounds 8

FOLDER is another checkout. Single runs differ by a tenth or more on a shared machine, so that the
trees take turns, in the order A B B A, each in a process of its own with this Python. A round gives
the shortest time that a decode step took at 1, 8 and 32 rows; of all rounds the median is printed,
with the quartiles, and the ratio of the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROWS = (1, 8, 32)
HERE = Path(__file__).parents[2]

# Runs in both trees, so that it uses only what both have.
MEASURE = """
import asyncio, json, sys, time
from provider import MLXProvider

ROWS, TOKENS, TIMES = json.loads(sys.argv[1]), 120, 5

async def run(provider, number):
    prompt = f"Tell me a long story about {number}"
    async for _ in await provider.generate_async(
        prompt, stream=True, max_tokens=TOKENS, temperature=0.0
    ):
        pass

async def step(provider, rows):
    begin, steps = time.perf_counter(), provider.engine.steps
    await asyncio.gather(*(run(provider, number) for number in range(rows)))
    return (time.perf_counter() - begin) / (provider.engine.steps - steps) * 1e6

async def main():
    provider = MLXProvider({})
    await provider.load()
    await step(provider, max(ROWS))
    print(json.dumps([min([await step(provider, rows) for _ in range(TIMES)]) for rows in ROWS]))
    await provider.aclose()

asyncio.run(main())
"""


def measure(tree: Path) -> list[float]:
    """Return the shortest time of a decode step in microseconds, for each of ROWS."""
    command = [sys.executable, "-c", MEASURE, json.dumps(ROWS)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]


def in_turns(there: Path, rounds: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return the figures of the other tree and of this one, a list for each round."""
    found: dict[Path, list[list[float]]] = {there: [], HERE: []}
    for number in range(rounds):
        for tree in (there, HERE) if number % 2 == 0 else (HERE, there):
            found[tree].append(measure(tree))
            console.print(f"  {tree.name}: {' '.join(f'{us:.0f}' for us in found[tree][-1])} us")
    return found[there], found[HERE]


def table(there: list[list[float]], here: list[list[float]]) -> Table:
    """Return a table of medians, quartiles and ratios."""
    made = Table(title="Microseconds a decode step: median (quartiles)")
    for column in ("rows", "there", "here", "here / there"):
        made.add_column(column, justify="right")
    for index, rows in enumerate(ROWS):
        old, new = ([round_[index] for round_ in figures] for figures in (there, here))
        ratio = statistics.median(new) / statistics.median(old)
        made.add_row(str(rows), spread(old), spread(new), f"{ratio:.3f}")
    return made


def spread(values: list[float]) -> str:
    """Return the median and the quartiles as text."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


console = Console(stderr=True)


def main() -> None:
    """Run the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=8, help="times each tree is measured")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds must be at least 2")
    Console().print(table(*in_turns(given.folder.resolve(), given.rounds)))


if __name__ == "__main__":
    main()
