"""Autobahn's fuzzing client against an echo with the gateway's own server options.

`make autobahn` fetches the suite, which needs a Python 2.7, and runs this. No case may fail but
those that websockets itself documents.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from gateway.configuration.settings import Settings
from gateway.server.accepting import Guests
from gateway.server.byte_budget import ByteBudget
from gateway.server.origins import proxies
from gateway.server.server import options_of

LARGEST = 32 * 1024 * 1024  # bytes; the suite's own largest message is 16 MiB
# websockets does not wait for a close frame that is cut in two (7.1.5), and takes at most so many
# fragments of a message (9.3, 9.4).
UPSTREAM = {"7.1.5", *(f"9.{group}.{case}" for group in (3, 4) for case in (1, 2, 3))}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
LONG = ["9.*", "12.*", "13.*"]


async def echo(socket):
    """Send back whatever comes, as it came."""
    with suppress(ConnectionClosed):
        async for message in socket:
            await socket.send(message)


async def run(wstest, folder, exclude):
    """Run the suite; return how each case ended."""
    budget, guests = ByteBudget(4 * LARGEST, 1.0), Guests(1000, proxies(None))
    options = options_of(Settings(max_frame_bytes=LARGEST), budget, guests)
    options["process_request"] = lambda socket, request: socket.let_in()
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        port = server.sockets[0].getsockname()[1]
        spec = {
            "servers": [{"agent": "gateway", "url": f"ws://127.0.0.1:{port}"}],
            "outdir": str(folder / "reports"),
            "cases": ["*"],
            "exclude-cases": exclude,
            "options": {"failByDrop": False},
        }
        await asyncio.to_thread((folder / "spec.json").write_text, json.dumps(spec))
        process = await asyncio.create_subprocess_exec(
            wstest,
            "-m",
            "fuzzingclient",
            "-s",
            str(folder / "spec.json"),
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
    index = json.loads((folder / "reports" / "index.json").read_text())["gateway"]
    return {case: result["behavior"] for case, result in index.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wstest", help="the suite's program")
    parser.add_argument("--all", action="store_true", help="the long groups too: ten minutes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(run(given.wstest, Path(folder), [] if given.all else LONG))
    failed = {case for case, behavior in results.items() if behavior not in GOOD}
    print(f"{len(results)} cases: {dict(Counter(results.values()))}")
    print(f"upstream's: {sorted(failed & UPSTREAM)}, ours: {sorted(failed - UPSTREAM)}")
    sys.exit(bool(failed - UPSTREAM) or not results)


if __name__ == "__main__":
    main()
