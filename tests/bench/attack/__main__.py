"""A gateway under attack, and what polite clients see of it: `make attack`.

Each attack is a process of its own, bounded in number and time; the polite clients are in this one.
The exit status is 1 if a bound does not hold.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from tests.bench.attack import alone, together  # noqa: F401 - they register their cases
from tests.bench.attack.bench import CASES, opened
from tests.bench.attack.judging import table, write

SUBJECTS = ("loop", "constraints", "counting", "rest", "holds")
NAMES = sorted(CASES, key=lambda name: SUBJECTS.index(CASES[name].subject))


async def run(names):
    """Run cases, and return their verdicts in the order of these names."""
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as bench:
            verdicts = await bench.run(names)
            return [verdicts[name] for name in names]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attack", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help="these cases")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    parser.add_argument("--json", type=Path, help="write what was seen here too")
    given = parser.parse_args()
    if given.list:
        for name in NAMES:
            print(f"{name:26} {CASES[name].subject:12} {CASES[name].sent}")
        return
    verdicts = asyncio.run(run(given.only or NAMES))
    Console(width=180).print(table(verdicts))
    if given.json:
        write(verdicts, given.json)
    failed = [verdict.case for verdict in verdicts if not verdict.holds]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(verdicts)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
