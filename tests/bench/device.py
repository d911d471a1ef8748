"""The engine on this machine's device, on models of real shapes: `python -m tests.bench.device`.

One script of at most eight minutes for a machine that is at hand for a short time. The weights are
random and made in memory, in the shapes of Llama-3-8B (bfloat16, and 4 bits) and Qwen3-0.6B. It
prints a table in Markdown, with each figure beside that of the bare loop and of mlx-lm's
BatchGenerator in the same run. `--small` does the same with tiny models, in a minute on a CPU.
"""

import argparse
import asyncio
import logging
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from mlx import nn
from mlx_lm.utils import _get_classes

from provider.embedded import MODEL_PATH
from provider.engine.engine import Engine
from provider.engine.inbox import AsyncInbox
from provider.engine.messages import RunFailed, RunFinished, RunRequest
from provider.engine.model import LoadedModel
from provider.events import TextDelta
from provider.models.loading import tokenizer_of
from provider.options import GenerationOptions
from provider.runtime.kernel_folder import VARIABLE
from provider.runtime.mlx import describe, mx, tree_flatten
from provider.settings import EngineSettings
from tests.bench import peers

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}
QWEN3_SMALL = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "vocab_size": 151936,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": True,
}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 2048}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
SHOWN = 1500  # tokens that can be drawn, those that the embedded model's tokenizer knows
NO_TOKEN = 1 << 30


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    models: tuple  # (name, configuration, bits or None)
    rows: tuple = (1, 8, 32, 64)
    tokens: int = 128
    prompt: int = 8192
    rounds: int = 2
    briefs: int = 20


LARGE = Size(
    (
        ("Qwen3-0.6B shape, bf16", QWEN3_SMALL, None),
        ("Llama-3-8B shape, bf16", LLAMA_8B, None),
        ("Llama-3-8B shape, 4 bits", LLAMA_8B, 4),
    )
)
SMALL = Size(
    (
        ("tiny qwen3", {**QWEN3_SMALL, **TINY}, None),
        ("tiny llama, 4 bits", {**LLAMA_8B, **TINY}, 4),
    ),
    rows=(1, 4),
    tokens=8,
    prompt=600,
    rounds=1,
    briefs=4,
)


class Shown:
    """A model of which only tokens are drawn that the tokenizer knows; all logits are computed."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, tokens, cache=None):
        return self._model(tokens, cache=cache)[..., :SHOWN]


def made(config, bits):
    """Return a model with random weights, each made and converted by itself."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    model.apply(lambda array: array.astype(mx.bfloat16) if on_gpu else array)
    if bits is not None:
        nn.quantize(model, group_size=64, bits=bits)
    arrays = [array for _, array in tree_flatten(model.parameters())]
    for array in arrays:
        mx.eval(array)
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.eos_token_ids = {NO_TOKEN}  # every answer has its full length
    return LoadedModel(
        Shown(model),
        tokenizer,
        config["max_position_embeddings"],
        SHOWN,
        trimmable=True,
        weights=sum(array.nbytes for array in arrays),
    )


@dataclass
class Answer:
    """When the tokens of a run came."""

    begun: float
    times: list = field(default_factory=list)
    ended: float = 0.0

    @property
    def seconds(self):
        return self.ended - self.begun


class Device:
    """Measures, and what they found, as rows of a table."""

    def __init__(self, size, latest):
        self.size = size
        self.latest = latest
        self.lines = []
        self._random = random.Random(1)

    def add(self, what, *cells):
        self.lines.append((what, *cells))
        print(f"  {what}: {' | '.join(cells)}", file=sys.stderr, flush=True)

    def prompt(self, tokens):
        return [self._random.randrange(50, SHOWN) for _ in range(tokens)]

    async def model(self, name, config, bits):
        if time.perf_counter() > self.latest:
            self.add(name, "left out: the time is over")
            return
        mx.reset_peak_memory()
        loaded, making = [], []

        def loader():
            begin = time.perf_counter()
            loaded.append(made(config, bits))
            making.append(time.perf_counter() - begin)
            return loaded[0]

        settings = EngineSettings(max_batch=max(self.size.rows), prefix_cache_bytes=0)
        engine = Engine(name, loader, settings)
        kernels = kept_kernels()
        begin = time.perf_counter()
        await asyncio.wrap_future(engine.load())
        seconds = time.perf_counter() - begin - making[0]
        self.add(f"{name}: trial and warm-up", f"{seconds:.1f} s", kernels)
        measures = (self.throughput, self.beside_a_stream, self.one_token)
        for measure in measures:
            if time.perf_counter() < self.latest:
                await measure(name, engine, loaded[0])
        self.add(f"{name}: peak memory", f"{mx.get_peak_memory() / 1e9:.1f} GB")
        await asyncio.to_thread(engine.close, 0)
        loaded.clear()
        mx.clear_cache()

    async def run(self, engine, prompt, max_tokens, answer=None):
        """Return when the tokens of one run came."""
        answer = answer or Answer(time.perf_counter())
        inbox = AsyncInbox()
        options = GenerationOptions(temperature=0.0, max_tokens=max_tokens)
        run = engine.submit(RunRequest(prompt, options), inbox)
        try:
            while True:
                event = await inbox.get()
                if isinstance(event, RunFailed):
                    raise event.error
                if isinstance(event, RunFinished):
                    answer.ended = time.perf_counter()
                    return answer
                if isinstance(event, TextDelta):
                    answer.times.append(time.perf_counter())
        finally:
            engine.cancel(run)

    # Measures.

    async def throughput(self, name, engine, loaded):
        size = self.size
        for rows in size.rows:
            rates = {"ours": [], "bare": [], "generator": []}
            for measured in range(size.rounds + 1):
                prompts = [self.prompt(24) for _ in range(rows)]
                begin = time.perf_counter()
                await asyncio.gather(*(self.run(engine, p, size.tokens) for p in prompts))
                found = {"ours": rows * size.tokens / (time.perf_counter() - begin)}
                found["bare"] = peers.bare_loop(loaded, prompts, size.tokens)
                found["generator"] = peers.batch_generator(loaded, prompts, size.tokens)
                for who, rate in found.items() if measured else ():  # the first warms all up
                    rates[who].append(rate)
                if time.perf_counter() > self.latest and rates["ours"]:
                    break
            ours, bare, generator = (statistics.median(found) for found in rates.values())
            self.add(
                f"{name}: {rows} rows, tokens/s",
                f"{ours:.0f}",
                f"bare loop {bare:.0f} ({ours / bare:.2f} of it)",
                f"BatchGenerator {generator:.0f} ({ours / generator:.2f} of it)",
            )

    async def beside_a_stream(self, name, engine, _loaded):
        size = self.size
        alone = (await self.run(engine, self.prompt(size.prompt), 1)).seconds
        stream = Answer(time.perf_counter())
        task = asyncio.create_task(self.run(engine, self.prompt(24), 8000, stream))
        while len(stream.times) < 20:
            await asyncio.sleep(0.005)
        step = statistics.median(b - a for a, b in pairwise(stream.times))
        begun = len(stream.times)
        beside = (await self.run(engine, self.prompt(size.prompt), 1)).seconds
        await asyncio.sleep(3 * step)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        times = stream.times[begun - 1 :]
        gap = max(b - a for a, b in pairwise(times))
        self.add(
            f"{name}: a prompt of {size.prompt} beside a stream",
            f"{beside:.2f} s",
            f"alone {alone:.2f} s",
            f"longest gap {gap * 1000:.0f} ms, a step {step * 1000:.1f} ms",
        )

    async def one_token(self, name, engine, _loaded):
        """One token of a prompt of a length that never came, and of another of that length."""
        lengths = self._random.sample(range(20, 400), self.size.briefs)
        new, known = [], []
        for length in lengths:
            for found in (new, known):
                found.append((await self.run(engine, self.prompt(length), 1)).seconds)
        self.add(
            f"{name}: one token, idle, of any prompt of 20 to 400",
            f"{statistics.median(new) * 1000:.1f} ms, at most {max(new) * 1000:.0f}",
            f"of the same length again {statistics.median(known) * 1000:.1f} ms",
            f"{statistics.median(new) / statistics.median(known):.2f} of it",
        )


def kept_kernels():
    """Return how many files of compiled kernels there are, "" where none are kept."""
    folder = os.environ.get(VARIABLE)
    return "" if folder is None else f"{sum(1 for _ in Path(folder).rglob('*.ptx'))} kernels kept"


def start(size):
    """Return the seconds in which a new process makes and loads the first model."""
    command = [sys.executable, "-m", "tests.bench.device", "--start"]
    begin = time.perf_counter()
    subprocess.run([*command, *(["--small"] if size is SMALL else [])], check=True)
    return time.perf_counter() - begin


async def only_start(size):
    """Load the first model and make one token."""
    name, config, bits = size.models[0]
    engine = Engine(name, lambda: made(config, bits), EngineSettings(max_batch=max(size.rows)))
    await asyncio.wrap_future(engine.load())
    device = Device(size, 0.0)
    await device.run(engine, device.prompt(24), 1)
    await asyncio.to_thread(engine.close, 0)


def machine():
    """Return a line that names the machine."""
    info = mx.device_info()
    memory = int(info.get("total_memory") or info.get("memory_size") or 0)
    memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{info.get('device_name', platform.machine())}, {memory / 2**30:.0f} GiB, "
        f"{os.cpu_count()} cores, {describe()}, mlx {version('mlx')}, mlx-lm {version('mlx-lm')}, "
        f"Python {platform.python_version()}, {time.strftime('%B %Y')}"
    )


def table(lines):
    """Return lines of a table in Markdown."""
    width = max(len(cells) for cells in lines)
    rows = [[*cells, *[""] * (width - len(cells))] for cells in lines]
    head = ["", "ours", *[""] * (width - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * width, *rows])


async def measure(size, seconds):
    device = Device(size, time.perf_counter() + seconds)
    for model in size.models:
        await device.model(*model)
    if time.perf_counter() < device.latest:
        device.add("a new process, to the first token of the first model", f"{start(size):.1f} s")
    print(f"{machine()}; random weights, greedy, {size.tokens} tokens.\n")
    print(table(device.lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny models, for a CPU")
    parser.add_argument("--seconds", type=float, default=420.0, help="begin no measure after these")
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    size = SMALL if given.small else LARGE
    asyncio.run(only_start(size) if given.start else measure(size, given.seconds))


if __name__ == "__main__":
    main()
