"""What the engine is measured beside: BatchGenerator, the bare loop, and mlx-lm's own server."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator, StopSequences
from mlx_lm.models.cache import BatchKVCache

from provider.models.loading import load
from provider.runtime.mlx import BLAS_THREADS, OPENBLAS, mx, set_blas_threads


def batch_generator(loaded, prompts, max_tokens):
    """Return tokens a second of mlx-lm's BatchGenerator, greedy, with its defaults."""
    set_blas_threads(BLAS_THREADS)  # what it has when nobody chooses
    stops = StopSequences([(token,) for token in loaded.tokenizer.eos_token_ids])
    generator = BatchGenerator(loaded.model)
    begin, count = time.perf_counter(), 0
    generator.insert(
        [list(prompt) for prompt in prompts],
        max_tokens=[max_tokens] * len(prompts),
        stop_sequences=[stops] * len(prompts),
    )
    while True:
        read, made = generator.next()
        if not read and not made:
            break
        count += len(made)
    seconds = time.perf_counter() - begin
    generator.close()
    return count / seconds


def bare_loop(loaded, prompts, max_tokens):
    """Return tokens a second of the model alone: one batch, argmax, no ends, nothing read twice."""
    set_blas_threads(BLAS_THREADS)
    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    rows = mx.array([[0] * pad + list(p) for pad, p in zip(padding, prompts, strict=True)])
    begin, count = time.perf_counter(), 0
    caches = [BatchKVCache(padding) for _ in loaded.model.layers]
    tokens = mx.argmax(loaded.model(rows, cache=caches)[:, -1], axis=-1)
    mx.async_eval(tokens)
    for _ in range(max_tokens):
        following = mx.argmax(loaded.model(tokens[:, None], cache=caches)[:, -1], axis=-1)
        mx.async_eval(following)
        count += len(tokens.tolist())
        tokens = following
    seconds = time.perf_counter() - begin
    mx.eval(tokens)
    return count / seconds


def in_float32(source: Path, folder: Path) -> Path:
    """Copy a model with the type that is fast on a CPU, for a server that keeps what it finds."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights = dict(tree_flatten(load(source).model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


@asynccontextmanager
async def mlx_lm_server(folder: Path):
    """Run mlx-lm's server on a model, with the same BLAS; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    preload = {"LD_PRELOAD": OPENBLAS} if OPENBLAS else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_lm", "server", "--model", folder, "--port", str(port)],
        env={**os.environ, **preload},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await time_to_first_token(port, folder, "Hello")
                    break
                except OSError:
                    await asyncio.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


async def time_to_first_token(port, folder, prompt, max_tokens=32):
    """Return the seconds to the first text of a streamed chat completion; read it to its end."""
    body = json.dumps(
        {
            "model": str(folder),
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    )
    begin, first = time.perf_counter(), None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}"
    writer.write(
        f"{head}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}".encode()
    )
    async for line in reader:
        if first is None and b'"content": "' in line:
            first = time.perf_counter() - begin
    writer.close()
    return first
