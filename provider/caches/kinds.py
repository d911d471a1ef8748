"""The table of KV cache classes, with what each class supports.

To support another class, add an entry to `KINDS`, and a layer in provider/caches/slot_layers.py if
its rows are batched in slots. For a class without an entry the log has one warning: its model's
runs then go one at a time, and its caches are neither trimmed nor written to disk.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from provider.caches.mirrored import MirroredCache, MirroredSlots
from provider.caches.slot_layers import GROWTH, Places, SlotArrays, SlotKVCache, SlotLayer
from provider.runtime.mlx import mx
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
    "as_mlx_lm_cache",
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
    "trim",
]

log = logging.getLogger(__name__)

Cost = tuple[int, float]  # fixed bytes per sequence, and bytes per token


class Batching(IntEnum):
    """How a model's caches can be batched; a higher value is faster."""

    ALONE = 0  # not at all: runs go one at a time
    MERGED = 1  # in mlx-lm's own batched class
    SLOTS = 2  # in slots, see provider/caches/slots.py


class Trimming(Enum):
    """Whether the last tokens can be removed from a cache."""

    NEVER = "never"
    WHILE_WHOLE = "while it holds all that it has seen"
    ALWAYS = "always"


@dataclass(frozen=True)
class CacheKind:
    """One entry of the table. `cost` is called with a cache and the number of tokens in it."""

    batching: Batching
    trimming: Trimming
    cost: Callable[[Any, int], Cost]
    stored: bool = False  # whether the prefix store can write it to disk
    quantised: bool = False  # whether it has a method `to_quantized`
    drafted_over: bool = False  # whether rejected draft tokens can be trimmed after every step
    counts: bool = True  # whether its `offset` is the number of tokens that it has processed
    grows: bool = False  # whether its keys have a position for each token, and some to spare
    layer: type[SlotLayer] | None = None  # class that holds its rows in slots
    parts: Callable[[Any], Sequence[Any]] | None = None  # returns the caches that it consists of
    # Makes an empty cache of the equivalent class of mlx-lm.
    in_mlx_lm: Callable[[Any], Any] | None = None


def _cost_by_tokens(cache: Any, tokens: int) -> Cost:
    return 0, cache.nbytes / max(tokens, 1)


def _cost_by_positions(cache: Any, tokens: int) -> Cost:
    """Return the cost of a cache that allocates more positions than it has tokens."""
    if cache.keys is None:
        return _cost_by_tokens(cache, tokens)
    # The keys of a quantised cache are several arrays.
    keys = cache.keys if hasattr(cache.keys, "shape") else cache.keys[0]
    return 0, cache.nbytes / keys.shape[2]


def _cost_of_window(cache: Any, tokens: int) -> Cost:
    if cache.keys is None:
        return _cost_by_tokens(cache, tokens)
    return int(cache.nbytes / cache.keys.shape[2] * cache.max_size), 0.0


def _cost_of_state(cache: Any, _tokens: int) -> Cost:
    return int(cache.nbytes), 0.0


def _cost_of_parts(cache: Any, tokens: int) -> Cost:
    return cost_of(cache.caches, tokens)


def _no_cost(_cache: Any, _tokens: int) -> Cost:
    return 0, 0.0


def _parts(cache: Any) -> Sequence[Any]:
    return tuple(cache.caches)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_PLAIN = CacheKind(
    Batching.SLOTS,
    Trimming.ALWAYS,
    _cost_by_positions,
    stored=True,
    quantised=True,
    drafted_over=True,
    grows=True,
    layer=SlotKVCache,
)
_WINDOW = CacheKind(Batching.MERGED, Trimming.WHILE_WHOLE, _cost_of_window, stored=True, grows=True)
_LIST = CacheKind(Batching.MERGED, Trimming.ALWAYS, _cost_of_parts, parts=_parts, counts=False)
# This class claims to be trimmable although it drops the oldest tokens of its chunk.
_CHUNKED = CacheKind(Batching.ALONE, Trimming.NEVER, _cost_by_tokens)
# In this class trimmed keys reappear with the next token, which is appended to all former keys.
_CONCATENATED = CacheKind(Batching.ALONE, Trimming.NEVER, _cost_by_tokens)

# The keys are dotted class names, so that classes of an optional package need no import here.
KINDS: dict[str, CacheKind] = {
    _name(KVCache): _PLAIN,
    _name(QuantizedKVCache): CacheKind(
        Batching.ALONE,
        Trimming.ALWAYS,
        _cost_by_positions,
        stored=True,
        drafted_over=True,
        grows=True,
    ),
    _name(RotatingKVCache): _WINDOW,
    _name(ArraysCache): CacheKind(
        Batching.SLOTS,
        Trimming.NEVER,
        _cost_of_state,
        stored=True,
        counts=False,
        layer=SlotArrays,
    ),
    _name(CacheList): _LIST,
    _name(ChunkedKVCache): _CHUNKED,
    _name(ConcatenateKVCache): _CONCATENATED,
    _name(MirroredCache): CacheKind(
        Batching.SLOTS, Trimming.ALWAYS, _no_cost, counts=False, layer=MirroredSlots
    ),
    # mlx-vlm's language models also work with the equivalent caches of mlx-lm, where there are any.
    "mlx_vlm.models.cache.KVCache": CacheKind(
        Batching.MERGED,
        Trimming.ALWAYS,
        _cost_by_positions,
        grows=True,
        in_mlx_lm=lambda _cache: KVCache(),
    ),
    "mlx_vlm.models.cache.RotatingKVCache": CacheKind(
        Batching.MERGED,
        Trimming.WHILE_WHOLE,
        _cost_of_window,
        grows=True,
        in_mlx_lm=lambda cache: RotatingKVCache(max_size=cache.max_size, keep=cache.keep),
    ),
    "mlx_vlm.models.cache.ArraysCache": CacheKind(
        Batching.MERGED, Trimming.NEVER, _cost_of_state, counts=False
    ),
    "mlx_vlm.models.cache.CacheList": _LIST,
    "mlx_vlm.models.cache.ChunkedKVCache": _CHUNKED,
    "mlx_vlm.models.cache.ConcatenateKVCache": _CONCATENATED,
}
UNKNOWN = CacheKind(Batching.ALONE, Trimming.NEVER, _cost_by_tokens, counts=False)


def kind_of(cache: Any) -> CacheKind:
    """Return a cache's entry in the table, `UNKNOWN` for a class without one."""
    name = _name(type(cache))
    kind = KINDS.get(name)
    if kind is None:
        _warn_of_unknown(name)
        return UNKNOWN
    return kind


@functools.cache
def _warn_of_unknown(name: str) -> None:
    log.warning(
        "`%s` is an unknown KV cache class: runs go one at a time, and their KV caches are "
        "neither trimmed nor kept on disk",
        name,
    )


def stored_kind(name: str) -> CacheKind | None:
    """Return the entry of a class of mlx-lm by its bare name, None if files never hold it."""
    kind = KINDS.get(f"{KVCache.__module__}.{name}")
    return kind if kind is not None and kind.stored else None


# The caches of one sequence, one per layer.


def batching_of(model: Any) -> Batching:
    """Return how a model's rows can be batched: as its least capable cache can be."""
    return min((_batching(cache) for cache in make_prompt_cache(model)), default=Batching.ALONE)


def _batching(cache: Any) -> Batching:
    kind = kind_of(cache)
    parts = [] if kind.parts is None else kind.parts(cache)
    return min([kind.batching, *map(_batching, parts)])


def can_be_trimmed(caches: Iterable[Any]) -> bool:
    """Return whether the last tokens can be removed from these caches in their present state."""
    return all(map(_can_be_trimmed, caches))


def _can_be_trimmed(cache: Any) -> bool:
    kind = kind_of(cache)
    if kind.parts is not None:
        return can_be_trimmed(kind.parts(cache))
    if kind.trimming is Trimming.WHILE_WHOLE:
        return bool(cache.is_trimmable())
    return kind.trimming is Trimming.ALWAYS


def is_always_trimmable(caches: Iterable[Any]) -> bool:
    """Return whether these caches can be trimmed to any length, whatever they have processed."""
    return all(
        kind.trimming is Trimming.ALWAYS
        and (kind.parts is None or is_always_trimmable(kind.parts(cache)))
        for cache, kind in ((cache, kind_of(cache)) for cache in caches)
    )


def can_be_drafted_over(caches: Iterable[Any]) -> bool:
    """Return whether rejected draft tokens can be trimmed after every step."""
    return all(kind_of(cache).drafted_over for cache in caches)


def can_be_quantised(caches: Iterable[Any]) -> bool:
    """Return whether the keys and values of these caches can be quantised."""
    return all(kind_of(cache).quantised for cache in caches)


def can_be_stored(caches: Iterable[Any]) -> bool:
    """Return whether these caches can be written to disk."""
    return all(kind_of(cache).stored for cache in caches)


def trim(caches: Iterable[Any], tokens: int) -> None:
    """Remove the last tokens from caches for which `can_be_trimmed`, and drop positions to spare.

    They are left with the positions that caches have which have only grown.
    """
    for cache in caches:
        kind = kind_of(cache)
        if kind.parts is not None:
            trim(kind.parts(cache), tokens)
            continue
        cache.trim(tokens)
        if kind.grows and cache.keys is not None:
            positions = -(-cache.offset // GROWTH) * GROWTH
            # A window is not made wider, since it may end between two such sizes.
            grow = kind.trimming is Trimming.ALWAYS
            cache.keys = _fitted(cache.keys, positions, grow=grow)
            cache.values = _fitted(cache.values, positions, grow=grow)


def _fitted(array: Any, positions: int, *, grow: bool) -> Any:
    """Return an array, or the several of a quantised cache, with so many positions."""
    if not hasattr(array, "shape"):
        return [_fitted(one, positions, grow=grow) for one in array]
    have = array.shape[2]
    if have > positions:
        return array[..., :positions, :]
    if have < positions and grow:
        return mx.pad(array, [(0, 0), (0, 0), (0, positions - have), (0, 0)])
    return array


def as_mlx_lm_cache(cache: Any) -> Any:
    """Return a new cache of mlx-lm's equivalent class, the cache itself if there is none."""
    in_mlx_lm = kind_of(cache).in_mlx_lm
    return cache if in_mlx_lm is None else in_mlx_lm(cache)


def slot_layer(caches: list[Any], places: Places) -> SlotLayer:
    """Return a layer with one row for each of these caches, which are all of one class."""
    layer = kind_of(caches[0]).layer
    assert layer is not None, "only the rows of a model whose `batching_of` is SLOTS have slots"
    return layer.of(caches, places)


def state_of(cache: Any) -> Any:
    """Return the arrays of a cache that a forward pass changes."""
    keys = getattr(cache, "keys", None)
    return [keys, cache.values] if keys is not None else cache.state


def size_of(caches: Sequence[Any]) -> int:
    """Return the size in bytes of one sequence's caches."""
    return sum(int(cache.nbytes) for cache in caches)


def cost_of(caches: Sequence[Any], tokens: int) -> Cost:
    """Return a sequence's memory use: fixed bytes, and bytes per token.

    `caches` hold `tokens` tokens. Caches of a sliding window or a state have a fixed size.
    """
    costs = [kind_of(cache).cost(cache, tokens) for cache in caches]
    return sum(fixed for fixed, _ in costs), sum(per_token for _, per_token in costs)
