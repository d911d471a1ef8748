"""Timeouts of tests whose event loop does not rest."""

import subprocess
import sys
from pathlib import Path

from tests.support.timeouts import STARTING

ROOT = Path(__file__).parents[2]
SPINNING = """
import asyncio

async def test_in_callbacks():
    def again():
        loop.call_soon(again)

    loop = asyncio.get_running_loop()
    again()
    await asyncio.Event().wait()

async def spin():
    while True:
        await asyncio.sleep(0)

async def test_in_the_test():
    await spin()

async def test_in_a_task():
    task = asyncio.create_task(spin())
    await asyncio.Event().wait()

async def test_until_asyncio_has_kept_the_failure():
    await asyncio.wait([asyncio.create_task(spin())])

async def test_at_rest():
    await asyncio.Event().wait()

async def test_in_time():
    pass
"""


def test_a_test_whose_event_loop_spins_fails_after_its_timeout(tmp_path):
    (tmp_path / "test_spinning.py").write_text(SPINNING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    options = ["-p", "tests.support.alarm", "-p", "no:cacheprovider", "--timeout", "1", "-rA"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=STARTING,
        cwd=ROOT,
        check=False,
    )
    ends = [
        line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("PASS", "FAIL"))
    ]
    names = [name for name in SPINNING.split() if name.startswith("test_")]
    ended = dict(sorted((name.partition("::")[2], end) for end, name in ends))
    expected = {name.removesuffix("():"): "FAILED" for name in names} | {"test_in_time": "PASSED"}
    assert ended == dict(sorted(expected.items())), done.stdout
