"""The KV caches of rows that run together: who joins and who leaves without copying the rest.

mlx-lm's batched caches keep rows right-justified at one common position, so a row that joins or
leaves moves every other row's keys and values. `SlotCaches` keeps each row left-justified in a slot
of its own: a row that leaves frees its slot, one that joins is written into a free one, and only
the growing of the batch copies it. Models whose caches are of other kinds use mlx-lm's own batched
caches (`MergedCaches`), or, where those can't be batched at all, go alone (`SingleRowCaches`).

All three keep the same bargain: `begin` before a forward pass says how many tokens each row gets,
`end` after it. Rule: only the MLX thread calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provider.caches.attention import attend
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import (
    ArraysCache,
    KVCache,
)

__all__ = [
    "SlotCaches",
]


GROWTH = 256  # positions that a slot grows by


class _Places:
    """Where each row is in its slot; one for all layers, so that it is worked out once a pass."""

    def __init__(self, lengths: list[int]):
        self.lengths = lengths  # tokens in each row's slot
        self.begin([0] * len(lengths), 0)

    def begin(self, counts: Sequence[int], width: int) -> None:
        self.before = mx.array(self.lengths, dtype=mx.int32)
        self.starts = list(self.lengths)
        self.lengths = [n + count for n, count in zip(self.lengths, counts, strict=True)]
        self.after = mx.array(self.lengths, dtype=mx.int32)
        self.extent = max(start + width for start in self.starts)
        self._masks: dict[int | None, Any] = {}
        if width:
            positions = self.before[:, None] + mx.arange(width, dtype=mx.int32)[None]
            self.positions = positions[:, None, :, None]  # (rows, 1, width, 1)

    @property
    def level(self) -> bool:
        """Whether all rows write at the same positions."""
        return min(self.starts) == max(self.starts)

    def mask(self, width: int, window: int | None, *, as_array: bool) -> Any:
        """Return what each query may see: None for all, "causal", or `(rows, 1, width, extent)`."""
        if self.level and window is None and not as_array:
            if width == 1:
                return None
            if self.extent == width:
                return "causal"
        if window not in self._masks:
            keys = mx.arange(self.extent, dtype=mx.int32)
            mask = keys <= self.positions
            if window is not None:
                mask = mask & (keys > self.positions - window)
            self._masks[window] = mask
        return self._masks[window]


class _SlotKVCache:
    """One layer's keys and values, `(rows, heads, positions, dimension)`, each row from position 0.

    Has what mlx-lm's models ask of a cache: `offset`, `make_mask`, `update_and_fetch`. It has
    `attend` besides, see provider/caches/attention.py.
    """

    attend = staticmethod(attend)

    def __init__(self, places: _Places):
        self.places = places
        self.offset = places.before
        self.keys: Any = None
        self.values: Any = None

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        return self.places.mask(n, window_size, as_array=return_array)

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        places = self.places
        self._reserve(keys, values, places.extent)
        if places.level:
            start = places.starts[0]
            self.keys[..., start : places.extent, :] = keys
            self.values[..., start : places.extent, :] = values
        else:
            self.keys = mx.put_along_axis(self.keys, places.positions, keys, axis=2)
            self.values = mx.put_along_axis(self.values, places.positions, values, axis=2)
        self.offset = places.after
        return self.keys[..., : places.extent, :], self.values[..., : places.extent, :]

    def _reserve(self, keys: Any, values: Any, extent: int) -> None:
        have = 0 if self.keys is None else self.keys.shape[2]
        if extent <= have:
            return
        more = -(-(extent - have) // GROWTH) * GROWTH
        rows, heads, _, width = keys.shape
        new_keys = mx.zeros((rows, heads, more, width), keys.dtype)
        new_values = mx.zeros((rows, heads, more, values.shape[3]), values.dtype)
        if have:
            new_keys = mx.concatenate([self.keys, new_keys], axis=2)
            new_values = mx.concatenate([self.values, new_values], axis=2)
        self.keys, self.values = new_keys, new_values

    def take(self, rows: Any) -> None:
        if self.keys is not None:
            # What the longest row left behind it goes with it.
            extent = -(-max(self.places.lengths) // GROWTH) * GROWTH
            self.keys = self.keys[rows, :, :extent]
            self.values = self.values[rows, :, :extent]

    def put(self, slots: Sequence[int], other: _SlotKVCache) -> None:
        lengths = other.places.lengths
        if other.keys is None:
            return  # nothing has been read yet; a length of 0 hides what the slots held
        self._make_room(other, max(lengths))
        for row, (slot, n) in enumerate(zip(slots, lengths, strict=True)):
            self.keys[slot : slot + 1, :, :n] = other.keys[row : row + 1, :, :n]
            self.values[slot : slot + 1, :, :n] = other.values[row : row + 1, :, :n]

    def append(self, other: _SlotKVCache) -> None:
        if self.keys is None and other.keys is None:
            return
        extent = max(0 if c.keys is None else c.keys.shape[2] for c in (self, other))
        self._make_room(other, extent)
        other._make_room(self, extent)
        self.keys = mx.concatenate([self.keys, other.keys])
        self.values = mx.concatenate([self.values, other.values])

    def _make_room(self, like: _SlotKVCache, extent: int) -> None:
        """Have at least `extent` positions, shaped as in `like` if there are none yet."""
        some = like if self.keys is None else self
        rows = len(self.places.lengths)
        heads, keys, values = some.keys.shape[1], some.keys.shape[3], some.values.shape[3]
        self._reserve(
            mx.zeros((rows, heads, 0, keys), some.keys.dtype),
            mx.zeros((rows, heads, 0, values), some.values.dtype),
            extent,
        )

    def extract(self, row: int) -> KVCache:
        cache, n = KVCache(), self.places.lengths[row]
        if n:
            cache.keys = mx.contiguous(self.keys[row : row + 1, :, :n])
            cache.values = mx.contiguous(self.values[row : row + 1, :, :n])
            cache.offset = n
        return cache


class SlotCaches:
    """Rows in slots, for models whose caches are KVCache and ArraysCache."""

    def __init__(self, rows: Sequence[list[Any]]):
        lengths = [max((cache.size() for cache in row), default=0) for row in rows]
        self._places = _Places(lengths)
        self.layers = [self._merge(list(of_layer)) for of_layer in zip(*rows, strict=True)]
        self._ragged = False

    def _merge(self, caches: list[Any]) -> Any:
        if isinstance(caches[0], ArraysCache):
            merged = ArraysCache.merge(caches)
            merged.left_padding = None  # zeros, where nothing has been read yet
            return merged
        layer = _SlotKVCache(self._places)
        sizes = [cache.size() for cache in caches]
        if max(sizes) == 0:
            return layer
        some = next(cache for cache in caches if cache.size())
        extent = -(-max(sizes) // GROWTH) * GROWTH
        shape = (len(caches), some.keys.shape[1], extent)
        layer.keys = mx.zeros((*shape, some.keys.shape[3]), some.keys.dtype)
        layer.values = mx.zeros((*shape, some.values.shape[3]), some.values.dtype)
        for row, (cache, n) in enumerate(zip(caches, sizes, strict=True)):
            if n:
                layer.keys[row : row + 1, :, :n] = cache.keys[..., :n, :]
                layer.values[row : row + 1, :, :n] = cache.values[..., :n, :]
        return layer

    def __len__(self) -> int:
        return len(self._places.lengths)

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Work out where each row writes and what it may see."""
        self._places.begin(counts, width)
        self._ragged = width > 1 and min(counts) < width
        for layer in self.layers:
            if isinstance(layer, _SlotKVCache):
                layer.offset = self._places.before
            elif self._ragged:
                layer.prepare(lengths=list(counts))

    def end(self) -> None:
        """Forget the padding; the next tokens are written over it."""
        if self._ragged:
            for layer in self.layers:
                if isinstance(layer, ArraysCache):
                    layer.finalize()

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        keep = mx.array(list(rows))
        self._places.lengths = [self._places.lengths[row] for row in rows]
        for layer in self.layers:
            if isinstance(layer, ArraysCache):
                layer.filter(keep)
            else:
                layer.take(keep)

    def join(self, other: SlotCaches, free: Sequence[int]) -> list[int]:
        """Write the rows of another into free slots, or append them; return where they are."""
        if len(free) < len(other):
            return self._append(other)
        slots, lengths = list(free[: len(other)]), list(self._places.lengths)
        for slot, n in zip(slots, other._places.lengths, strict=True):
            lengths[slot] = n
        self._places.lengths = lengths
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if isinstance(mine, ArraysCache):
                _put_arrays(mine, len(self), slots, theirs)
            else:
                mine.put(slots, theirs)
        return slots

    def _append(self, other: SlotCaches) -> list[int]:
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if isinstance(mine, ArraysCache):
                _append_arrays(mine, len(self), theirs, len(other))
            else:
                mine.append(theirs)
        self._places.lengths = self._places.lengths + other._places.lengths
        return list(range(len(self) - len(other), len(self)))

    def free(self, row: int) -> None:
        """Give up a row: it sees next to nothing, and its slot may be written over."""
        self._places.lengths[row] = 0

    def extract(self, row: int) -> list[Any]:
        """Return copies of one row."""
        return [layer.extract(row) for layer in self.layers]


def _put_arrays(mine: ArraysCache, rows: int, slots: Sequence[int], other: ArraysCache) -> None:
    where = mx.array(list(slots))
    for index, theirs in enumerate(other.cache):
        if mine[index] is None and theirs is not None:
            mine[index] = mx.zeros((rows, *theirs.shape[1:]), theirs.dtype)
        if mine[index] is not None:
            mine[index][where] = 0 if theirs is None else theirs


def _append_arrays(mine: ArraysCache, rows: int, other: ArraysCache, more: int) -> None:
    for index, (a, b) in enumerate(zip(mine.cache, other.cache, strict=True)):
        if a is None and b is None:
            continue
        shape, dtype = (b if a is None else a).shape[1:], (b if a is None else a).dtype
        before = mx.zeros((rows, *shape), dtype) if a is None else a
        after = mx.zeros((more, *shape), dtype) if b is None else b
        mine[index] = mx.concatenate([before, after])
