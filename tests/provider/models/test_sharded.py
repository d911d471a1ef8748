"""One model whose parts are in several processes, as rank 0 serves it."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from provider import MLXProvider
from provider.caches.operations import Forget, Forward, Make
from provider.embedded import MODEL_PATH
from provider.interface import (
    GenerationError,
    InvalidParameterError,
    ModelLoadingError,
    ModelNotFoundError,
)
from provider.models.loading import load
from provider.models.sharded import Sharded, facts_of, follow
from provider.settings import EngineSettings
from provider.sharding.frames import Do, Load, Unload, difference
from provider.sharding.watchdog import Watchdog
from tests.support.mirrors import Mirrors
from tests.support.timeouts import TIMEOUT


class Alone:
    """Rank 0 of processes whose others do what it does later, in this one."""

    room = 1 << 30
    group = SimpleNamespace(size=lambda: 2)

    def __init__(self, model):
        self.model, self.mirrors = model, Mirrors(model)
        self.watchdog = Watchdog()
        self.awaited, self.told = [], []
        self.others = facts_of(MODEL_PATH, "tensor")
        self.journal = self.mirrors.journal
        self.hangs, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()
        self.tell, self.fail = self.mirrors.tell, self.mirrors.failures.append
        self.closed = False

    def difference(self, facts):
        return difference(1, self.others, facts)

    def load(self):
        self.told.append("load")

    def unload(self):
        self.told.append("unload")

    def close(self):
        self.closed = True

    def share(self, tokens):
        """Share tokens as a collective does: it waits as long as another process hangs."""
        if not self.goes_on.is_set():
            self.hangs.set()
            assert self.goes_on.wait(TIMEOUT)
        return self.mirrors._shared(tokens)

    def shard(self):
        """Return what a provider needs; the part is the whole model."""
        return Sharded("tensor", self, self.load_part)

    def load_part(self, *_):
        return self.model, {"vocab_size": 1536}


@pytest.fixture(scope="module")
def model():
    return load(MODEL_PATH).model.model


@pytest.fixture
def rank(model):
    return Alone(model)


@pytest.mark.parametrize(
    "config",
    [
        {"adapter": ["a=b:c"]},
        {"draft_model": "embedded"},
        {"allow_any_model": True},
        {"kv_bits": 4},
        {"prefix_cache_dir": "/nowhere"},
        {"model": ["embedded", "other=embedded"]},
    ],
)
def test_what_a_model_in_parts_can_not_have_is_refused(config):
    with pytest.raises(InvalidParameterError, match="can't be used with"):
        MLXProvider({**config, "shard": object()})


def test_memory_is_that_of_the_smallest_process(rank):
    shard = rank.shard()
    assert shard.settings(EngineSettings()).memory_bytes == 1 << 30
    assert shard.settings(EngineSettings(memory_bytes=5)).memory_bytes == 5
    assert shard.settings(EngineSettings(memory_bytes=1 << 40)).memory_bytes == 1 << 30


async def test_a_provider_serves_it_unloads_it_loads_it_again_and_ends_it(rank):
    provider = MLXProvider({"shard": rank.shard(), "temperature": 0.0})
    first = await provider.generate_async("Tell me a story.", max_tokens=12)
    assert first.usage["completion_tokens"] == 12
    assert sum(isinstance(one, Forward) for one in rank.mirrors.catch_up()) > 12
    assert await asyncio.to_thread(provider._library.default.unload)
    assert rank.told == ["load", "unload"]
    assert provider.health().ready
    rank.mirrors.catch_up()
    assert len(rank.mirrors.following.caches) == 0
    again = await provider.generate_async("Tell me a story.", max_tokens=12)
    assert rank.told == ["load", "unload", "load"]
    assert again.content == first.content
    await provider.aclose()
    assert rank.closed


async def test_a_pass_that_hangs_is_seen_and_its_runs_end_with_the_error_of_a_loss(rank):
    provider = MLXProvider({"shard": rank.shard()})
    stream = await provider.generate_async("Count to a thousand.", stream=True, max_tokens=2000)
    await anext(stream)
    rank.goes_on.clear()
    assert await asyncio.to_thread(rank.hangs.wait, TIMEOUT)
    assert rank.watchdog.in_turn_since() <= time.monotonic()
    rank.on_lost(GenerationError("rank 1 is lost"))
    with pytest.raises(GenerationError, match="rank 1 is lost"):
        async for _ in stream:
            pass
    assert provider.health().reason
    assert not provider.health().ready
    with pytest.raises(GenerationError):
        await provider.generate_async("Hi.")
    rank.goes_on.set()
    await provider.aclose(0)
    assert rank.watchdog.in_turn_since() is None


def test_the_parts_are_loaded_when_all_processes_have_found_theirs(rank):
    rank.awaited = [1]
    steps = rank.shard().loading(MODEL_PATH, None)
    first = next(steps)
    assert [next(steps) for _ in range(3)] == [first] * 3
    assert rank.told == []
    rank.awaited = []
    next(steps)
    assert rank.told == ["load"]


def test_processes_with_different_models_are_refused(rank):
    rank.others = {**rank.others, "mlx": "0.1"}
    with pytest.raises(ModelLoadingError, match=r"rank 1 has mlx 0\.1, and rank 0 has"):
        list(rank.shard().loading(MODEL_PATH, None))
    assert rank.told == []


def test_a_part_that_is_not_loaded_again_ends_all(rank):
    shard = rank.shard()
    list(shard.loading(MODEL_PATH, None))

    def broken(*_):
        raise ModelLoadingError("no memory")

    shard.load = broken
    with pytest.raises(ModelLoadingError):
        list(shard.loading(MODEL_PATH, None))
    assert rank.mirrors.failures == ["no memory"]


async def test_a_provider_that_ends_while_it_loads_ends_the_others_first(rank):
    rank.awaited = [1]
    provider = MLXProvider({"shard": rank.shard()})
    loading = asyncio.ensure_future(provider.load())
    while not provider.engine.busy:
        await asyncio.sleep(0.001)
    await provider.aclose()
    assert rank.closed
    with pytest.raises(GenerationError):
        await loading


class Following:
    """Another rank, which is told what a test says."""

    rank, group = 1, SimpleNamespace(size=lambda: 2)

    def __init__(self, *told):
        self.told = lambda: iter(told)
        self.said = []

    def has(self, facts):
        self.said.append(facts)

    def failed(self, reason):
        self.said.append(reason)

    def share(self, tokens):
        return tokens


def test_another_process_follows_until_the_first_ends(rank):
    pass_of_one = [Make(1), Forward(1, 1, 1, [], [])]
    following = Following(Load(), Do(pass_of_one), Unload(), Do([Forget(1)]), Load())
    follow(following, "tensor", None, rank.load_part)
    assert following.said == [facts_of(MODEL_PATH, "tensor")]


def test_another_process_tells_the_first_why_it_fails():
    def broken(*_):
        raise ModelLoadingError("no memory")

    following = Following(Load())
    with pytest.raises(ModelLoadingError):
        follow(following, "tensor", None, broken)
    assert following.said[1:] == ["no memory"]


def test_another_process_without_the_model_says_so():
    following = Following()
    with pytest.raises(ModelNotFoundError):
        follow(following, "tensor", "/nowhere/at/all")
    assert "nowhere" in following.said[0]
