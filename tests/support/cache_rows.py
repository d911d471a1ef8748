"""KV caches whose keys are the tokens themselves, so that a test can read what rows hold."""

from mlx_lm.models.cache import ArraysCache, KVCache

from provider.runtime.mlx import mx


def keys_of(rows):
    """Keys of padded rows of tokens, `(rows, 1, width, 1)`."""
    return mx.array(rows, mx.float32)[:, None, :, None]


def cache_of(tokens):
    """A single sequence's cache that holds `tokens`."""
    cache = KVCache()
    if tokens:
        cache.update_and_fetch(keys_of([tokens]), keys_of([tokens]))
    return cache


def state_of(*values):
    """A single sequence's states, one number each."""
    cache = ArraysCache(len(values))
    for index, value in enumerate(values):
        if value is not None:
            cache[index] = mx.array([[float(value)]])
    return cache


def held(cache):
    """The tokens in a single sequence's cache."""
    if cache.keys is None:
        return []
    return cache.keys[0, 0, : cache.offset, 0].astype(mx.int32).tolist()


def feed(caches, rows):
    """Add each row's tokens in one forward pass; return what each layer returned."""
    counts = [len(row) for row in rows]
    width = max(counts)
    caches.begin(counts, width)
    keys = keys_of([[*row, *[0] * (width - len(row))] for row in rows])
    fetched = [
        layer.update_and_fetch(keys, keys)
        for layer in caches.layers
        if hasattr(layer, "update_and_fetch")
    ]
    caches.end()
    return fetched


def rows_of(caches):
    """The tokens that each row of a batch holds, by its first layer."""
    return [held(caches.extract(row)[0]) for row in range(len(caches))]
