"""A file of KV caches is the one that mlx-lm writes, and its header is checked."""

import json

import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    KVCache,
    RotatingKVCache,
    load_prompt_cache,
    save_prompt_cache,
)

from provider.caches.cache_file import Snapshot, read_header
from provider.runtime.mlx import mx


def read(cache, tokens, dtype=mx.float32):
    keys = mx.random.normal((1, 2, tokens, 64)).astype(dtype)
    cache.update_and_fetch(keys, keys + 1)
    return cache


def state():
    cache = ArraysCache(2)
    cache[0] = mx.ones((1, 3))
    return cache


CACHES = {
    "plain": lambda: [read(KVCache(), 20)],
    "short": lambda: [read(KVCache(), 300, mx.bfloat16), read(KVCache(), 1, mx.float16)],
    "window": lambda: [read(read(RotatingKVCache(16), 20), 1)],
    "quantised": lambda: [read(KVCache(), 20).to_quantized(64, 4)],
    "states": lambda: [state(), read(KVCache(), 20)],
}


def parts(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    arrays = {
        name: (one["dtype"], one["shape"], raw[8 + length :][slice(*one["data_offsets"])])
        for name, one in header.items()
        if name != "__metadata__"
    }
    return header["__metadata__"], arrays


@pytest.mark.parametrize("make", CACHES.values(), ids=CACHES)
def test_a_snapshot_is_written_as_mlx_lm_writes_it(make, tmp_path):
    caches = make()
    save_prompt_cache(str(tmp_path / "theirs.safetensors"), caches, {"about": "this"})
    snapshot = Snapshot(caches, {"about": "this"})
    snapshot.write(tmp_path / "ours.safetensors")
    assert parts(tmp_path / "ours.safetensors") == parts(tmp_path / "theirs.safetensors")
    assert (tmp_path / "ours.safetensors").stat().st_size == snapshot.nbytes
    assert read_header(tmp_path / "ours.safetensors")["0.about"] == "this"
    again = load_prompt_cache(str(tmp_path / "ours.safetensors"))
    assert [type(cache) for cache in again] == [type(cache) for cache in caches]


def test_a_snapshot_holds_the_caches_at_the_time_it_was_made(tmp_path):
    (cache,) = caches = [read(KVCache(), 20)]
    before = mx.array(cache.keys)
    snapshot = Snapshot(caches, {})
    cache.trim(10)
    cache.update_and_fetch(mx.zeros((1, 2, 10, 64)), mx.zeros((1, 2, 10, 64)))
    mx.eval(cache.keys)
    snapshot.write(tmp_path / "x.safetensors")
    (again,) = load_prompt_cache(str(tmp_path / "x.safetensors"))
    assert again.offset == 20
    assert mx.array_equal(again.keys, before)


def test_a_state_that_cannot_be_written_is_refused():
    cache = KVCache()
    cache.keys = object()
    with pytest.raises(ValueError, match="can't be written: object"):
        Snapshot([cache], {})


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(cut, tmp_path):
    path = tmp_path / "x.safetensors"
    Snapshot(CACHES["plain"](), {}).write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="truncated"):
        read_header(path)
