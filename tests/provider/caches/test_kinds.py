"""The table of KV cache classes, and a toy class that becomes known by an entry of its own."""

import logging
from dataclasses import replace

import pytest
from mlx_lm.models import cache as of_mlx_lm
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)
from mlx_vlm.models import cache as of_mlx_vlm

from provider.caches.kinds import (
    KINDS,
    UNKNOWN,
    Batching,
    Trimming,
    _warn_of_unknown,
    as_mlx_lm_cache,
    batching_of,
    can_be_drafted_over,
    can_be_quantised,
    can_be_stored,
    can_be_trimmed,
    cost_of,
    is_always_trimmable,
    kind_of,
    size_of,
    stored_kind,
    trim,
)
from provider.caches.prefix_cache import PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.caches.slot_layers import SlotKVCache
from provider.embedded import MODEL_PATH
from provider.engine.engine import Engine
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunFinished, RunRequest
from provider.engine.model import TextModel
from provider.events import TextDelta
from provider.models.loading import load
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from provider.settings import EngineSettings

# Classes that no model makes caches of: base classes, and classes that hold several rows.
OF_BATCHES = {"_BaseCache", "BatchKVCache", "BatchRotatingKVCache"}
# Classes of mlx-vlm that have not been tried in a batch; their models' runs go one at a time.
WITHOUT_A_ROW = {
    "BatchPoolingCache",
    "BatchQuantizedKVCache",
    "BufferedRotatingKVCache",
    "PoolingCache",
    "QuantizedKVCache",
    "SimpleKVCache",
    "StaticPrefixKVCache",
}


class ToyCache(KVCache):
    """A cache class that no library has."""


def read(cache, tokens, heads=2, width=4):
    """Add this many tokens to a cache."""
    keys = mx.ones((1, heads, tokens, width))
    cache.update_and_fetch(keys, keys)
    return cache


def state():
    cache = ArraysCache(2)
    cache[0] = mx.ones((1, 3))
    return cache


class ModelWith:
    """A model whose `make_cache` returns these caches."""

    def __init__(self, *caches):
        self.make_cache = lambda: list(caches)


@pytest.fixture
def toy_row(monkeypatch):
    def add(**changes):
        row = replace(KINDS[f"{KVCache.__module__}.KVCache"], stored=False, **changes)
        monkeypatch.setitem(KINDS, f"{ToyCache.__module__}.ToyCache", row)

    _warn_of_unknown.cache_clear()
    yield add
    _warn_of_unknown.cache_clear()


@pytest.mark.parametrize(
    ("library", "expected"), [(of_mlx_lm, OF_BATCHES), (of_mlx_vlm, OF_BATCHES | WITHOUT_A_ROW)]
)
def test_every_class_that_a_library_ships_has_an_entry(library, expected):
    shipped = {
        name
        for name, kind in vars(library).items()
        if isinstance(kind, type)
        and kind.__module__ == library.__name__
        and issubclass(kind, library._BaseCache)
    }
    rows = {name.rpartition(".")[2] for name in KINDS if name.startswith(f"{library.__name__}.")}
    assert rows <= shipped
    assert shipped - rows == expected


def test_a_class_without_an_entry_runs_alone_and_is_logged_once(toy_row, caplog):
    caches = [KVCache(), read(ToyCache(), 20)]
    with caplog.at_level(logging.WARNING):
        assert kind_of(caches[1]) is UNKNOWN
        assert batching_of(ModelWith(*caches)) is Batching.ALONE
        assert not can_be_trimmed(caches)
        assert not is_always_trimmable(caches)
        assert not can_be_stored(caches)
        assert not can_be_drafted_over(caches)
        assert not can_be_quantised(caches)
        assert cost_of([caches[1]], 20) == (0, caches[1].nbytes / 20)
    (line,) = caplog.messages
    assert "ToyCache` is an unknown KV cache class: runs go one at a time" in line


def test_an_entry_makes_a_class_known_everywhere(toy_row, caplog):
    toy_row()
    caches = [KVCache(), read(ToyCache(), 20)]
    assert batching_of(ModelWith(*caches)) is Batching.SLOTS
    assert can_be_trimmed(caches)
    assert can_be_drafted_over(caches)
    assert not can_be_stored(caches)
    assert not caplog.messages


def test_a_prefix_of_an_unknown_class_is_used_whole_or_not_at_all(toy_row, tmp_path):
    kept = PrefixCache(1 << 30)
    kept.store = PrefixStore(tmp_path, 1 << 30, "a model")
    tokens = list(range(20))
    kept.put("m", tokens, [read(ToyCache(), 20)])
    assert kept.find("m", [*tokens[:18], 99, 98]) is None
    assert kept.find("m", [*tokens, 99]).length == 20
    while kept.save_one():
        pass
    assert not list(tmp_path.glob("*/*.safetensors"))


def answers(name, make_cache):
    """Return how the embedded model batches with these caches, and its answers to two prompts."""

    def loader():
        loaded = load(MODEL_PATH)
        model = TextModel(loaded.model.model)
        model.make_cache = lambda: [make_cache() for _ in loaded.model.layers]
        loaded.model = model
        return loaded

    engine = Engine(name, loader, EngineSettings(prefix_cache_bytes=0))
    try:
        engine.load().result()
        inboxes = [SyncInbox(), SyncInbox()]
        options = GenerationOptions(temperature=0.0, max_tokens=12)
        for number, inbox in enumerate(inboxes):
            prompt = list(range(30 + number, 50 + 2 * number))
            engine.submit(RunRequest(prompt, options), inbox)
        together = engine._worker._batch._batching
        return together, [text_of(inbox) for inbox in inboxes]
    finally:
        engine.close(0)


def text_of(inbox):
    text = ""
    while not isinstance(event := inbox.get(), RunFinished):
        text += event.text if isinstance(event, TextDelta) else ""
    return text


def test_a_model_of_a_new_class_gives_the_same_alone_and_in_slots(toy_row):
    expected = answers("plain", KVCache)
    assert expected[0] is Batching.SLOTS
    assert answers("unknown", ToyCache) == (Batching.ALONE, expected[1])
    toy_row()
    assert answers("known", ToyCache) == expected
    toy_row(batching=Batching.MERGED)
    assert answers("merged", ToyCache) == (Batching.MERGED, expected[1])


def test_a_model_runs_as_its_least_able_cache_does():
    assert batching_of(ModelWith(KVCache(), state())) is Batching.SLOTS
    assert batching_of(ModelWith(KVCache(), RotatingKVCache(8))) is Batching.MERGED
    assert batching_of(ModelWith(CacheList(KVCache(), RotatingKVCache(8)))) is Batching.MERGED
    assert batching_of(ModelWith(CacheList(KVCache(), ChunkedKVCache(8)))) is Batching.ALONE


def test_a_window_can_be_trimmed_until_it_has_dropped_tokens():
    assert can_be_trimmed([read(RotatingKVCache(32), 20)])
    assert not can_be_trimmed([read(RotatingKVCache(16), 20)])
    assert not is_always_trimmable([RotatingKVCache(32)])


def test_a_cache_list_can_be_trimmed_if_all_its_parts_can():
    assert is_always_trimmable([CacheList(KVCache(), KVCache())])
    assert not can_be_trimmed([CacheList(KVCache(), state())])


def test_classes_that_wrongly_claim_to_be_trimmable_are_not_trimmed():
    cache = read(ConcatenateKVCache(), 20)
    cache.trim(5)
    read(cache, 1)
    assert cache.offset == 21, "it forgets what it was cut to, so it must not be cut"
    assert kind_of(cache).trimming is Trimming.NEVER
    chunked = read(ChunkedKVCache(8), 20)
    chunked.maybe_trim_front()
    assert chunked.trim(15) < 15
    assert not can_be_trimmed([chunked])


def test_growing_caches_cost_bytes_per_token_and_others_fixed_bytes():
    plain, window = read(KVCache(), 20), read(RotatingKVCache(64), 20)
    per_position = 2 * 2 * 4 * 4  # keys and values, heads, width, bytes of a float32
    assert cost_of([plain], 20) == (0, per_position)
    assert cost_of([window], 20) == (64 * per_position, 0)
    assert cost_of([state()], 20) == (12, 0)
    assert cost_of([CacheList(plain, state())], 20) == (12, per_position)
    quantised = read(KVCache(), 20, width=64).to_quantized(64, 4)
    assert cost_of([quantised], 20)[1] == quantised.nbytes / 256
    assert size_of([plain, state()]) == plain.nbytes + 12


def test_caches_of_mlx_vlm_become_the_equivalent_ones_of_mlx_lm():
    window = of_mlx_vlm.RotatingKVCache(max_size=8, keep=2)
    known = as_mlx_lm_cache(window)
    assert (type(known), known.max_size, known.keep) == (RotatingKVCache, 8, 2)
    assert type(as_mlx_lm_cache(of_mlx_vlm.KVCache())) is KVCache
    states = of_mlx_vlm.ArraysCache(2)
    assert as_mlx_lm_cache(states) is states


def test_only_storable_classes_may_be_in_a_file():
    assert stored_kind("KVCache") is kind_of(KVCache())
    assert stored_kind("QuantizedKVCache") is kind_of(QuantizedKVCache())
    assert stored_kind("CacheList") is None
    assert stored_kind("os.system") is None


def test_a_class_has_a_layer_exactly_if_its_rows_are_in_slots():
    assert kind_of(KVCache()).layer is SlotKVCache
    for name, kind in KINDS.items():
        assert (kind.layer is not None) == (kind.batching is Batching.SLOTS), name


@pytest.mark.parametrize("positions", [70, 300, 512])
def test_a_trimmed_cache_has_the_positions_of_one_that_has_only_grown(positions):
    cache = KVCache()
    cache.keys = cache.values = mx.arange(positions, dtype=mx.float32)[None, None, :, None]
    cache.offset = 66
    trim([cache], 6)
    assert cache.offset == 60
    assert cache.keys.shape == cache.values.shape == (1, 1, 256, 1)
    assert cache.keys[0, 0, :60, 0].tolist() == list(range(60))


def numbered(first, last):
    """Keys of these tokens, none like another's, `(1, 2, tokens, 64)`."""
    return mx.arange(first, last, dtype=mx.float32)[None, None, :, None] * mx.ones((1, 2, 1, 64))


def fed(cache, first, last, chunk):
    for begin in range(first, last, chunk):
        keys = numbered(begin, min(begin + chunk, last))
        for part in getattr(cache, "caches", [cache]):
            part.update_and_fetch(keys, keys)
    return cache


def contents(cache):
    """The keys and values of all tokens, of one cache after the other."""
    found = []
    for part in getattr(cache, "caches", [cache]):
        for arrays in (part.keys, part.values):
            each = arrays if isinstance(arrays, (list, tuple)) else [arrays]
            found += [one[..., : part.offset, :].astype(mx.float32) for one in each]
    return found


GROWING = [
    KVCache,
    lambda: QuantizedKVCache(64, 4),
    lambda: RotatingKVCache(1000),
    lambda: CacheList(KVCache(), RotatingKVCache(1000)),
    of_mlx_vlm.KVCache,
    lambda: of_mlx_vlm.RotatingKVCache(1000),
    lambda: of_mlx_vlm.CacheList(of_mlx_vlm.KVCache(), of_mlx_vlm.KVCache()),
]


@pytest.mark.parametrize("chunk", [1, 70])
@pytest.mark.parametrize("make", GROWING)
def test_a_cache_that_is_cut_short_keeps_few_positions_and_goes_on_as_if_it_were_new(make, chunk):
    cut, new = fed(make(), 0, 700, 70), fed(make(), 0, 40, 40)
    trim([cut], 660)
    assert size_of([cut]) < size_of([fed(make(), 0, 700, 70)]) / 2
    for cache in (cut, new):
        fed(cache, 2000, 2210, chunk)
    for one, other in zip(contents(cut), contents(new), strict=True):
        assert mx.array_equal(one, other)


def test_every_class_that_has_positions_to_spare_loses_them():
    made = [make() for make in GROWING]
    parts = [part for one in made for part in getattr(one, "caches", [one])]
    tried = {f"{type(part).__module__}.{type(part).__qualname__}" for part in parts}
    assert tried == {name for name, kind in KINDS.items() if kind.grows}
