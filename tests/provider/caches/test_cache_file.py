"""A file of KV caches is the one that mlx-lm writes, and its header is checked."""

import json

import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    KVCache,
    RotatingKVCache,
    save_prompt_cache,
)

from provider.caches.cache_file import PIECE, Snapshot, caches_in, check_body, read_header
from provider.runtime.mlx import active_memory, mx


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
    (ours, arrays), theirs = (
        parts(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs")
    )
    header_digest, body_digest = ours.pop("0.header_digest"), ours.pop("0.body_digest")
    assert (ours, arrays) == theirs
    assert len({len(header_digest), len(body_digest), 64}) == 1
    assert (tmp_path / "ours.safetensors").stat().st_size == snapshot.nbytes
    assert read_header(tmp_path / "ours.safetensors")["0.about"] == "this"
    again = caches_in((tmp_path / "ours.safetensors").read_bytes())
    assert [type(cache) for cache in again] == [type(cache) for cache in caches]
    Snapshot(again, {"about": "this"}).write(tmp_path / "again.safetensors")
    assert parts(tmp_path / "again.safetensors") == parts(tmp_path / "ours.safetensors")


def test_a_snapshot_holds_the_caches_at_the_time_it_was_made(tmp_path):
    (cache,) = caches = [read(KVCache(), 20)]
    before = mx.array(cache.keys)
    snapshot = Snapshot(caches, {})
    cache.trim(10)
    cache.update_and_fetch(mx.zeros((1, 2, 10, 64)), mx.zeros((1, 2, 10, 64)))
    mx.eval(cache.keys)
    snapshot.write(tmp_path / "x.safetensors")
    (again,) = caches_in((tmp_path / "x.safetensors").read_bytes())
    assert again.offset == 20
    assert mx.array_equal(again.keys, before)


def test_a_state_that_cannot_be_written_is_refused():
    cache = KVCache()
    cache.keys = object()
    with pytest.raises(ValueError, match="can't be written: object"):
        Snapshot([cache], {})


def test_arrays_with_gaps_are_written_without_being_copied_first(tmp_path):
    rows = PIECE // 4 // 1024 + 100
    whole = mx.random.normal((1, 4, rows + 28, 1024))
    cache = KVCache()
    cache.keys, cache.offset = whole[:, :, :rows], rows
    cache.values = mx.swapaxes(whole[:, :, :rows], 1, 2)
    mx.eval(whole, cache.keys, cache.values)
    before = active_memory()
    snapshot = Snapshot([cache], {})
    assert active_memory() < before + whole.nbytes // 4
    snapshot.write(tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    check_body(data, read_header(tmp_path / "x.safetensors")["0.body_digest"])
    (again,) = caches_in(data)
    assert mx.array_equal(again.keys, cache.keys)
    assert mx.array_equal(again.values, cache.values)


def test_a_body_is_checked_by_its_digest(tmp_path):
    path = tmp_path / "x.safetensors"
    Snapshot(CACHES["plain"](), {}).write(path)
    digest = read_header(path)["0.body_digest"]
    data = path.read_bytes()
    check_body(data, digest)
    with pytest.raises(ValueError, match="arrays are damaged"):
        check_body(data[:-1] + bytes([data[-1] ^ 1]), digest)


def test_a_header_is_checked_before_it_is_parsed(tmp_path):
    path = tmp_path / "x.safetensors"
    Snapshot(CACHES["plain"](), {}).write(path)
    path.write_bytes(path.read_bytes().replace(b'"shape":[1', b'"shape":[[', 1))
    with pytest.raises(ValueError, match="header is damaged"):
        read_header(path)


def test_a_dtype_that_the_format_lacks_is_refused():
    cache = ArraysCache(1)
    cache[0] = mx.zeros(3, mx.complex64)
    with pytest.raises(ValueError, match=r"can't be written: .*complex64"):
        Snapshot([cache], {})


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(cut, tmp_path):
    path = tmp_path / "x.safetensors"
    Snapshot(CACHES["plain"](), {}).write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="truncated"):
        read_header(path)
