"""What each class of KV caches can do: the table that everything else asks.

A new class is a row of `KINDS`, and a layer in provider/caches/slot_layers.py if its rows run in
slots. A class without a row is named in the log once; its model's runs go one by one, and what
they have read is neither cut back nor written to disk.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from provider.caches.slot_layers import Places, SlotArrays, SlotKVCache, SlotLayer
from provider.runtime.mlx_lm import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)

__all__ = [
    "KINDS",
    "UNKNOWN",
    "Batching",
    "CacheKind",
    "Trimming",
    "as_known",
    "batching_of",
    "can_be_drafted_over",
    "can_be_quantised",
    "can_be_stored",
    "can_be_trimmed",
    "cost_of",
    "is_always_trimmable",
    "kind_of",
    "size_of",
    "slot_layer",
    "state_of",
    "stored_kind",
]

log = logging.getLogger(__name__)

Cost = tuple[int, float]  # fixed bytes of a sequence, and bytes a token


class Batching(IntEnum):
    """How the caches of a model can hold several rows, the more freely the higher."""

    ALONE = 0
    MERGED = 1  # with mlx-lm's own batched class
    SLOTS = 2


class Trimming(Enum):
    """Whether the last tokens can be taken out of a cache again."""

    NEVER = "never"
    WHILE_WHOLE = "while it holds all that it has seen"
    ALWAYS = "always"


@dataclass(frozen=True)
class CacheKind:
    """A row of the table. `cost` is told a cache, and how many tokens it has read."""

    batching: Batching
    trimming: Trimming
    cost: Callable[[Any, int], Cost]
    stored: bool = False  # whether the prefix store can write it, by name and state
    quantised: bool = False  # whether it has a `to_quantized`
    drafted_over: bool = False  # whether it can be cut back after every step, as drafting needs
    counts: bool = True  # whether its `offset` is the number of tokens that it has seen
    layer: type[SlotLayer] | None = None  # class that holds its rows in slots
    parts: Callable[[Any], Sequence[Any]] | None = None  # the caches that it consists of
    known_as: Callable[[Any], Any] | None = None  # makes an empty cache of a class of mlx-lm's


def _by_tokens(cache: Any, tokens: int) -> Cost:
    return 0, cache.nbytes / max(tokens, 1)


def _by_positions(cache: Any, tokens: int) -> Cost:
    """Return the cost of a cache that has room for more tokens than it has read."""
    if cache.keys is None:
        return _by_tokens(cache, tokens)
    # A quantised cache has parts.
    keys = cache.keys if hasattr(cache.keys, "shape") else cache.keys[0]
    return 0, cache.nbytes / keys.shape[2]


def _of_window(cache: Any, tokens: int) -> Cost:
    if cache.keys is None:
        return _by_tokens(cache, tokens)
    return int(cache.nbytes / cache.keys.shape[2] * cache.max_size), 0.0


def _of_state(cache: Any, _tokens: int) -> Cost:
    return int(cache.nbytes), 0.0


def _of_parts(cache: Any, tokens: int) -> Cost:
    return cost_of(cache.caches, tokens)


def _parts(cache: Any) -> Sequence[Any]:
    return tuple(cache.caches)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_PLAIN = CacheKind(
    Batching.SLOTS,
    Trimming.ALWAYS,
    _by_positions,
    stored=True,
    quantised=True,
    drafted_over=True,
    layer=SlotKVCache,
)
_WINDOW = CacheKind(Batching.MERGED, Trimming.WHILE_WHOLE, _of_window, stored=True)
_LIST = CacheKind(Batching.MERGED, Trimming.ALWAYS, _of_parts, parts=_parts, counts=False)
# The oldest tokens fall out of its chunk, and it says that it can be cut back all the same.
_CHUNKED = CacheKind(Batching.ALONE, Trimming.NEVER, _by_tokens)
# What is cut off comes back with the next token: it is put behind all the keys that there were.
_CONCATENATED = CacheKind(Batching.ALONE, Trimming.NEVER, _by_tokens)

# By the dotted names of classes, so that those of an extra can be here without being imported.
KINDS: dict[str, CacheKind] = {
    _name(KVCache): _PLAIN,
    _name(QuantizedKVCache): CacheKind(
        Batching.ALONE, Trimming.ALWAYS, _by_positions, stored=True, drafted_over=True
    ),
    _name(RotatingKVCache): _WINDOW,
    _name(ArraysCache): CacheKind(
        Batching.SLOTS, Trimming.NEVER, _of_state, stored=True, counts=False, layer=SlotArrays
    ),
    _name(CacheList): _LIST,
    _name(ChunkedKVCache): _CHUNKED,
    _name(ConcatenateKVCache): _CONCATENATED,
    # Of mlx-vlm, whose language models take mlx-lm's caches where there is one for theirs.
    "mlx_vlm.models.cache.KVCache": CacheKind(
        Batching.MERGED, Trimming.ALWAYS, _by_positions, known_as=lambda _cache: KVCache()
    ),
    "mlx_vlm.models.cache.RotatingKVCache": CacheKind(
        Batching.MERGED,
        Trimming.WHILE_WHOLE,
        _of_window,
        known_as=lambda cache: RotatingKVCache(max_size=cache.max_size, keep=cache.keep),
    ),
    "mlx_vlm.models.cache.ArraysCache": CacheKind(
        Batching.MERGED, Trimming.NEVER, _of_state, counts=False
    ),
    "mlx_vlm.models.cache.CacheList": _LIST,
    "mlx_vlm.models.cache.ChunkedKVCache": _CHUNKED,
    "mlx_vlm.models.cache.ConcatenateKVCache": _CONCATENATED,
}
UNKNOWN = CacheKind(Batching.ALONE, Trimming.NEVER, _by_tokens, counts=False)


def kind_of(cache: Any) -> CacheKind:
    """Return a cache's row of the table, `UNKNOWN` for a class that has none."""
    name = _name(type(cache))
    kind = KINDS.get(name)
    if kind is None:
        _say_unknown(name)
        return UNKNOWN
    return kind


@functools.cache
def _say_unknown(name: str) -> None:
    log.warning(
        "`%s` is no KV cache class that is known: runs go one by one, and what they have read is "
        "neither cut back nor kept on disk",
        name,
    )


def stored_kind(name: str) -> CacheKind | None:
    """Return the kind of a class of mlx-lm's that may be in a file, by its bare name."""
    kind = KINDS.get(f"{KVCache.__module__}.{name}")
    return kind if kind is not None and kind.stored else None


# Of one sequence's caches, one a layer.


def batching_of(model: Any) -> Batching:
    """Return how the rows of a model can run together."""
    return min((_batching(cache) for cache in make_prompt_cache(model)), default=Batching.ALONE)


def _batching(cache: Any) -> Batching:
    kind = kind_of(cache)
    parts = [] if kind.parts is None else kind.parts(cache)
    return min([kind.batching, *map(_batching, parts)])


def can_be_trimmed(caches: Iterable[Any]) -> bool:
    """Return whether the last tokens can be taken out of these caches as they are now."""
    return all(map(_can_be_trimmed, caches))


def _can_be_trimmed(cache: Any) -> bool:
    kind = kind_of(cache)
    if kind.parts is not None:
        return can_be_trimmed(kind.parts(cache))
    if kind.trimming is Trimming.WHILE_WHOLE:
        return bool(cache.is_trimmable())
    return kind.trimming is Trimming.ALWAYS


def is_always_trimmable(caches: Iterable[Any]) -> bool:
    """Return whether these caches can be cut back to any of their beginnings, however long."""
    return all(
        kind.trimming is Trimming.ALWAYS
        and (kind.parts is None or is_always_trimmable(kind.parts(cache)))
        for cache, kind in ((cache, kind_of(cache)) for cache in caches)
    )


def can_be_drafted_over(caches: Iterable[Any]) -> bool:
    """Return whether the tokens of a draft can be taken back after every step."""
    return all(kind_of(cache).drafted_over for cache in caches)


def can_be_quantised(caches: Iterable[Any]) -> bool:
    """Return whether keys and values can be kept in few bits."""
    return all(kind_of(cache).quantised for cache in caches)


def can_be_stored(caches: Iterable[Any]) -> bool:
    """Return whether these caches can be written to disk."""
    return all(kind_of(cache).stored for cache in caches)


def as_known(cache: Any) -> Any:
    """Return a new cache of mlx-lm's class that does the same, the cache itself if none does."""
    known_as = kind_of(cache).known_as
    return cache if known_as is None else known_as(cache)


def slot_layer(caches: list[Any], places: Places) -> SlotLayer:
    """Return a layer that holds one row of each of these caches, all of one class."""
    layer = kind_of(caches[0]).layer
    assert layer is not None, "only a model whose `batching_of` is SLOTS has its rows in slots"
    return layer.of(caches, places)


def state_of(cache: Any) -> Any:
    """Return the arrays of a cache that a forward pass has changed."""
    keys = getattr(cache, "keys", None)
    return [keys, cache.values] if keys is not None else cache.state


def size_of(caches: Sequence[Any]) -> int:
    """Return how many bytes one sequence's caches take."""
    return sum(int(cache.nbytes) for cache in caches)


def cost_of(caches: Sequence[Any], tokens: int) -> Cost:
    """Return what a sequence takes: bytes however long it is, and bytes a token.

    `caches` hold `tokens` tokens. Caches of a window or a state never grow beyond it.
    """
    costs = [kind_of(cache).cost(cache, tokens) for cache in caches]
    return sum(fixed for fixed, _ in costs), sum(per_token for _, per_token in costs)
