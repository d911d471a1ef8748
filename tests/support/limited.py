"""A program that serves prompts under a limit on memory, and prints what came of them.

Arguments: `as`, the bytes of address space; or `cgroup`, the folder of a cgroup to enter. Then the
folder of a model whose KV caches are large. It runs in a process of its own, because what exceeds
such a limit ends the process.
"""

import asyncio
import json
import os
import resource
import sys
from pathlib import Path


def enter(kind, value):
    if kind == "as":
        resource.setrlimit(resource.RLIMIT_AS, (int(value), int(value)))
    else:
        Path(value, "cgroup.procs").write_text(str(os.getpid()))


async def main(model):
    from provider import MLXProvider
    from provider.interface import MemoryExceededError

    provider = MLXProvider({"model": model, "max_tokens": 2, "prefix_cache_bytes": 1 << 34})
    try:
        texts = []
        for number in range(int(os.environ["PROMPTS"])):
            prompt = f"{number}: " + "the fox and the sea and the owl " * 4
            texts.append((await provider.generate_async(prompt)).finish_reason)
        try:
            await provider.generate_async("Hi", max_tokens=1900)
        except MemoryExceededError as error:
            texts.append(str(error))
        kept = provider.statistics().prefix_bytes
    finally:
        await provider.aclose()
    print(json.dumps({"texts": texts, "kept": kept}))


if __name__ == "__main__":
    enter(*sys.argv[1:3])
    asyncio.run(main(sys.argv[3]))
