"""A gateway with the scripted provider, or a model, in its own process, told what to do by lines.

Prints its port; then answers each line `stats` with a line of JSON: resident memory, tasks,
threads, descriptors, and what the gateway has.
"""

import argparse
import asyncio
import functools
import json
import os
import resource
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.server import serve

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from provider.scripted import Say, ScriptedProvider

FILES = 16_384
PINGS = {
    "ping_interval_s": 3600.0
}  # clients that only count frames answer none, however long it takes


def script(request):
    """Say as many words as the prompt says, or a few."""
    asked = request.last_user_text
    return said(int(asked) if asked.isdigit() else 20)


@functools.cache
def said(words):
    """Return a script that is kept once, however many follow it."""
    return [Say("word " * words)]


def resident_kib():
    """Return this process's resident memory."""
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return int(shown.stdout)


def stats(gateway, provider):
    """Return what may grow and must not."""
    provider.requests.clear()
    descriptors = Path("/proc/self/fd")
    return {
        "rss_kib": resident_kib(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "descriptors": len(list(descriptors.iterdir())) if descriptors.exists() else 0,
        "connections": gateway.connections,
        "generations": len(provider.live),
        "tickets": gateway.resumable,
    }


async def bare(frames):
    """Send each client that says something the same frames, in a loop, and nothing else."""

    async def handle(socket):
        await socket.recv()
        for frame in frames:
            await socket.send(frame, text=True)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def gateway(given):
    provider = opened(given)
    settings = Settings(port=0, **{**PINGS, **json.loads(given.settings)})
    await provider.load()
    async with Gateway(provider, settings) as served:
        print(served.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(stats(served, provider)), flush=True)
    await provider.aclose()


def opened(given):
    if given.model is None:
        return ScriptedProvider(script=script, tokens_per_second=given.rate)
    from provider import MLXProvider  # mlx takes a second to import

    return MLXProvider({"model": given.model, "temperature": 0.0, "dequantise": "on"})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bare", help="a file of frames, one a line: send them, without a gateway")
    parser.add_argument("--rate", type=float, help="words a second of each generation")
    parser.add_argument("--model", help="a model's folder or file: answers are its own")
    parser.add_argument("--settings", default="{}", help="the gateway's, as JSON")
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    if given.bare:
        asyncio.run(bare(Path(given.bare).read_bytes().splitlines()))
    else:
        asyncio.run(gateway(given))


class ServedModel:
    """Such a process, seen from the one that started it."""

    def __init__(self, process):
        self._process = process
        self.pid = process.pid
        self.port = 0

    async def line(self):
        return (await self._process.stdout.readline()).decode()

    async def stats(self):
        self._process.stdin.write(b"stats\n")
        return json.loads(await self.line())


@asynccontextmanager
async def served(*arguments, **settings):
    """Start one, and end it."""
    pipe = asyncio.subprocess.PIPE
    given = ["--settings", json.dumps(settings)] if settings else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.served", *arguments, *given, stdin=pipe, stdout=pipe
    )
    one = ServedModel(process)
    try:
        one.port = int(await one.line())
        yield one
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    main()
