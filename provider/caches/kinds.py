"""What each KV cache class of mlx-lm can do: the table that everything else asks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from provider.runtime.mlx_lm import (
    ArraysCache,
    CacheList,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)

__all__ = [
    "Batching",
    "batching_of",
    "cost_of",
    "size_of",
    "state_of",
]


class Batching(Enum):
    """How the caches of a model can hold several rows."""

    SLOTS = auto()
    MERGED = auto()
    ALONE = auto()


def batching_of(model: Any) -> Batching:
    """Return how the rows of a model can run together."""
    caches = make_prompt_cache(model)
    if all(type(cache) in {KVCache, ArraysCache} for cache in caches):
        return Batching.SLOTS
    return Batching.MERGED if all(map(_merges, caches)) else Batching.ALONE


def _merges(cache: Any) -> bool:
    if isinstance(cache, CacheList):
        return all(map(_merges, cache.caches))
    return hasattr(cache, "merge")


def state_of(cache: Any) -> Any:
    """Return the arrays of a cache that a forward pass has changed."""
    keys = getattr(cache, "keys", None)
    return [keys, cache.values] if keys is not None else cache.state


def size_of(caches: Sequence[Any]) -> int:
    """Return how many bytes one sequence's caches take."""
    return sum(int(cache.nbytes) for cache in caches)


def cost_of(caches: Sequence[Any], tokens: int) -> tuple[int, float]:
    """Return what a sequence takes: bytes however long it is, and bytes a token.

    `caches` hold `tokens` tokens. Caches of a window or a state never grow beyond it.
    """
    fixed, per_token = 0, 0.0
    for cache in caches:
        if isinstance(cache, CacheList):
            inner_fixed, inner_per_token = cost_of(cache.caches, tokens)
            fixed, per_token = fixed + inner_fixed, per_token + inner_per_token
        elif isinstance(cache, RotatingKVCache) and cache.keys is not None:
            fixed += int(cache.nbytes / cache.keys.shape[2] * cache.max_size)
        elif isinstance(cache, KVCache) and cache.keys is not None:
            per_token += cache.nbytes / cache.keys.shape[2]
        elif isinstance(cache, QuantizedKVCache) and cache.keys is not None:
            per_token += cache.nbytes / cache.keys[0].shape[2]
        elif isinstance(cache, ArraysCache):
            fixed += int(cache.nbytes)
        else:
            per_token += cache.nbytes / max(tokens, 1)
    return fixed, per_token
