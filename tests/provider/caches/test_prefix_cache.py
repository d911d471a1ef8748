import gc

import pytest
from mlx_lm.models.cache import ArraysCache, KVCache

from provider.caches.kinds import size_of
from provider.caches.prefix_cache import MIN_TOKENS, PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.runtime.mlx import active_memory, mx

BYTES = 1 << 30


def caches_of(tokens, *, trimmable=True):
    """Caches whose keys are the tokens themselves, so that a test can read a hit's contents."""
    cache = KVCache()
    keys = mx.array(list(tokens), mx.float32).reshape(1, 1, -1, 1)
    cache.update_and_fetch(keys, keys)
    if trimmable:
        return [cache]
    state = ArraysCache(1)
    state[0] = mx.array([[float(sum(tokens))]])
    return [cache, state]


def add(caches, tokens):
    """Feed further tokens, as a forward pass does."""
    keys = mx.array(tokens, mx.float32).reshape(1, 1, -1, 1)
    caches[0].update_and_fetch(keys, keys)


def held(hit):
    cache = hit.caches[0]
    return cache.keys[0, 0, : cache.offset, 0].astype(mx.int32).tolist()


def test_the_longest_common_prefix_is_found_and_trimmed():
    kept = PrefixCache(BYTES)
    kept.put("m", list(range(100)), caches_of(range(100)))
    kept.put("m", [7] * 40, caches_of([7] * 40))
    hit = kept.find("m", [*range(60), 0, 0])
    assert (hit.length, held(hit)) == (60, list(range(60)))
    assert kept.find("m", [5] * 50) is None
    assert (kept.hits, kept.misses) == (1, 1)


def test_an_exact_hit_leaves_the_last_token_to_be_prefilled():
    kept = PrefixCache(BYTES)
    tokens = list(range(50))
    kept.put("m", tokens, caches_of(tokens))
    hit = kept.find("m", tokens)
    assert (hit.length, held(hit)) == (49, tokens[:49])


def test_caches_that_cannot_be_trimmed_are_used_whole_or_not_at_all():
    kept = PrefixCache(BYTES)
    tokens = list(range(50))
    kept.put("m", tokens, caches_of(tokens, trimmable=False))
    assert kept.find("m", tokens) is None
    assert kept.find("m", [*tokens[:40], 0, 0]) is None
    hit = kept.find("m", [*tokens, 50])
    assert hit.length == 50
    assert hit.caches[1][0].item() == sum(tokens)


def test_an_entry_that_is_taken_is_cut_like_a_hit_and_no_longer_kept():
    kept = PrefixCache(BYTES)
    tokens = list(range(50))
    for asked, length in (([*tokens[:30], 0, 0], 30), (tokens, 49), ([*tokens, 50], 50)):
        kept.put("m", tokens, caches_of(tokens))
        hit = kept.take(next(iter(kept._entries)), asked)
        assert (hit.length, held(hit)) == (length, tokens[:length])
        assert (len(kept), kept.nbytes, kept.find("m", asked)) == (0, 0, None)


@pytest.mark.parametrize("how", ["found", "taken"])
def test_a_short_prefix_of_a_long_entry_takes_the_memory_of_its_own_tokens(how):
    tokens, asked = list(range(30_000)), [*range(40), 0, 0]
    gc.collect()
    before = active_memory()
    kept = PrefixCache(BYTES)
    kept.put("m", tokens, caches_of(tokens))
    entry = next(iter(kept._entries.values()))
    mx.eval(entry.caches[0].keys, entry.caches[0].values)
    hit = kept.find("m", asked) if how == "found" else kept.take(entry.number, asked)
    assert (hit.length, held(hit)) == (40, tokens[:40])
    assert hit.caches[0].keys.shape[2] == hit.caches[0].values.shape[2] == 256
    if how == "found":
        assert held(kept.find("m", [*tokens, 0])) == tokens
        assert kept.nbytes == size_of(entry.caches) > 30_000 * 8
    add(hit.caches, asked[40:])
    mx.eval(hit.caches[0].keys, hit.caches[0].values)
    kept.put("m", asked, hit.caches)
    assert kept.nbytes == size_of(hit.caches) + (size_of(entry.caches) if how == "found" else 0)
    del entry
    kept.shrink(size_of(hit.caches))  # the older one goes
    assert held(kept.find("m", [*asked, 0])) == asked
    gc.collect()
    assert active_memory() - before < 30_000 * 4


def test_models_never_mix():
    kept = PrefixCache(BYTES)
    kept.put("one", list(range(50)), caches_of(range(50)))
    assert kept.find("other", list(range(60))) is None


def test_nothing_is_kept_of_keys_that_were_only_asked_for_or_whose_entries_are_gone():
    kept = PrefixCache(100 * size_of(caches_of(range(50))))
    for number in range(300):
        assert kept.find(f"picture {number}", list(range(60))) is None
        if number % 2:
            kept.put(f"picture {number}", list(range(50)), caches_of(range(50)))
    assert len(kept._indexes) == len(kept) == 100


def test_using_a_hit_does_not_change_its_entry():
    kept = PrefixCache(BYTES)
    tokens = list(range(50))
    kept.put("m", tokens, caches_of(tokens))
    hit = kept.find("m", [*tokens[:30], 99, 98])
    wrong = mx.full((1, 1, 5, 1), -1.0)
    hit.caches[0].update_and_fetch(wrong, wrong)
    mx.eval(hit.caches[0].keys)
    assert held(kept.find("m", [*tokens, 50])) == tokens


def test_the_least_recently_used_entry_is_evicted_first_and_a_hit_is_a_use():
    size = caches_of(range(50))[0].nbytes
    kept = PrefixCache(3 * size)
    for n in range(3):
        kept.put("m", [n] * 50, caches_of([n] * 50))
    kept.find("m", [0] * 60)
    kept.put("m", [3] * 50, caches_of([3] * 50))
    assert kept.find("m", [0] * 60)
    assert kept.find("m", [1] * 60) is None
    assert kept.nbytes == 3 * size
    kept.take_all()
    assert (len(kept), kept.nbytes) == (0, 0)


def test_caches_larger_than_the_bound_are_not_kept():
    kept = PrefixCache(10)
    kept.put("m", list(range(50)), caches_of(range(50)))
    assert len(kept) == 0


def test_a_longer_sequence_replaces_its_prefix_if_it_can_be_trimmed():
    for trimmable, left in ((True, 1), (False, 2)):
        kept = PrefixCache(BYTES)
        for n in (30, 50, 40) if trimmable else (30, 50, 50):
            kept.put("m", list(range(n)), caches_of(range(n), trimmable=trimmable))
        assert len(kept) == left


def test_short_prefixes_are_not_kept():
    kept = PrefixCache(BYTES)
    kept.put("m", list(range(MIN_TOKENS - 1)), caches_of(range(MIN_TOKENS - 1)))
    assert len(kept) == 0


def test_caches_are_made_only_for_a_new_entry():
    kept = PrefixCache(BYTES)
    tokens = list(range(50))
    kept.put("m", tokens, caches_of(tokens))
    copied = []

    def copy(n):
        copied.append(n)
        return caches_of(range(n))

    for n in (50, 30, MIN_TOKENS - 1):
        kept.offer("m", list(range(n)), lambda n=n: copy(n))
    assert copied == []
    kept.offer("m", list(range(60)), lambda: copy(60))
    PrefixCache(0).offer("m", tokens, lambda: copy(0))
    assert copied == [60]
    assert len(kept) == 1


def test_an_offer_that_adds_nothing_is_a_use_of_the_covering_entry():
    size = caches_of(range(50))[0].nbytes
    kept = PrefixCache(2 * size)
    for n in (1, 2, 1, 3):
        kept.put("m", [n] * 50, caches_of([n] * 50))
    assert kept.find("m", [1] * 60)
    assert kept.find("m", [2] * 60) is None


def from_disk(kept, key, tokens):
    """Find a prefix after reading the file that the cache asks for, if any."""
    stored = kept.on_disk(key, tokens)
    if stored is not None:
        kept.add_stored(stored, kept.store.read(stored).result())
    return kept.find(key, tokens)


def test_a_prefix_that_is_not_in_memory_is_read_from_the_store(tmp_path):
    tokens = list(range(50))
    kept = PrefixCache(BYTES)
    kept.store = PrefixStore(tmp_path, BYTES, "a model")
    kept.put("", tokens, caches_of(tokens))
    kept.put("a picture", tokens, caches_of(tokens))
    while kept.save_one():
        pass
    kept.store.wait_closed()
    again = PrefixCache(BYTES)
    again.store = PrefixStore(tmp_path, BYTES, "a model")
    again.store.flush()
    assert again.find("", [*tokens, 50]) is None, "finding waits for no disk"
    assert held(from_disk(again, "", [*tokens[:40], 0, 0])) == tokens[:40]
    assert from_disk(again, "another picture", [*tokens, 50]) is None
    assert from_disk(again, "a picture", [*tokens, 50]).length == 50
    assert not again.save_one(), "what came from the disk is written there again"
    assert again.on_disk("", [*tokens, 50]) is None, "memory has all that the disk has"
    small = PrefixCache(10)
    small.store = again.store
    assert small.on_disk("", [*tokens, 50]) is None, "it could not be kept"
