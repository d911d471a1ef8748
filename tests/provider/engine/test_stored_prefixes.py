"""Prefixes on disk: who waits for them, and who does not."""

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from provider import MLXProvider
from provider.caches.prefix_cache import PrefixCache
from provider.caches.prefix_index import PrefixIndex, pack
from provider.caches.prefix_store import PrefixStore, Stored
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunRequest
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.run import Run
from provider.engine.run_states import RunState
from provider.engine.stored_prefixes import StoredPrefixes
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import KVCache
from tests.support.servers import eventually
from tests.support.timeouts import TIMEOUT

PROMPT = list(range(100, 160))


class Disk:
    """A store with files that are read when a test says so."""

    def __init__(self, *prefixes):
        self.reads = []  # (file, future) in the order in which they were asked for
        self.closed = False
        self._index = PrefixIndex()
        for tokens in prefixes:
            stored = Stored(
                Path(str(len(tokens))), pack(tokens), 100, trimmable=True, kind="", body_digest=""
            )
            self._index.add(stored.tokens, stored, trimmable=True)

    def longest(self, _kind, tokens):
        return self._index.longest(tokens)

    def read(self, stored):
        if self.closed:
            raise RuntimeError("closed")
        self.reads.append((stored, Future()))
        return self.reads[-1][1]

    def load(self, stored, data):
        assert data == b"caches"
        layer = KVCache()
        layer.update_and_fetch(*[mx.ones((1, 1, stored.length, 4))] * 2)
        return [layer]


class Waiting:
    """Runs of one model whose prefixes are on a disk."""

    def __init__(self, *prefixes):
        self.disk = Disk(*prefixes)
        self.prefixes = PrefixCache(1 << 20)
        self.prefixes.store = self.disk
        self.told = 0
        self.stored = StoredPrefixes(PromptReuse(self.prefixes), self._tell)

    def _tell(self):
        self.told += 1

    def run(self, key, prompt=PROMPT):
        return Run(key, "m", RunRequest(prompt, GenerationOptions()), SyncInbox())

    def read(self, number, data=b"caches"):
        self.disk.reads[number][1].set_result(data)


def test_a_run_waits_until_its_prefix_is_in_memory():
    waiting = Waiting(PROMPT[:40])
    run = waiting.run(1)
    assert waiting.stored.defers(run)
    assert (waiting.told, waiting.stored.collect()) == (0, [])
    waiting.read(0)
    assert waiting.told == 1
    assert waiting.stored.collect() == [run]
    assert waiting.prefixes.find("", PROMPT).length == 40
    assert waiting.prefixes.entry_bytes(run.read_prefix) == waiting.prefixes.nbytes > 0
    assert not waiting.stored.defers(run)


def test_a_run_without_a_prefix_on_disk_does_not_wait():
    waiting = Waiting(PROMPT[:40])
    assert not waiting.stored.defers(waiting.run(1, list(range(500, 560))))
    assert not waiting.disk.reads


def test_files_are_read_one_at_a_time_and_each_once():
    other = list(range(500, 560))
    waiting = Waiting(PROMPT[:40], other[:40])
    runs = [waiting.run(1), waiting.run(2), waiting.run(3, other)]
    assert all(waiting.stored.defers(run) for run in runs)
    assert len(waiting.disk.reads) == 1
    waiting.read(0)
    assert waiting.stored.collect() == runs[:2]
    assert [stored.tokens for stored, _ in waiting.disk.reads] == [
        pack(PROMPT[:40]),
        pack(other[:40]),
    ]
    waiting.read(1)
    assert waiting.stored.collect() == runs[2:]


def test_a_damaged_file_holds_nobody_up_for_long():
    waiting = Waiting(PROMPT[:40])
    run = waiting.run(1)
    assert waiting.stored.defers(run)
    waiting.read(0, data=None)
    assert waiting.stored.collect() == [run]
    assert waiting.prefixes.find("", PROMPT) is None
    assert not waiting.stored.defers(run)


def test_runs_that_have_ended_are_forgotten_and_nothing_is_kept_for_them():
    waiting = Waiting(PROMPT[:40])
    runs = [waiting.run(1), waiting.run(2)]
    for run in runs:
        assert waiting.stored.defers(run)
        run.state = RunState.ENDED
    waiting.read(0)
    assert waiting.stored.collect() == []
    assert len(waiting.prefixes) == 0
    assert len(waiting.disk.reads) == 1


def test_nobody_waits_for_a_store_that_is_closed():
    waiting = Waiting(PROMPT[:40])
    waiting.disk.closed = True
    assert not waiting.stored.defers(waiting.run(1))


# In the provider.

STORY = "Tell me a long story about a fox named Zorvan, who lives by the sea."


class SlowDisk(PrefixStore):
    """A store that reads nothing while it is told to be slow."""

    def __init__(self, *arguments):
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.begun = threading.Event()
        super().__init__(*arguments)

    def _checked(self, path):
        if not self.goes_on.is_set():
            self.begun.set()
            assert self.goes_on.wait(60)
        return super()._checked(path)


@pytest.fixture
async def slow(light, tmp_path):
    """Yield a provider of models `a` and `b`, and the slow disk that has a story for `b`."""
    options = {"temperature": 0.0, "max_tokens": 12, "close_grace": 0}
    provider = MLXProvider({**options, "model": [f"a={light}", f"b={light}"]})
    store = SlowDisk(tmp_path, 1 << 30, "a model")
    try:
        for model in "ab":
            await provider.generate_async("Hi", model=model)
        prefixes = provider._library.find("b").engine._worker.prefixes
        prefixes.store = store
        await provider.generate_async(STORY, model="b")
        await eventually(lambda: len(store) == 1)
        prefixes.take_all()
        store.goes_on.clear()
        yield provider, store
    finally:
        store.goes_on.set()
        await provider.aclose()
        store.wait_closed()


async def test_the_tokens_of_others_do_not_wait_for_a_prefix_on_disk(slow):
    provider, store = slow
    waiting = asyncio.create_task(provider.generate_async(STORY, model="b"))
    await eventually(store.begun.is_set)
    async with asyncio.timeout(TIMEOUT):
        others = [await provider.generate_async("Good morning", model=model) for model in "ab"]
    assert all(other.content for other in others)
    assert not waiting.done()
    store.goes_on.set()
    answer = await waiting
    assert answer.usage["cached_tokens"] > 16


async def test_a_run_that_waits_for_the_disk_can_be_cancelled(slow):
    provider, store = slow
    engine = provider._library.find("b").engine
    waiting = asyncio.create_task(provider.generate_async(STORY, model="b"))
    await eventually(store.begun.is_set)
    waiting.cancel()
    async with asyncio.timeout(TIMEOUT):
        await asyncio.wait([waiting])
        await eventually(lambda: not engine.runs)
        assert (await provider.generate_async("Good morning", model="b")).content
    store.goes_on.set()
    await eventually(lambda: engine._worker._stored._reading is None)
    assert (await provider.generate_async(STORY, model="b")).usage["cached_tokens"] > 16
