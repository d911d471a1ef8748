"""One model whose parts are in several processes, as rank 0 serves it."""

from types import SimpleNamespace

import pytest

from provider import MLXProvider
from provider.caches.operations import Forward
from provider.embedded import MODEL_PATH
from provider.interface import GenerationError, InvalidParameterError, ModelLoadingError
from provider.models.loading import load
from provider.models.sharded import Sharded, follow
from provider.settings import EngineSettings
from tests.support.mirrors import Mirrors


class Alone:
    """Rank 0 of processes whose others do what it does later, in this one."""

    room = 1 << 30
    group = SimpleNamespace(size=lambda: 1)

    def __init__(self, model):
        self.model, self.mirrors = model, Mirrors(model)
        self.journal, self.share = self.mirrors.journal, self.mirrors._shared
        self.tell, self.fail = self.mirrors.tell, self.mirrors.failures.append
        self.closed = False

    def close(self):
        self.closed = True

    def shard(self):
        """Return what a provider needs; the part is the whole model."""
        return Sharded("tensor", self, self.load)

    def load(self, *_):
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
        {"idle_unload": 1.0},
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


async def test_a_provider_serves_it_and_ends_it(rank):
    provider = MLXProvider({"shard": rank.shard(), "temperature": 0.0})
    response = await provider.generate_async("Tell me a story.", max_tokens=12)
    assert response.usage["completion_tokens"] == 12
    assert sum(isinstance(one, Forward) for one in rank.mirrors.catch_up()) > 12
    await provider.aclose()
    assert rank.closed


async def test_a_lost_process_ends_every_run_with_an_error(rank):
    provider = MLXProvider({"shard": rank.shard()})
    stream = await provider.generate_async("Count to a thousand.", stream=True, max_tokens=2000)
    await anext(stream)
    rank.on_lost(GenerationError("rank 1 is lost"))
    with pytest.raises(GenerationError, match="rank 1 is lost"):
        async for _ in stream:
            pass
    assert provider.health().reason
    assert not provider.health().ready
    with pytest.raises(GenerationError):
        await provider.generate_async("Hi.")
    await provider.aclose(0)


def test_the_parts_are_loaded_once(rank):
    shard = rank.shard()
    list(shard.loading(MODEL_PATH, None))
    with pytest.raises(ModelLoadingError, match="loaded once"):
        next(shard.loading(MODEL_PATH, None))


def test_another_process_follows_until_the_first_ends(rank):
    said = []
    following = SimpleNamespace(
        rank=1, group=rank.group, share=None, announced=lambda: iter([]), failed=said.append
    )
    follow(following, "tensor", None, rank.load)
    assert said == []


def test_another_process_tells_the_first_why_it_fails():
    def broken(*_):
        raise ModelLoadingError("no memory")

    said = []
    following = SimpleNamespace(rank=1, group=None, failed=said.append)
    with pytest.raises(ModelLoadingError):
        follow(following, "tensor", None, broken)
    assert said == ["no memory"]
